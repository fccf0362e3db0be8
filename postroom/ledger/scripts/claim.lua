-- Takes up to N due messages in a lane's name, raises each one's fence and returns them with their payloads.
-- ARGV: 5 lane, 6 lease ms, 7 most messages, 8 most bytes, 9 connections, 10 order of priorities ('hnb'),
--       11 leave when nothing is due, 12 microseconds per message or 0, 13 burst, 14 ambiguous retries allowed,
--       15 somebody listens for the bell.
-- Returns {'full'}, or {'ok', ms until the next is due or -1, more is due now, claimed, ended, lapsed, left}.
-- claimed: {id, fence, attempts, accepted, recipients, record fields, payload}; ended: {id, state}.
local lane, lease = ARGV[5], tonumber(ARGV[6])
local most, most_bytes, connections = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local interval, burst = tonumber(ARGV[12]), tonumber(ARGV[13])
local micros = clock()
local now = math.floor(micros / 1000)
write_although_full()

-- `connections` holds over all workers: a lane is admitted while fewer live, and a live one beyond a lowered
-- limit is told to close.
redis.call('ZREMRANGEBYSCORE', LANES, '-inf', now)
local rank = redis.call('ZSCORE', LANES, lane)
local live = redis.call('ZCARD', LANES)
if (not rank and live >= connections) or (rank and live > connections) then
    redis.call('ZREM', LANES, lane)
    return {'full'}
end
redis.call('ZADD', LANES, lane_till(now, lease), lane)

-- GCRA with Redis's clock. The theoretical arrival time is clamped, since clocks jump at a failover.
local arrival, pace_wait = micros, nil
if interval > 0 then
    local stored = tonumber(redis.call('GET', BUCKET) or 0)
    local furthest = micros + burst * interval
    arrival = math.min(math.max(stored, micros), furthest)
    if stored > furthest then keep_bucket(arrival, micros) end
    local allowed = math.floor((micros + burst * interval - arrival) / interval + 1e-6)
    most = math.min(most, allowed, math.max(1, math.floor(50000 / interval)))
    if allowed < 1 then pace_wait = math.ceil((arrival + interval - burst * interval - micros) / 1000) end
end

local ended, lapsed, claimed, bytes = {}, {}, {}, 0

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

local function finish_here(m, state)
    retire(m, state, now)
    ended[#ended + 1] = {m.id, state, m.priority, now - m.accepted}
end

local function take(m, queue)
    local payload = redis.call('GET', payload_key(m.id))
    if not payload then
        m.recipients = end_waiting(m.recipients, 'f')
        add_event(m, now, 'X|payload_missing')
        return finish_here(m, aggregate(m.recipients))
    end
    m.fence = m.fence + 1
    redis.call('HSET', record_key(m.id), 's', 'sending', 'f', m.fence, 'ph', 'claimed')
    redis.call('HDEL', record_key(m.id), 'ss', 'pd', 'rs')
    redis.call('ZADD', queue, now + lease, m.id)
    bytes = bytes + #payload
    claimed[#claimed + 1] = {m.id, m.fence, m.attempts, m.accepted, m.recipients,
        redis.call('HMGET', record_key(m.id), 'c', 'c2', 'd', 'p', 'pf', 't', 'bl'), payload}
end

local function look_at(id, queue)
    local m = load(id)
    if not m then redis.call('ZREM', queue, id) return end
    if m.state == 'sending' and m.phase == 'committing' then
        -- Decided at second sight: the owner may only be late, and a late "sent" is worth waiting for.
        if not m.seen then
            redis.call('HSET', record_key(id), 'ss', 1)
            redis.call('ZADD', queue, now + math.floor(lease * 0.6), id)
            return
        end
        settle_lapsed(m)
        local state = aggregate(m.recipients)
        if state ~= 'queued' then return finish_here(m, state) end
    elseif m.state == 'sending' then
        lapsed[#lapsed + 1] = {id, m.phase, m.channel}
    end
    if m.deadline > 0 and now >= m.deadline then
        m.recipients = end_waiting(m.recipients, 'x')
        return finish_here(m, aggregate(m.recipients))
    end
    take(m, queue)
end

for priority in string.gmatch(ARGV[10], '.') do
    local queue = QUEUES[priority]
    -- What is decided without being claimed (expired, second sight) leaves room, so look again, a few times.
    for _ = 1, 4 do
        local room = most - #claimed
        if room <= 0 or bytes >= most_bytes then break end
        local ids = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, room)
        for _, id in ipairs(ids) do
            if bytes < most_bytes then look_at(id, queue) end
        end
        if #ids < room then break end
    end
end

if interval > 0 and #claimed > 0 then
    keep_bucket(arrival + #claimed * interval, micros)
end

local first = head()
renew_agenda(first)
local more = first and first <= now
local leaves = ARGV[11] == '1' and #claimed == 0 and not more
if leaves then
    -- The only way out of an awake agent: nothing is due at this very moment, so nobody's mail waits.
    redis.call('ZREM', LANES, lane)
    if redis.call('ZCARD', LANES) == 0 then redis.call('DEL', RUNG, IDLE) end
elseif ARGV[15] == '1' or #claimed == 0 then
    -- This lane goes idle, or the round has another idle one or room for one: the next accept rings its bell.
    redis.call('SET', IDLE, '1', 'PX', 60000)
end
local next_in = -1
if first then next_in = math.max(0, first - now) end
if pace_wait and more then next_in = pace_wait end
return {'ok', next_in, (more and not pace_wait) and 1 or 0, claimed, ended, lapsed, leaves and 1 or 0}
