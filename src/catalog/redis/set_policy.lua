-- Stores a policy. If ARGV[4] is empty, the stored policy must have a lower sequence; otherwise it
-- must have the sequence ARGV[4]. Returns 1 if the policy is stored, and 0 if another one stays.
local subject, head, viewers, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', POLICIES, subject, viewers_field(subject))
local stored = found[1] or ''
-- This repeats a step whose answer was lost.
if after ~= '' and stored == head and (found[2] or '') == viewers then
  return 1
end
local sequence = policy_head(stored).sequence
if after == '' and sequence >= policy_head(head).sequence then
  return 0
end
if after ~= '' and sequence ~= tonumber(after) then
  return 0
end
redis.call('HSET', POLICIES, subject, head)
if viewers == '' then
  redis.call('HDEL', POLICIES, viewers_field(subject))
else
  redis.call('HSET', POLICIES, viewers_field(subject), viewers)
end
return 1
