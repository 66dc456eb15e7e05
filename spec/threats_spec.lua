--- Threats that the core answers: T53 and T54.
--
-- T53's wild write into a guard, overflow in a C function and in a signal
-- handler need C: spec/c/stack_test.c. Here is what a script can do.

local support = require "spec.support"
local it = support.it

-- Each overflows in its own way; the greenlet fails, the process lives.
local OVERFLOWS = {
  ["a recursion in Lua"] = "local function f() return 1 + f() end f()",
  ["gsub in gsub"] = [[
    local function f() return (string.gsub("x", ".", f)) end f()]],
  ["__tostring in __tostring"] = [[
    local o = setmetatable({}, {})
    getmetatable(o).__tostring = function() return tostring(o) end
    tostring(o)]],
  ["sort in a handler of xpcall"] = [[
    local function f() table.sort({ 2, 1 }, f) end
    xpcall(f, f)
    f()]],
}

describe("threats: stacks", function()
  for name, source in pairs(OVERFLOWS) do
    it("T53 " .. name .. " ends one of twenty greenlets, not the process", function()
      local out = support.succeeds(([[
        local green = require "green"
        local others = {}
        for i = 1, 20 do others[i] = green.spawn(function() green.sleep(0.005) return i end) end
        local g = green.spawn(function()
          %s
        end)
        local ok, err = g:pget()
        for i = 1, 20 do assert(others[i]:get() == i) end
        io.write(tostring(ok), " ", tostring(err))
      ]]):format(source))
      assert.matches("^false .*stack overflow", out)
    end)
  end
end)

-- Where a wait is forbidden: code that tries it in that place through `try`.
local FORBIDDEN = {
  ["a finalizer"] = { "finalizer", [[
    setmetatable({}, { __gc = try })
    collectgarbage()
    collectgarbage()]] },
  ["a finalizer at the end of the state"] = { "closing", [[
    last = setmetatable({}, { __gc = function() try() show() end })]] },
  ["a deferred callback"] = { "callback", [[
    loop.run_callback(try)
    green.sleep(0.002)]] },
  ["a timer's callback"] = { "callback", [[
    loop.timer(0):start(try)
    green.sleep(0.005)]] },
  ["a link"] = { "callback", [[
    local g = green.spawn(function() end)
    g:link(try)
    g:join()
    green.sleep(0.002)]] },
  ["a tracer"] = { "trace function", [[
    local greenlet = require "greenlet"
    greenlet.settrace(try)
    greenlet.new(function() end):switch()
    greenlet.settrace(nil)]] },
}

describe("threats: places where nobody may wait", function()
  for place, case in pairs(FORBIDDEN) do
    it("T54 a wait in " .. place .. " is an error that names it; the state is intact", function()
      local out = support.succeeds(([[
        local green, loop = require "green", require "green.loop"
        local message
        local function try()
          if message == nil then message = select(2, pcall(green.sleep, 0.001)) or false end
        end
        function show() io.write(tostring(message), "\n") end
        %s
        local g = green.spawn(function() green.sleep(0.001) return "intact" end)
        io.write(g:get(), " ")
        if message ~= nil then show() end
      ]]):format(case[2]))
      assert.matches("^intact 'sleep' cannot wait", out)
      assert.matches(case[1], out)
    end)
  end
end)
