-- The decision on one request, as `windows.take` and `windows.look` make it: every window is read before any is written.
--
-- A plan is {taking, cost, strategy, mode, amount, period, strategy, ...}; its keys are those behind KEYS[skipped]. To
-- `reply`, behind its first `size` numbers, it adds granted and, for each window, {count, retry_at, reset_at, instant,
-- sequence}.
--   taking    1 to count the hit, 0 to look
--   strategy  0 moving-window, 1 fixed-window, 2 sliding-window-counter
--   mode      0 enforce, 1 force, 2 shadow
--   retry_at  0 fits now, -1 never
--   instant   -1 where nothing was taken
-- Numbers are doubles, exact up to 2^53: the caller keeps periods within 2^50, amounts within 2^48.

local keys = KEYS
-- What was read and will be written to: three values a window, of the request that is being decided.
local found = {}

-- Returns the new size of the reply.
local function decide(plan, windows, skipped, reply, size)
  local granted, cost, at, from = plan[1], plan[2], size + 1, 3
  for n = 1, windows do
    local strategy, mode = plan[from], plan[from + 1]
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    local count, retry_at, reset_at, a, b, c = read(keys[skipped + n], plan[from + 3], plan[from + 2], cost)
    if mode == 1 then
      retry_at = 0
    elseif retry_at ~= 0 and mode == 0 then
      granted = -1
    end
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4], reply[at + 5] = count, retry_at, reset_at, -1, 0
    found[from], found[from + 1], found[from + 2] = a, b, c
    at, from = at + 5, from + 4
  end
  reply[size + 1] = granted >= 0 and 1 or 0
  if granted ~= 1 then
    return at
  end
  at, from = size + 1, 3
  for n = 1, windows do
    local count, fits = reply[at + 1], reply[at + 2] == 0
    if plan[from + 1] == 1 then
      fits = count + cost <= 2 * plan[from + 2]
    end
    if fits then
      local strategy = plan[from]
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      reply[at + 1], reply[at + 3], reply[at + 4], reply[at + 5] =
        take(keys[skipped + n], plan[from + 3], cost, count, found[from], found[from + 1], found[from + 2])
    end
    at, from = at + 5, from + 4
  end
  return at
end
