-- Answers pairs: the name of an upload, and how many milliseconds ago its deadline passed if
-- nobody committed it, else -1.
local lease, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = now()
local function due(set, limit)
  return redis.call('ZRANGEBYSCORE', set, '-inf', text(time), 'LIMIT', 0, limit)
end
local pending = due(PENDING, limit)
local retired = due(RETIRED, limit - #pending)
local answer = {}
for _, names in ipairs({ pending, retired }) do
  for _, name in ipairs(names) do
    local found = reservation(name)
    if names == pending then
      found = found or { version = 0, reserved_at = 0, deadline = time }
      save_reservation(name, found)
    end
    retire(name, time + lease)
    answer[#answer + 1] = name
    if found and found.version then
      answer[#answer + 1] = text(math.max(0, time - found.deadline))
    else
      answer[#answer + 1] = '-1'
    end
  end
end
return answer
