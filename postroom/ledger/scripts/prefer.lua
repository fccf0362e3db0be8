-- Lets one of the agent's channels go first for a while. ARGV: 5 channel, or '' for the usual order, 6 for so many ms.
-- Returns when it ends, in ms, or 0.
write_although_full()
local till = 0
if ARGV[5] == '' then
    redis.call('HDEL', own_key('halt'), 'pc', 'pcu')
else
    till = math.floor(clock() / 1000) + tonumber(ARGV[6])
    redis.call('HSET', own_key('halt'), 'pc', ARGV[5], 'pcu', till)
end
redis.call('HINCRBY', own_key('halt'), 'v', 1)
redis.call('PUBLISH', 'pr:bell:' .. AGENT, 'x')
return till
