-- One slice of an operator's act over an agent's waiting mail, by filter. Short, so that nobody waits for it.
-- ARGV: 5 verb (pause, release, cancel, expire), 6 only count, 7 template or '', 8 caller or '', 9 accepted before
--       ms or 0, 10 priority to go on with, 11 score and 12 id of the last message that was looked at there, or '',
--       13 most messages to look at, 14 most to change, 15 the act's id, 16 who, 17 why, 18 ms since the epoch when
--       what is held goes on by itself, or 0, 19 leave out what is scheduled.
-- Returns {priority to go on with or '', score, id, changed here, too late here, changed in the whole act, too late
-- in the whole act, 1 where a round should be rung for, what is told of those that ended (`end_untried`) …}.
-- The sums of the whole act lie beside the queues and are written with them: a caller that lost an answer goes on
-- from where it was and is told everything that was done.
local verb, counts_only = ARGV[5], ARGV[6] == '1'
local template, caller, before, skips_scheduled = ARGV[7], ARGV[8], tonumber(ARGV[9]), ARGV[19] == '1'
local look, change = tonumber(ARGV[13]), tonumber(ARGV[14])
local SUM, LATE = PREFIX .. 'act:' .. AGENT .. ':' .. ARGV[15], PREFIX .. 'late:' .. AGENT .. ':' .. ARGV[15]
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
    local ends, till = time_ends(m, halt, now), tonumber(ARGV[18])
    if till > 0 then
        redis.call('HSET', record_key(m.id), 'hu', till)
        ends = math.min(ends, till)
    end
    redis.call('HSET', record_key(m.id), 's', 'queued', 'f', m.fence + 1, 'ph', 'released',
        'hd', string.format('paused|%.0f|', now) .. ARGV[16], 'hw', ARGV[17])
    redis.call('HDEL', record_key(m.id), 'pd', 'ss')
    redis.call('ZADD', queue_key(m.priority), ends, m.id)
end

local function let_go(m)
    local due = end_hold(m.id, now)
    redis.call('ZADD', queue_key(m.priority), due, m.id)
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

-- Whether one id stands before another where their scores are the same. Lua's own `<` follows the server's locale.
local function precedes(one, other)
    for at = 1, math.min(#one, #other) do
        local a, b = string.byte(one, at), string.byte(other, at)
        if a ~= b then return a < b end
    end
    return #one < #other
end

-- The rank behind a message, or behind where it stood: mail that is sent meanwhile takes the others' ranks away, but
-- not their scores, so none that waits untouched is passed over.
local function rank_behind(queue, score, id)
    local low, high = 0, redis.call('ZCARD', queue)
    while low < high do
        local middle = math.floor((low + high) / 2)
        local at = redis.call('ZRANGE', queue, middle, middle, 'WITHSCORES')
        local its = tonumber(at[2])
        if its < score or (its == score and not precedes(id, at[1])) then low = middle + 1 else high = middle end
    end
    return low
end

local priority, score, last = ARGV[10], ARGV[11], ARGV[12]
local rank = last ~= '' and rank_behind(queue_key(priority), tonumber(score), last) or 0
while priority ~= '' and look > 0 and done < change and bytes < MOST_BYTES do
    local room = math.min(look, 50, change - done)
    local found = redis.call('ZRANGE', queue_key(priority), rank, rank + room - 1, 'WITHSCORES')
    look = look - math.max(#found / 2, 1)
    for at = 1, #found, 2 do
        if bytes >= MOST_BYTES then break end
        last, score = found[at], found[at + 1]
        if look_at(last) then rank = rank + 1 end
    end
    if #found < 2 * room and bytes < MOST_BYTES then priority, rank, score, last = NEXT[priority], 0, '', '' end
end

local sum, sum_late = done, late
if not counts_only then
    sum, sum_late = redis.call('INCRBY', SUM, done), redis.call('SCARD', LATE)
    redis.call('PEXPIRE', SUM, SUM_MS)
    redis.call('PEXPIRE', LATE, SUM_MS)
end
return {priority, score, last, done, late, sum, sum_late, freed and wake(now, 'n') or 0, ended}
