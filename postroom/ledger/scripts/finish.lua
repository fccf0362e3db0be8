-- Writes an attempt's outcome and moves the message by it.
-- ARGV: 5 id, 6 fence, 7 outcome per recipient (s, f, d, a: ambiguous, -: not in it), 8 ms until the next attempt,
--       9 the attempt's event without its number, 10 ambiguous retries allowed, 11.. index, reply of recipients.
-- Returns {'ok', state, ms until the next attempt or -1, ms since accepted, priority} or {'stale'}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'stale'} end
local fence, codes = tonumber(ARGV[6]), ARGV[7]
local now = math.floor(clock() / 1000)
local current = m.fence == fence

-- The same outcome twice (its first reply got lost) is answered as the first time.
if current and m.phase == 'done' and m.state == 'queued' then
    return {'ok', 'queued', 0, now - m.accepted, m.priority, 'again'}
end
if current and m.state ~= 'sending' and m.state ~= 'unconfirmed' then
    return {'ok', m.state, -1, now - m.accepted, m.priority, 'again'}
end
if not current then
    -- A late "sent" under an old fence is still the truth, until a newer attempt has reached its own mark.
    local late = string.find(codes, 's', 1, true) and m.phase ~= 'committing'
        and (m.state == 'queued' or m.state == 'sending')
    if not late then return {'stale'} end
    m.fence = m.fence + 1
end

-- A message that ended as unconfirmed has no policy any more; only a late "sent" still tells something.
local retry = m.state ~= 'unconfirmed' and m.on_ambiguous ~= 'h' and m.ambiguous < tonumber(ARGV[10])
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
if ambiguous then m.ambiguous = m.ambiguous + 1 end
add_event(m, now, 'T|' .. m.attempts .. '|' .. ARGV[9])
for i = 11, #ARGV, 2 do redis.call('HSET', record_key(m.id), 'x' .. ARGV[i], ARGV[i + 1]) end

local next_at = now + tonumber(ARGV[8])
if aggregate(m.recipients) == 'queued' and m.deadline > 0 and next_at >= m.deadline then
    m.recipients = end_waiting(m.recipients, 'x')
end
local state = aggregate(m.recipients)
redis.call('HSET', record_key(m.id), 'rr', m.recipients, 'n', m.attempts, 'f', m.fence)
if state ~= 'queued' then
    retire(m, state, now)
    return {'ok', state, -1, now - m.accepted, m.priority}
end
redis.call('HSET', record_key(m.id), 's', 'queued', 'ph', 'done', 'na', next_at, 'am', m.ambiguous,
    'rs', (ambiguous and 'ambiguous' or 'retrying') .. '|' .. now)
redis.call('HDEL', record_key(m.id), 'pd', 'ss')
redis.call('ZADD', QUEUES[m.priority], next_at, m.id)
put_on_agenda(next_at)
return {'ok', 'queued', next_at - now, now - m.accepted, m.priority}
