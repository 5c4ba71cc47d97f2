local name = upload(ARGV[1], ARGV[2])
leave_pending(name)
redis.call('ZREM', RETIRED, name)
redis.call('ZREM', RETIRED_OF, name)
