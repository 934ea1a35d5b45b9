-- fixed-window: a string `end:count`. The window begins at its first hit; with every hit given back there is none.

-- Count, instant at which `cost` fits and instant at which the window is empty; for `take_fixed` the end.
local function read_fixed(key, period, amount, cost)
  local ends, count = 0, 0
  local kept = call('GET', key)
  if kept then
    local first, second = string.match(kept, '^(%d+):(%d+)$')
    ends, count = tonumber(first), tonumber(second)
    if now >= ends then
      count = 0
    end
  end
  local retry_at = 0
  if cost > amount then
    retry_at = -1
  elseif count + cost > amount then
    retry_at = ends
  end
  return count, retry_at, count > 0 and ends or now, ends
end

-- Count, instant at which the window is empty, and the token of the hit: the window's end. It needs no mark as in
-- `windows.py`: for two windows to end at the same microsecond, a hit, its release and another hit would have to be
-- decided within one.
local function take_fixed(key, period, cost, count, ends)
  if count == 0 then
    ends = now + period
  end
  count = count + cost
  call('SET', key, format('%.0f:%.0f', ends, count), 'PX', format('%.0f', (ends - now) / 1000 + 2000))
  return count, ends, ends, 0
end
