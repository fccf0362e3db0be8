-- Gives messages back untouched, with their rate tokens, and lets a lane go. Only for what surely was not sent.
-- ARGV: 5 lane to remove or '', 6 microseconds per message or 0, 7.. id, fence, 0 for its old place, 1 to queue behind
--       the others, or in how many ms to look again at one whose own channel stands still …
-- Returns {given back, 1 where a round should be rung for}.
write_although_full()
local micros = clock()
local now = math.floor(micros / 1000)
local given, earliest = 0, nil
for i = 7, #ARGV, 3 do
    local v = redis.call('HMGET', record_key(ARGV[i]), 's', 'f', 'p', 'na', 'dc')
    if v[1] == 'sending' and v[2] == ARGV[i + 1] then
        redis.call('HSET', record_key(ARGV[i]), 's', 'queued', 'ph', 'released')
        redis.call('HDEL', record_key(ARGV[i]), 'pd', 'ss')
        if v[5] then refund(ARGV[i], 0) end
        -- Back to its place, but not where it met a fault: it may be the cause of it, and would hold up all others.
        local wait = tonumber(ARGV[i + 2])
        local due = wait == 1 and now or math.min(now, tonumber(v[4] or now))
        if wait > 1 then
            due = now + wait
            redis.call('HSET', record_key(ARGV[i]), 'na', due, 'rs', 'own_channel|' .. now)
        end
        redis.call('ZADD', queue_key(v[3]), due, ARGV[i])
        earliest = math.min(earliest or due, due)
        given = given + 1
    end
end
local interval = tonumber(ARGV[6])
if interval > 0 and given > 0 and redis.call('EXISTS', own_key('bucket')) == 1 then
    local arrival = tonumber(redis.call('GET', own_key('bucket'))) - given * interval
    keep_bucket(arrival, micros)
end
if given > 0 then put_on_agenda(earliest) end
if ARGV[5] ~= '' then
    redis.call('ZREM', own_key('lanes'), ARGV[5])
    if redis.call('ZCARD', own_key('lanes')) == 0 then redis.call('DEL', own_key('rung'), own_key('idle')) end
end
local ring = 0
local first = head()
if first and first <= now then ring = wake(now, 'n') end
return {given, ring}
