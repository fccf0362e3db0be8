-- Ends waiting mail whose time is up and that nobody claims, because its agent stands still or has a long backlog.
-- Looks at a part of one partition at a time. ARGV: 5 agent to go on with or '', 6 priority, 7 rank,
-- 8 most messages to look at. Returns {agent, priority, rank to go on with, what is told of its end (`end_untried`) …}.
write_although_full()
local now = math.floor(clock() / 1000)
local left, ended, bytes, MOST_BYTES = tonumber(ARGV[8]), {}, 0, 262144
local agents = redis.call('ZRANGE', AGENDA, 0, -1)
table.sort(agents)

-- Looks at the due mail of a queue from a rank on. Returns the rank to go on with, or nil where it is through.
local function walk(queue, halt, rank)
    while left > 0 do
        local ids = redis.call('ZRANGEBYSCORE', queue, 0, now, 'LIMIT', rank, math.min(left, 100))
        for _, id in ipairs(ids) do
            left = left - 1
            local m = load(id)
            if m and m.state == 'queued' and time_is_up(m, halt, now) then
                local row = expire(m, now)
                ended[#ended + 1], bytes = row, bytes + #row[9]
                if bytes >= MOST_BYTES then left = 0 return rank end
            else
                rank = rank + 1
            end
        end
        if #ids == 0 then return nil end
    end
    return rank
end

local resume = ARGV[6]
for _, agent in ipairs(agents) do
    if agent >= ARGV[5] then
        turn_to(agent)
        if agent ~= ARGV[5] then resume = '' end
        local halt = read_halt()
        for _, priority in ipairs({'h', 'n', 'b'}) do
            if resume == '' or resume == priority then
                local rank = walk(queue_key(priority), halt, resume == '' and 0 or tonumber(ARGV[7]))
                resume = ''
                if rank then return {agent, priority, rank, ended} end
            end
        end
    end
end
return {'', '', 0, ended}
