-- Settles recipients whose fate was unknown as sent: a person, or a report of the provider, says so.
-- ARGV: 5 id. Returns {its state, 1 where this call changed it, priority, ms since accepted}, or {'unknown'}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown', 0} end
local now = math.floor(clock() / 1000)
local recipients, settled = string.gsub(m.recipients, 'u', 's')
if settled == 0 then return {m.state, 0, m.priority, now - m.accepted} end
m.recipients = recipients
add_event(m, now, 'X|resolved')
-- Others of its recipients may still wait: then only theirs is settled.
if waits(m) then redis.call('HSET', record_key(m.id), 'rr', recipients)
else
    redis.call('HDEL', record_key(m.id), 'w')
    retire(m, aggregate(recipients), now)
end
return {waits(m) and m.state or aggregate(recipients), 1, m.priority, now - m.accepted}
