-- Shared by all scripts; put in front of each of them when it is loaded.
--
-- KEYS[1] is the partition's agenda. All other keys are built from the partition's prefix, so every key a
-- script touches carries the same hash tag and lies in one slot.
-- ARGV: 1 prefix, 2 agent, 3 content retention ms, 4 message retention ms, then the script's own.

local PREFIX, AGENT = ARGV[1], ARGV[2]
local CONTENT_MS, MESSAGE_MS = tonumber(ARGV[3]), tonumber(ARGV[4])
local AGENDA = KEYS[1]
local QUEUES = {
    h = PREFIX .. 'q:' .. AGENT .. ':h',
    n = PREFIX .. 'q:' .. AGENT .. ':n',
    b = PREFIX .. 'q:' .. AGENT .. ':b',
}
local LANES = PREFIX .. 'lanes:' .. AGENT
local RUNG = PREFIX .. 'rung:' .. AGENT
local IDLE = PREFIX .. 'idle:' .. AGENT
local STOP = PREFIX .. 'stop:' .. AGENT
local FAULTS = PREFIX .. 'faults:' .. AGENT
local BUCKET = PREFIX .. 'bucket:' .. AGENT
local EVENTS_KEPT, EVENTS_FIRST, VALUE_LIMIT = 32, 8, 64

local function record_key(id) return PREFIX .. 'm:' .. id end
local function payload_key(id) return PREFIX .. 'p:' .. id end

-- Redis's clock in microseconds: the only clock the ledger knows.
local function clock()
    local t = redis.call('TIME')
    return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- A full Redis refuses a script's first write if it may need memory, and lets the rest pass once one was
-- taken. Deleting is always taken, so with this in front queued mail drains however full Redis is.
local function write_although_full() redis.call('DEL', PREFIX .. 'nothing') end

local function load(id)
    local v = redis.call('HMGET', record_key(id),
        's', 'f', 'p', 'rr', 'ph', 'pd', 'n', 'a', 'dl', 'oa', 'am', 'en', 'rk', 'bl', 'ss', 'ch')
    if not v[1] then return nil end
    return {
        id = id, state = v[1], fence = tonumber(v[2]), priority = v[3], recipients = v[4],
        phase = v[5] or '', pending = v[6] or '', attempts = tonumber(v[7]), accepted = tonumber(v[8]),
        deadline = tonumber(v[9] or 0), on_ambiguous = v[10], ambiguous = tonumber(v[11] or 0),
        events = tonumber(v[12] or 0), ref = v[13], blobs = tonumber(v[14] or 0), seen = v[15],
        channel = v[16] or '',
    }
end

-- Appends to the timeline: the first events and the newest are kept, the middle of a long one is not.
-- An event longer than a small value may be goes on in a second field.
local function add_event(m, now, text)
    local slot = m.events
    if slot >= EVENTS_KEPT then
        slot = EVENTS_FIRST + (m.events - EVENTS_FIRST) % (EVENTS_KEPT - EVENTS_FIRST)
    end
    m.events = m.events + 1
    local key, event = record_key(m.id), (now - m.accepted) .. '|' .. text
    redis.call('HSET', key, 'e' .. slot, string.sub(event, 1, VALUE_LIMIT), 'en', m.events)
    if #event > VALUE_LIMIT then redis.call('HSET', key, 'g' .. slot, string.sub(event, VALUE_LIMIT + 1))
    elseif m.events > EVENTS_KEPT then redis.call('HDEL', key, 'g' .. slot) end
end

-- A message's state from its recipients' letters. q: waits, r: waits and an earlier attempt may have sent it,
-- s: sent, f: failed, x: expired, c: cancelled, p: suppressed, u: unconfirmed.
local function aggregate(recipients)
    local has = function(letter) return string.find(recipients, letter, 1, true) ~= nil end
    if has('q') or has('r') then return 'queued' end
    if has('u') then return 'unconfirmed' end
    if has('s') then
        if has('f') or has('x') or has('c') or has('p') then return 'partly_sent' end
        return 'sent'
    end
    if has('x') then return 'expired' end
    if has('f') then return 'failed' end
    if has('c') then return 'cancelled' end
    return 'suppressed'
end

-- The bucket of an agent's rate lives as long as its arrival time counts, however slow the rate is.
local function keep_bucket(arrival, micros)
    local left_ms = math.ceil((arrival - micros) / 1000)
    if left_ms > 0 then redis.call('SET', BUCKET, string.format('%.0f', arrival), 'PX', left_ms)
    else redis.call('DEL', BUCKET) end
end

-- What no longer waits ends: a recipient an earlier attempt may have reached is unconfirmed, not failed.
local function end_waiting(recipients, letter)
    return (string.gsub(string.gsub(recipients, 'q', letter), 'r', 'u'))
end

-- The end of a message's life (or of what Postroom can do for it): off the queue, and from now on kept for as
-- long as the retention says. Record, payload, blobs and ref get their time here and nowhere else.
local function retire(m, state, now)
    local key = record_key(m.id)
    redis.call('ZREM', QUEUES[m.priority], m.id)
    redis.call('HSET', key, 's', state, 'rr', m.recipients, 'fa', now)
    redis.call('HDEL', key, 'ph', 'pd', 'ss', 'na', 'dl', 'oa', 'am', 'ch', 'rs', 'pf')
    redis.call('PEXPIRE', key, MESSAGE_MS)
    redis.call('PEXPIRE', PREFIX .. 'r:' .. m.ref, MESSAGE_MS)
    local content_ms = state == 'unconfirmed' and MESSAGE_MS or CONTENT_MS
    redis.call('PEXPIRE', payload_key(m.id), content_ms)
    for n = 0, m.blobs - 1 do redis.call('PEXPIRE', PREFIX .. 'b:' .. m.id .. ':' .. n, content_ms) end
end

-- The earliest time anything of the agent is due, leased mail included (by its lease's end).
local function head()
    local first = nil
    for _, queue in pairs(QUEUES) do
        local top = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
        if top[2] and (not first or tonumber(top[2]) < first) then first = tonumber(top[2]) end
    end
    return first
end

-- The agenda may name a time that is too early, never one that is too late: the sweep mends the former.
local function put_on_agenda(due) redis.call('ZADD', AGENDA, 'LT', due, AGENT) end

local function renew_agenda(first)
    if first then redis.call('ZADD', AGENDA, first, AGENT) else redis.call('ZREM', AGENDA, AGENT) end
end

-- A lane counts for half a lease after its owner was last heard of: it holds nothing but a place, and the places
-- of a worker that was killed keep its agents standing still.
local function lane_till(now, lease) return now + math.floor(lease / 2) end

-- Wakes the agent for mail that is due. Where lanes live, an idle one is told over the bell and a busy one
-- looks again by itself; a lane leaves only inside a claim that finds nothing due, so it cannot miss this.
-- Returns 1 where nobody is awake and the caller should ring for a round.
local function wake(now)
    if redis.call('ZCOUNT', LANES, now, '+inf') > 0 then
        if redis.call('DEL', IDLE) == 1 then redis.call('PUBLISH', 'pr:bell:' .. AGENT, '1') end
        return 0
    end
    if redis.call('EXISTS', STOP) == 1 then return 0 end
    if redis.call('SET', RUNG, '1', 'NX', 'PX', 1000) then return 1 end
    return 0
end
