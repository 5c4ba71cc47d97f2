-- Deletes the record of an avatar, if it is still current. Returns 1 if it was, else 0.
local subject, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local entry = load(subject)
local current = head_of(entry.record)
if current.id ~= id then
  return 0
end
local time = now()
local sums = {}
local previous = add_up(sums, entry.record, current, -1)
-- Uploads under way can still become current.
entry.deleted = math.max(entry.deleted, current.version)
entry.record = ''
save(subject, entry)
retire_former(upload_name(subject, id), time + lease)
append_event(subject, time, '', previous, time)
save_sums(sums)
return 1
