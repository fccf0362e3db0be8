-- Forgets a channel's fault: it has answered for a message, or a probe has passed.
-- ARGV: 5 channel, 6 1 for a probe made since the fault, which ends a standstill; anything else is an answer to what was
-- under way, which proves nothing while the channel stands still. Returns 1 where there was a fault.
write_although_full()
local now = math.floor(clock() / 1000)
local till = tonumber(string.match(redis.call('HGET', own_key('faults'), ARGV[5]) or '', '^(%d+)|'))
if till and till > now and ARGV[6] ~= '1' then return 0 end
redis.call('DEL', tries_key(ARGV[5]), probe_key(ARGV[5]))
if not till then return 0 end
redis.call('HDEL', own_key('faults'), ARGV[5])
go_on(now)
return 1
