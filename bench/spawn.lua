-- A green thread's whole life, spawn to join, of one function, beside a stock
-- coroutine's, create and resume to its end. The collector's mode decides much
-- of it, so both are measured.

package.path = "bench/?.lua;" .. package.path
local green = require "green"
local support = require "support"

local TOTAL = 200000 -- lives a round
local ROUNDS = 7

local function body() end

local function spawn_join()
  local spawn = green.spawn
  local started = os.clock()
  for _ = 1, TOTAL do spawn(body):join() end
  return TOTAL, os.clock() - started
end

local function create_resume()
  local create, resume = coroutine.create, coroutine.resume
  local started = os.clock()
  for _ = 1, TOTAL do resume(create(body)) end
  return TOTAL, os.clock() - started
end

for _, case in ipairs { { "incremental", 0.9 }, { "generational", 1.3 } } do
  collectgarbage(case[1])
  support.duel("spawn-" .. case[1], ROUNDS, spawn_join, "coroutine", create_resume, case[2])
end
