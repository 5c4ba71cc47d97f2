-- Deletes an upload from pending and retired, and its reservation.
local name = upload_name(ARGV[1], ARGV[2])
redis.call('ZREM', PENDING, name)
redis.call('HDEL', RESERVED, name)
redis.call('ZREM', RETIRED, name)
redis.call('ZREM', RETIRED_OF, name)
