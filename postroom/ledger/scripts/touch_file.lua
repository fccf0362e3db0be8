-- Finds a caller's file for a message that is about to be accepted, and keeps it for so long that the accept can hold it.
-- ARGV: 5 id, 6 caller, 7 ms. Returns {content type, size, usable until}, or {} where it is none of the caller's, or too old.
local key, now = PREFIX .. 'f:' .. ARGV[5], math.floor(clock() / 1000)
local v = redis.call('HMGET', key, 'd', 't', 's', 'u')
if v[1] ~= ARGV[6] or tonumber(v[4]) < now then return {} end
redis.call('ZADD', KEYS[1], 'GT', now + tonumber(ARGV[7]), ARGV[5])
return {v[2], tonumber(v[3]), tonumber(v[4])}
