local now, lease, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local function due(set, limit)
  return redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)
end
-- Answers what was pending, and what was retired.
local pending = due(PENDING, limit)
local retired = due(RETIRED, limit - #pending)
for _, names in ipairs({ pending, retired }) do
  for _, name in ipairs(names) do
    retire(name, lease)
  end
end
return { pending, retired }
