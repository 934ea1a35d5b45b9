-- sliding-window-counter: a string `start:previous:current`. At an instant in [start, start + period) the count is
-- floor(previous * (start + period - now) / period) + current.

-- The quotient and the remainder of a * b / c. They are exact even if the product is above 2^53, where doubles, and so Lua's
-- numbers, have gaps. c is at most 2^50.
local function divide(a, b, c)
  local product = a * b
  if product < 2 ^ 53 then
    local rest = math.fmod(product, c)
    return (product - rest) / c, rest
  end
  -- Long multiplication, two binary digits of `a` at a time: no intermediate value reaches 7 * c.
  local part = math.fmod(b, c)
  local quotient, rest, unit, left = 0, 0, 4 ^ 26, a
  while unit >= 1 do
    local digit = math.floor(left / unit)
    left = left - digit * unit
    local sum = rest * 4 + digit * part
    rest = math.fmod(sum, c)
    quotient = quotient * 4 + (sum - rest) / c
    unit = unit / 4
  end
  return quotient + a * ((b - part) / c), rest
end

-- Returns the start, the previous count and the current count as of now.
local function find_sliding(key, period)
  local kept = call('GET', key)
  if kept then
    local start, previous, current = string.match(kept, '^(%d+):(%d+):(%d+)$')
    if not start then
      error('ODD', 0)
    end
    start, previous, current = start + 0, previous + 0, current + 0
    if start > 2 ^ 53 - 2 ^ 51 or previous > 2 ^ 50 or current > 2 ^ 50 then
      error('ODD', 0)
    elseif now < start + period then
      return start, previous, current
    elseif now < start + 2 * period then
      return start + period, current, 0
    end
  end
  return now, 0, 0
end

-- Writes the record, and returns the instant from which it counts nothing.
local function keep_sliding(key, period, start, previous, current)
  local ends = current > 0 and start + 2 * period or start + period
  call(
    'SET', key, format(whole .. ':' .. whole .. ':' .. whole, start, previous, current), 'PX', life(ends - now)
  )
  return ends
end

local function weighed(previous, current, start, period)
  if previous == 0 then
    return current
  end
  -- If the clock ran backwards, the weight must not exceed the whole window.
  local weight = divide(previous, math.min(start + period - now, period), period)
  return weight + current
end

-- Returns the count, the instant at which `cost` fits and the instant at which the window is empty; then, for `take_sliding`,
-- the record.
local function read_sliding(key, period, amount, cost)
  local start, previous, current = find_sliding(key, period)
  local count = weighed(previous, current, start, period)
  local retry_at = 0
  if cost > amount then
    retry_at = -1
  elseif count + cost > amount then
    -- The first instant at which the fading count, which has its full weight at `from`, weighs at most `room`.
    local fading, from, room = previous, start, amount - current - cost
    if room < 0 then
      fading, from, room = current, start + period, amount - cost
    end
    local left, rest = divide(room + 1, period, fading)
    if rest == 0 then
      left = left - 1
    end
    retry_at = from + period - math.min(left, period)
  end
  local reset_at = now
  if current > 0 then
    reset_at = start + 2 * period
  elseif previous > 0 then
    reset_at = start + period
  end
  return count, retry_at, reset_at, start, previous, current
end

-- Returns the count, the instant at which the window is empty, and the token of the hit: the start of the window that counted
-- it. As for fixed windows, it needs no mark.
local function take_sliding(key, period, cost, _, start, previous, current)
  if previous == 0 and current == 0 then
    start = now
  end
  current = current + cost
  local ends = keep_sliding(key, period, start, previous, current)
  return weighed(previous, current, start, period), ends, start, 0
end
