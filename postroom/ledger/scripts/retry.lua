-- Tries a message again now, because a person says so.
-- ARGV: 5 id, 6 lifetime of interactive and 7 of standard mail in ms, 8 recipients whose fate is unknown as well.
-- Returns {'due' (waited for another attempt), 'released' (was held), 'again' (had ended), or what it is where
-- nothing was done: 'unknown', 'gone' (its content is dropped), 'scheduled', or its state; 1 where a round should
-- be rung for}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown', 0} end
local now = math.floor(clock() / 1000)
local key = record_key(m.id)

local letters = ARGV[8] == '1' and 'u' or 'fx'
local recipients, again = string.gsub(m.recipients, '[' .. letters .. ']', 'q')

-- What is due already keeps its place.
local function make_due()
    local due = math.min(now, tonumber(redis.call('HGET', key, 'na') or now))
    redis.call('HSET', key, 'na', due)
    redis.call('ZADD', QUEUES[m.priority], due, m.id)
    put_on_agenda(due)
    add_event(m, now, 'X|retried')
    return wake(now, m.priority)
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

if m.state == 'queued' and ARGV[8] ~= '1' then
    local v = redis.call('HMGET', key, 'na', 'rs')
    if not m.hold and not v[2] and tonumber(v[1] or now) > now then return {'scheduled', 0} end
    redis.call('HDEL', key, 'rs', 'hd', 'hw')
    return {m.hold and 'released' or 'due', make_due()}
end
if m.state == 'sending' or again == 0 then return {m.state, 0} end
if m.state == 'queued' then
    -- Others of its recipients wait anyway, so only those in doubt join them.
    open_recipients()
    return {'due', make_due()}
end

local kept = {payload_key(m.id), PREFIX .. 'r:' .. m.ref}
for n = 0, m.blobs - 1 do kept[#kept + 1] = PREFIX .. 'b:' .. m.id .. ':' .. n end
if redis.call('EXISTS', unpack(kept)) < #kept then return {'gone', 0} end
redis.call('PERSIST', key)
for _, name in ipairs(kept) do redis.call('PERSIST', name) end

open_recipients()
local standing = redis.call('HGET', key, 'pf') ~= 'i'
redis.call('HSET', key, 's', 'queued', 'f', m.fence + 1, 'ph', 'released',
    'dl', now + tonumber(standing and ARGV[7] or ARGV[6]))
redis.call('HDEL', key, 'fa', 'w')
if standing then redis.call('HSET', key, 'ck', string.format('%.0f', stood_still(read_halt(), now))) end
count(m, m.state, -1)
local files = 0
while redis.call('HEXISTS', key, 'fi' .. files) == 1 do files = files + 1 end
if m.held_files == 0 then hold_files(m.id, files) end
return {'again', make_due()}
