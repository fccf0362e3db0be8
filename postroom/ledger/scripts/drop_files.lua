-- Drops files whose time is up and that no message needs. ARGV: 5 ms until those that are needed are looked at again,
-- 6.. id, 1 where it is needed … Returns how many were dropped.
-- An accept that found a file since keeps it (`touch_file`), so what was asked about it before cannot be out of date.
write_although_full()
local now, dropped = math.floor(clock() / 1000), 0
for i = 6, #ARGV, 2 do
    local look_at = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or 0)
    if look_at <= now then
        if ARGV[i + 1] == '1' then redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ARGV[i])
        else
            redis.call('DEL', PREFIX .. 'f:' .. ARGV[i])
            redis.call('ZREM', KEYS[1], ARGV[i])
            dropped = dropped + 1
        end
    end
end
return dropped
