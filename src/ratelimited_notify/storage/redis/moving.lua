-- moving-window: a list, newest first, with one element per hit: its stamp, or `stamp:sequence` if the newest element had that
-- stamp already. Plain integers take the least memory in Redis. A hit counts in [stamp, stamp + period).
-- A hit of a cost above 1 is `stamp:sequence:extra:cost`. `extra` is the running sum of what hits cost beyond 1, up to and
-- including this one; so the cost of a stretch of the list follows from its two ends, and a search needs few elements. Newer
-- hits of cost 1 carry the sum too: `stamp:sequence:extra`. When the window is empty, the sum starts at 0 again.

-- Reading up to SHORT elements with one LRANGE is faster than reading the length, the newest and the oldest with three
-- commands. If the amount is above FEW, the list is probably longer, and the LRANGE would be wasted.
local SHORT, FEW = 10, 64

-- How many elements a command reads or writes at a time.
local SLICE = 1000

-- Above this the running sum starts anew. What counts never costs more than twice the largest amount, which is 2 ^ 49.
local HIGHEST = 2 ^ 51

-- The stamp of a hit that is counted now, as a string.
local instant

-- Returns the stamp, the sequence, the running sum, and the sum before this hit.
local function parse(element)
  local stamp = tonumber(element)
  if stamp then
    return stamp, 0, 0, 0
  end
  local instant, sequence, rest = string.match(element, '^(%d+):(%d+)(.*)$')
  if not instant or sequence + 0 > 2 ^ 53 - 2 ^ 51 then
    error('ODD', 0)
  end
  if rest == '' then
    return instant + 0, sequence + 0, 0, 0
  end
  local extra, cost, least = string.match(rest, '^:(%d+)$'), 1, 1
  if not extra then
    extra, cost = string.match(rest, '^:(%d+):(%d+)$')
    least = 2
  end
  if not extra or not (least <= cost + 0 and cost - 1 <= extra + 0 and 0 < extra + 0 and extra + 0 <= HIGHEST) then
    error('ODD', 0)
  end
  return instant + 0, sequence + 0, extra + 0, extra - cost + 1
end

-- The element of a hit.
local function written(stamp, sequence, extra, cost)
  if cost > 1 then
    return format(whole .. ':' .. whole .. ':' .. whole .. ':' .. whole, stamp, sequence, extra, cost)
  elseif extra > 0 then
    return format(whole .. ':' .. whole .. ':' .. whole, stamp, sequence, extra)
  elseif sequence > 0 then
    return format(whole .. ':' .. whole, stamp, sequence)
  end
  return format(whole, stamp)
end

local function element_at(key, index)
  return call('LINDEX', key, format(whole, index))
end

-- Returns the count, the instant at which `cost` fits and the instant at which the window is empty; then, for `take_moving`,
-- the newest stamp, its sequence, the length of the list, how many of its elements count, and the running sum.
local function read_moving(key, period, amount, cost)
  local list, size, newest, sequence, extra, oldest, sum, before, _
  if amount <= FEW then
    list = call('LRANGE', key, 0, SHORT)
    size = #list
  else
    list = call('LRANGE', key, 0, 1)
    size = #list < 2 and #list or SHORT + 1
  end
  if size == 0 then
    return 0, cost > amount and -1 or 0, now, -1, 0, 0, 0, 0
  end
  newest, sequence, extra, before = parse(list[1])
  oldest, sum = newest, extra
  local second, second_sum = newest, extra
  if size > 1 then
    second, _, second_sum = parse(list[2])
    if size > SHORT then
      list, size = nil, call('LLEN', key)
    end
    oldest, _, sum, before = parse(list and list[size] or call('LINDEX', key, -1))
  end
  -- In a list of ours stamps and sums never run backwards: if they did, an element that somebody else pushed could hide others
  -- that still count. The condition is written with `not`, because every comparison with NaN is false.
  if
    not (0 <= oldest and oldest <= newest and newest <= 2 ^ 53 - 2 ^ 51 and newest % 1 + oldest % 1 == 0)
    or second > newest
    or second_sum > extra
    or sum > extra
  then
    error('ODD', 0)
  end
  local edge, live = now - period, size
  if newest <= edge then
    live = 0
  elseif oldest <= edge then
    -- The few expired elements are at the old end, so the search for the first of them starts there, with doubling steps.
    local over, step = size - 1, 1
    while over - step > 0 and parse(element_at(key, over - step)) <= edge do
      over, step = over - step, step * 2
    end
    local low = math.max(over - step, 0)
    while over - low > 1 do
      local middle = math.floor((over + low) / 2)
      if parse(element_at(key, middle)) <= edge then
        over = middle
      else
        low = middle
      end
    end
    live = over
    if extra > 0 then
      _, _, sum, before = parse(element_at(key, live - 1))
      if sum > extra then
        error('ODD', 0)
      end
    end
  end
  local count = live > 0 and live + extra - before or 0
  local retry_at = 0
  if cost > amount then
    retry_at = -1
  elseif count + cost > amount then
    -- The cost fits when the newest elements that are left cost `amount - cost` or less. This is the first that must not be left.
    local blocking, first = oldest, amount - cost
    if count > live then
      local low = -1
      first = live - 1
      while first - low > 1 do
        local middle = math.floor((first + low) / 2)
        local _, _, _, before = parse(list and list[middle + 1] or element_at(key, middle))
        if middle + 1 + extra - before > amount - cost then
          first = middle
        else
          low = middle
        end
      end
    end
    if first < size - 1 then
      blocking = parse(list and list[first + 1] or element_at(key, first))
      if not (oldest <= blocking and blocking <= newest and blocking % 1 == 0) then
        error('ODD', 0)
      end
    end
    retry_at = blocking + period
  end
  return count, retry_at, count > 0 and newest + period or now, newest, sequence, size, live, extra
end

-- Lets the running sum of a list start at 0. It takes elements from the old end, and pushes them at the new end until all have
-- come round. Pushing comes first: if the server is full, that fails before anything is trimmed. Returns the sum.
local function start_anew(key, live, extra)
  local _, _, _, base = parse(element_at(key, live - 1))
  for done = 0, live - 1, SLICE do
    local several = math.min(SLICE, live - done)
    local old, new = call('LRANGE', key, -several, -1), {}
    for n = several, 1, -1 do
      local stamp, sequence, sum, before = parse(old[n])
      new[#new + 1] = written(stamp, sequence, sum - base, sum - before + 1)
    end
    call('LPUSH', key, unpack(new))
    call('LTRIM', key, 0, -several - 1)
  end
  return extra - base
end

-- Returns the count, the instant at which the window is empty, and the token of the hit.
local function take_moving(key, period, cost, count, newest, sequence, size, live, extra)
  -- Trim by age only: expired elements never count again, and a limit that is lowered and raised again finds all of the rest.
  if live < size then
    -- Trim everything after the last element that counts, or the whole list if none counts.
    call('LTRIM', key, live > 0 and 0 or 1, live > 0 and format(whole, live - 1) or 0)
  end
  if live == 0 then
    extra = 0
  elseif extra + cost > HIGHEST then
    extra = start_anew(key, live, extra)
  end
  extra = extra + cost - 1
  local stamp, element = now, nil
  if newest < now then
    sequence = 0
    if extra == 0 then
      instant = instant or format(whole, now)
      element = instant
    end
  else
    -- Stamps never run backwards, even if the clock does; then the real time in the sequence distinguishes the hits.
    stamp = newest
    sequence = math.max(sequence + 1, now < newest and now or 0)
  end
  element = element or written(stamp, sequence, extra, cost)
  call('LPUSH', key, element)
  local kept = redis.pcall('PEXPIRE', key, life(stamp + period - now))
  if kept ~= 1 then
    -- The user has no permission for PEXPIRE.
    call('LREM', key, 1, element)
    error(kept)
  end
  return count + cost, stamp + period, stamp, sequence
end
