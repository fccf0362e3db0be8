-- Asks for a try of a channel that had a fault: one lane at a time, over all workers, for as long as it lives.
-- ARGV: 5 channel, 6 lane. Returns 0 where it may be tried, or the ms after which to ask again.
local now = math.floor(clock() / 1000)
write_although_full()
local till = tonumber(string.match(redis.call('HGET', own_key('faults'), ARGV[5]) or '', '^(%d+)|'))
if not till then return 0 end
if till > now then return till - now end
local holder = redis.call('GET', probe_key(ARGV[5]))
if holder and holder ~= ARGV[6] and tonumber(redis.call('ZSCORE', own_key('lanes'), holder) or 0) > now then return 250 end
redis.call('SET', probe_key(ARGV[5]), ARGV[6], 'PX', 600000)
return 0
