-- Takes a role that nobody has, or keeps one: KEYS[1] holds who has it. ARGV: 1 who asks, 2 ms to hold it, 0 to leave.
-- Returns 1 where the asker has it now.
-- Without the prelude: it is no key of a partition.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
-- First, because a full Redis takes nothing else as a script's first write, and anything after it.
redis.call('DEL', KEYS[1])
if ARGV[2] == '0' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
