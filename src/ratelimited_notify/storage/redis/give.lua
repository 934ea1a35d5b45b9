-- Gives one hit back in one window, if it is still there. Returns whether it was.

-- Returns the index of a hit in a moving window, its element, its cost, and the length of the list; nil if it is not there.
-- Stamps and sequences only grow, so the search is binary. It begins at the new end with doubling steps: usually the hit is new.
local function find_moving(key, stamp, sequence)
  local size = call('LLEN', key)
  local newer, older = -1, 0
  local function is_newer(index)
    local one, other = parse(element_at(key, index))
    return one > stamp or one == stamp and other > sequence
  end
  while older < size and is_newer(older) do
    newer, older = older, 2 * older + 1
  end
  older = math.min(older, size)
  while older - newer > 1 do
    local middle = math.floor((older + newer) / 2)
    if is_newer(middle) then
      newer = middle
    else
      older = middle
    end
  end
  if older < size then
    local text = element_at(key, older)
    local one, other, extra, before = parse(text)
    if one == stamp and other == sequence then
      return older, text, extra - before + 1, size
    end
  end
end

-- Takes an element out of the list, and its cost out of the running sums of those that are newer.
local function take_out(key, index, cost, text)
  local may = redis.acl_check_cmd
  if not (may('LPUSH', key, '') and may('LTRIM', key, '0', '0')) then
    error({ err = 'NOTIFYUSER No permission to write' })
  end
  local new = {}
  for from = 0, index - 1, SLICE do
    local last = math.min(from + SLICE, index) - 1
    for _, newer in ipairs(call('LRANGE', key, format(whole, from), format(whole, last))) do
      local stamp, sequence, extra, before = parse(newer)
      new[#new + 1] = written(stamp, sequence, extra - cost + 1, extra - before + 1)
    end
  end
  -- If the server is full, this first push fails, and no later one. The element is trimmed again with the rest.
  call('LPUSH', key, text)
  call('LTRIM', key, format(whole, index + 2), -1)
  for n = index, 1, -SLICE do
    local slice = {}
    for newer = n, math.max(n - SLICE, 0) + 1, -1 do
      slice[#slice + 1] = new[newer]
    end
    call('LPUSH', key, unpack(slice))
  end
end

local function give_moving(key, period, cost, stamp, sequence)
  if stamp + period <= now then
    return false
  end
  local newest = cost == 1 and element_at(key, 0)
  if newest then
    -- If the newest element has no sum, none has one, so the element is known. Otherwise LREM could read the list in vain.
    local _, _, extra = parse(newest)
    if extra == 0 then
      return call('LREM', key, 1, written(stamp, sequence, 0, 1)) > 0
    end
  end
  local index, text, costs, size = find_moving(key, stamp, sequence)
  if not index or costs ~= cost then
    return false
  end
  if cost > 1 and 0 < index and index < size - 1 then
    take_out(key, index, cost, text)
    return true
  end
  -- Only the differences of sums matter, so the oldest may go, and so may the newest.
  return call('LREM', key, index < size / 2 and 1 or -1, text) > 0
end

local function give_fixed(key, period, cost, ends)
  local count, _, _, kept = read_fixed(key, period, 0, 0)
  -- Equal hits cannot be distinguished, but a hit given back twice must not free room that it never used.
  if count < cost or kept ~= ends then
    return false
  end
  if count > cost then
    call('SET', key, format(whole .. ':' .. whole, ends, count - cost), 'KEEPTTL')
  else
    call('DEL', key)
  end
  return true
end

local function give_sliding(key, period, cost, counted)
  local start, previous, current = find_sliding(key, period)
  if counted == start and current >= cost then
    current = current - cost
  elseif counted + period == start and previous >= cost then
    previous = previous - cost
  else
    return false
  end
  if previous == 0 and current == 0 then
    call('DEL', key)
  else
    keep_sliding(key, period, start, previous, current)
  end
  return true
end

local function give(strategy, ...)
  return (strategy == 0 and give_moving or strategy == 1 and give_fixed or give_sliding)(...)
end
