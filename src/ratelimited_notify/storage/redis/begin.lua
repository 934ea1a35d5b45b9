-- First in every script; behind it the clock, which sets `now`, in microseconds.

if (redis.REDIS_VERSION_NUM or 0) < 0x070000 then
  return redis.error_reply('NOTIFYVERSION Redis 7 or newer is needed')
end

local call, format = redis.call, string.format
