-- Records that a channel of the agent cannot work now, and stops the agent when none is left.
-- ARGV: 5 channel, 6 cause, 7 reply code, 8 enhanced code, 9 text, 10 shortest stop ms, 11 longest stop ms,
--       12 stop asked for by the other side ms, 13.. all channels of the agent.
-- Returns {ms until the channel is tried again, 'opened', 'still' (another try failed) or 'known'}.
write_although_full()
local now = math.floor(clock() / 1000)
local channel = ARGV[5]
local function read(name)
    local stored = redis.call('HGET', FAULTS, name)
    if not stored then return nil end
    local till, since, times, cause = string.match(stored, '^(%d+)|(%d+)|(%d+)|([^|]*)|')
    return {till = tonumber(till), since = tonumber(since), times = tonumber(times), cause = cause}
end
local before = read(channel)
-- Many lanes meet the same fault at once; only the first of them makes the stop longer.
if before and before.till > now then return {before.till - now, 'known'} end
local same = before and before.cause == ARGV[6]
local times = same and before.times + 1 or 1
local pause = math.min(tonumber(ARGV[11]), tonumber(ARGV[10]) * 2 ^ math.min(times - 1, 20))
pause = math.max(pause, tonumber(ARGV[12]))
local till, since = now + pause, same and before.since or now
redis.call('HSET', FAULTS, channel, string.format('%.0f|%.0f|%d|', till, since, times)
    .. ARGV[6] .. '|' .. ARGV[7] .. '|' .. ARGV[8] .. '|' .. ARGV[9])
local reopens = till
for i = 13, #ARGV do
    local other = read(ARGV[i])
    if not other or other.till <= now then return {pause, same and 'still' or 'opened'} end
    reopens = math.min(reopens, other.till)
end
redis.call('SET', STOP, '1', 'PX', math.max(1, math.ceil(reopens - now)))
return {pause, same and 'still' or 'opened'}
