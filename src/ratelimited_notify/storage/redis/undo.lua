-- Comes behind `one.lua` and `many.lua`, where something went wrong: gives back what this run of the script has taken, which
-- nobody has seen. What cannot be given back stays counted. The reply: {now, 0, place} where the key at this place holds
-- something else; otherwise the error.

local at, skipped, request = 2, 0, 1
while at <= #reply do
  local plan = plan_of(request)
  local windows = (#plan - 2) / 4
  at = at + 1
  for n = 1, windows do
    local strategy, period = plan[4 * n - 1], plan[4 * n + 2]
    local instant, sequence = now, 0
    if at > #reply then
      break
    elseif reply[at] >= 0 then
      instant, sequence, at = reply[at + 3], reply[at + 4], at + 5
    elseif strategy == 1 then
      instant, at = reply[at + 1], at + 2
    else
      at = at + 1
    end
    if instant >= 0 then
      pcall(give, strategy, keys[skipped + n], period, plan[2], instant, sequence)
    end
  end
  skipped, request = skipped + windows, request + 1
end
if is_odd(problem) then
  return cmsgpack.pack({ now, 0, place })
end
return as_error(problem)
