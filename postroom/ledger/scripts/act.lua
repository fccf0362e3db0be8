-- One slice of an operator's act over an agent's waiting mail, by filter. Short, so that nobody waits for it.
-- ARGV: 5 verb (pause, release, cancel, expire), 6 only count, 7 template or '', 8 caller or '', 9 accepted before
--       ms or 0, 10 priority and 11 rank to go on from, 12 most messages to look at, 13 most to change, 14 the
--       act's id, 15 who, 16 why, 17 ms since the epoch when what is held goes on by itself, or 0, 18 leave out what is
--       scheduled.
-- Returns {priority to go on with or '', rank, changed here, too late here, changed in the whole act, too late in
-- the whole act, 1 where a round should be rung for, what is told of those that ended (`end_untried`) …}.
-- The sums of the whole act lie beside the queues and are written with them: a caller that lost an answer goes on
-- from where it was and is told everything that was done.
local verb, counts_only = ARGV[5], ARGV[6] == '1'
local template, caller, before, skips_scheduled = ARGV[7], ARGV[8], tonumber(ARGV[9]), ARGV[18] == '1'
local look, change = tonumber(ARGV[12]), tonumber(ARGV[13])
local SUM, LATE = PREFIX .. 'act:' .. AGENT .. ':' .. ARGV[14], PREFIX .. 'late:' .. AGENT .. ':' .. ARGV[14]
local SUM_MS, MOST_BYTES = 86400000, 262144
local NEXT = {h = 'n', n = 'b', b = ''}
if not counts_only then write_although_full() end
local now = math.floor(clock() / 1000)
local halt = read_halt()
local done, late, freed, ended, bytes = 0, 0, false, {}, 0
local some_were_late = not counts_only and redis.call('EXISTS', LATE) == 1

local matches_all = template == '' and caller == '' and before == 0 and not skips_scheduled
local function matches(id)
    if matches_all then return true end
    local v = redis.call('HMGET', record_key(id), 't', 'd', 'a', 'na', 'rs')
    if not v[3] then return false end
    if template ~= '' and string.sub(v[1] or '', 1, #template + 1) ~= template .. '@' then return false end
    if caller ~= '' and v[2] ~= caller then return false end
    if before ~= 0 and tonumber(v[3]) >= before then return false end
    return not (skips_scheduled and not v[5] and tonumber(v[4] or now) > now)  -- a reason: it waits for another attempt
end

-- Held mail is scored by the end of its hold, or of its time, so that it is in nobody's way until then.
local function hold(m)
    local ends, till = time_ends(m, halt, now), tonumber(ARGV[17])
    if till > 0 then
        redis.call('HSET', record_key(m.id), 'hu', till)
        ends = math.min(ends, till)
    end
    redis.call('HSET', record_key(m.id), 's', 'queued', 'f', m.fence + 1, 'ph', 'released',
        'hd', string.format('paused|%.0f|', now) .. ARGV[15], 'hw', ARGV[16])
    redis.call('HDEL', record_key(m.id), 'pd', 'ss')
    redis.call('ZADD', QUEUES[m.priority], ends, m.id)
end

local function let_go(m)
    local due = end_hold(m.id, now)
    redis.call('ZADD', QUEUES[m.priority], due, m.id)
    put_on_agenda(due)
    freed = freed or due <= now
end

local function finish_here(m)
    local row = (verb == 'cancel' and call_back or expire)(m, now, 'operator')
    ended[#ended + 1], bytes = row, bytes + #row[9]
end

-- Does the verb to a message. Returns 'done', 'late', or nil where there is nothing to do.
local function act_on(m)
    if not waits(m) then return nil end
    if verb == 'release' then
        if not m.hold then return nil end
    elseif m.state == 'sending' and m.phase == 'committing' then
        return 'late'
    elseif verb == 'pause' and m.hold then
        return nil
    end
    if counts_only then return 'done' end
    if verb == 'release' then let_go(m)
    elseif verb == 'pause' then hold(m)
    else finish_here(m) end
    return 'done'
end

-- Looks at one message. Returns true where it keeps its rank, or another one has taken it that was seen already.
local function look_at(id)
    if not matches(id) then return true end
    local m = load(id)
    local what = m and act_on(m)
    if what == 'late' then
        late = late + 1
        if not counts_only then redis.call('SADD', LATE, id) end
    elseif what == 'done' then
        done = done + 1
        if some_were_late then redis.call('SREM', LATE, id) end
        return counts_only or verb == 'release'
    end
    return true
end

local priority, rank = ARGV[10], tonumber(ARGV[11])
while priority ~= '' and look > 0 and done < change and bytes < MOST_BYTES do
    local room = math.min(look, 50, change - done)
    local ids = redis.call('ZRANGE', QUEUES[priority], rank, rank + room - 1)
    look = look - math.max(#ids, 1)
    for _, id in ipairs(ids) do
        if bytes >= MOST_BYTES then break end
        if look_at(id) then rank = rank + 1 end
    end
    if #ids < room and bytes < MOST_BYTES then priority, rank = NEXT[priority], 0 end
end

local sum, sum_late = done, late
if not counts_only then
    sum, sum_late = redis.call('INCRBY', SUM, done), redis.call('SCARD', LATE)
    redis.call('PEXPIRE', SUM, SUM_MS)
    redis.call('PEXPIRE', LATE, SUM_MS)
end
return {priority, rank, done, late, sum, sum_late, freed and wake(now, 'n') or 0, ended}
