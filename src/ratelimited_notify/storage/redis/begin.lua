-- First in every script; behind it the clock, which sets `now`, in microseconds.

if (redis.REDIS_VERSION_NUM or 0) < 0x070000 then
  return redis.error_reply('NOTIFYVERSION Redis 7 or newer is needed')
end

local call, format = redis.call, string.format

-- How whole numbers are written. '%d' takes half the time, but not all of the number where a C long has 32 bits.
local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'

-- For PX and PEXPIRE: how long a key is kept of which nothing counts any more after so many microseconds.
local lives = {}
local function life(left)
  local text = lives[left]
  if not text then
    text = format(whole, left / 1000 + 2000)
    lives[left] = text
  end
  return text
end

-- Which of the keys is being read. What it holds may have been written by somebody else: where it is not what this library
-- writes, the reading ends in the error 'ODD'. No instant of ours is above 2 ^ 53 - 2 ^ 51 (the year 2184), and no count
-- above 2 ^ 50, to which another period or cost can be added and the sum is exact.
local place = 0
