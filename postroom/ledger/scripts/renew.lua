-- Extends every lane and message a process holds, whatever its phase, while its fence is current.
-- ARGV: 5 lease ms, 6 number of lanes, 7.. lanes, then id, fence …
-- Returns {1 where mail is due, should its ring have been lost, the ids that are lost}.
write_although_full()
local now = math.floor(clock() / 1000)
local till, lanes = now + tonumber(ARGV[5]), tonumber(ARGV[6])
for i = 7, 6 + lanes do redis.call('ZADD', own_key('lanes'), 'XX', lane_till(now, tonumber(ARGV[5])), ARGV[i]) end
local lost = {}
for i = 7 + lanes, #ARGV, 2 do
    local v = redis.call('HMGET', record_key(ARGV[i]), 's', 'f', 'p', 'ss')
    if v[1] == 'sending' and v[2] == ARGV[i + 1] then
        redis.call('ZADD', queue_key(v[3]), 'XX', till - LEASED, ARGV[i])
        -- Its owner lives after all: should the lease lapse once more, that is first sight again.
        if v[4] then redis.call('HDEL', record_key(ARGV[i]), 'ss') end
    else
        lost[#lost + 1] = ARGV[i]
    end
end
local first = first_due('hnb')
return {first and first <= now and 1 or 0, lost}
