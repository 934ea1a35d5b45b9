-- Takes back one hit, in each of the windows that counted it, if that one is still here. ARGV[1], in MessagePack:
-- {cost, strategy, period, instant, sequence, strategy, ...}. The reply: in how many windows it was found.

local function give_moving(key, period, cost, stamp, sequence)
  if stamp + period <= now then
    return false
  end
  local element = sequence == 0 and format(whole, stamp) or format(whole .. ':' .. whole, stamp, sequence)
  return call('LREM', key, format(whole, cost), element) > 0
end

local function give_fixed(key, period, cost, ends)
  local count, _, _, kept = read_fixed(key, period, 0, 0)
  -- Equal hits are not told apart, but a hit given back twice must not make room that nobody took.
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

local plan, given = cmsgpack.unpack(ARGV[1]), 0
for n, key in ipairs(KEYS) do
  local strategy, period, instant, sequence = unpack(plan, 4 * n - 2, 4 * n + 1)
  local give = strategy == 0 and give_moving or strategy == 1 and give_fixed or give_sliding
  if give(key, period, plan[1], instant, sequence) then
    given = given + 1
  end
end
return given
