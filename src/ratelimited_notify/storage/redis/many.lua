-- Several requests, in order. Hits of earlier requests count for later ones. ARGV[1], in MessagePack: {plans, numbers}.
-- `numbers` has the index of a plan for each request, since many requests share one. If all share one plan, `numbers` is the
-- number of requests. The reply, also in MessagePack: {now, ...} as in `decide`, brief.

local plans, numbers = unpack(cmsgpack.unpack(ARGV[1]))
local reply, same = { now }, type(numbers) == 'number'

local function each(reply, plans, numbers, same)
  local size, skipped = 1, 0
  for request = 1, same and numbers or #numbers do
    local plan = plans[same and 1 or numbers[request]]
    local windows = (#plan - 2) / 4
    size = decide(plan, windows, skipped, reply, size, true)
    skipped = skipped + windows
  end
end

local done, problem = pcall(each, reply, plans, numbers, same)
if done then
  return cmsgpack.pack(reply)
end

-- For `undo.lua`.
local function plan_of(request)
  return plans[same and 1 or numbers[request]]
end
