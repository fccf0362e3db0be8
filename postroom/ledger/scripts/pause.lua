-- Pauses the agent: nothing of it is claimed until it is resumed, or the pause ends by itself. Lanes stop after the
-- message they have in hand. Pausing again replaces reason and end, and counts from the first time.
-- ARGV: 5 ms until it ends by itself or 0, 6 who, 7 why. Returns {since, until or 0}, in ms.
write_although_full()
local now = math.floor(clock() / 1000)
local till = tonumber(ARGV[5]) > 0 and now + tonumber(ARGV[5]) or 0
local since = is_paused(read_halt(), now) and tonumber(redis.call('HGET', own_key('halt'), 'ps')) or now
change_halt(now, function(halt)
    halt.paused_till = till
    redis.call('HSET', own_key('halt'), 'pu', till, 'ps', since, 'pw', ARGV[6], 'pr', ARGV[7])
end)
redis.call('PUBLISH', 'pr:bell:' .. AGENT, 'x')
return {since, till}
