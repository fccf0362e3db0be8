-- Settles recipients whose fate is unknown as sent: a person, or a report of the provider, says so. Those that wait
-- for another attempt after one of unknown fate are among them, up to its commit mark.
-- ARGV: 5 id. Returns {its state, 1 where this call changed it, what is told of its end where it has ended
-- (`end_untried`)}, or {'unknown'}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown', 0} end
local now = math.floor(clock() / 1000)
local key = record_key(m.id)
local marked = m.state == 'sending' and m.phase == 'committing'
local recipients, settled = string.gsub(m.recipients, marked and 'u' or '[ur]', 's')
if settled == 0 then return {m.state, 0} end
local fewer_wait = not marked and string.find(m.recipients, 'r', 1, true) ~= nil
m.recipients = recipients
add_event(m, now, 'X|resolved')
if aggregate(recipients) ~= 'queued' then
    -- Whoever holds it must not send it once more.
    if waits(m) then redis.call('HSET', key, 'f', m.fence + 1) end
    redis.call('HDEL', key, 'w')
    local ended = end_untried(m, 'settled', now)
    return {ended[2], 1, ended}
end
redis.call('HSET', key, 'rr', recipients)
if m.state == 'sending' and fewer_wait then
    -- Its owner would send to the settled ones as well: the others go back to their place in the queue.
    redis.call('HSET', key, 's', 'queued', 'ph', 'released', 'f', m.fence + 1)
    redis.call('HDEL', key, 'pd', 'ss')
    local due = math.min(now, tonumber(redis.call('HGET', key, 'na') or now))
    redis.call('ZADD', queue_key(m.priority), due, m.id)
    put_on_agenda(due)
    m.state = 'queued'
end
return {m.state, 1}
