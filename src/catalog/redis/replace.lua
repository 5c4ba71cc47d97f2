-- Answers how it ended.
local subject, record, now, retire_at, precondition = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local id, version = head(record)
local name = upload(subject, id)
local entry = load(subject)
local current, newest = head(entry.record)
-- A repetition, because the first answer was lost.
if current == id then
  return 'committed'
end
if not redis.call('ZSCORE', PENDING, name) then
  return 'not pending'
end
if version < newest or version <= entry.deleted then
  return 'superseded'
end
local holds = precondition == 'anything'
  or precondition == 'absent' and current == ''
  or precondition == 'present' and current ~= ''
for number = 6, #ARGV do
  holds = holds or ARGV[number] == current
end
if not holds then
  return 'precondition failed'
end
local sums = {}
add_up(sums, entry.record, -1)
add_up(sums, record, 1)
entry.record = record
save(subject, entry)
if current ~= '' then
  retire(upload(subject, current), retire_at)
end
leave_pending(name)
tell(subject, now, record)
save_sums(sums)
return 'committed'
