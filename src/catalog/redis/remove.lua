-- Answers the record that was current, and every id of the subject that has objects, its id first.
-- Nothing where an upload was reserved since the caller looked: this command may come out of a
-- network that held it up, long after its caller was told that it failed.
local subject, now, lease, seen = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local REMOVAL = KEYS[9]
-- For longer than a caller repeats a step.
local REPEATED_MS = 60000
local entry = load(subject)
if entry.last ~= seen then
  return false
end
local record = entry.record
local current = head(record)
local answer = { record }
local sums = {}
add_up(sums, record, -1)
local retired = redis.call('ZRANGEBYLEX', RETIRED_OF, '[' .. subject .. '\0', '(' .. subject .. '\1')
if current ~= '' then
  entry.deleted = entry.last
  entry.record = ''
  save(subject, entry)
  retire(upload(subject, current), lease)
  tell(subject, now, deleted(record))
  answer[2] = current
  redis.call('SET', REMOVAL, record, 'PX', REPEATED_MS)
else
  -- No upload reserved so far becomes the record after this.
  if entry.last > entry.deleted then
    entry.deleted = entry.last
    save(subject, entry)
  end
  -- A repetition, because the first answer was lost; or there was nothing.
  answer[1] = redis.call('GET', REMOVAL) or ''
end
for _, name in ipairs(retired) do
  redis.call('ZADD', RETIRED, lease, name)
  answer[#answer + 1] = name:sub(#subject + 2)
end
save_sums(sums)
return answer
