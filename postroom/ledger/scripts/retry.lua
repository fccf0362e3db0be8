-- Tries a message again now, because a person says so.
-- ARGV: 5 id, 6 lifetime of interactive and 7 of standard mail in ms, 8 recipients whose fate is unknown as well.
-- Returns {answer, 1 where a round should be rung for, its state, its deadline in ms or 0}. The answer is 'due' (waited
-- for another attempt), 'released' (was held), 'again' (had ended), or why nothing was done: 'unknown', 'gone' (its
-- content is dropped), 'scheduled', 'superseded' (a newer one has taken its place for all that could be tried again),
-- 'too_late' (the moment its caller named is over), or its state.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown', 0, '', 0} end
local now = math.floor(clock() / 1000)
local key = record_key(m.id)
local in_doubt = ARGV[8] == '1'
local function leave(answer) return {answer, 0, m.state, 0} end

-- An attempt whose fate is unknown may have reached its recipient whatever a person believes, so that is remembered
-- (`r`): what then ends without an answer is unconfirmed again.
-- An older message never goes out after the newer one that took its place.
local again, replaced, out = 0, 0, {}
for i = 1, #m.recipients do
    local letter = string.sub(m.recipients, i, i)
    out[i] = letter
    if string.find(in_doubt and 'u' or 'fx', letter, 1, true) then
        if m.superseded and string.sub(m.superseded, i, i) == 'x' then replaced = replaced + 1
        else out[i], again = in_doubt and 'r' or 'q', again + 1 end
    end
end
local recipients = table.concat(out)
local function leave_untried() return leave(replaced > 0 and 'superseded' or m.state) end

local function put_back(due)
    redis.call('HSET', key, 'na', due)
    redis.call('ZADD', queue_key(m.priority), due, m.id)
    put_on_agenda(due)
    return due <= now and wake(now, m.priority) or 0
end

-- What is due already keeps its place.
local function make_due()
    add_event(m, now, 'X|retried')
    return put_back(math.min(now, tonumber(redis.call('HGET', key, 'na') or now)))
end

-- Recipients that are tried again have no answer yet.
local function open_recipients()
    for i = 1, #recipients do
        if string.sub(recipients, i, i) ~= string.sub(m.recipients, i, i) then
            redis.call('HDEL', key, 'x' .. (i - 1))
        end
    end
    redis.call('HSET', key, 'rr', recipients)
end

if m.state == 'sending' then return leave('sending') end
if m.state == 'queued' then
    if in_doubt and not string.find(recipients, 'r', 1, true) then return leave_untried() end
    if time_is_up(m, read_halt(), now) then return leave('too_late') end
    local v = redis.call('HMGET', key, 'na', 'rs')
    local scheduled = not v[2] and tonumber(v[1] or now) > now
    if scheduled and not m.hold then return leave('scheduled') end
    end_hold(m.id, now)
    if scheduled then return {'released', put_back(tonumber(v[1])), 'queued', 0} end
    redis.call('HDEL', key, 'rs')
    -- Others of its recipients may wait anyway: those in doubt join them.
    if in_doubt then open_recipients() end
    return {m.hold and 'released' or 'due', make_due(), 'queued', 0}
end
if again == 0 then return leave_untried() end

-- What its caller named holds for every try: a moment as it is, a lifetime from now on, and no sooner than `send_at`.
local v = redis.call('HMGET', key, 'pf', 'lm', 'sa')
local named, ms = string.match(v[2] or '', '^([bw])(%d+)$')
local due = math.max(now, tonumber(v[3] or 0))
if named == 'b' and tonumber(ms) <= now then return leave('too_late') end

local kept = {payload_key(m.id), PREFIX .. 'r:' .. m.ref}
for n = 0, m.blobs - 1 do kept[#kept + 1] = PREFIX .. 'b:' .. m.id .. ':' .. n end
if redis.call('EXISTS', unpack(kept)) < #kept then return leave('gone') end
redis.call('PERSIST', key)
for _, name in ipairs(kept) do redis.call('PERSIST', name) end

open_recipients()
local standing = not named and v[1] ~= 'i'
local deadline = named == 'b' and tonumber(ms) or due + tonumber(ms or standing and ARGV[7] or ARGV[6])
redis.call('HSET', key, 's', 'queued', 'f', m.fence + 1, 'ph', 'released', 'dl', deadline)
redis.call('HDEL', key, 'fa', 'w', 'la')
if standing then redis.call('HSET', key, 'ck', string.format('%.0f', stood_still(read_halt(), now))) end
count(m, m.state, -1)
local files = 0
while redis.call('HEXISTS', key, 'fi' .. files) == 1 do files = files + 1 end
if m.held_files == 0 then hold_files(m.id, files) end
add_event(m, now, 'X|retried')
return {'again', put_back(due), 'queued', deadline}
