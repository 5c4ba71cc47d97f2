-- Answers pairs: the name of an upload, and how many milliseconds ago its deadline passed if nobody
-- committed it, else -1; or -2 if its reservation cannot be understood. Such an upload comes due
-- again after the lease like the others, so that it does not stop them.
local lease, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = now()
local function due(set, limit)
  return redis.call('ZRANGEBYSCORE', set, '-inf', text(time), 'LIMIT', 0, limit)
end
local pending = due(PENDING, limit)
local retired = due(RETIRED, limit - #pending)
-- Everything is read before anything is written.
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
