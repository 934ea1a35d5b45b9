-- The error message of a failed `pcall`. The error is a string or, on some servers, a table that contains one.

local function words(problem)
  return type(problem) == 'table' and problem.err or problem
end

-- Whether a key holds a value that this library did not write, or is of another type.
local function is_odd(problem)
  return words(problem) == 'ODD' or string.match(words(problem), '^%-?WRONGTYPE') ~= nil
end

-- The error as a reply.
local function as_error(problem)
  return redis.error_reply(words(problem))
end
