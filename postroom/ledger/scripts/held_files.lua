-- Says which files messages of one partition still need, and forgets those that none does. ARGV: 5.. ids.
-- Returns 1 or 0 for each.
write_although_full()
local now, held = math.floor(clock() / 1000), {}
for i = 5, #ARGV do
    local count, till = string.match(redis.call('HGET', FILES, ARGV[i]) or '', '^(%d+)|(%d+)$')
    local needed = count ~= nil and (tonumber(count) > 0 or tonumber(till) > now)
    if count and not needed then redis.call('HDEL', FILES, ARGV[i]) end
    held[#held + 1] = needed and 1 or 0
end
return held
