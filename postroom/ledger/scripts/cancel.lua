-- Ends a message before its commit mark. Raising the fence stops the worker that may hold it.
-- ARGV: 5 id. Returns {'cancelled' or what else it became, 1 where this call did it}, or {'unknown'}.
write_although_full()
local m = load(ARGV[5])
if not m then return {'unknown'} end
local waits = m.state == 'queued' or (m.state == 'sending' and m.phase ~= 'committing')
if not waits then return {m.state, 0} end
local now = math.floor(clock() / 1000)
redis.call('HSET', record_key(m.id), 'f', m.fence + 1)
m.recipients = end_waiting(m.recipients, 'c')
local state = aggregate(m.recipients)
retire(m, state, now)
return {state, 1}
