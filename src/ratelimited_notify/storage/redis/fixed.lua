-- fixed-window: a string `end:count`. The window begins at its first hit; with every hit given back there is none.

local pair = whole .. ':' .. whole

-- Count, instant at which `cost` fits and instant at which the window is empty; for `take_fixed` the end.
local function read_fixed(key, period, amount, cost)
  local kept = call('GET', key)
  if not kept then
    return 0, cost > amount and -1 or 0, now, 0, 0, 0
  end
  local ends, count = string.match(kept, '^(%d+):(%d+)$')
  if not ends then
    error('ODD', 0)
  end
  ends, count = ends + 0, count + 0
  if ends > 2 ^ 53 - 2 ^ 51 or count > 2 ^ 50 then
    error('ODD', 0)
  end
  if now >= ends then
    count = 0
  end
  local retry_at = 0
  if cost > amount then
    retry_at = -1
  elseif count + cost > amount then
    retry_at = ends
  end
  return count, retry_at, count > 0 and ends or now, ends, 0, 0
end

-- Count, instant at which the window is empty, and the token of the hit: the window's end. It needs no mark as in
-- `windows.py`: for two windows to end at the same microsecond, a hit, its release and another hit would have to be
-- decided within one.
local function take_fixed(key, period, cost, count, ends)
  if count == 0 then
    ends = now + period
    call('SET', key, format(pair, ends, cost), 'PX', life(period))
    return cost, ends, ends, 0
  end
  count = count + cost
  -- The window ends when it did before, so the key is kept for as long as it was to be.
  call('SET', key, format(pair, ends, count), 'KEEPTTL')
  return count, ends, ends, 0
end
