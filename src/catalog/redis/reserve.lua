local subject, id, deadline, floor_of_the_lost = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
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
  -- Whoever opened the catalog left a floor: without it everything here was lost.
  redis.call('SET', FLOOR, floor_of_the_lost, 'NX')
  entry.last = floor()
end
entry.last = entry.last + 1
save(subject, entry)
redis.call('ZADD', PENDING, deadline, name)
redis.call('HSET', RESERVED, name, entry.last)
return entry.last
