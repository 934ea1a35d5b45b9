-- The decision about one request, as in `take` and `look` of windows/strategies.py: all windows are read before any is
-- written.
--
-- A plan is {taking, cost, strategy, mode, amount, period, strategy, ...}; its keys are the ones after KEYS[skipped].
--   taking    0 only reads, 1 counts the hit, 2 counts it in moving windows and others together
--   strategy  0 moving-window, 1 fixed-window, 2 sliding-window-counter, 3 pause
--   mode      0 enforce, 1 force, 2 shadow
--
-- After the first `size` numbers of `reply` it appends the number of values for this request, including itself: positive if
-- the request is granted, negative if not. Then, for each window, {count, retry_at, reset_at, instant, sequence}.
--   retry_at  0 fits now, -1 never
--   instant   -1 if nothing was counted
-- With `brief`, most windows in which a hit was counted have a shorter form: {-count} for a moving window with a hit of this
-- instant and no sequence, {-count, end} for a fixed window.
-- Numbers are doubles, exact up to 2^53: the caller keeps periods within 2^50 and amounts within 2^48.
-- Lines that begin with `--pauses` are part of scripts with pauses, and comments in all others.
-- If a key holds a value that this library did not write, it raises an error before anything is written for this request, and
-- `place` is the index of that key. If a write fails, `reply` lists what was counted so far; `undo.lua` gives it back.

local keys = KEYS
-- The values read for the current request: eight for each window.
local found = {}

-- Appends the reading of one window, and returns the new size of the reply.
local function tell(reply, size, brief, strategy, count, retry_at, reset_at, instant, sequence)
  if brief and instant >= 0 then
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
    -- The same as below, but without a table.
    local strategy, mode, amount, period, key = plan[3], plan[4], plan[5], plan[6], keys[skipped + 1]
    --pauses local read_sliding = strategy ~= 2 and read_pause or read_sliding
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    place = skipped + 1
    local count, retry_at, reset_at, a, b, c, d, e = read(key, period, amount, cost)
    local instant, sequence = -1, 0
    if mode == 1 then
      retry_at = 0
    elseif retry_at ~= 0 and mode == 0 then
      granted = -1
    end
    if granted == 1 and (mode == 1 and count + cost <= 2 * amount or mode ~= 1 and retry_at == 0) then
      --pauses local take_sliding = strategy ~= 2 and take_nothing or take_sliding
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      count, reset_at, instant, sequence = take(key, period, cost, count, a, b, c, d, e)
    end
    at = tell(reply, at, brief, strategy, count, retry_at, reset_at, instant, sequence)
    reply[size + 1] = granted >= 0 and at - size or size - at
    return at
  end
  local from, slot = 3, 0
  for n = 1, windows do
    local strategy, mode = plan[from], plan[from + 1]
    --pauses local read_sliding = strategy ~= 2 and read_pause or read_sliding
    local read = strategy == 0 and read_moving or strategy == 1 and read_fixed or read_sliding
    place = skipped + n
    local count, retry_at, reset_at, a, b, c, d, e = read(keys[place], plan[from + 3], plan[from + 2], cost)
    if mode == 1 then
      retry_at = 0
    elseif retry_at ~= 0 and mode == 0 then
      granted = -1
    end
    found[slot + 1], found[slot + 2], found[slot + 3] = count, retry_at, reset_at
    found[slot + 4], found[slot + 5], found[slot + 6], found[slot + 7], found[slot + 8] = a, b, c, d, e
    from, slot = from + 4, slot + 8
  end
  if granted == 2 then
    -- Windows of one kind are written by the same commands, so a mixed request could fail half-way. It is enough to check the
    -- commands on the first key: before the server runs a script, it checks that the user may write to all of its keys.
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
      --pauses local take_sliding = strategy ~= 2 and take_nothing or take_sliding
      local take = strategy == 0 and take_moving or strategy == 1 and take_fixed or take_sliding
      local a, b, c, d, e = unpack(found, slot + 4, slot + 8)
      count, reset_at, instant, sequence = take(keys[skipped + n], plan[from + 3], cost, count, a, b, c, d, e)
    end
    at = tell(reply, at, brief, strategy, count, retry_at, reset_at, instant, sequence)
    from, slot = from + 4, slot + 8
  end
  reply[size + 1] = granted >= 0 and at - size or size - at
  return at
end
