-- Returns the state of an upload.
local subject, id = ARGV[1], ARGV[2]
local name = upload_name(subject, id)
if head_of(load(subject).record).id == id then
  return 'current'
end
local deadline = redis.call('ZSCORE', PENDING, name)
if deadline then
  return tonumber(deadline) > now() and 'pending' or 'expired'
end
if not redis.call('ZSCORE', RETIRED, name) then
  return 'unknown'
end
local found = reservation(name)
return found and found.version and 'expired' or 'retired'
