-- Pauses a rule. ARGV[1], in MessagePack: the duration in microseconds. If it is paused for longer already, it stays so. The
-- reply is the instant of the end, or -1 if the key holds a value that this library did not write.

local done, found = pcall(find_pause, KEYS[1])
if not done then
  return is_odd(found) and -1 or as_error(found)
end
local duration = cmsgpack.unpack(ARGV[1])
if found < now + duration then
  found = now + duration
  call('SET', KEYS[1], format(whole, found), 'PX', life(duration))
end
return found
