-- Removes the current record of a subject and invalidates its uploads. Returns the record that was
-- current, and every id of the subject that has or may have objects, the current one first; or
-- 'precondition failed' alone. Returns nothing if an upload was reserved since the caller read the
-- entry: this command may arrive late, long after its caller was answered with an error.
local subject, lease, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = tonumber(ARGV[4])
local REMOVAL = KEYS[10]
-- Longer than the time in which a caller repeats a step.
local REPEATED_MS = 60000
local entry = load(subject)
if entry.last ~= last then
  return false
end
local record = entry.record
local current = head_of(record)
if current.id ~= '' and not holds(current.id, 5) then
  return { 'precondition failed' }
end
local time = now()
local answer = { record }
local sums = {}
local previous = add_up(sums, record, current, -1)
local others = redis.call('ZRANGEBYLEX', RETIRED_OF, '[' .. subject .. '\0', '(' .. subject .. '\1')
-- A rebuild must not restore an upload that the catalog lost and that is older than this delete. The
-- floor is above the version of every such upload. This also holds if the catalog does not know the
-- subject, because it may have lost it.
local floor, store_floor = version_floor(seen)
entry.last = math.max(entry.last, floor)
local superseded = {}
for _, name in ipairs(others) do
  local value = redis.call('HGET', RESERVED, name)
  superseded[name] = value and value:byte(1) ~= 2
end
store_floor()
if current.id ~= '' then
  entry.deleted = entry.last
  entry.record = ''
  save(subject, entry)
  retire_former(upload_name(subject, current.id), time + lease)
  append_event(subject, time, '', previous, time)
  answer[2] = current.id
  redis.call('SET', REMOVAL, record, 'PX', REPEATED_MS)
else
  -- An upload that was reserved before this delete must not become current after it.
  if entry.last > entry.deleted then
    entry.deleted = entry.last
    save(subject, entry)
  end
  -- This repeats a removal whose answer was lost, or there was no record.
  answer[1] = redis.call('GET', REMOVAL) or ''
end
for _, name in ipairs(others) do
  if superseded[name] then
    retire_superseded(name, time + lease)
  else
    retire(name, time + lease)
  end
  answer[#answer + 1] = name:sub(#subject + 2)
end
save_sums(sums)
return answer
