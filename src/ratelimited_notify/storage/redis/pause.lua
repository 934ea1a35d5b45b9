-- pause: a string with the instant until which the rule is paused. Hits do not change it.

-- Returns the instant; 0 if there was no pause.
local function find_pause(key)
  local kept = call('GET', key)
  if not kept then
    return 0
  end
  local ends = string.match(kept, '^(%d+)$')
  if not ends or ends + 0 > 2 ^ 53 - 2 ^ 51 then
    error('ODD', 0)
  end
  return ends + 0
end

-- Returns 1 while the rule is paused and 0 otherwise, the instant at which it no longer is, and the same once more.
local function read_pause(key)
  local ends = find_pause(key)
  if ends <= now then
    return 0, 0, now, 0, 0, 0
  end
  return 1, ends, ends, 0, 0, 0
end

-- Returns what was read, and no token.
local function take_nothing(_, _, _, count)
  return count, now, -1, 0
end
