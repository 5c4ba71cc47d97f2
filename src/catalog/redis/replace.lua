-- Commits an upload. Returns 'committed', 'superseded', 'precondition failed', 'locked' or 'not
-- pending'.
local subject, record, retire_after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local uploader = ARGV[4]
local head = head_of(record)
local name = upload_name(subject, head.id)
local entry = load(subject)
local current = head_of(entry.record)
-- This repeats a step whose answer was lost.
if current.id == head.id then
  return 'committed'
end
local deadline = redis.call('ZSCORE', PENDING, name)
if not deadline then
  if redis.call('ZSCORE', RETIRED, name) then
    local found = reservation(name)
    -- The upload was committed, and then replaced or deleted. A missing reservation does not prove
    -- this: a replica of version 0.1.0 deletes the reservation of a pending upload that it claims.
    if found and found.was_current then
      return 'committed'
    end
    -- This repeats a commit that was refused.
    if found and found.why then
      return found.why
    end
  end
  return 'not pending'
end
-- A refused upload is retired in the same step, so that it is never restored, even if its caller
-- dies. Its due time stays the deadline.
local time = now()
if uploader ~= 'admin' and is_locked(subject, time) then
  retire_locked(name, tonumber(deadline))
  return 'locked'
end
if head.version < current.version or head.version <= entry.deleted then
  retire_superseded(name, tonumber(deadline))
  return 'superseded'
end
if not holds(current.id, 5) then
  retire_refused(name, tonumber(deadline))
  return 'precondition failed'
end
make_current(subject, entry, current, record, head, time, time + retire_after)
return 'committed'
