--- Checks of arguments for functions written in Lua: one family whose messages
-- are Lua's own (`bad argument #2 to 'joinall' (number expected, got string)`),
-- so that nobody sees whether a function is C or Lua.
--
-- Each takes the value, its place and the function's name, and returns the value.
-- They are to be called from the public function itself, not from a helper of
-- it: the error names the line that called the public function.

local M = {}

-- For error: fail is level 1, the check 2, the public function 3, its caller 4.
local CALLER = 4

-- As luaL_typeerror (lauxlib.c): a type may have a name of its own.
local function typename(value)
  local metatable = getmetatable(value)
  local name = type(metatable) == "table" and rawget(metatable, "__name")
  return type(name) == "string" and name or type(value)
end

-- Unstarted ones have a metatable of their own, so the name has to tell.
local function is_greenlet(value)
  return type(value) == "userdata" and typename(value) == "greenlet"
end

local function fail(arg, fname, problem)
  error(("bad argument #%d to '%s' (%s)"):format(arg, fname, problem), CALLER)
end

local function mismatch(expected, value)
  return ("%s expected, got %s"):format(expected, value == nil and "no value" or typename(value))
end

--- Raises for argument `arg` of `fname`: `problem` stands in the brackets.
--- `check.fail(1, "get", "only http and https")`
---@param arg integer
---@param fname string
---@param problem string
function M.fail(arg, fname, problem)
  fail(arg, fname, problem)
end

--- A value of a basic type. `check.type(url, "string", 1, "get")`
---@generic T
---@param value T
---@param expected type
---@param arg integer
---@param fname string
---@return T
function M.type(value, expected, arg, fname)
  if type(value) ~= expected then fail(arg, fname, mismatch(expected, value)) end
  return value
end

--- As check.type, but nil passes. `check.optional(options, "table", 2, "get")`
---@generic T
---@param value T?
---@param expected type
---@param arg integer
---@param fname string
---@return T?
function M.optional(value, expected, arg, fname)
  if value ~= nil and type(value) ~= expected then fail(arg, fname, mismatch(expected, value)) end
  return value
end

local function is_callable(value)
  if type(value) == "function" then return true end
  local metatable = getmetatable(value)
  return type(metatable) == "table" and type(metatable.__call) == "function"
end

--- A function, or an object with `__call`. `check.callable(fn, 2, "with_timeout")`
---@param value any
---@param arg integer
---@param fname string
---@return function
function M.callable(value, arg, fname)
  if not is_callable(value) then fail(arg, fname, mismatch("function", value)) end
  return value
end

-- What is wrong with a number of seconds; nil: nothing. NaN differs from itself.
local function seconds_problem(value)
  if type(value) ~= "number" then return mismatch("number", value) end
  if value < 0 or value ~= value then return "seconds must not be negative or NaN" end
end

--- Seconds: a number, not negative, not NaN; infinity is allowed.
--- `check.seconds(timeout, 1, "sleep")`
---@param value number
---@param arg integer
---@param fname string
---@return number
function M.seconds(value, arg, fname)
  local problem = seconds_problem(value)
  if problem then fail(arg, fname, problem) end
  return value
end

--- A greenlet. `check.greenlet(g, 1, "kill")`
---@param value greenlet
---@param arg integer
---@param fname string
---@return greenlet
function M.greenlet(value, arg, fname)
  if not is_greenlet(value) then fail(arg, fname, mismatch("greenlet", value)) end
  return value
end

--- A list of greenlets. `check.greenlets(list, 1, "joinall")`
---@param value greenlet[]
---@param arg integer
---@param fname string
---@return greenlet[]
function M.greenlets(value, arg, fname)
  if type(value) ~= "table" then fail(arg, fname, mismatch("table", value)) end
  for i = 1, #value do
    if not is_greenlet(value[i]) then
      fail(arg, fname, ("greenlet expected as element %d, got %s"):format(i, typename(value[i])))
    end
  end
  return value
end

local function count_problem(value)
  if math.type(value) ~= "integer" then return mismatch("integer", value) end
  if value < 0 then return "must not be negative" end
end

local function callable_problem(value)
  if not is_callable(value) then return mismatch("function", value) end
end

local problems = { seconds = seconds_problem, count = count_problem, callable = callable_problem }

local function option_problem(value, kind)
  local problem = problems[kind]
  if problem then return problem(value) end
  if type(value) ~= kind then return mismatch(kind, value) end
end

--- A trailing table of options, or nil. `known` maps each name to what it must
--- be: "seconds", "count" (an integer >= 0), "callable", "any", or a basic type. An
--- option that is not known raises: a misspelt timeout would be none at all.
--- Returns the options, an empty table for nil.
--- `check.options(options, { timeout = "seconds" }, 2, "joinall")`
---@param value table?
---@param known table<string, string>
---@param arg integer
---@param fname string
---@return table
function M.options(value, known, arg, fname)
  if value == nil then return {} end
  if type(value) ~= "table" then fail(arg, fname, mismatch("table", value)) end
  for name, setting in pairs(value) do
    local kind = known[name]
    if not kind then fail(arg, fname, ("unknown option '%s'"):format(tostring(name))) end
    local problem = kind ~= "any" and option_problem(setting, kind)
    if problem then fail(arg, fname, ("option '%s': %s"):format(name, problem)) end
  end
  return value
end

return M
