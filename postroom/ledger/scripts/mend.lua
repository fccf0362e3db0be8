-- Forgets a channel's fault: a connection was made. ARGV: 5 channel. Returns 1 where there was one.
write_although_full()
redis.call('DEL', STOP)
return redis.call('HDEL', FAULTS, ARGV[5])
