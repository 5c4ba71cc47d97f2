-- Makes a complete upload from the store current again. Returns 'current', 'retired' or 'known', and
-- the id that was current before.
local subject, record, retire_after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local head = head_of(record)
local name = upload_name(subject, head.id)
local entry = load(subject)
local current = head_of(entry.record)
local time = now()
if current.id == head.id then
  return { 'known', '' }
end
local deadline = redis.call('ZSCORE', PENDING, name)
local found = reservation(name)
local is_retired = redis.call('ZSCORE', RETIRED, name)
-- Only an upload that was not committed in time, or that the catalog does not know, is restored.
if
  deadline and tonumber(deadline) > time
  or is_retired and not (found and found.version)
then
  return { 'known', '' }
end
entry.last = math.max(entry.last, head.version)
entry.reserved_at = math.max(entry.reserved_at, head.reserved_at)
local due = time + retire_after
if head.version <= entry.deleted or current.id ~= '' and not is_later(head, current) then
  save(subject, entry)
  if deadline or is_retired then
    retire_superseded(name, due)
  else
    retire(name, due)
  end
  return { 'retired', '' }
end
make_current(subject, entry, current, record, head, time, due)
redis.call('ZREM', RETIRED, name)
return { 'current', current.id }
