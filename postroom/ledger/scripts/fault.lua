-- Records that a channel of the agent cannot work now, and stops the agent when none is left.
-- ARGV: 5 channel, 6 cause, 7 reply code, 8 enhanced code, 9 text, 10 shortest stop ms, 11 longest stop ms,
--       12 stop asked for by the other side ms, 13 so many faults stop it, 14 within so many ms,
--       15 connections, 16.. all channels of the agent.
-- Returns {ms until the channel is tried again, 'seen' (not stopped yet), 'opened', 'still' (another try failed)
-- or 'known'}.
write_although_full()
local now = math.floor(clock() / 1000)
local channel, cause = ARGV[5], ARGV[6]
local function read(name)
    local stored = redis.call('HGET', own_key('faults'), name)
    if not stored then return nil end
    local till, since, times, was = string.match(stored, '^(%d+)|(%d+)|(%d+)|([^|]*)|')
    return {till = tonumber(till), since = tonumber(since), times = tonumber(times), cause = was}
end

-- Asked to slow down, all workers together open half of the connections they had; sending gives them back.
local function narrow()
    local live = redis.call('ZCOUNT', own_key('lanes'), now, '+inf')
    local width = tonumber(redis.call('HGET', own_key('width'), 'w') or ARGV[15])
    width = math.max(1, math.floor(math.min(width, math.max(live, 1), tonumber(ARGV[15])) / 2))
    redis.call('HSET', own_key('width'), 'w', width, 'ok', 0)
    redis.call('PEXPIRE', own_key('width'), 3600000)
end

local before = read(channel)
-- Many lanes meet the same fault at once; only the first of them makes the stop longer.
if before and before.till > now then return {before.till - now, 'known'} end
redis.call('DEL', probe_key(channel))
if not before then
    local tries = redis.call('INCR', tries_key(channel))
    if tries == 1 then redis.call('PEXPIRE', tries_key(channel), ARGV[14]) end
    if tries < tonumber(ARGV[13]) then
        return {math.min(tonumber(ARGV[10]), 50 * 2 ^ math.min(tries, 6)), 'seen'}
    end
end
redis.call('DEL', tries_key(channel))
if cause == 'throttle' then narrow() end
local same = before and before.cause == cause
local times = same and before.times + 1 or 1
local pause = math.min(tonumber(ARGV[11]), tonumber(ARGV[10]) * 2 ^ math.min(times - 1, 20))
pause = math.max(pause, tonumber(ARGV[12]))
local till, since = now + pause, same and before.since or now
redis.call('HSET', own_key('faults'), channel, string.format('%.0f|%.0f|%d|', till, since, times)
    .. cause .. '|' .. ARGV[7] .. '|' .. ARGV[8] .. '|' .. ARGV[9])
redis.call('HINCRBY', own_key('halt'), 'v', 1)
redis.call('PUBLISH', 'pr:bell:' .. AGENT, 'x') -- lanes that still send over it, in whatever process, stop
local answer = {pause, same and 'still' or 'opened'}
local reopens = till
for i = 16, #ARGV do
    local other = read(ARGV[i])
    -- One whose time is over, but that has not worked since, stands still as well: it is only tried.
    if not other then return answer end
    if other.till <= now then reopens = now end
    reopens = math.min(reopens, other.till)
end
if reopens > now then redis.call('SET', own_key('stop'), '1', 'PX', math.ceil(reopens - now)) end
change_halt(now, function(halt)
    halt.stopped = true
    redis.call('HSET', own_key('halt'), 'st', '1')
end)
return answer
