-- The functions and constants that all catalog scripts share. Two lines come before it: the function
-- `now`, which returns the catalog's clock in Unix milliseconds, and the number of events to keep.
--
-- The scripts read the head of a record, which src/catalog/codec/mod.rs documents: the id, the version,
-- the reservation time and the totals. The body of a record is opaque to them.
--
-- An entry of `subjects` is: two zero bytes, the layout number (one byte), then three varints
-- (LEB128): the last version that was given out, the last version that a delete covers, the time of
-- the last reservation; then the current record, or nothing. An entry that does not begin with two
-- zero bytes is of layout 1, which src/catalog/redis/values.rs converts.
--
-- A value of `reserved` is one of:
-- - byte 1 and three varints (version, reservation time, deadline): the upload is not committed;
-- - byte 0: the upload was invalidated; it can neither be committed nor restored. A second byte 1
--   means that a later upload or a delete superseded it, a second byte 2 that the precondition of
--   its commit did not hold, a second byte 3 that a lock refused its commit;
-- - byte 2: the upload is retired, and was current before;
-- - a decimal number: a version, as layout 1 wrote it.
--
-- A field of `policies` is a subject, with the head of its policy as the value; or a subject and a
-- zero byte, with the viewers. src/catalog/codec/policy.rs documents both.
--
-- The name of an upload is its subject, a zero byte (no subject contains one) and the 16 bytes of
-- its id.

local SUBJECTS, PENDING, RESERVED = KEYS[1], KEYS[2], KEYS[3]
local RETIRED, RETIRED_OF, STATS = KEYS[4], KEYS[5], KEYS[6]
local EVENTS, FLOOR, POLICIES = KEYS[7], KEYS[8], KEYS[9]

-- 2025-01-01 in Unix milliseconds. Version floors count from this time.
local FLOOR_EPOCH_MS = 1735689600000

local function upload_name(subject, id)
  return subject .. '\0' .. id
end

-- The decimal text of a number. Lua itself would write a large number with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local function varint(bytes, at)
  local value, scale = 0, 1
  while true do
    local byte = bytes:byte(at)
    at = at + 1
    if byte < 128 then
      return value + byte * scale, at
    end
    value = value + (byte - 128) * scale
    scale = scale * 128
  end
end

local function to_varint(value)
  local bytes = ''
  while value >= 128 do
    bytes = bytes .. string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  return bytes .. string.char(value)
end

-- The stored version floor, nil if there is none; the run id of the server that stored it; and the
-- run id of this server, '' if the server denies INFO to this user.
local function floor_state()
  local stored, writer = (redis.call('GET', FLOOR) or ''):match('^(%d+) ?(%x*)$')
  local info = redis.pcall('INFO', 'server')
  local server = type(info) == 'string' and info:match('run_id:(%x+)') or ''
  return tonumber(stored), writer, server
end

local function time_floor()
  return now() - FLOOR_EPOCH_MS
end

local function save_floor(floor, server)
  redis.call('SET', FLOOR, text(floor) .. ' ' .. server)
end

-- Returns the version floor, and a function that stores it if it has risen. The catalog may have lost
-- data if the floor is missing, or if another server process stored it: Redis was restarted, or
-- another master answers. Then the floor rises above every version that may have been given out.
-- `seen` is the highest version that the caller knows.
local function version_floor(seen)
  local floor, writer, server = floor_state()
  if floor and (writer == server or server == '') then
    return floor, function() end
  end
  floor = math.max(floor or 0, time_floor(), seen)
  return floor, function()
    save_floor(floor, server)
  end
end

local function load(subject)
  local entry = redis.call('HGET', SUBJECTS, subject)
  if not entry then
    return { last = 0, deleted = 0, reserved_at = 0, record = '' }
  end
  if entry:sub(1, 2) ~= '\0\0' then
    error({ err = 'OLDLAYOUT an entry has the previous layout' })
  end
  if entry:byte(3) ~= 2 then
    error({ err = 'UNKNOWNLAYOUT an entry has an unknown layout' })
  end
  local last, deleted, reserved_at, at
  last, at = varint(entry, 4)
  deleted, at = varint(entry, at)
  reserved_at, at = varint(entry, at)
  return { last = last, deleted = deleted, reserved_at = reserved_at, record = entry:sub(at) }
end

local function save(subject, entry)
  local numbers = to_varint(entry.last) .. to_varint(entry.deleted) .. to_varint(entry.reserved_at)
  redis.call('HSET', SUBJECTS, subject, '\0\0\2' .. numbers .. entry.record)
end

-- Decodes the part of a record's head by which the scripts decide. The id is '' if there is no
-- record.
local function head_of(record)
  if record == '' then
    return { id = '', version = 0, reserved_at = 0 }
  end
  local head = { id = record:sub(1, 16) }
  local at
  head.version, at = varint(record, 17)
  head.reserved_at, head.sums_at = varint(record, at)
  return head
end

-- Adds the totals of a record to `sums`: with `times` 1 for a new record, -1 for a removed one.
-- Returns the bytes of its head, totals included.
local function add_up(sums, record, head, times)
  if head.id == '' then
    return ''
  end
  local function add(name, amount)
    sums[name] = (sums[name] or 0) + times * amount
  end
  add('avatars', 1)
  local names = {}
  local count, length
  local at = head.sums_at
  count, at = varint(record, at)
  for number = 0, count - 1 do
    length, at = varint(record, at)
    names[number] = record:sub(at, at + length - 1)
    at = at + length
  end
  count, at = varint(record, at)
  for _ = 1, count do
    local variant, extension = record:byte(at, at + 1)
    length, at = varint(record, at + 2)
    -- The high bit says that the object is animated.
    local name = names[variant % 128] .. '.' .. names[extension]
    add('objects:' .. name, 1)
    add('bytes:' .. name, length)
  end
  return record:sub(1, at - 1)
end

local function save_sums(sums)
  for name, amount in pairs(sums) do
    if amount ~= 0 then
      redis.call('HINCRBY', STATS, name, text(amount))
    end
  end
end

-- The second byte of an invalid reservation → the answer of `replace`.
local WHY_INVALID = { 'superseded', 'precondition failed', 'locked' }

-- Decodes a value of `reserved`.
local function parse_reservation(name, value)
  local kind = value:byte(1)
  if kind == 0 then
    return { is_invalid = true, why = WHY_INVALID[value:byte(2)] }
  end
  if kind == 2 then
    return { was_current = true }
  end
  local found = {}
  if kind == 1 then
    local at
    found.version, at = varint(value, 2)
    found.reserved_at, at = varint(value, at)
    found.deadline = varint(value, at)
  else
    found.version = value:match('^%d+$') and tonumber(value)
    if not found.version then
      error({ err = 'UNKNOWNLAYOUT a reservation has an unknown layout' })
    end
    found.deadline = tonumber(redis.call('ZSCORE', PENDING, name) or 0)
    found.reserved_at = found.deadline
  end
  return found
end

-- The reservation of an upload; nil if there is none.
local function reservation(name)
  local value = redis.call('HGET', RESERVED, name)
  return value and parse_reservation(name, value) or nil
end

local function save_reservation(name, found)
  local numbers = to_varint(found.version) .. to_varint(found.reserved_at) .. to_varint(found.deadline)
  redis.call('HSET', RESERVED, name, '\1' .. numbers)
end

-- Moves an upload to retired. Its reservation does not change.
local function retire(name, due)
  redis.call('ZADD', RETIRED, text(due), name)
  redis.call('ZADD', RETIRED_OF, 0, name)
  redis.call('ZREM', PENDING, name)
end

-- Moves an upload to retired, and marks it so that it can neither be committed nor restored.
local function retire_invalid(name, due)
  retire(name, due)
  redis.call('HSET', RESERVED, name, '\0')
end

local function retire_superseded(name, due)
  retire(name, due)
  redis.call('HSET', RESERVED, name, '\0\1')
end

local function retire_refused(name, due)
  retire(name, due)
  redis.call('HSET', RESERVED, name, '\0\2')
end

local function retire_locked(name, due)
  retire(name, due)
  redis.call('HSET', RESERVED, name, '\0\3')
end

local function viewers_field(subject)
  return subject .. '\0'
end

-- Decodes the part of a policy's head by which the scripts decide. The bytes are '' if there is no
-- policy.
local function policy_head(bytes)
  if bytes == '' then
    return { sequence = 0, lock_end = 0 }
  end
  if bytes:byte(1) ~= 1 then
    error({ err = 'UNKNOWNLAYOUT a policy has an unknown layout' })
  end
  local head, at = {}, 2
  head.sequence, at = varint(bytes, at)
  head.lock_end = varint(bytes, at)
  return head
end

-- Whether a lock of the subject is in force. The end of a lock is 0 if there is no lock, and 1 if the
-- lock has no end.
local function is_locked(subject, time)
  local lock_end = policy_head(redis.call('HGET', POLICIES, subject) or '').lock_end
  return lock_end == 1 or lock_end > time
end

-- Whether a precondition holds for the current avatar's id, which is '' if there is none. The
-- precondition is in the arguments from `first` on: a word, and ids.
local function holds(current, first)
  local precondition = ARGV[first]
  local found = precondition == 'anything'
    or precondition == 'absent' and current == ''
    or precondition == 'present' and current ~= ''
  for number = first + 1, #ARGV do
    found = found or ARGV[number] == current
  end
  return found
end

-- Moves the upload that was current to retired, and marks it. Only this mark proves that its commit
-- happened.
local function retire_former(name, due)
  retire(name, due)
  redis.call('HSET', RESERVED, name, '\2')
end

-- The number of versions in a group, as in `Record::rank`.
local VERSION_GROUP = 65536

-- Whether one head has a higher rank than another: by the group of its version, then by the
-- reservation time, then by the version.
local function is_later(one, other)
  local group = math.floor(one.version / VERSION_GROUP)
  local other_group = math.floor(other.version / VERSION_GROUP)
  if group ~= other_group then
    return group > other_group
  end
  if one.reserved_at ~= other.reserved_at then
    return one.reserved_at > other.reserved_at
  end
  return one.version > other.version
end

-- Appends an event, which src/catalog/codec/mod.rs decodes. `record` became current; it is '' in a
-- delete. `previous` is the head of the replaced record, or ''. The objects of the replaced record
-- are gone at `gone_at`.
local function append_event(subject, at, record, previous, gone_at)
  local before = '\0'
  if previous ~= '' then
    before = '\1' .. to_varint(gone_at) .. to_varint(#previous) .. previous
  end
  local event = '\2' .. to_varint(at) .. before .. to_varint(#record) .. record
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_KEPT, '*', 'subject', subject, 'event', event)
end

-- Makes a record the current one of its subject, for a commit or a restore. `entry` is the subject's
-- entry, `current` is the head of its record before, and `head` is the head of the new record. The
-- objects of the replaced record are due at `due`. Decodes the totals before the first write.
local function make_current(subject, entry, current, record, head, at, due)
  local sums = {}
  local previous = add_up(sums, entry.record, current, -1)
  add_up(sums, record, head, 1)
  entry.record = record
  save(subject, entry)
  local name = upload_name(subject, head.id)
  redis.call('ZREM', PENDING, name)
  redis.call('ZREM', RETIRED_OF, name)
  redis.call('HDEL', RESERVED, name)
  if current.id ~= '' then
    retire_former(upload_name(subject, current.id), due)
  end
  append_event(subject, at, record, previous, due)
  save_sums(sums)
end
