-- Counts the waiting mail of one partition's agents. ARGV: none of its own.
-- Returns {agent, priority, waiting, due, ms the oldest due one has waited} …
local now = math.floor(clock() / 1000)
local LOOKED_AT = 20

-- A message that was given back is queued behind the others, and is as old as it was: the record knows.
local function age_of_oldest(queue, now)
    local oldest = now
    local head = redis.call('ZRANGEBYSCORE', queue, 0, now, 'WITHSCORES', 'LIMIT', 0, LOOKED_AT)
    for i = 1, #head, 2 do
        local wanted = redis.call('HGET', record_key(head[i]), 'na')
        oldest = math.min(oldest, tonumber(head[i + 1]), tonumber(wanted or now))
    end
    return now - oldest
end

local rows = {}
for _, agent in ipairs(redis.call('ZRANGE', AGENDA, 0, -1)) do
    for priority, name in pairs({h = 'high', n = 'normal', b = 'bulk'}) do
        local queue = PREFIX .. 'q:' .. agent .. ':' .. priority
        local waiting = redis.call('ZCARD', queue)
        if waiting > 0 then
            local due = redis.call('ZCOUNT', queue, 0, now)
            rows[#rows + 1] = {agent, name, waiting, due, due > 0 and age_of_oldest(queue, now) or 0}
        end
    end
end
return rows
