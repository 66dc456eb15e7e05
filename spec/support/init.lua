--- What the specs share: `local support = require "spec.support"`.
--
-- `support.it` is busted's `it` with the check of STYLE around it: afterwards
-- greenlets, watchers, descriptors, stacks and Lua bytes are back where they
-- were, and stderr has stayed silent. Every spec file begins with
-- `local it = support.it`; spec/support_spec.lua holds them to it.

local busted = require "busted"
local system = require "system"
local green = require "green"
local leaks = require "spec.support.leaks"
local process = require "spec.support.process"

local M = {
  interpreter = process.interpreter,
  is_host = process.is_host,
  is_sanitized = process.is_sanitized,
  run = process.run,
  succeeds = process.succeeds,
  descriptors = leaks.descriptors,
  clock = system.monotime,
}

--- Wraps a body so that it raises when something of it stays behind.
---@param body function
---@return function
function M.wrapped(body)
  return function()
    local before = leaks.snapshot()
    body()
    local leak = leaks.since(before)
    if leak then error("the spec left something behind: " .. leak, 0) end
  end
end

--- busted's `it` around a wrapped body. The tail call keeps the caller's line.
---@param name string  begins with the ID of the behaviour, where there is one
---@param body function
function M.it(name, body)
  return busted.it(name, M.wrapped(body))
end

local function in_mode(mode, body)
  return function()
    local previous = collectgarbage(mode)
    local _ <close> = setmetatable({}, { __close = function() collectgarbage(previous) end })
    body(mode)
  end
end

--- Registers the specs of `define` twice, for the incremental and for the
--- generational collector (D16): `support.modes(function(it) it("LU1 ...", ...) end)`.
---@param define fun(it: fun(name: string, body: fun(mode: string)), mode: string)
function M.modes(define)
  for _, mode in ipairs { "incremental", "generational" } do
    define(function(name, body)
      return busted.it(name .. " [" .. mode .. "]", M.wrapped(in_mode(mode, body)))
    end, mode)
  end
end

--- Waits until `condition()` is true, and returns that. Raises after `limit`
--- seconds (default 5), which only ends a hang.
---@param condition fun(): any
---@param limit? number
function M.eventually(condition, limit)
  local stop = M.clock() + (limit or 5)
  while true do
    local result = condition()
    if result then return result end
    if M.clock() > stop then error("it did not come to pass", 2) end
    green.sleep(0.001)
  end
end

--- Runs `fn` and returns the seconds it took, then its results.
function M.timed(fn, ...)
  local start = M.clock()
  return (function(...) return M.clock() - start, ... end)(fn(...))
end

--- A wait that lets everybody run and collects: once in part, once in full. The
--- collector in stress mode of LU1.
function M.stress_wait()
  collectgarbage("step")
  green.sleep(0)
  collectgarbage()
end

--- Spawns `fn`, lets it run into its first wait, and returns it.
function M.started(fn, ...)
  local g = green.spawn(fn, ...)
  green.sleep(0)
  return g
end

-- A `__concat` that makes the Lua stack move: Debian's 5.4.4 then goes on with
-- a pointer into the freed one (D13; no greenlet has a part in it).
local CONCAT_PROBE = [=[
  local meta = {}
  local function deep(n)
    if n == 0 then collectgarbage() return 0 end
    return 1 + deep(n - 1)
  end
  meta.__concat = function() deep(5000) return "x" end
  for _ = 1, 20 do
    coroutine.wrap(function()
      local value = setmetatable({}, meta)
      return "a" .. "b" .. value .. "c" .. value .. "d"
    end)()
  end
]=]

--- Is the Lua that runs repaired (D13), so that a `__concat` may wait?
function M.concat_is_safe()
  return process.run(CONCAT_PROBE).status == 0
end

return M
