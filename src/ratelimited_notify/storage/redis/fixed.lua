-- fixed-window: a string `end:count`. The window begins at its first hit. The key is deleted when every hit is given back.

local pair = whole .. ':' .. whole

-- Returns the count, the instant at which `cost` fits and the instant at which the window is empty; then, for `take_fixed`,
-- the end.
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

-- Returns the count, the instant at which the window is empty, and the token of the hit: the window's end. Unlike in
-- windows/strategies.py it needs no mark: two windows could only end at the same microsecond if a hit, its release and another
-- hit were all decided within one microsecond.
local function take_fixed(key, period, cost, count, ends)
  if count == 0 then
    ends = now + period
    call('SET', key, format(pair, ends, cost), 'PX', life(period))
    return cost, ends, ends, 0
  end
  count = count + cost
  -- The end of the window does not change, so the key keeps its time to live.
  call('SET', key, format(pair, ends, count), 'KEEPTTL')
  return count, ends, ends, 0
end
