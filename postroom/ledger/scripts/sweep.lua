-- Finds the agents of one partition that have mail due and nobody awake, whatever was lost on the way.
-- ARGV: 5 most agents. Returns the agents to ring for.
local now = math.floor(clock() / 1000)
write_although_full()
local rings = {}
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', AGENDA, '-inf', now, 'LIMIT', 0, tonumber(ARGV[5]))) do
    AGENT = agent
    QUEUES = {h = PREFIX .. 'q:' .. agent .. ':h', n = PREFIX .. 'q:' .. agent .. ':n', b = PREFIX .. 'q:' .. agent .. ':b'}
    LANES, RUNG = PREFIX .. 'lanes:' .. agent, PREFIX .. 'rung:' .. agent
    IDLE, STOP = PREFIX .. 'idle:' .. agent, PREFIX .. 'stop:' .. agent
    if redis.call('ZCOUNT', LANES, now, '+inf') == 0 then
        local first = head()
        if not first or first > now then renew_agenda(first)
        elseif wake(now) == 1 then rings[#rings + 1] = agent end
    end
end
return rings
