-- Finds the agents of one partition that have mail due and nobody awake, whatever was lost on the way.
-- ARGV: 5 most agents. Returns the agents to ring for.
local now = math.floor(clock() / 1000)
write_although_full()
local OVERDUE_MS = 500 -- a round that was rung for has begun by then
local rings = {}
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', AGENDA, '-inf', now, 'LIMIT', 0, tonumber(ARGV[5]))) do
    turn_to(agent)
    if redis.call('ZCOUNT', own_key('lanes'), now, '+inf') == 0 then
        local first = head()
        local halted = redis.call('EXISTS', own_key('stop')) == 1 or is_paused(read_halt(), now)
        if not first or first > now then renew_agenda(first)
        -- Not `wake` alone: the accepts of a busy agent keep its marker alive even where their rings are lost.
        elseif not halted and (wake(now, 'n') == 1 or first <= now - OVERDUE_MS) then
            rings[#rings + 1] = agent
        end
    end
end
return rings
