-- One attempt against a leaky bucket (GCRA), by Redis's own clock, in microseconds.
--
-- The key holds when the whole quota will be there again, and goes by itself then.
local interval, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local restored = tonumber(redis.call('GET', KEYS[1])) or now
-- Later than a whole quota away only where the clock was set back, as by a change of the master.
restored = math.min(math.max(restored, now), now + interval * count) + interval
local wait = restored - now - interval * count
if wait > 0 then
  return { 0, wait }
end
local left = restored - now
redis.call('SET', KEYS[1], string.format('%.0f', restored), 'PX', math.ceil(left / 1000))
return { 1, left }
