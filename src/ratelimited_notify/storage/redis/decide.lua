-- The decision on one request, as `windows.take` and `windows.look` make it: every window is read before any is written.
--
-- A plan is {taking, cost, strategy, mode, amount, period, strategy, ...}; its keys are those behind KEYS[skipped]. To
-- `reply` it adds granted and, for each window, {count, retry_at, reset_at, instant, sequence}.
--   taking    1 to count the hit, 0 to look
--   strategy  0 moving-window, 1 fixed-window, 2 sliding-window-counter
--   mode      0 enforce, 1 force, 2 shadow
--   retry_at  0 fits now, -1 never
--   instant   -1 where nothing was taken
-- Numbers are doubles, exact up to 2^53: the caller keeps periods within 2^50, amounts within 2^48.

local function decide(plan, skipped, reply)
  local cost, windows, first = plan[2], (#plan - 2) / 4, #reply + 1
  local granted, found = plan[1], {}
  reply[first] = 0
  for n = 1, windows do
    local strategy, key, period, amount = plan[4 * n - 1], KEYS[skipped + n], plan[4 * n + 2], plan[4 * n + 1]
    local mode, at = plan[4 * n], first + 5 * n - 4
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    local count, retry_at, reset_at, a, b, c = read(key, period, amount, cost)
    if mode == 1 then
      retry_at = 0
    elseif mode == 0 and retry_at ~= 0 then
      granted = -1
    end
    reply[at], reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = count, retry_at, reset_at, -1, 0
    found[3 * n - 2], found[3 * n - 1], found[3 * n] = a or 0, b or 0, c or 0
  end
  if granted >= 0 then
    reply[first] = 1
  end
  if granted ~= 1 then
    return
  end
  for n = 1, windows do
    local at = first + 5 * n - 4
    local count, fits = reply[at], reply[at + 1] == 0
    if plan[4 * n] == 1 then
      fits = count + cost <= 2 * plan[4 * n + 1]
    end
    if fits then
      local strategy = plan[4 * n - 1]
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      reply[at], reply[at + 2], reply[at + 3], reply[at + 4] = take(
        KEYS[skipped + n], plan[4 * n + 2], cost, count, found[3 * n - 2], found[3 * n - 1], found[3 * n]
      )
    end
  end
end
