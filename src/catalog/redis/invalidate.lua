-- Answers 1 if the objects are the caller's to remove.
local subject, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local name = upload(subject, id)
if head_of(load(subject).record).id == id then
  return 0
end
local found = reservation(name)
-- It was current: the sweep removes it at its time. Version 0.1.0 keeps no reservation of such an
-- upload.
if redis.call('ZSCORE', RETIRED, name) and (not found or found.was_current) then
  return 0
end
-- A repeated commit is answered by why the upload became invalid first.
if found and found.is_invalid then
  retire(name, now() + lease)
else
  retire_invalid(name, now() + lease)
end
return 1
