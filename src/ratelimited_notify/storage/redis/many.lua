-- Several requests, in order; what one takes counts for those behind it. ARGV[1], in MessagePack: {plans, numbers}, a
-- number of a plan per request, since many requests have the same. The reply, too: {now, ...} as `decide` has it.

local plans, numbers = unpack(cmsgpack.unpack(ARGV[1]))
local reply, skipped = { now }, 0
for _, number in ipairs(numbers) do
  local plan = plans[number]
  decide(plan, skipped, reply)
  skipped = skipped + (#plan - 2) / 4
end
return cmsgpack.pack(reply)
