-- moving-window: a list, newest first, with one element per unit of cost: its stamp, or `stamp:sequence` if the newest element
-- had that stamp already. Plain integers take the least memory in Redis. A hit counts in [stamp, stamp + period).

-- Reading up to SHORT elements with one LRANGE is faster than reading the length, the newest and the oldest with three
-- commands. If the amount is above FEW, the list is probably longer, and the LRANGE would be wasted.
local SHORT, FEW = 10, 64

-- The stamp of a hit that is counted now, as a string.
local instant

local function parse(element)
  local stamp = tonumber(element)
  if stamp then
    return stamp, 0
  end
  local instant, sequence = string.match(element, '^(%d+):(%d+)$')
  if not instant or sequence + 0 > 2 ^ 53 - 2 ^ 51 then
    error('ODD', 0)
  end
  return instant + 0, sequence + 0
end

-- Returns the count, the instant at which `cost` fits and the instant at which the window is empty; then, for `take_moving`,
-- the newest stamp, its sequence and the length of the list.
local function read_moving(key, period, amount, cost)
  local list, size, newest, sequence, oldest
  if amount <= FEW then
    list = call('LRANGE', key, 0, SHORT)
    size = #list
    if size == 0 then
      return 0, cost > amount and -1 or 0, now, -1, 0, 0
    elseif size <= SHORT then
      newest, sequence = parse(list[1])
      oldest = size == 1 and newest or parse(list[size])
    else
      list = nil
    end
  end
  if not list then
    size = call('LLEN', key)
    if size == 0 then
      return 0, cost > amount and -1 or 0, now, -1, 0, 0
    end
    newest, sequence = parse(call('LINDEX', key, 0))
    oldest = size == 1 and newest or parse(call('LINDEX', key, -1))
  end
  -- In a list of ours stamps never run backwards: if they did, an expired stamp could hide others that still count. The
  -- condition is written with `not`, because every comparison with NaN is false.
  if not (0 <= oldest and oldest <= newest and newest <= 2 ^ 53 - 2 ^ 51 and newest % 1 + oldest % 1 == 0) then
    error('ODD', 0)
  end
  local edge, count = now - period, size
  if newest <= edge then
    count = 0
    if size > 2 and parse(list and list[2] or call('LINDEX', key, 1)) > newest then
      error('ODD', 0)
    end
  elseif oldest <= edge then
    -- The few expired elements are at the old end, so the search for the first of them starts there, with doubling steps.
    local over, step = size - 1, 1
    while over - step > 0 and parse(call('LINDEX', key, format(whole, over - step))) <= edge do
      over, step = over - step, step * 2
    end
    local live = math.max(over - step, 0)
    while over - live > 1 do
      local middle = math.floor((over + live) / 2)
      if parse(call('LINDEX', key, format(whole, middle))) <= edge then
        over = middle
      else
        live = middle
      end
    end
    count = over
  end
  local retry_at = 0
  if cost > amount then
    retry_at = -1
  elseif count + cost > amount then
    -- The cost fits when only the newest `amount - cost` elements are left.
    local blocking = oldest
    if amount - cost < size - 1 then
      blocking = parse(list and list[amount - cost + 1] or call('LINDEX', key, format(whole, amount - cost)))
      if not (oldest <= blocking and blocking <= newest and blocking % 1 == 0) then
        error('ODD', 0)
      end
    end
    retry_at = blocking + period
  end
  return count, retry_at, count > 0 and newest + period or now, newest, sequence, size
end

-- Returns the count, the instant at which the window is empty, and the token of the hit.
local function take_moving(key, period, cost, count, newest, sequence, size)
  -- Trim by age only: expired elements never count again, and a limit that is lowered and raised again finds all of the rest.
  if count < size then
    -- Trim everything after the last element that counts, or the whole list if none counts.
    call('LTRIM', key, count > 0 and 0 or 1, count > 0 and format(whole, count - 1) or 0)
  end
  local stamp, element = now, nil
  if newest < now then
    sequence = 0
    instant = instant or format(whole, now)
    element = instant
  else
    -- Stamps never run backwards, even if the clock does; then the real time in the sequence distinguishes the hits.
    stamp = newest
    sequence = math.max(sequence + 1, now < newest and now or 0)
    element = format(whole .. ':' .. whole, stamp, sequence)
  end
  if cost == 1 then
    call('LPUSH', key, element)
  else
    local elements = {}
    for i = 1, math.min(cost, 1000) do
      elements[i] = element
    end
    for done = 0, cost - 1, 1000 do
      call('LPUSH', key, unpack(elements, 1, math.min(cost - done, 1000)))
    end
  end
  local kept = redis.pcall('PEXPIRE', key, life(stamp + period - now))
  if kept ~= 1 then
    -- The user has no permission for PEXPIRE.
    call('LREM', key, format(whole, cost), element)
    error(kept)
  end
  return count + cost, stamp + period, stamp, sequence
end
