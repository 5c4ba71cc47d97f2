-- Answers 1 if the objects are the caller's to remove.
local subject, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local name = upload(subject, id)
if head_of(load(subject).record).id == id then
  return 0
end
-- Without a reservation it was current once: the sweep removes it at its time.
if redis.call('ZSCORE', RETIRED, name) and redis.call('HEXISTS', RESERVED, name) == 0 then
  return 0
end
retire_invalid(name, now() + lease)
return 1
