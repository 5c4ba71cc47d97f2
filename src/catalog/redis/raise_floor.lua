if floor() < tonumber(ARGV[1]) then
  redis.call('SET', FLOOR, ARGV[1])
end
