-- One request. ARGV[1]: its plan, in MessagePack. The reply, too: {now, ...} as `decide` has it.

local reply = { now }
decide(cmsgpack.unpack(ARGV[1]), #keys, 0, reply, 1, false)
return cmsgpack.pack(reply)
