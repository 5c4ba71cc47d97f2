-- Raises the version floor to at least ARGV[1], and returns it.
local seen = tonumber(ARGV[1])
local stored, _, server = floor_state()
local floor = math.max(stored or 0, time_floor(), seen)
save_floor(floor, server)
return floor
