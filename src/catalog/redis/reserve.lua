local subject, id, deadline = ARGV[1], ARGV[2], ARGV[3]
local name = upload(subject, id)
local entry = load(subject)
-- A repetition, because the first answer was lost.
local version = redis.call('HGET', RESERVED, name)
if version then
  return tonumber(version)
end
-- One that comes late must not make pending again what the sweep would then remove.
local current, newest = head(entry.record)
if current == id then
  return newest
end
if redis.call('ZSCORE', RETIRED, name) then
  return entry.last
end
if entry.last == 0 then
  entry.last = floor()
end
entry.last = entry.last + 1
save(subject, entry)
redis.call('ZADD', PENDING, deadline, name)
redis.call('HSET', RESERVED, name, entry.last)
return entry.last
