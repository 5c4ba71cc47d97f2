-- Answers what became of it, and the id that was current before.
local subject, record, retire_at = ARGV[1], ARGV[2], ARGV[3]
local id, version = head(record)
local name = upload(subject, id)
local entry = load(subject)
local current, newest = head(entry.record)
if
  current == id
  or redis.call('ZSCORE', PENDING, name)
  or redis.call('ZSCORE', RETIRED, name)
then
  return { 'known', '' }
end
entry.last = math.max(entry.last, version)
if version <= math.max(newest, entry.deleted) then
  save(subject, entry)
  retire(name, retire_at)
  return { 'retired', '' }
end
local sums = {}
add_up(sums, entry.record, -1)
add_up(sums, record, 1)
entry.record = record
save(subject, entry)
if current ~= '' then
  retire(upload(subject, current), retire_at)
end
save_sums(sums)
return { 'current', current }
