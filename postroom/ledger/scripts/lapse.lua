-- Ends one waiting message whose time is up, so that whoever looks at it never finds it waiting after its time.
-- ARGV: 5 id. Returns what is told of its end (`end_untried`) where this call ended it, or {}.
write_although_full()
local m = load(ARGV[5])
if not m or m.state ~= 'queued' then return {} end
local now = math.floor(clock() / 1000)
if not time_is_up(m, read_halt(), now) then return {} end
return expire(m, now)
