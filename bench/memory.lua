-- The memory of one parked green thread, at 100,000 of them, page tables
-- included, beside a stock coroutine's.

package.path = "bench/?.lua;" .. package.path
local green = require "green"
local support = require "support"

local COUNT = 100000
local LIMIT = 5500 -- bytes a green thread (a page of stack and a Lua thread are 5,240)

--- Bytes of this process in memory, and of its page tables.
local function footprint()
  collectgarbage()
  local file <close> = assert(io.open("/proc/self/status"))
  local text = file:read("a")
  return 1024 * tonumber(text:match("VmRSS:%s*(%d+) kB")),
    1024 * tonumber(text:match("VmPTE:%s*(%d+) kB"))
end

local function measure(name, make)
  local list = {}
  for i = 1, COUNT do list[i] = false end -- its memory is not theirs
  local memory, tables = footprint()
  for i = 1, COUNT do list[i] = make() end
  green.yield()
  local memory_after, tables_after = footprint()
  support.put("parked-" .. COUNT, name, (memory_after - memory) / COUNT, "bytes")
  support.put("parked-" .. COUNT, name .. "-tables", (tables_after - tables) / COUNT, "bytes")
  return list, (memory_after - memory) / COUNT
end

local _, coroutine_bytes = measure("coroutine", function()
  local co = coroutine.create(coroutine.yield)
  coroutine.resume(co)
  return co
end)

local list, green_bytes = measure("green", function() return green.spawn(green.sleep, 1e6) end)
support.put("parked-" .. COUNT, "ratio", green_bytes / coroutine_bytes,
  ("of coroutine; target %.2f"):format(LIMIT / coroutine_bytes))
green.killall(list)
