-- The commit mark: written after the body and before the dot (or before the HTTP request), by the owner only.
-- ARGV: 5 id, 6 fence, 7 what is known per recipient (a: taken, f: refused, d: deferred, -: not in it),
--       8 channel, 9 lease ms. Returns 1, 0 where the fence is not current, or -1 past the deadline.
write_although_full()
local m = load(ARGV[5])
if not m or m.state ~= 'sending' or m.fence ~= tonumber(ARGV[6]) then return 0 end
local now = math.floor(clock() / 1000)
if m.deadline > 0 and now >= m.deadline then return -1 end
redis.call('HSET', record_key(m.id), 'ph', 'committing', 'pd', ARGV[7], 'ch', ARGV[8])
redis.call('HDEL', record_key(m.id), 'ss')
redis.call('ZADD', QUEUES[m.priority], 'XX', now + tonumber(ARGV[9]), m.id)
return 1
