-- Returns the time and the head of the subject's policy, which is false if there is none.
return { now(), redis.call('HGET', POLICIES, ARGV[1]) }
