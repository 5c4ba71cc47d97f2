-- Counts one attempt with GCRA (a leaky bucket), by Redis's own clock, in microseconds.
--
-- The key holds the time at which the whole quota is restored, and expires then. After the time it
-- holds the last counted attempt, so that an attempt whose answer was lost can be sent again.
local interval, count, attempt = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held = redis.call('GET', KEYS[1]) or ''
local restored, last = held:match('^(%d+) ?(.*)$')
restored = tonumber(restored) or now
if last == attempt then
  return { 1, math.max(restored - now, 0) }
end
-- The time is more than a whole quota ahead only if the clock was set back, for instance by a
-- failover to another master.
restored = math.min(math.max(restored, now), now + interval * count) + interval
local wait = restored - now - interval * count
if wait > 0 then
  return { 0, wait }
end
local left = restored - now
held = string.format('%.0f %s', restored, attempt)
redis.call('SET', KEYS[1], held, 'PX', math.ceil(left / 1000))
return { 1, left }
