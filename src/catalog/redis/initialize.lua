-- Sets the version floor of a new catalog. ARGV[1] is 'new', or 'lost' if an earlier catalog was
-- lost.
local stored, _, server = floor_state()
if not stored then
  save_floor(ARGV[1] == 'new' and 0 or time_floor(), server)
end
