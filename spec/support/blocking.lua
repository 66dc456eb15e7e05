--- The contract of every blocking call, written once (ACCEPTANCE, 'Two ideas'):
-- its own timeout comes on time; an outer timeout is raised as the same object;
-- a kill and the end of its scope arrive; and afterwards the object still works,
-- with no waiter, watcher, descriptor or link left. spec/blocking_spec.lua runs it.

local busted = require "busted"
local green = require "green"
local leaks = require "spec.support.leaks"
local support = require "spec.support"

local M = {}

-- A wait may end this much before its time: one tick of the loop's clock.
local TICK = 0.002
-- and must not end much later; generous, since the machine may be busy. What is
-- interrupted would take twice as long.
local SLACK = 5

-- How often the same object is interrupted, and what one interruption may leave
-- of Lua's memory on average. The smallest thing to forget, a link's closure and
-- its place in a table, is larger.
local INTERRUPTIONS, BYTES_EACH = 200, 64

--- One situation in which a call blocks for ever, or for ten seconds at least.
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
    assert(result == nil and message == "timeout",
           ("expected nil, timeout, got %s, %s"):format(result, message))
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

-- Calls wait(timeout) within an outer timeout, which must come out of it.
local function interrupt(case, seconds, timeout)
  local scope
  local ok, err = pcall(function()
    local t <close> = green.timeout(seconds)
    scope = t
    case.wait(timeout)
  end)
  assert(not ok, "the outer timeout was swallowed")
  assert(rawequal(err, scope), "another object was raised: " .. tostring(err))
end

local function outer_timeout(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    assert_between(0, SLACK, (support.timed(interrupt, case, 0.001)))
    if case.works then case.works() end
  end
end

local function outer_timeout_beside_own(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    assert_between(0, SLACK, (support.timed(interrupt, case, 0.001, 2 * SLACK)))
    if case.works then case.works() end
  end
end

-- A greenlet that waits as the case says; `went_on()` tells whether it did.
local function blocked(case)
  local after = false
  local g = support.started(function()
    case.wait()
    after = true
  end)
  green.sleep(0.002)
  assert(not g:ready(), "it did not block")
  return g, function() return after end
end

local function kill_arrives(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local g, went_on = blocked(case)
    local elapsed, killed = support.timed(g.kill, g)
    assert(killed == true, "the kill timed out")
    assert_between(0, SLACK, elapsed)
    assert(g.dead and not went_on(), "it went on after the kill")
    if case.works then case.works() end
  end
end

local function scope_ends(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    local g, went_on
    local elapsed, ok, err = support.timed(pcall, function()
      local scoped <close>, told = blocked(case)
      g, went_on = scoped, told
      error("left", 0)
    end)
    assert(not ok and err == "left", "the scope raised " .. tostring(err))
    assert_between(0, SLACK, elapsed)
    assert(g.dead and not went_on(), "it outlived its scope")
    if case.works then case.works() end
  end
end

-- What INTERRUPTIONS of the same object leave behind, or nil.
local function left_by_interruptions(case)
  local before = leaks.snapshot()
  for _ = 1, INTERRUPTIONS do interrupt(case, 0.0005) end
  return leaks.since(before, INTERRUPTIONS * BYTES_EACH)
end

-- What one interruption leaves on the object itself, which a comparison from
-- before the object was made to after it was released would miss. A table of
-- Lua's own that doubles meanwhile does so once; a leak goes on.
local function interrupted_often(make)
  return function()
    local case, closer = case_of(make)
    local _ <close> = closer
    for _ = 1, 20 do interrupt(case, 0.0005) end
    green.sleep(0.01) -- what they set free ends by itself: connections at the peer's side
    local leak = left_by_interruptions(case) and left_by_interruptions(case)
    assert(not leak, leak)
    if case.works then case.works() end
  end
end

M.situations = {} -- name -> true, of all that this file's user has registered

--- Registers the specs for the blocking call `name`. `make` is called anew by
--- each of them and returns a Blocking. `own` says beforehand whether the call
--- takes a timeout (`make` may need servers that do not run yet).
---@param name string
---@param own boolean
---@param make fun(): Blocking
function M.behaves(name, own, make)
  M.situations[name] = true
  busted.describe("blocking: " .. name, function()
    if own then
      support.it("TO1 " .. name .. " ends by its own timeout on time", own_timeout(make))
      support.it("TO2 " .. name .. " with a longer timeout of its own lets an outer one through",
                 outer_timeout_beside_own(make))
    end
    support.it("TO2 " .. name .. " lets an outer timeout through, as the same object",
               outer_timeout(make))
    support.it("SP3 " .. name .. " ends when its greenlet is killed", kill_arrives(make))
    support.it("SP8 " .. name .. " ends when its scope is left by an error", scope_ends(make))
    support.it("SO9 " .. name .. " interrupted often leaves nothing and still works",
               interrupted_often(make))
  end)
end

return M
