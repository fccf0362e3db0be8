-- Lets the agent's standing follow a changed configuration: faults of channels that are gone or changed are forgotten,
-- and with a channel left that has none the agent goes on.
-- ARGV: 5 number of channels to forget, 6.. those, then all the channels there are. Returns the channels forgotten.
write_although_full()
local now = math.floor(clock() / 1000)
local forget, keep = {}, {}
for i = 6, 5 + tonumber(ARGV[5]) do forget[ARGV[i]] = true end
for i = 6 + tonumber(ARGV[5]), #ARGV do keep[ARGV[i]] = true end
local gone = {}
for _, channel in ipairs(redis.call('HKEYS', own_key('faults'))) do
    if forget[channel] or not keep[channel] then
        redis.call('HDEL', own_key('faults'), channel)
        redis.call('DEL', tries_key(channel), probe_key(channel), refusals_key(channel))
        gone[#gone + 1] = channel
    else
        keep[channel] = nil
    end
end
-- What is still in `keep` has no fault.
if next(keep) and (#gone > 0 or redis.call('HEXISTS', own_key('halt'), 'st') == 1) then go_on(now) end
return gone
