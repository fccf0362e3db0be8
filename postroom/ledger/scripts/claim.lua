-- Takes up to N due messages in a lane's name, raises each one's fence and returns them with their payloads.
-- ARGV: 5 lane, 6 lease ms, 7 most messages, 8 most bytes, 9 connections, 10 order of priorities ('hnb'),
--       11 leave when nothing is due, 12 microseconds per message or 0, 13 burst, 14 ambiguous retries allowed,
--       15 somebody listens for the bell, 16 recipients a day or 0, 17 midnights, in ms.
-- Returns {'full'}, {'paused'}, or {'ok', ms until the next is due or -1, more is due now, claimed, ended, lapsed,
-- left, version of what stands over the agent, bulk mail is due that this lane leaves to others, connections
-- were halved, the rate lets none of the due mail through, ms for which it had held it up until now}.
-- claimed: {id, fence, attempts, accepted, recipients, blobs, {priority, channel that may have taken it, record
-- fields}, payload}; ended: what `end_untried` tells.
local lane, lease = ARGV[5], tonumber(ARGV[6])
local most, most_bytes, connections = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local interval, burst, per_day = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[16])
local MOST_LOOKED_AT, BULK_EVERY = 256, 8
local micros = clock()
local now = math.floor(micros / 1000)
local LANES, WIDTH = own_key('lanes'), own_key('width')
local lease_till = string.format('%.0f', now + lease - LEASED)
write_although_full()

local function leave()
    redis.call('ZREM', LANES, lane)
    if redis.call('ZCARD', LANES) == 0 then redis.call('DEL', own_key('rung'), own_key('idle')) end
end

local halt = read_halt()
if is_paused(halt, now) then
    leave()
    return {'paused'}
end

-- `connections` holds over all workers: a lane is admitted while fewer live, and a live one beyond a lowered
-- limit is told to close. A provider that asked us to slow down has lowered it as well.
local width = redis.call('HGET', WIDTH, 'w')
if width then connections = math.min(connections, tonumber(width)) end
redis.call('ZREMRANGEBYSCORE', LANES, '-inf', now)
local rank = redis.call('ZSCORE', LANES, lane)
local live = redis.call('ZCARD', LANES)
if (not rank and live >= connections) or (rank and live > connections) then
    redis.call('ZREM', LANES, lane)
    return {'full'}
end
redis.call('ZADD', LANES, lane_till(now, lease), lane)
if not rank then live = live + 1 end

-- GCRA with Redis's clock. The theoretical arrival time is clamped, since clocks jump at a failover.
local arrival, pace_wait, allowed, paced_since = micros, nil, 0, nil
if interval > 0 then
    paced_since = tonumber(redis.call('HGET', own_key('halt'), 'pg') or nil)
    local stored = tonumber(redis.call('GET', own_key('bucket')) or 0)
    local furthest = micros + burst * interval
    arrival = math.min(math.max(stored, micros), furthest)
    if stored > furthest then keep_bucket(arrival, micros) end
    allowed = math.floor((micros + burst * interval - arrival) / interval + 1e-6)
    most = math.min(most, allowed, math.max(1, math.floor(50000 / interval)))
    if allowed < 1 then pace_wait = math.ceil((arrival + interval - burst * interval - micros) / 1000) end
end
local day = per_day > 0 and read_day(ARGV[17], now) or nil
local day_is_full = false

local ended, lapsed, claimed, bytes, looked_at, low, skipped = {}, {}, {}, 0, 0, 0, 0

-- An attempt that reached its commit mark and was never finished: its owner died, or is late. Only recipients
-- the server had taken are ambiguous; the policy says whether they are tried again.
local function settle_lapsed(m)
    local retry = m.on_ambiguous ~= 'h' and m.ambiguous < tonumber(ARGV[14])
    local out = {}
    for i = 1, #m.recipients do
        local was, pending = string.sub(m.recipients, i, i), string.sub(m.pending, i, i)
        if pending == 'a' then out[i] = retry and 'r' or 'u'
        elseif pending == 'f' then out[i] = was == 'r' and 'u' or 'f'
        else out[i] = was end
    end
    m.recipients, m.ambiguous, m.attempts = table.concat(out), m.ambiguous + 1, m.attempts + 1
    add_event(m, now, 'T|' .. m.attempts .. '|' .. m.channel .. '|ambiguous|done')
    redis.call('HSET', record_key(m.id), 'rr', m.recipients, 'am', m.ambiguous, 'n', m.attempts)
    lapsed[#lapsed + 1] = {m.id, 'committing', m.channel}
end

local function finish_here(m, how)
    local row = end_untried(m, how, now)
    ended[#ended + 1], bytes = row, bytes + #row[9]
end

-- A rate, or a day that is used up, holds up what waits, and not what can be decided without sending.
-- Returns 'full' where nothing more can be taken now, 'skip' where only this one has to wait for another day.
local function fits(m)
    local _, wanted = nil, 0
    if day then
        _, wanted = string.gsub(m.recipients, '[qr]', '')
        if day.used + wanted > per_day then
            day_is_full = true
            return day.used < per_day and 'skip' or 'full'
        end
    end
    if #claimed >= most or bytes >= most_bytes then return 'full' end
    if day then day.used = day.used + wanted end
    return 'fits'
end

local function take(m, queue, reason, ...)
    local payload = redis.call('GET', payload_key(m.id))
    if not payload then
        m.recipients = end_waiting(m.recipients, 'f')
        add_event(m, now, 'X|payload_missing')
        return finish_here(m, 'lost')
    end
    m.fence = m.fence + 1
    redis.call('HSET', record_key(m.id), 's', 'sending', 'f', m.fence, 'ph', 'claimed')
    if m.seen or m.pending ~= '' or reason then redis.call('HDEL', record_key(m.id), 'ss', 'pd', 'rs') end
    -- What one channel may have taken goes over no other: a second copy from another provider nobody could recognise.
    local maybe_taken_by = string.find(m.recipients, 'r', 1, true) and m.channel or ''
    redis.call('ZADD', queue, lease_till, m.id)
    bytes = bytes + #payload
    if m.priority ~= 'h' then low = low + 1 end
    claimed[#claimed + 1] = {m.id, m.fence, m.attempts, m.accepted, m.recipients, m.blobs,
        {m.priority, maybe_taken_by, ...}, payload}
end

-- A message whose lease has run out waits again, in its old place and under a new fence.
local function recover(m, queue)
    if m.phase == 'committing' then
        -- Decided at second sight: the owner may only be late, and a late "sent" is worth waiting for.
        if not m.seen then
            redis.call('HSET', record_key(m.id), 'ss', 1)
            redis.call('ZADD', queue, now + math.floor(lease * 0.6) - LEASED, m.id)
            return
        end
        settle_lapsed(m)
        end_superseded(m)
        if aggregate(m.recipients) ~= 'queued' then return finish_here(m, 'ambiguous') end
    else
        lapsed[#lapsed + 1] = {m.id, m.phase, m.channel}
    end
    redis.call('HSET', record_key(m.id), 's', 'queued', 'ph', 'lapsed', 'f', m.fence + 1)
    redis.call('ZADD', queue, math.min(now, tonumber(redis.call('HGET', record_key(m.id), 'na') or now)), m.id)
end

-- Held mail that was met is not claimed before its hold is over. Its time may have moved on, if its clock stood still.
-- Returns true where it goes on waiting.
local function waits_on(m, queue)
    local till = tonumber(redis.call('HGET', record_key(m.id), 'hu') or 0)
    local next_at = time_ends(m, halt, now)
    if till > now then next_at = math.min(next_at, till)
    elseif till > 0 then next_at = end_hold(m.id, now) end
    redis.call('ZADD', queue, next_at, m.id)
    return next_at > now
end

-- Returns false where nothing more of this queue can be taken now.
local function look_at(id, queue)
    looked_at = looked_at + 1
    local m, reason, ref, ref_rest, caller, profile, template = load(id, 'rs', 'c', 'c2', 'd', 'pf', 't')
    if not m then redis.call('ZREM', queue, id) return true end
    if m.state == 'sending' then recover(m, queue) return true end
    if m.superseded then end_superseded(m) end
    -- Nobody is left to be written to: those it was written to meanwhile, or a record that was meddled with.
    if not string.find(m.recipients, '[qr]') then finish_here(m, m.superseded and 'superseded' or 'nobody_left') return true end
    if time_is_up(m, halt, now) then
        m.recipients = end_waiting(m.recipients, 'x')
        finish_here(m, 'expired')
        return true
    end
    if m.hold and waits_on(m, queue) then return true end
    local verdict = fits(m)
    if verdict == 'fits' then take(m, queue, reason, ref, ref_rest, caller, profile, template)
    elseif verdict == 'skip' then skipped = skipped + 1 end
    return verdict ~= 'full'
end

-- What a dead worker held is looked at first: it has waited longest, and would wait again behind a flood.
for _, queue in ipairs(all_queues()) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', now - LEASED, 'LIMIT', 0, 64)) do look_at(id, queue) end
end

-- Where an agent has two lanes, one of them never takes bulk mail, so that high mail never waits for it to be sent.
local spare = false
if connections >= 2 and live >= 2 then
    local reserved = redis.call('HGET', WIDTH, 'spare')
    if not reserved or (reserved ~= lane and not redis.call('ZSCORE', LANES, reserved)) then
        reserved = lane
        redis.call('HSET', WIDTH, 'spare', lane)
        if redis.call('PTTL', WIDTH) < 0 then redis.call('PEXPIRE', WIDTH, 3600000) end
    end
    spare = reserved == lane
end
local order = ARGV[10]
-- Bulk mail has a turn of its own, at every eighth claim that may take something while it waits.
if order == 'hnb' and most > 0 and not pace_wait and redis.call('ZCARD', queue_key('b')) > 0 then
    if redis.call('HINCRBY', WIDTH, 'turn', 1) % BULK_EVERY == 0 then order = 'bhn' end
    if redis.call('PTTL', WIDTH) < 0 then redis.call('PEXPIRE', WIDTH, 3600000) end
end
if spare then order = string.gsub(order, 'b', '') end
-- Bulk mail's turn passes to high mail that has hardly waited, so only a flood of it has to share.
if string.sub(order, 1, 1) == 'b' then
    local high = redis.call('ZRANGEBYSCORE', queue_key('h'), now - 1000, now, 'LIMIT', 0, 1)
    local older = redis.call('ZCOUNT', queue_key('h'), 0, now - 1000)
    if high[1] and older == 0 then order = 'hnb' end
end

for priority in string.gmatch(order, '.') do
    local queue, more = queue_key(priority), true
    skipped = 0
    -- What is decided without being claimed (expired, held) leaves room, so look again, a few times.
    while more and looked_at < MOST_LOOKED_AT do
        local room = math.max(most - #claimed, 1)
        local ids = redis.call('ZRANGEBYSCORE', queue, 0, now, 'LIMIT', skipped, room)
        for _, id in ipairs(ids) do
            more = look_at(id, queue)
            if not more then break end
        end
        more = more and #ids == room
    end
end

if interval > 0 and #claimed > 0 then
    keep_bucket(arrival + #claimed * interval, micros)
end
local paced_ms = paced_since and math.max(0, now - paced_since) or 0

-- When this lane should look again: at what it may take, or at the end of somebody's lease.
local first = head()
local mine = first
if spare and first and first <= now then
    mine = first_due('hn')
    if mine and mine > now then mine = nil end
end
local waits_till = nil
if day_is_full and #claimed == 0 then waits_till = day.ends
elseif pace_wait then waits_till = now + pace_wait end
local due = first ~= nil and first <= now
if due and waits_till then
    local lease_ends = first_lease()
    renew_agenda(math.min(waits_till, lease_ends or waits_till, now + 60000))
else
    renew_agenda(first)
end
-- The rate holds mail up from the first claim that it lets nothing through at until it leaves room, or nothing is due.
local is_paced = pace_wait ~= nil and due
if paced_since and (not due or allowed > #claimed) then redis.call('HDEL', own_key('halt'), 'pg')
elseif is_paced and not paced_since then redis.call('HSET', own_key('halt'), 'pg', now) end
local more = mine ~= nil and mine <= now
local waits_long = waits_till ~= nil and waits_till > now + 1000
local leaves = ARGV[11] == '1' and #claimed == 0 and (not due or waits_long)
if leaves then
    -- The only way out of an awake agent: nothing may be sent at this very moment, and the agenda says when.
    leave()
elseif spare and #claimed == 0 then
    redis.call('SET', own_key('idle'), ARGV[15] == '1' and '1' or 'n', 'PX', 60000)
elseif ARGV[15] == '1' or #claimed == 0 then
    -- This lane goes idle, or the round has another idle one or room for one: the next accept rings its bell.
    redis.call('SET', own_key('idle'), '1', 'PX', 60000)
elseif low > 1 or (low > 0 and ARGV[11] == '1') then
    -- All are busy, this one with more than one that is not urgent, or with connecting first: high mail rings, and it
    -- stops to look again.
    redis.call('SET', own_key('idle'), 'h', 'NX', 'PX', 60000)
end
local next_in = -1
if first then next_in = math.max(0, first - now) end
if due and waits_till then next_in = math.max(1, waits_till - now)
elseif due and not more then next_in = 1000 end
return {'ok', next_in, (more and not waits_till) and 1 or 0, claimed, ended, lapsed, leaves and 1 or 0, halt.version,
    (due and not more) and 1 or 0, width and 1 or 0, is_paced and 1 or 0, paced_ms}
