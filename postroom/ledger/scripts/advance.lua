-- The commit mark: written after the body and before the dot (or before the HTTP request), by the owner only.
-- ARGV: 5 id, 6 fence, 7 what is known per recipient (a: taken, f: refused, d: deferred, -: not in it),
--       8 channel, 9 recipients a day or 0, 10 midnights, in ms.
-- Returns 1, 0 where the fence is not current, -1 past the deadline, or -2 where the day is used up.
write_although_full()
local id = ARGV[5]
local v = redis.call('HMGET', record_key(id), 's', 'f', 'dl', 'ck', 'ss')
if v[1] ~= 'sending' or tonumber(v[2]) ~= tonumber(ARGV[6]) then return 0 end
local now = math.floor(clock() / 1000)
local deadline = tonumber(v[3] or 0)
if deadline > 0 and now >= deadline
    and time_is_up({deadline = deadline, halted = tonumber(v[4] or -1)}, read_halt(), now) then return -1 end
local per_day = tonumber(ARGV[9])
if per_day > 0 then
    -- Charged here and nowhere else: what is marked may have been sent, and a provider bills that.
    local day = read_day(ARGV[10], now)
    local _, charge = string.gsub(ARGV[7], 'a', '')
    if day.used + charge > per_day then return -2 end
    redis.call('SET', own_key('day'), string.format('%.0f|%d', day.start, day.used + charge), 'PX', 2 * 86400000)
    redis.call('HSET', record_key(id), 'dc', string.format('%.0f|%d', day.start, charge))
end
-- The lease is not touched: its renewals look after a message in whatever phase it is.
redis.call('HSET', record_key(id), 'ph', 'committing', 'pd', ARGV[7], 'ch', ARGV[8])
if v[5] then redis.call('HDEL', record_key(id), 'ss') end
return 1
