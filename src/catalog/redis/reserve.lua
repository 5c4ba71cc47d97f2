local subject, id, deadline = ARGV[1], ARGV[2], ARGV[3]
local entry = load(subject)
entry.last = entry.last + 1
save(subject, entry)
redis.call('ZADD', PENDING, deadline, upload(subject, id))
return entry.last
