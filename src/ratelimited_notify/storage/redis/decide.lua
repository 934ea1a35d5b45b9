-- The decision on one request, as `windows.take` and `windows.look` make it: every window is read before any is written.
--
-- A plan is {taking, cost, strategy, mode, amount, period, strategy, ...}; its keys are those behind KEYS[skipped].
--   taking    0 to look, 1 to count the hit, 2 to count it where some of the windows move and others do not
--   strategy  0 moving-window, 1 fixed-window, 2 sliding-window-counter
--   mode      0 enforce, 1 force, 2 shadow
--
-- To `reply`, behind its first `size` numbers, it adds how many there are for this request, itself included: above 0
-- where it is granted, below where it is not. Then, for each window, {count, retry_at, reset_at, instant, sequence}.
--   retry_at  0 fits now, -1 never
--   instant   -1 where nothing was taken
-- Where `brief`, most windows in which a hit was taken say the same with less: {-count} is a moving window with a hit of
-- this instant and no sequence, {-count, end} a fixed one.
-- Numbers are doubles, exact up to 2^53: the caller keeps periods within 2^50, amounts within 2^48.
-- It ends in an error where a key holds what is not ours, before anything is written for this request; then `place` says
-- which key. Where a write fails, `reply` tells what had been taken by then; `undo.lua` gives it back.

local keys = KEYS
-- What was read of the request that is being decided: six values a window.
local found = {}

-- Adds what one window says, and returns the new size of the reply.
local function tell(reply, size, brief, strategy, count, retry_at, reset_at, instant, sequence)
  if brief and instant >= 0 and count > 0 then
    if strategy == 1 then
      reply[size + 1], reply[size + 2] = -count, instant
      return size + 2
    elseif strategy == 0 and instant == now and sequence == 0 then
      reply[size + 1] = -count
      return size + 1
    end
  end
  reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4], reply[size + 5] =
    count, retry_at, reset_at, instant, sequence
  return size + 5
end

-- Returns the new size of the reply.
local function decide(plan, windows, skipped, reply, size, brief)
  local granted, cost, at = plan[1], plan[2], size + 1
  reply[at] = 0
  if windows == 1 then
    -- The same as below, without a table between reading and writing.
    local strategy, mode, amount, period, key = plan[3], plan[4], plan[5], plan[6], keys[skipped + 1]
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    place = skipped + 1
    local count, retry_at, reset_at, a, b, c = read(key, period, amount, cost)
    local instant, sequence = -1, 0
    if mode == 1 then
      retry_at = 0
    elseif retry_at ~= 0 and mode == 0 then
      granted = -1
    end
    if granted == 1 and (mode == 1 and count + cost <= 2 * amount or mode ~= 1 and retry_at == 0) then
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      count, reset_at, instant, sequence = take(key, period, cost, count, a, b, c)
    end
    at = tell(reply, at, brief, strategy, count, retry_at, reset_at, instant, sequence)
    reply[size + 1] = granted >= 0 and at - size or size - at
    return at
  end
  local from, slot = 3, 0
  for n = 1, windows do
    local strategy, mode = plan[from], plan[from + 1]
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    place = skipped + n
    local count, retry_at, reset_at, a, b, c = read(keys[place], plan[from + 3], plan[from + 2], cost)
    if mode == 1 then
      retry_at = 0
    elseif retry_at ~= 0 and mode == 0 then
      granted = -1
    end
    found[slot + 1], found[slot + 2], found[slot + 3] = count, retry_at, reset_at
    found[slot + 4], found[slot + 5], found[slot + 6] = a, b, c
    from, slot = from + 4, slot + 6
  end
  if granted == 2 then
    -- Windows of one kind are written by the same commands, so the first of them tells. That the user may write to all of
    -- the keys, the server makes sure of before it runs a script.
    local key, may = keys[skipped + 1], redis.acl_check_cmd
    if not (may('SET', key, '') and may('LPUSH', key, '') and may('PEXPIRE', key, '0')) then
      error({ err = 'NOTIFYUSER No permission to write' })
    end
    granted = 1
  end
  from, slot = 3, 0
  for n = 1, windows do
    local strategy, mode = plan[from], plan[from + 1]
    local count, retry_at, reset_at, instant, sequence = found[slot + 1], found[slot + 2], found[slot + 3], -1, 0
    if granted == 1 and (mode == 1 and count + cost <= 2 * plan[from + 2] or mode ~= 1 and retry_at == 0) then
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      count, reset_at, instant, sequence =
        take(keys[skipped + n], plan[from + 3], cost, count, found[slot + 4], found[slot + 5], found[slot + 6])
    end
    at = tell(reply, at, brief, strategy, count, retry_at, reset_at, instant, sequence)
    from, slot = from + 4, slot + 6
  end
  reply[size + 1] = granted >= 0 and at - size or size - at
  return at
end
