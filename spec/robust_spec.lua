--- What was found by trying to break it: each case here once crashed, hung,
-- leaked or lied.

local green = require "green"
local greenlet = require "greenlet"
local loop = require "green.loop"
local support = require "spec.support"
local it = support.it

describe("robust: links", function()
  it("an unlink leaves main what it is", function()
    local function link() end
    green.main():link(link)
    green.main():unlink(link)
    collectgarbage()
    collectgarbage()
    green.sleep(0)
    assert.are.equal("main", green.main().name)
    assert.are.same({}, green.joinall({ green.current() }, { timeout = 0.001 }))
  end)

  it("a link that adds a link has it called, once", function()
    local calls = {}
    local g = green.spawn(function() end)
    g:link(function(ended)
      calls[#calls + 1] = "first"
      ended:link(function() calls[#calls + 1] = "second" end)
    end)
    support.eventually(function() return #calls >= 2 end)
    green.sleep(0.002)
    assert.are.same({ "first", "second" }, calls)
  end)
end)

describe("robust: links that come and go", function()
  it("leave nothing on a greenlet that lives long", function()
    local g = green.spawn(green.sleep, 10)
    local function one() end
    local function two() end
    g:link(one)
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 20000 do -- overlapping, so that there is never none
      g:link(two)
      g:unlink(one)
      g:link(one)
      g:unlink(two)
    end
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 20)
    g:kill()
  end)
end)

describe("robust: the collector", function()
  it("a finalizer may spawn while a spawn allocates", function()
    local finalized, spawned = 0, 0
    local function litter()
      setmetatable({}, { __gc = function()
        finalized = finalized + 1
        green.spawn(function() spawned = spawned + 1 end)
      end })
    end
    for i = 1, 3000 do
      litter()
      local g = green.spawn(function(value) return value end, i)
      local raw = greenlet.new(function(value) return value end)
      assert.are.equal(i, g:get())
      assert.are.equal(i, raw:switch(i))
    end
    collectgarbage()
    support.eventually(function() return spawned == finalized end)
    assert.is_true(finalized > 0)
  end)

  it("a tracer may wake and kill who is about to wait or to run", function()
    local woken, victim
    greenlet.settrace(function()
      if victim then victim:kill(greenlet.exit, false) end
    end)
    victim = green.spawn(function() while true do green.yield() end end)
    local other = green.spawn(function() green.sleep(0.001) woken = true end)
    other:join()
    greenlet.settrace(nil)
    victim:join()
    assert.is_true(woken)
    collectgarbage()
  end)
end)

describe("robust: reports", function()
  it("an error whose __tostring fails is reported", function()
    local result = support.run [[
      local green = require "green"
      green.spawn(function() error(setmetatable({}, { __tostring = function() error("no") end })) end)
      green.spawn(function() error(setmetatable({}, { __tostring = function() green.sleep(1) end })) end)
      green.sleep(0)
    ]]
    local _, reports = result.stderr:gsub("__tostring fails", "")
    assert.are.equal(2, reports)
  end)
end)

describe("robust: cancelling", function()
  it("a timeout that is cancelled after it has woken its greenlet is raised there", function()
    local t, ok, err
    local g = green.spawn(function()
      t = green.timeout(0.01)
      ok, err = pcall(green.sleep, 5)
    end)
    green.sleep(0)
    local expiry = green.spawn(function() -- is woken in the same turn, before the sleeper runs
      while not t.expired do green.yield() end
      t:cancel()
    end)
    assert.is_true(g:join(5))
    expiry:kill()
    assert.is_false(ok)
    assert.is_true(rawequal(t, err) or green.istimeout(err))
  end)

  it("a kill ends a greenlet that waits in a message handler", function()
    local shield = green.config().shield
    green.config { shield = 0.01 }
    local _ <close> = setmetatable({}, { __close = function() green.config { shield = shield } end })
    local g = green.spawn(function()
      xpcall(function() error("x") end, function(message)
        green.sleep(5)
        return message
      end)
    end)
    green.sleep(0)
    assert.is_true(g:kill(greenlet.exit, true, 5))
  end)

  it("raw greenlets that are killed in a switch give everything back", function()
    local main = green.current()
    local function round()
      local list = {}
      for i = 1, 200 do
        list[i] = greenlet.new(function() main:switch() end)
        list[i]:switch()
      end
      for _, g in ipairs(list) do g:kill(greenlet.exit, false) end
      for _, g in ipairs(list) do g:join() end
    end
    round()
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 5 do round() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 50)
  end)
end)

describe("robust: forbidden places", function()
  it("a switch in a finalizer is refused", function()
    local answer
    local g = greenlet.new(function() end)
    do
      local _ = setmetatable({}, { __gc = function() answer = { pcall(g.switch, g) } end })
    end
    collectgarbage()
    collectgarbage()
    assert.is_false(answer[1])
    assert.is_truthy(answer[2]:find("finalizer", 1, true))
    g:switch()
  end)

  it("a loop callback may cancel the timeout of a greenlet", function()
    local t
    local g = green.spawn(function()
      t = green.timeout(10)
      green.sleep(0.02)
      return "slept"
    end)
    green.sleep(0)
    local timer = loop.timer(0.005)
    timer:start(function() t:cancel() end)
    assert.are.equal("slept", g:get())
    timer:close()
  end)
end)

describe("robust: the end of the program #host", function()
  it("a kill of main is reported once, and so is who waits for main for ever", function()
    local result = support.run [[
      local green = require "green"
      green.spawn(function() green.main():kill("mk") end)
      green.sleep(1)
    ]]
    assert.are.equal(1, result.status)
    local _, kills = result.stderr:gsub(": mk\n", "")
    assert.are.equal(1, kills)
    assert.is_truthy(result.stderr:find("would block forever", 1, true))
  end)
end)
