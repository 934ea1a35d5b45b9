-- Empties windows, whatever their keys hold. ARGV[1], in MessagePack: {strategy, period, strategy, ...}. The reply is the
-- number of windows that held anything.

local plan, held = cmsgpack.unpack(ARGV[1]), 0
for n, key in ipairs(KEYS) do
  local strategy, period = plan[2 * n - 1], plan[2 * n]
  --pauses local read_sliding = strategy ~= 2 and read_pause or read_sliding
  local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
  local done, problem, _, reset_at = pcall(read, key, period, 0, 0)
  if not done and not is_odd(problem) then
    return as_error(problem)
  elseif not done or reset_at > now then
    held = held + 1
  end
end
call('UNLINK', unpack(KEYS))
return held
