-- The commit mark: written after the body and before the dot (or before the HTTP request), by the owner only.
-- ARGV: 5 in msgpack: id, fence, what is known per recipient (a: taken, f: refused, d: deferred, -: not in it), channel,
--       recipients a day or 0, midnights in ms.
-- Returns 1, 0 where the fence is not current, -1 past the deadline, or -2 where the day is used up.
write_although_full()
local id, fence, known, channel, per_day, midnights = unpack(cmsgpack.unpack(ARGV[5]))
local v = redis.call('HMGET', record_key(id), 's', 'f', 'dl', 'ck', 'ss')
if v[1] ~= 'sending' or tonumber(v[2]) ~= fence then return 0 end
local now = math.floor(clock() / 1000)
local deadline = tonumber(v[3] or 0)
if deadline > 0 and now >= deadline
    and time_is_up({deadline = deadline, halted = tonumber(v[4] or -1)}, read_halt(), now) then return -1 end
if per_day > 0 then
    -- Charged here and nowhere else: what is marked may have been sent, and a provider bills that.
    local day = read_day(midnights, now)
    local _, charge = string.gsub(known, 'a', '')
    if day.used + charge > per_day then return -2 end
    redis.call('SET', own_key('day'), string.format('%.0f|%d', day.start, day.used + charge), 'PX', 2 * 86400000)
    redis.call('HSET', record_key(id), 'dc', string.format('%.0f|%d', day.start, charge))
end
-- The lease is not touched: its renewals look after a message in whatever phase it is.
redis.call('HSET', record_key(id), 'ph', 'committing', 'pd', known, 'ch', channel)
if v[5] then redis.call('HDEL', record_key(id), 'ss') end
return 1
