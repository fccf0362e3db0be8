-- Counts the waiting mail of one partition's agents. ARGV: none of its own.
-- Returns {agent, priority, waiting, due, ms the oldest due one has waited} …
local now = math.floor(clock() / 1000)
local rows = {}
for _, agent in ipairs(redis.call('ZRANGE', AGENDA, 0, -1)) do
    for priority, name in pairs({h = 'high', n = 'normal', b = 'bulk'}) do
        local queue = PREFIX .. 'q:' .. agent .. ':' .. priority
        local waiting = redis.call('ZCARD', queue)
        if waiting > 0 then
            local oldest = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
            local due = redis.call('ZCOUNT', queue, '-inf', now)
            rows[#rows + 1] = {agent, name, waiting, due, math.max(0, now - tonumber(oldest[2]))}
        end
    end
end
return rows
