-- Claims due uploads. Returns pairs: the name of an upload, and a number. If the upload was not
-- committed before its deadline, this is the time since the deadline in milliseconds. Otherwise it
-- is -1. It is -2 if the reservation cannot be decoded. Such an upload is due again after the lease
-- like the others, so that it does not block them.
local lease, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = now()
local function due(set, limit)
  return redis.call('ZRANGEBYSCORE', set, '-inf', text(time), 'LIMIT', 0, limit)
end
local pending = due(PENDING, limit)
local retired = due(RETIRED, limit - #pending)
-- All reads come before the first write.
local answer, unreserved = {}, {}
for _, names in ipairs({ pending, retired }) do
  for _, name in ipairs(names) do
    local value = redis.call('HGET', RESERVED, name)
    local is_understood, found = true, nil
    if value then
      is_understood, found = pcall(parse_reservation, name, value)
    elseif names == pending then
      found = { version = 0, reserved_at = 0, deadline = time }
      unreserved[name] = found
    end
    answer[#answer + 1] = name
    if not is_understood then
      answer[#answer + 1] = '-2'
    elseif found and found.version then
      answer[#answer + 1] = text(math.max(0, time - found.deadline))
    else
      answer[#answer + 1] = '-1'
    end
  end
end
for number = 1, #answer, 2 do
  retire(answer[number], time + lease)
end
for name, found in pairs(unreserved) do
  save_reservation(name, found)
end
return answer
