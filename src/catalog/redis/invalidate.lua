-- Makes sure that an upload never becomes current. Returns 1 if the caller must remove its objects,
-- and 0 if the upload is or was current.
local subject, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local name = upload_name(subject, id)
if head_of(load(subject).record).id == id then
  return 0
end
local found = reservation(name)
-- The upload was current, so the sweep removes its objects when they are due. Version 0.1.0 keeps no
-- reservation of such an upload.
if redis.call('ZSCORE', RETIRED, name) and (not found or found.was_current) then
  return 0
end
-- The first reason stays, because a repeated commit is answered by it.
if found and found.is_invalid then
  retire(name, now() + lease)
else
  retire_invalid(name, now() + lease)
end
return 1
