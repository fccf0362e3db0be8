-- Forgets a channel's fault: it has answered for a message. ARGV: 5 channel.
-- Returns 1 where there was one. While the channel stands still an answer to what was under way proves nothing.
write_although_full()
local now = math.floor(clock() / 1000)
local till = tonumber(string.match(redis.call('HGET', FAULTS, ARGV[5]) or '', '^(%d+)|'))
if till and till > now then return 0 end
redis.call('DEL', tries_key(ARGV[5]), probe_key(ARGV[5]))
if not till then return 0 end
redis.call('HDEL', FAULTS, ARGV[5])
go_on(now)
return 1
