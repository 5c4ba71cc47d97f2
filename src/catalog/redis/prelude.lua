-- What every script of the catalog begins with, after a line that says how many events are kept.
--
-- A subject's entry in `subjects` is: the last version given out, the last version that a delete
-- took away, and the current record or nothing; the versions as varints (LEB128), the record as
-- src/catalog/codec.rs writes it. The scripts read of a record what they decide by and add up, so
-- a new layout of the codec needs a new reader here.
--
-- An upload is named by its subject, a zero byte (no subject has one) and the 16 bytes of its id.

local SUBJECTS, PENDING, RESERVED = KEYS[1], KEYS[2], KEYS[3]
local RETIRED, RETIRED_OF, STATS = KEYS[4], KEYS[5], KEYS[6]
local EVENTS, FLOOR = KEYS[7], KEYS[8]

local function upload(subject, id)
  return subject .. '\0' .. id
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

-- Above it begin subjects that were never given a version.
local function floor()
  return tonumber(redis.call('GET', FLOOR) or 0)
end

local function load(subject)
  local entry = redis.call('HGET', SUBJECTS, subject)
  if not entry then
    return { last = 0, deleted = 0, record = '' }
  end
  local last, at = varint(entry, 1)
  local deleted
  deleted, at = varint(entry, at)
  return { last = last, deleted = deleted, record = entry:sub(at) }
end

local function save(subject, entry)
  local bytes = to_varint(entry.last) .. to_varint(entry.deleted) .. entry.record
  redis.call('HSET', SUBJECTS, subject, bytes)
end

-- The id and version of a record; '' and 0 of none.
local function head(record)
  if record == '' then
    return '', 0
  end
  if record:byte(1) ~= 1 then
    error('a record has an unknown layout')
  end
  return record:sub(2, 17), (varint(record, 18))
end

local EXTENSIONS = { [0] = 'webp', 'jpg', 'png' }

-- Adds what a record holds to `sums`: times 1 where it appears, -1 where it goes.
local function add_up(sums, record, times)
  if record == '' then
    return
  end
  local function add(name, amount)
    sums[name] = (sums[name] or 0) + times * amount
  end
  add('avatars', 1)
  local count, length, extension
  local _, at = varint(record, 18) -- version
  _, at = varint(record, at) -- uploaded at
  at = at + 1 -- source: format
  for _ = 1, 3 do -- bytes, width, height
    _, at = varint(record, at)
  end
  at = at + 1 -- animated
  local names = {}
  count, at = varint(record, at)
  for number = 1, count do
    length, at = varint(record, at)
    names[number] = record:sub(at, at + length - 1)
    at = at + length
  end
  count, at = varint(record, at)
  for _ = 1, count do
    local name = names[record:byte(at) + 1]
    extension, at = varint(record, at + 1)
    _, at = varint(record, at) -- width
    _, at = varint(record, at) -- height
    length, at = varint(record, at)
    at = at + 1 -- animated
    name = name .. '.' .. EXTENSIONS[extension]
    add('objects:' .. name, 1)
    add('bytes:' .. name, length)
  end
end

local function save_sums(sums)
  for name, amount in pairs(sums) do
    if amount ~= 0 then
      redis.call('HINCRBY', STATS, name, amount)
    end
  end
end

local function leave_pending(name)
  redis.call('ZREM', PENDING, name)
  redis.call('HDEL', RESERVED, name)
end

local function retire(name, due)
  redis.call('ZADD', RETIRED, due, name)
  redis.call('ZADD', RETIRED_OF, 0, name)
  leave_pending(name)
end

-- Appends an event, as src/catalog/codec.rs reads it: `what` is the record that became current, or
-- what `deleted` makes of one.
local function tell(subject, at, what)
  local event = to_varint(tonumber(at)) .. what
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_KEPT, '*', 'subject', subject, 'event', event)
end

-- A zero byte, and the id and version of a record as they stand in it.
local function deleted(record)
  local _, at = varint(record, 18)
  return '\0' .. record:sub(2, at - 1)
end
