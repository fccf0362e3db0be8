-- Writes an attempt's outcome and moves the message by it.
-- ARGV: 5 in msgpack: id, fence, outcome per recipient (s, f, d, a: ambiguous, -: not in it), ms until the next attempt,
--       the attempt's event without its number, ambiguous retries allowed, channel (or '' where a refusal says nothing
--       about it), so many refusals stop it, within so many ms, connections (where they were halved, else 0), ms a
--       guarded message waits, and a list: index, reply of recipients.
-- Returns {'ok', state, ms until the next attempt or -1, ms since accepted, priority, nothing, 'again' or 'slow': the
-- channel puts everything off}, {'stale'}, or {'guarded', state, …}: the refusal is taken for the channel's own
-- fault, and the message waits as if nothing had been said.
local id, fence, codes, delay, event, ambiguous_retries, channel, refusals_allowed, refusal_window, connections,
    guarded_wait, replies = unpack(cmsgpack.unpack(ARGV[5]))
local LAST_MS = 10000 -- before the end of its time: enough for an attempt, and as late as a receiver may want it
-- The first write, one that a full Redis takes (`write_although_full`), and the end of a row of refusals.
if string.find(codes, 's', 1, true) and channel ~= '' then
    redis.call('DEL', refusals_key(channel), tries_key(channel))
else write_although_full() end
local m = load(id)
if not m then return {'stale'} end
local micros, now_text = clock()
local now = math.floor(micros / 1000)
local current = m.fence == fence

-- The same outcome twice (its first reply got lost) is answered as the first time.
if current and m.phase == 'done' and m.state == 'queued' then
    return {'ok', 'queued', 0, now - m.accepted, m.priority, 'again'}
end
if current and m.state ~= 'sending' and m.state ~= 'unconfirmed' then
    return {'ok', m.state, m.state == 'queued' and 0 or -1, now - m.accepted, m.priority, 'again'}
end
if current and m.state == 'unconfirmed' and not string.find(codes, 's', 1, true) then
    return {'ok', m.state, -1, now - m.accepted, m.priority, 'again'}
end
if not current then
    -- A late "sent" under an old fence is still the truth, until a newer attempt has reached its own mark.
    local late = string.find(codes, 's', 1, true) and m.phase ~= 'committing'
        and (m.state == 'queued' or m.state == 'sending')
    if not late then return {'stale'} end
    m.fence = m.fence + 1
end

-- Many messages refused or put off and nothing sent: then it is hardly the recipients' fault. Only a message of which
-- nothing was taken counts, and anything sent over the channel starts the count anew.
local function is_guarded()
    if channel == '' or not string.find(codes, '^[fd-]+$') then return false end
    local refusals = redis.call('INCR', refusals_key(channel))
    local guarded = refusals >= refusals_allowed
    -- While it stands still its probes are far between: the count must not be forgotten meanwhile.
    if refusals == 1 or guarded then redis.call('PEXPIRE', refusals_key(channel), refusal_window) end
    return guarded
end

-- After a throttle every twenty messages sent bring back one more connection.
local function widen()
    local width = tonumber(redis.call('HGET', own_key('width'), 'w'))
    if not width or redis.call('HINCRBY', own_key('width'), 'ok', 1) % 20 > 0 then return end
    if width + 1 >= connections then redis.call('HDEL', own_key('width'), 'w')
    else redis.call('HSET', own_key('width'), 'w', width + 1) end
end

-- Told of the agent (`postroom top`): what its last attempt met that did not send to everybody.
if string.find(codes, '[fda]') then redis.call('HSET', own_key('halt'), 'le', string.format('%.0f|', now) .. event) end

local guarded = current and is_guarded()
if guarded and not string.find(codes, 'd', 1, true) then
    redis.call('HSET', record_key(m.id), 's', 'queued', 'ph', 'released')
    redis.call('HDEL', record_key(m.id), 'pd', 'ss')
    refund(m.id, 0)
    -- A while later, so that the next probe is another message's: this one may be bad all the same.
    local again_at = now + guarded_wait
    redis.call('ZADD', queue_key(m.priority), again_at, m.id)
    put_on_agenda(again_at)
    return {'guarded', 'queued', 0, now - m.accepted, m.priority}
end
if connections > 0 and string.find(codes, 's', 1, true) then widen() end

-- A message that ended as unconfirmed has no policy any more; only a late "sent" still tells something.
local retry = m.state ~= 'unconfirmed' and m.on_ambiguous ~= 'h' and m.ambiguous < ambiguous_retries
local ambiguous, out = false, {}
for i = 1, #m.recipients do
    local was, code = string.sub(m.recipients, i, i), string.sub(codes, i, i)
    out[i] = was
    if was == 'q' or was == 'r' or was == 'u' then
        if code == 's' then out[i] = 's'
        elseif code == 'f' then out[i] = (was == 'q') and 'f' or 'u'
        elseif code == 'a' then ambiguous = true; out[i] = retry and 'r' or 'u' end
    end
end
m.recipients, m.attempts = table.concat(out), m.attempts + 1
if string.find(codes, '[fd]') then
    local _, kept = string.gsub(codes, '[sa]', '')
    refund(m.id, kept)
end
if ambiguous then m.ambiguous = m.ambiguous + 1 end
local fields = event_fields(m, now, 'T|' .. m.attempts .. '|' .. event)
local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
end
set('n', m.attempts)
set('f', m.fence)
for i = 1, #replies, 2 do set('x' .. replies[i], replies[i + 1]) end

-- Where the next attempt would come too late, a last one is made while there is time, once; then its time runs out.
local function in_time(halt, next_at)
    if not time_is_up(m, halt, next_at) then return next_at end
    local ends = time_ends(m, halt, now)
    if redis.call('HSETNX', record_key(m.id), 'la', 1) == 0 then return ends end
    return ends - math.min(LAST_MS, math.floor((ends - now) / 2))
end

local state, next_at = aggregate(m.recipients), now + delay
if state == 'queued' then
    end_superseded(m)
    if aggregate(m.recipients) == 'queued' then
        local halt = read_halt()
        if time_is_up(m, halt, now) then m.recipients = end_waiting(m.recipients, 'x')
        else next_at = in_time(halt, next_at) end
    end
    state = aggregate(m.recipients)
end
if state ~= 'queued' then
    retire(m, state, now_text, fields, m.attempts == 1 and not m.seen and not m.hold)
    return {'ok', state, -1, now - m.accepted, m.priority, guarded and 'slow' or ''}
end
redis.call('HSET', record_key(m.id), 's', 'queued', 'ph', 'done', 'na', next_at, 'am', m.ambiguous,
    'rr', m.recipients, 'rs', (ambiguous and 'ambiguous' or 'retrying') .. '|' .. now, unpack(fields))
redis.call('HDEL', record_key(m.id), 'pd', 'ss')
redis.call('ZADD', queue_key(m.priority), next_at, m.id)
put_on_agenda(next_at)
return {'ok', 'queued', next_at - now, now - m.accepted, m.priority, guarded and 'slow' or ''}
