-- The first part of every script. The clock comes next and sets `now`, in microseconds.

if (redis.REDIS_VERSION_NUM or 0) < 0x070000 then
  return redis.error_reply('NOTIFYVERSION Redis 7 or newer is needed')
end

local call, format = redis.call, string.format

-- The format of integers. '%d' takes half the time, but truncates large numbers if a C long has 32 bits.
local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'

-- For PX and PEXPIRE: the lifetime in milliseconds of a key in which nothing counts after `left` microseconds.
local lives = {}
local function life(left)
  local text = lives[left]
  if not text then
    text = format(whole, left / 1000 + 2000)
    lives[left] = text
  end
  return text
end

-- The index of the key that is being read. Another program may have written to the key: if the value is not one that this
-- library writes, reading raises the error 'ODD'. This library writes no instant above 2 ^ 53 - 2 ^ 51 (the year 2184) and no
-- count above 2 ^ 50, so sums with another period or cost are exact.
local place = 0
