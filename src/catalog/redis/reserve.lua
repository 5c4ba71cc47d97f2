-- Gives an upload its version and makes it pending. Returns the version and the reservation time, or
-- false if a lock stops the upload.
local subject, id = ARGV[1], ARGV[2]
local within, seen = tonumber(ARGV[3]), tonumber(ARGV[4])
local uploader = ARGV[5]
local name = upload_name(subject, id)
local entry = load(subject)
local found = reservation(name)
-- This repeats a step whose answer was lost.
if found and found.version then
  return { found.version, found.reserved_at }
end
-- A late repetition must not make an upload pending again: the sweep would then remove it.
local head = head_of(entry.record)
if head.id == id then
  return { head.version, head.reserved_at }
end
if redis.call('ZSCORE', RETIRED, name) then
  return { entry.last, entry.reserved_at }
end
local time = now()
if uploader ~= 'admin' and is_locked(subject, time) then
  return false
end
local floor, store_floor = version_floor(seen)
entry.last = math.max(entry.last, floor) + 1
-- A later reservation of a subject has a later time, even if the clock is set back.
entry.reserved_at = math.max(entry.reserved_at + 1, time)
local made = { version = entry.last, reserved_at = entry.reserved_at, deadline = time + within }
store_floor()
save(subject, entry)
redis.call('ZADD', PENDING, text(made.deadline), name)
redis.call('ZADD', RETIRED_OF, 0, name)
save_reservation(name, made)
return { made.version, made.reserved_at }
