-- The server's time, so that all hosts use one clock. In Redis 7 it does not change while a script runs.

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
