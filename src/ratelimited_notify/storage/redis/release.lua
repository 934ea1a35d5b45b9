-- Gives back one hit in each of the windows that counted it, if the window still exists. ARGV[1], in MessagePack:
-- {cost, strategy, period, instant, sequence, strategy, ...}. The reply is the number of windows in which the hit was found. If
-- a key holds a value that this library did not write, the reply is the negative index of the first such key. A failure in one
-- window does not affect the others.

local plan, given, wrong, failed = cmsgpack.unpack(ARGV[1]), 0, 0, nil
for n, key in ipairs(KEYS) do
  local strategy, period, instant, sequence = unpack(plan, 4 * n - 2, 4 * n + 1)
  local done, found = pcall(give, strategy, key, period, plan[1], instant, sequence)
  if not done then
    if is_odd(found) then
      wrong = wrong == 0 and n or wrong
    else
      failed = as_error(found)
    end
  elseif found then
    given = given + 1
  end
end
return failed or wrong > 0 and -wrong or given
