-- Draws the balance of one partition's agents at one moment. ARGV: none of its own.
-- Returns {agent, accepted, sent, partly_sent, failed, expired, cancelled, suppressed, unconfirmed, waiting} …
local STATES = {'accepted', 'sent', 'partly_sent', 'failed', 'expired', 'cancelled', 'suppressed', 'unconfirmed'}
local agents, tally = {}, {}
local flat = redis.call('HGETALL', TALLY)
for i = 1, #flat, 2 do
    agents[string.match(flat[i], '^(.*)|')] = true
    tally[flat[i]] = tonumber(flat[i + 1])
end
for _, agent in ipairs(redis.call('ZRANGE', AGENDA, 0, -1)) do agents[agent] = true end

local rows = {}
for agent in pairs(agents) do
    turn_to(agent)
    local row = {agent}
    for _, state in ipairs(STATES) do row[#row + 1] = tally[agent .. '|' .. state] or 0 end
    row[#row + 1] = redis.call('ZCARD', queue_key('h')) + redis.call('ZCARD', queue_key('n')) + redis.call('ZCARD', queue_key('b'))
    rows[#rows + 1] = row
end
return rows
