-- Shared by all scripts; put in front of each of them when it is loaded.
--
-- KEYS[1] is the partition's agenda. All other keys are built from the partition's prefix, so every key a
-- script touches carries the same hash tag and lies in one slot.
-- ARGV: 1 prefix, 2 agent, 3 content retention ms, 4 message retention ms, then the script's own.

local PREFIX, AGENT = ARGV[1], ARGV[2]
local CONTENT_MS, MESSAGE_MS = tonumber(ARGV[3]), tonumber(ARGV[4])
local AGENDA, TALLY, FILES = KEYS[1], PREFIX .. 'tally', PREFIX .. 'files'
local EVENTS_KEPT, EVENTS_FIRST, VALUE_LIMIT = 32, 8, 64
-- Leased mail is scored this far below its lease's end, so that it is never mistaken for mail that is due, and a
-- lapsed lease is met before a backlog of any length.
local LEASED = 1e13

local function record_key(id) return PREFIX .. 'm:' .. id end
local function payload_key(id) return PREFIX .. 'p:' .. id end
local function tries_key(channel) return PREFIX .. 'tries:' .. AGENT .. ':' .. channel end
local function refusals_key(channel) return PREFIX .. 'refusals:' .. AGENT .. ':' .. channel end
local function probe_key(channel) return PREFIX .. 'probe:' .. AGENT .. ':' .. channel end

-- Keys of the agent. Put together where they are used: all of them at once cost every script more than its own few.
local function own_key(what) return PREFIX .. what .. ':' .. AGENT end
local function queue_key(priority) return PREFIX .. 'q:' .. AGENT .. ':' .. priority end
local function all_queues() return {queue_key('h'), queue_key('n'), queue_key('b')} end

-- Turns the script to an agent of the partition.
local function turn_to(agent) AGENT = agent end

-- Redis's clock in microseconds: the only clock the ledger knows. And its milliseconds as text, for what is written:
-- Redis makes a text of a number by way of its float, which takes longer than many a command.
local function clock()
    local t = redis.call('TIME')
    return tonumber(t[1]) * 1000000 + tonumber(t[2]), t[1] .. string.sub('00000' .. t[2], -6, -4)
end

-- A full Redis refuses a script's first write if it may need memory, and lets the rest pass once one was
-- taken. Deleting is always taken, so with this in front queued mail drains however full Redis is.
local function write_although_full() redis.call('DEL', PREFIX .. 'nothing') end

-- Reads a record; `...` are further fields, which come after it.
local function load(id, ...)
    local v = redis.call('HMGET', record_key(id), 's', 'f', 'p', 'rr', 'ph', 'pd', 'n', 'a', 'dl', 'oa', 'am',
        'en', 'rk', 'bl', 'ss', 'ch', 'ck', 'hd', 'v', 'sp', 'fh', ...)
    if not v[1] then return nil end
    local m = {
        id = id, state = v[1], fence = tonumber(v[2]), priority = v[3], recipients = v[4],
        phase = v[5] or '', pending = v[6] or '', attempts = tonumber(v[7]), accepted = tonumber(v[8]),
        deadline = tonumber(v[9] or 0), on_ambiguous = v[10], ambiguous = tonumber(v[11] or 0),
        events = tonumber(v[12] or 0), ref = v[13], blobs = tonumber(v[14] or 0), seen = v[15],
        channel = v[16] or '', halted = tonumber(v[17] or -1), hold = v[18], version = tonumber(v[19] or 1), superseded = v[20],
        held_files = tonumber(v[21] or 0),
    }
    return m, unpack(v, 22)
end

local function waits(m) return m.state == 'queued' or m.state == 'sending' end

-- Appends to the timeline: the first events and the newest are kept, the middle of a long one is not.
-- An event longer than a small value may be goes on in a second field.
-- Returned are the fields to set, so that whoever sets others anyway does it in one call.
local function event_fields(m, now, text)
    local slot = m.events
    if slot >= EVENTS_KEPT then
        slot = EVENTS_FIRST + (m.events - EVENTS_FIRST) % (EVENTS_KEPT - EVENTS_FIRST)
    end
    m.events = m.events + 1
    local event = (now - m.accepted) .. '|' .. text
    local fields = {'e' .. slot, string.sub(event, 1, VALUE_LIMIT), 'en', m.events}
    if #event > VALUE_LIMIT then
        fields[5], fields[6] = 'g' .. slot, string.sub(event, VALUE_LIMIT + 1)
    elseif m.events > EVENTS_KEPT then redis.call('HDEL', record_key(m.id), 'g' .. slot) end
    return fields
end

local function add_event(m, now, text)
    redis.call('HSET', record_key(m.id), unpack(event_fields(m, now, text)))
end

-- A message's state from its recipients' letters. q: waits, r: waits and an earlier attempt may have sent it,
-- s: sent, f: failed, x: expired, c: cancelled, p: suppressed, u: unconfirmed.
local function aggregate(recipients)
    if string.find(recipients, '^s+$') then return 'sent' end
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
    if left_ms > 0 then redis.call('SET', own_key('bucket'), string.format('%.0f', arrival), 'PX', left_ms)
    else redis.call('DEL', own_key('bucket')) end
end

-- What no longer waits ends: a recipient an earlier attempt may have reached is unconfirmed, not failed.
local function end_waiting(recipients, letter)
    return (string.gsub(string.gsub(recipients, 'q', letter), 'r', 'u'))
end

-- The tally counts what was accepted and where it ended, per agent and in the same scripts as the states
-- themselves: accepted = the ends + what waits in the queues, at any moment. Records of an older version were
-- accepted before there was one.
local function count(m, state, by)
    if m.version >= 2 then redis.call('HINCRBY', TALLY, AGENT .. '|' .. state, by) end
end

-- Files of the cache that a message refers to lie elsewhere; here, beside it, is counted how many messages need each
-- (count|until): it stays while the count is above zero, and until the content of the last of them is dropped.
-- A record names its files in `fi0`, `fi1` …; `fh` is how many of them it holds.
local function hold_files(id, number)
    for n = 0, number - 1 do
        local file = redis.call('HGET', record_key(id), 'fi' .. n)
        local count, till = string.match(redis.call('HGET', FILES, file) or '0|0', '^(%d+)|(%d+)$')
        redis.call('HSET', FILES, file, string.format('%d|%s', tonumber(count) + 1, till))
    end
    if number > 0 then redis.call('HSET', record_key(id), 'fh', number) end
end

local function let_files_go(m, now, keep_ms)
    for n = 0, m.held_files - 1 do
        local file = redis.call('HGET', record_key(m.id), 'fi' .. n)
        local count, till = string.match(redis.call('HGET', FILES, file) or '1|0', '^(%d+)|(%d+)$')
        till = math.max(tonumber(till), now + keep_ms)
        redis.call('HSET', FILES, file, string.format('%d|%.0f', math.max(0, tonumber(count) - 1), till))
    end
    if m.held_files > 0 then redis.call('HDEL', record_key(m.id), 'fh') end
end

local function keep_for(m, content_ms, message_ms)
    redis.call('PEXPIRE', record_key(m.id), message_ms)
    redis.call('PEXPIRE', PREFIX .. 'r:' .. m.ref, message_ms)
    redis.call('PEXPIRE', payload_key(m.id), content_ms)
    for n = 0, m.blobs - 1 do redis.call('PEXPIRE', PREFIX .. 'b:' .. m.id .. ':' .. n, content_ms) end
end

-- The end of a message's life (or of what Postroom can do for it): off the queue, and from now on kept for as
-- long as the retention says. Record, payload, blobs and ref get their time here and nowhere else.
-- `more` are further fields to set of the record. `is_plain`: an attempt ends it that was the first one and met nothing
-- unusual, so that the record has fewer fields to drop; for each that is not there Redis looks at all of them.
local function retire(m, state, now, more, is_plain)
    local key = record_key(m.id)
    redis.call('ZREM', queue_key(m.priority), m.id)
    redis.call('HSET', key, 's', state, 'rr', m.recipients, 'fa', now, unpack(more or {}))
    redis.call('HDEL', key, 'ph', 'pd', 'na', 'dl', 'ch', 'rs', 'ck', 'dc')
    if not is_plain then redis.call('HDEL', key, 'ss', 'am', 'hd', 'hw', 'hu', 'la') end
    if not waits(m) then count(m, m.state, '-1') end
    count(m, state, '1')
    local content_ms = state == 'unconfirmed' and ARGV[4] or ARGV[3]
    keep_for(m, content_ms, ARGV[4])
    let_files_go(m, now, content_ms)
end

-- Ends a message that no attempt ends; `how` is what `Ended.how` says of it, `more` are further fields to set. Returns
-- what is told of its end: {id, state, priority, ms since accepted, how, attempts, channel of the last one, record
-- fields, payload}.
local function end_untried(m, how, now, more)
    local state = aggregate(m.recipients)
    local shown = redis.call('HMGET', record_key(m.id), 'c', 'c2', 'd', 't')
    -- Before it may be dropped: its head has the request and the trace that it came with.
    local payload = redis.call('GET', payload_key(m.id)) or ''
    retire(m, state, now, more)
    return {m.id, state, m.priority, now - m.accepted, how, m.attempts, m.channel, shown, payload}
end

-- What a newer message with its collapse key has taken the place of, recipient by recipient: marked for a message that
-- may still be tried again, by itself or because a person says so.
local function mark_superseded(m, index)
    local marked = m.superseded or string.rep('-', #m.recipients)
    m.superseded = string.sub(marked, 1, index) .. 'x' .. string.sub(marked, index + 2)
    redis.call('HSET', record_key(m.id), 'sp', m.superseded)
end

-- Ends what still waits of a message with no attempt. Raising the fence stops the worker that may hold it, or believes
-- that he does. `why` is kept where there is more to say than `how`. Returns what is told of its end.
local function break_off(m, letter, how, now, why)
    local more = {'f', m.fence + 1}
    if why ~= '' then more[3], more[4] = 'w', why end
    m.recipients = end_waiting(m.recipients, letter)
    return end_untried(m, how, now, more)
end

-- Cancels what still waits of a message, before its commit mark. `why` is empty where it was simply the caller's wish.
local function call_back(m, now, why)
    return break_off(m, 'c', why == 'superseded' and why or 'cancelled', now, why)
end

-- Ends what still waits of a message whose time is up, or for which a person (`why`) says so.
local function expire(m, now, why) return break_off(m, 'x', 'expired', now, why or '') end

-- A newer message with the same collapse key took the place of these recipients while the channel might already have
-- had the older one; if it is to be tried again after all, they have no part in it.
local function end_superseded(m)
    if not m.superseded then return end
    local out, before = {}, m.recipients
    for i = 1, #m.recipients do
        local letter = string.sub(m.recipients, i, i)
        out[i] = string.sub(m.superseded, i, i) == 'x' and end_waiting(letter, 'c') or letter
    end
    m.recipients = table.concat(out)
    if m.recipients ~= before and aggregate(m.recipients) ~= 'queued' then redis.call('HSET', record_key(m.id), 'w', 'superseded') end
end

-- Ends what holds up a single message; returns when it is due by itself.
local function end_hold(id, now)
    redis.call('HDEL', record_key(id), 'hd', 'hw', 'hu')
    return tonumber(redis.call('HGET', record_key(id), 'na') or now)
end

-- When the first mail that is not leased is due, of these priorities.
local function first_due(priorities)
    local first = nil
    for priority in string.gmatch(priorities, '.') do
        local top = redis.call('ZRANGEBYSCORE', queue_key(priority), 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
        if top[2] and (not first or tonumber(top[2]) < first) then first = tonumber(top[2]) end
    end
    return first
end

-- When the first lease of the agent's mail ends.
local function first_lease()
    local first = nil
    for _, queue in ipairs(all_queues()) do
        local top = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
        local score = tonumber(top[2] or 0)
        if score < 0 and (not first or score + LEASED < first) then first = score + LEASED end
    end
    return first
end

-- The earliest time anything of the agent wants looking at, leased mail included (by its lease's end).
local function head()
    local first, lease_ends = first_due('hnb'), first_lease()
    if first and lease_ends then return math.min(first, lease_ends) end
    return first or lease_ends
end

-- The agenda may name a time that is too early, never one that is too late: the sweep mends the former.
local function put_on_agenda(due) redis.call('ZADD', AGENDA, 'LT', due, AGENT) end

local function renew_agenda(first)
    if first then redis.call('ZADD', AGENDA, first, AGENT) else redis.call('ZREM', AGENDA, AGENT) end
end

-- A lane counts for half a lease after its owner was last heard of: it holds nothing but a place, and the places
-- of a worker that was killed keep its agents standing still.
local function lane_till(now, lease) return now + math.floor(lease / 2) end

-- What stands over the whole agent. `version` changes with every act and every fault, so that whoever has read it
-- knows when to look again. A pause has an end (`paused_till`, 0 for none); `stopped`: no channel is left.
-- `since` is when the agent came to a standstill by either, `total` how long it stood still before that.
local function read_halt()
    local v = redis.call('HMGET', own_key('halt'), 'v', 'since', 'total', 'pu', 'st')
    return {
        version = tonumber(v[1] or 0), since = tonumber(v[2]), total = tonumber(v[3] or 0),
        paused_till = tonumber(v[4]), stopped = v[5] == '1',
    }
end

local function is_paused(halt, now)
    return halt.paused_till ~= nil and (halt.paused_till == 0 or halt.paused_till > now)
end

-- How long the agent has stood still in all, up to now. A pause that ended by itself ended when it said.
local function stood_still(halt, now)
    if not halt.since then return halt.total end
    local till = now
    if not halt.stopped and halt.paused_till and halt.paused_till > 0 then till = math.min(now, halt.paused_till) end
    return halt.total + math.max(0, till - halt.since)
end

-- Writes a change of what stands over the agent; `change` sets or clears its fields before the sum is drawn.
local function change_halt(now, change)
    local halt = read_halt()
    local total = stood_still(halt, now)
    local stands = halt.since and (halt.stopped or is_paused(halt, now))
    change(halt)
    local still = halt.stopped or is_paused(halt, now)
    if still and not stands then
        redis.call('HSET', own_key('halt'), 'since', now, 'total', total)
        redis.call('HDEL', own_key('halt'), 'pg')  -- from now on it is not the rate that holds mail up
    elseif not still then
        redis.call('HDEL', own_key('halt'), 'since')
        redis.call('HSET', own_key('halt'), 'total', total)
    end
    redis.call('HINCRBY', own_key('halt'), 'v', 1)
end

-- A channel works: the agent no longer stands still for want of one, and its mail is looked at.
local function go_on(now)
    redis.call('DEL', own_key('stop'))
    change_halt(now, function(halt)
        halt.stopped = false
        redis.call('HDEL', own_key('halt'), 'st')
    end)
    if redis.call('ZSCORE', AGENDA, AGENT) then put_on_agenda(now) end
end

-- When the message's time is up. For a standing clock (`ck`: how long the agent had stood still at acceptance)
-- the time its agent has stood still since then does not count.
local function time_ends(m, halt, now)
    if m.halted < 0 then return m.deadline end
    return m.deadline + math.max(0, stood_still(halt, now) - m.halted)
end

local function time_is_up(m, halt, now) return m.deadline > 0 and now >= time_ends(m, halt, now) end

-- The agent's day and how many recipients it has used up; `midnights` are those around the caller's idea of now,
-- so a caller's clock may be a day off.
local function read_day(midnights, now)
    local day = {start = 0, ends = now + 3600000, used = 0}
    for text in string.gmatch(midnights, '%d+') do
        local midnight = tonumber(text)
        if midnight <= now then day.start = midnight else day.ends = midnight break end
    end
    local start, used = string.match(redis.call('GET', own_key('day')) or '', '^(%d+)|(%d+)$')
    if start and tonumber(start) == day.start then day.used = tonumber(used) end
    return day
end

-- Gives recipients back to the agent's day that were charged at a mark and surely did not go out after all.
local function refund(id, kept)
    local start, charge = string.match(redis.call('HGET', record_key(id), 'dc') or '', '^(%d+)|(%d+)$')
    if not start then return end
    redis.call('HDEL', record_key(id), 'dc')
    local day, used = string.match(redis.call('GET', own_key('day')) or '', '^(%d+)|(%d+)$')
    if day ~= start or tonumber(charge) <= kept then return end
    local left = math.max(0, tonumber(used) - tonumber(charge) + kept)
    redis.call('SET', own_key('day'), string.format('%s|%d', day, left), 'KEEPTTL')
end

-- Wakes the agent for mail that is due. Where lanes live, an idle one is told over the bell and a busy one looks
-- again by itself; a lane leaves only inside a claim that finds nothing due, so it cannot miss this.
-- own_key('idle') says whom a ring would find: 1 a lane that takes anything, n one that takes all but bulk, h only busy ones,
-- which stop for high mail.
-- Returns 1 where nobody is awake and the caller should ring for a round.
local function wake(now, priority)
    if redis.call('ZCOUNT', own_key('lanes'), now, '+inf') > 0 then
        local idle = redis.call('GET', own_key('idle'))
        if idle == '1' or (idle == 'n' and priority ~= 'b') or (idle == 'h' and priority == 'h') then
            redis.call('DEL', own_key('idle'))
            redis.call('PUBLISH', 'pr:bell:' .. AGENT, priority)
        end
        return 0
    end
    if redis.call('EXISTS', own_key('stop')) == 1 or is_paused(read_halt(), now) then return 0 end
    if redis.call('SET', own_key('rung'), '1', 'NX', 'PX', 1000) then return 1 end
    return 0
end
