-- Why `pcall` failed: a text or, on some servers, a table with one.

local function words(problem)
  return type(problem) == 'table' and problem.err or problem
end

-- Whether a key holds what is not ours, or is of another type.
local function is_odd(problem)
  return words(problem) == 'ODD' or string.match(words(problem), '^%-?WRONGTYPE') ~= nil
end

-- The same as a reply.
local function as_error(problem)
  return redis.error_reply(words(problem))
end
