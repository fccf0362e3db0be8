-- Ends the agent's pause. ARGV: none of its own.
-- Returns {1 where a pause held until now, 1 where a round should be rung for}.
write_although_full()
local now = math.floor(clock() / 1000)
local held = is_paused(read_halt(), now)
change_halt(now, function(halt)
    halt.paused_till = nil
    redis.call('HDEL', own_key('halt'), 'pu', 'ps', 'pw', 'pr')
end)
local first, ring = head(), 0
if first and first <= now then
    put_on_agenda(now)
    ring = wake(now, 'n')
end
return {held and 1 or 0, ring}
