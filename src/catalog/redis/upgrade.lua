-- Rewrites an entry of the previous layout, unless it has changed since the caller read it.
local subject, before, after = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', SUBJECTS, subject) == before then
  redis.call('HSET', SUBJECTS, subject, after)
end
