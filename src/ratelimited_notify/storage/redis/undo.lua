-- Comes after `one.lua` and `many.lua` and runs after an error: gives back the hits that this script call has counted, which no
-- client has seen yet. A hit that cannot be given back stays counted. The reply is {now, 0, place} if the key at this place
-- holds a value that this library did not write; otherwise the error.

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
