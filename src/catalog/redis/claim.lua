local now, lease, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local function due(set, limit)
  return redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)
end
local claimed = due(PENDING, limit)
for _, name in ipairs(due(RETIRED, limit - #claimed)) do
  claimed[#claimed + 1] = name
end
for _, name in ipairs(claimed) do
  retire(name, lease)
end
return claimed
