local subject, id = ARGV[1], ARGV[2]
local name = upload(subject, id)
local known = head(load(subject).record) == id
  or redis.call('ZSCORE', PENDING, name)
  or redis.call('ZSCORE', RETIRED, name)
return known and 1 or 0
