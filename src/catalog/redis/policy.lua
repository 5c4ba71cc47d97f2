-- Returns the time, the head of the subject's policy and its viewers. The last two are false if there
-- are none.
local subject = ARGV[1]
local found = redis.call('HMGET', POLICIES, subject, viewers_field(subject))
return { now(), found[1], found[2] }
