-- The server's time, so that all hosts see one clock; Redis 7 holds it still while a script runs.

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
