-- A switch through the scheduler, from Lua, among 2 to 10,000 greenlets, beside
-- a stock coroutine round-robin of as many through a dispatcher.

package.path = "bench/?.lua;" .. package.path
local green = require "green"
local support = require "support"

local TOTAL = 1000000 -- switches a round
local ROUNDS = 7

-- Main is one of the n; it is timed while all of them only switch.
local function green_threads(n)
  local yields = TOTAL // n
  local yield = green.yield
  local function body()
    for _ = 1, yields + 1 do yield() end
  end
  return function()
    local list = {}
    for i = 1, n - 1 do list[i] = green.spawn(body) end
    yield() -- all have started
    local started = os.clock()
    for _ = 1, yields do yield() end
    local seconds = os.clock() - started
    green.joinall(list)
    return yields * n, seconds
  end
end

local function coroutines(n)
  local yields = TOTAL // n
  local resume, yield = coroutine.resume, coroutine.yield
  local function body()
    for _ = 0, yields do yield() end
  end
  return function()
    local list = {}
    for i = 1, n do
      list[i] = coroutine.create(body)
      resume(list[i])
    end
    local started = os.clock()
    for _ = 1, yields do
      for i = 1, n do resume(list[i]) end
    end
    return yields * n, os.clock() - started
  end
end

for _, case in ipairs { { 2, 0.3 }, { 100, 0.4 }, { 1000, 0.5 }, { 10000, 1 } } do
  local n, target = case[1], case[2]
  support.duel("switch-" .. n, ROUNDS, green_threads(n), "coroutine", coroutines(n), target)
end
