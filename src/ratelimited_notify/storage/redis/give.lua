-- Gives one hit back in one window, if it is still there. Returns whether it was.

local function give_moving(key, period, cost, stamp, sequence)
  if stamp + period <= now then
    return false
  end
  local element = sequence == 0 and format(whole, stamp) or format(whole .. ':' .. whole, stamp, sequence)
  return call('LREM', key, format(whole, cost), element) > 0
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
