-- Answers how it ended.
local subject, record, retire_after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local head = head_of(record)
local name = upload(subject, head.id)
local entry = load(subject)
local current = head_of(entry.record)
-- A repetition, because the first answer was lost.
if current.id == head.id then
  return 'committed'
end
if not redis.call('ZSCORE', PENDING, name) then
  if redis.call('ZSCORE', RETIRED, name) then
    local found = reservation(name)
    -- Only a commit drops the reservation: this upload was current, and another one replaced it
    -- or a delete took it away.
    if not found then
      return 'committed'
    end
    if found.superseded then
      return 'superseded'
    end
  end
  return 'not pending'
end
if head.version < current.version or head.version <= entry.deleted then
  return 'superseded'
end
if not holds(current.id, 4) then
  return 'precondition failed'
end
local time = now()
local sums = {}
local previous = add_up(sums, entry.record, current, -1)
add_up(sums, record, head, 1)
entry.record = record
save(subject, entry)
redis.call('ZREM', PENDING, name)
redis.call('ZREM', RETIRED_OF, name)
redis.call('HDEL', RESERVED, name)
if current.id ~= '' then
  retire(upload(subject, current.id), time + retire_after)
end
tell(subject, time, record, previous, time + retire_after)
save_sums(sums)
return 'committed'
