-- Returns for each subject its entry and its viewers. The first argument is the reader, '' for none; the
-- others are the subjects. Each value is false if it is missing. The viewers are also false unless they
-- may contain the reader, because a list of viewers can be long.
local reader = ARGV[1]
local encoded = to_varint(#reader) .. reader
local found = {}
for number = 2, #ARGV do
  local subject = ARGV[number]
  local viewers = redis.call('HGET', POLICIES, viewers_field(subject))
  if viewers and (reader == '' or not viewers:find(encoded, 1, true)) then
    viewers = false
  end
  found[number - 1] = { redis.call('HGET', SUBJECTS, subject), viewers }
end
return found
