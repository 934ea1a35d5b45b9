-- One request. ARGV[1]: its plan, in MessagePack. The reply, also in MessagePack: {now, ...} as in `decide`.

local plan, reply = cmsgpack.unpack(ARGV[1]), { now }
local done, problem = pcall(decide, plan, #keys, 0, reply, 1, false)
if done then
  return cmsgpack.pack(reply)
end

-- For `undo.lua`.
local function plan_of()
  return plan
end
