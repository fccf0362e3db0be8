-- Counts held mail in one queue of an agent: by a person, or by the storm brake. Mail that is due is not held, and held
-- mail is scored by the end of its time, so only what is scored in the future is looked at, and not too much of it.
-- ARGV: 5 priority's letter, 6 most messages to look at. Returns {held, 1 where there was more to look at}.
local now, most = math.floor(clock() / 1000), tonumber(ARGV[6])
local ids = redis.call('ZRANGEBYSCORE', queue_key(ARGV[5]), '(' .. now, '+inf', 'LIMIT', 0, most + 1)
local held = 0
for i = 1, math.min(#ids, most) do held = held + redis.call('HEXISTS', record_key(ids[i]), 'hd') end
return {held, #ids > most and 1 or 0}
