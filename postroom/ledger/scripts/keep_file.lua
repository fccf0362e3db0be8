-- Keeps a file of a caller, once however often it is sent. A file lies in a slot of its own, wherever the agents are
-- whose messages use it; those messages hold it in their own partition (`hold_files`), so it stays as long as they need.
-- ARGV: 5 id, 6 caller, 7 content type, 8 size, 9 its base64 lines, 10 lifetime ms. KEYS[1]: ids by when to look at them.
-- Returns {1 where it is new, usable until}.
local key, now = PREFIX .. 'f:' .. ARGV[5], math.floor(clock() / 1000)
local before = tonumber(redis.call('HGET', key, 'u') or 0)
local till = math.max(before, now + tonumber(ARGV[10]))
if before == 0 then redis.call('HSET', key, 'd', ARGV[6], 't', ARGV[7], 's', ARGV[8], 'b', ARGV[9]) end
redis.call('HSET', key, 'u', till)
redis.call('ZADD', KEYS[1], 'GT', till, ARGV[5])
return {before == 0 and 1 or 0, till}
