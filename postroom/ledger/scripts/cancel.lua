-- Ends a message before its commit mark. Raising the fence stops the worker that may hold it.
-- ARGV: 5 id, 6 who, where it is not the caller. Returns {'cancelled' or what else it became, 1 where this call
-- did it, what is told of its end (`end_untried`)}, or {'unknown'}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown'} end
if not waits(m) or (m.state == 'sending' and m.phase == 'committing') then return {m.state, 0} end
local now = math.floor(clock() / 1000)
local ended = call_back(m, now, ARGV[6])
return {ended[2], 1, ended}
