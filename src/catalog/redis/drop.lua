-- Answers 1 if the record was dropped.
local subject, id, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local entry = load(subject)
local current = head_of(entry.record)
if current.id ~= id then
  return 0
end
local time = now()
local sums = {}
local previous = add_up(sums, entry.record, current, -1)
-- Uploads that are under way may still become current.
entry.deleted = math.max(entry.deleted, current.version)
entry.record = ''
save(subject, entry)
retire_former(upload(subject, id), time + lease)
tell(subject, time, '', previous, time)
save_sums(sums)
return 1
