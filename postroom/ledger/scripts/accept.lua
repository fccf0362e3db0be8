-- Records a request, or finds what is recorded under its ref. The one place where a message begins.
-- ARGV: 5 ref, 6 id, 7 digests, 8 payload, 9 send_at ms or 0, 10 lifetime ms or 0, 11 deliver_before ms or 0,
--       12 recipients, 13 furthest send_at ms ahead, 14 tolerated past ms, 15 number of record fields,
--       16.. field, value …, then the blobs.
-- Returns {'exists', stored ref, record}, {'invalid', code}, or {'created', accepted, due, deadline, ring}.
local ref, id = ARGV[5], ARGV[6]
local ref_key = PREFIX .. 'r:' .. ref

local stored = redis.call('GET', ref_key)
local known = stored and string.match(stored, '^([^|]+)|')
-- An accept that was sent twice because its first reply got lost offers the same id again: still "created".
if known and known ~= id then
    local record = redis.call('HGETALL', record_key(known))
    if #record > 0 then return {'exists', stored, record} end
    stored = nil
end

local now = math.floor(clock() / 1000)
local send_at = tonumber(ARGV[9])
if send_at ~= 0 and send_at < now - tonumber(ARGV[14]) then return {'invalid', 'send_at_past'} end
if send_at > now + tonumber(ARGV[13]) then return {'invalid', 'send_at_far'} end
local due = math.max(now, send_at)
local deadline = tonumber(ARGV[11])
if deadline ~= 0 and deadline <= due then return {'invalid', 'deliver_before_past'} end
if deadline > now + 2 * tonumber(ARGV[13]) then return {'invalid', 'deliver_before_far'} end
if deadline == 0 then deadline = due + tonumber(ARGV[10]) end

if not stored then
    local fields = {'s', 'queued', 'f', 0, 'n', 0, 'rr', ARGV[12], 'a', now, 'na', due, 'dl', deadline, 'rk', ref}
    local count = tonumber(ARGV[15])
    for i = 16, 15 + count do fields[#fields + 1] = ARGV[i] end
    redis.call('SET', ref_key, id .. '|' .. ARGV[7])
    redis.call('HSET', record_key(id), unpack(fields))
    redis.call('SET', payload_key(id), ARGV[8])
    for i = 16 + count, #ARGV do
        redis.call('SET', PREFIX .. 'b:' .. id .. ':' .. (i - 16 - count), ARGV[i])
    end
    redis.call('ZADD', QUEUES[redis.call('HGET', record_key(id), 'p')], due, id)
    put_on_agenda(due)
end
local ring = 0
if due <= now then ring = wake(now) end
return {'created', now, due, deadline, ring}
