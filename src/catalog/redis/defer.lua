-- Makes a claimed upload due again after a duration.
local name, by = upload_name(ARGV[1], ARGV[2]), tonumber(ARGV[3])
redis.call('ZADD', RETIRED, 'XX', text(now() + by), name)
