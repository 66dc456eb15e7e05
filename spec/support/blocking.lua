--- The contract of every blocking call, written once (ACCEPTANCE, 'Two ideas'):
-- its own timeout comes on time; an outer timeout is raised as the same object;
-- a kill arrives; and afterwards the object still works, with no waiter,
-- watcher or link left (the wrapper of `support.it` counts them).

local busted = require "busted"
local green = require "green"
local support = require "spec.support"

local M = {}

-- A wait may end this much before its time: one tick of the loop's clock.
local TICK = 0.002
-- and must not end much later; generous, since the machine may be busy.
local SLACK = 1

--- One situation in which a call blocks for ever, or for very long.
---@class Blocking
---@field wait fun(timeout?: number): any  the call; with its own timeout when it has one
---@field own? "nil"|"false"|"raise"|"empty"|"end"  what its own timeout shows as: `nil, "timeout"`,
---     false, a raised timeout, fewer results, or just its normal end. nil: it takes no timeout
---@field works? fun()                     raises unless the object is as good as new
---@field close? fun()                     releases what `make` acquired

local function case_of(make)
  local case = make()
  local closer = setmetatable({}, { __close = function() if case.close then case.close() end end })
  return case, closer
end

local function assert_between(low, high, value)
  assert(value >= low, ("it took %g s, at least %g were due"):format(value, low))
  assert(value <= high, ("it took %g s, at most %g were allowed"):format(value, high))
end

local SHOWS = {
  ["nil"] = function(ok, result, message)
    assert(ok, result)
    assert(result == nil and message == "timeout", "expected nil, timeout")
  end,
  ["false"] = function(ok, result)
    assert(ok, result)
    assert(result == false or result == nil, "expected false or nil")
  end,
  ["raise"] = function(ok, err)
    assert(not ok, "expected an error")
    assert(green.istimeout(err), "expected a timeout, got " .. tostring(err))
  end,
  ["empty"] = function(ok, list)
    assert(ok, list)
    assert(#list == 0, "expected an empty list")
  end,
  ["end"] = function(ok, err) assert(ok, err) end,
}

local function own_timeout(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local elapsed, ok, result, message = support.timed(pcall, case.wait, 0.03)
    assert_between(0.03 - TICK, 0.03 + SLACK, elapsed)
    SHOWS[case.own](ok, result, message)
    if case.works then case.works() end
  end
end

local function outer_timeout(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local scope
    local elapsed, ok, err = support.timed(pcall, function()
      local t <close> = green.timeout(0.001)
      scope = t
      case.wait()
    end)
    assert(not ok, "the outer timeout was swallowed")
    assert(rawequal(err, scope), "another object was raised: " .. tostring(err))
    assert_between(0, SLACK, elapsed)
    if case.works then case.works() end
  end
end

local function outer_timeout_beside_own(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local scope
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.001)
      scope = t
      case.wait(5)
    end)
    assert(not ok and rawequal(err, scope), "expected the outer timeout")
    if case.works then case.works() end
  end
end

local function kill_arrives(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local after = false
    local g = support.started(function()
      case.wait()
      after = true
    end)
    green.sleep(0.002)
    assert(not g:ready(), "it did not block")
    local elapsed, killed = support.timed(g.kill, g)
    assert(killed == true, "the kill timed out")
    assert_between(0, SLACK, elapsed)
    assert(g.dead and not after, "it went on after the kill")
    if case.works then case.works() end
  end
end

--- Registers the four specs for the blocking call `name`. `make` is called
--- anew by each of them and returns a Blocking. `own` says beforehand whether
--- the call takes a timeout (`make` may need servers that do not run yet).
---@param name string
---@param own boolean
---@param make fun(): Blocking
function M.behaves(name, own, make)
  busted.describe("blocking: " .. name, function()
    if own then
      support.it("TO1 " .. name .. " ends by its own timeout on time", own_timeout(make))
      support.it("TO2 " .. name .. " with a longer timeout of its own lets an outer one through",
                 outer_timeout_beside_own(make))
    end
    support.it("TO2 " .. name .. " lets an outer timeout through, as the same object",
               outer_timeout(make))
    support.it("SP3 " .. name .. " ends when its greenlet is killed", kill_arrives(make))
  end)
end

return M
