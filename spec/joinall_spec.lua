--- Waiting for several: joinall, wait, iwait (ACCEPTANCE 3).
--
-- JO7 speaks of events and semaphores, which a later issue brings; here it is
-- held against what can be waited for today: a greenlet that has ended.

local green = require "green"
local support = require "spec.support"
local it = support.it

local function after(seconds, value)
  return green.spawn(function()
    green.sleep(seconds)
    return value
  end)
end

local function failing(seconds, reason)
  return green.spawn(function()
    green.sleep(seconds)
    error(reason, 0)
  end)
end

local function endless()
  return green.spawn(function() while true do green.sleep(10) end end)
end

-- Lua bytes after `fn` has run `n` times beyond what a warm-up left.
local function growth(n, fn)
  for _ = 1, 100 do fn() end
  collectgarbage()
  collectgarbage()
  local before = collectgarbage("count")
  for _ = 1, n do fn() end
  collectgarbage()
  collectgarbage()
  return (collectgarbage("count") - before) * 1024
end

describe("joinall", function()
  it("returns those that ended, in the order of their ends", function()
    local slow, fast = after(0.02), after(0.005)
    local list = green.joinall { slow, fast }
    assert.are.equal(2, #list)
    assert.is_true(rawequal(fast, list[1]) and rawequal(slow, list[2]))
  end)

  it("takes an empty list, and one greenlet twice", function()
    assert.are.same({}, green.joinall {})
    local g = after(0)
    local list = green.joinall { g, g }
    assert.is_true(#list >= 1 and rawequal(g, list[1]))
  end)

  it("JO1 raise_error raises the earliest failure in time, others still run", function()
    local late, early, good = failing(0.03, "late"), failing(0.005, "early"), after(0.02, "good")
    local ok, err = pcall(green.joinall, { late, good, early }, { raise_error = true })
    assert.are.same({ false, "early" }, { ok, err })
    assert.are.equal("good", good:get())
    assert.are.same({ n = 2, false, "late" }, table.pack(late:pget()))
  end)

  it("JO1 the error is the same value", function()
    local reason = {}
    local g = failing(0, reason)
    local _, err = pcall(green.joinall, { g }, { raise_error = true })
    assert.is_true(rawequal(reason, err))
  end)

  it("JO2 count=1 returns when the failing one ends, the endless one is untouched", function()
    local forever, bad = endless(), failing(0.005, "planned")
    local list = green.joinall({ forever, bad }, { count = 1 })
    assert.are.equal(1, #list)
    assert.is_true(rawequal(bad, list[1]))
    assert.are.equal("planned", bad.error)
    assert.is_false(forever:ready())
    assert.is_true(forever:kill())
  end)

  it("JO2 count=1 with raise_error raises", function()
    local forever, bad = endless(), failing(0.005, "planned")
    local ok, err = pcall(green.joinall, { forever, bad }, { count = 1, raise_error = true })
    assert.are.same({ false, "planned" }, { ok, err })
    forever:kill()
  end)

  it("a timeout ends it with those that have ended", function()
    local forever, quick = endless(), after(0)
    local elapsed, list = support.timed(green.joinall, { forever, quick }, { timeout = 0.02 })
    assert.is_true(elapsed >= 0.019 and elapsed < 1)
    assert.are.equal(1, #list)
    assert.is_true(rawequal(quick, list[1]))
    forever:kill()
  end)
end)

describe("iwait", function()
  it("JO3 gives each as it ends, those that had ended before included", function()
    local done = after(0, "before")
    done:join()
    local list = { after(0.01, "last"), done, after(0.002, "first") }
    local seen = {}
    for g in green.iwait(list) do seen[#seen + 1] = g.value end
    assert.are.same({ "before", "first", "last" }, seen)
  end)

  it("JO3 waiting between the items loses none", function()
    local list, seen = {}, {}
    for i = 1, 20 do list[i] = after(0.001 * (i % 5), i) end
    for g in green.iwait(list) do
      green.sleep(0.002)
      seen[g.value] = true
    end
    for i = 1, 20 do assert(seen[i], i) end
  end)

  it("JO3 many that end at the same time are all given", function()
    local list, count = {}, 0
    for i = 1, 100 do list[i] = green.spawn(function() return i end) end
    for _ in green.iwait(list) do count = count + 1 end
    assert.are.equal(100, count)
  end)

  it("JO4 leaving early leaves no link behind", function()
    local forever, quick = endless(), after(0)
    quick:join()
    local bytes = growth(500, function()
      for _ in green.iwait { quick, forever } do break end -- luacheck: ignore 512 (left early)
    end)
    assert.is_true(bytes < 20000, bytes)
    forever:kill()
  end)

  it("JO4 leaving by an error leaves no link behind", function()
    local forever, quick = endless(), after(0)
    quick:join()
    local bytes = growth(500, function()
      pcall(function() for _ in green.iwait { quick, forever } do error("left") end end)
    end)
    assert.is_true(bytes < 20000, bytes)
    forever:kill()
  end)

  it("JO4 next() works without a loop", function()
    local first, second = after(0.001, 1), after(0.01, 2)
    local next_one, state, control, closing = green.iwait { first, second }
    local _ <close> = closing
    control = next_one(state, control)
    assert.are.equal(1, control.value)
    control = next_one(state, control)
    assert.are.equal(2, control.value)
    assert.is_nil(next_one(state, control))
  end)

  it("count and timeout end the loop", function()
    local forever, seen = endless(), 0
    for _ in green.iwait({ after(0), after(0.001), forever }, { count = 2 }) do seen = seen + 1 end
    assert.are.equal(2, seen)
    local elapsed = support.timed(function()
      for _ in green.iwait({ forever }, { timeout = 0.02 }) do seen = seen + 1 end
    end)
    assert.is_true(elapsed >= 0.019 and elapsed < 1)
    assert.are.equal(2, seen)
    forever:kill()
  end)
end)

describe("wait", function()
  it("JO5 with nothing to do it returns true at once", function()
    local elapsed, result = support.timed(green.wait)
    assert.is_true(result)
    assert.is_true(elapsed < 0.2)
  end)

  it("JO5 with a sleeper it times out, and after its death returns true", function()
    local g = support.started(function() green.sleep(10) end)
    local elapsed, result = support.timed(green.wait, nil, { timeout = 0.02 })
    assert.is_false(result)
    assert.is_true(elapsed >= 0.019 and elapsed < 1)
    g:kill()
    assert.is_true(green.wait())
  end)

  it("JO5 it waits for what is spawned and what that spawns", function()
    local done = 0
    green.spawn(function()
      green.sleep(0.005)
      done = done + 1
      green.spawn(function()
        green.sleep(0.005)
        done = done + 1
      end)
    end)
    assert.is_true(green.wait())
    assert.are.equal(2, done)
  end)

  it("JO5 with a list it waits for that list, without raising", function()
    local bad, slow = failing(0.001, "planned"), endless()
    local list = green.wait({ bad, slow }, { timeout = 0.02 })
    assert.are.equal(1, #list)
    assert.is_true(rawequal(bad, list[1]))
    assert.are.equal("planned", bad.error)
    slow:kill()
  end)

  it("JO6 unreferenced watchers do not hold it", function()
    local loop = require "green.loop"
    local timer = loop.timer(10)
    timer.ref = false
    timer:start(function() end)
    local elapsed, result = support.timed(green.wait, nil, { timeout = 5 })
    assert.is_true(result)
    assert.is_true(elapsed < 1)
    timer.ref = true
    assert.is_false(green.wait(nil, { timeout = 0.01 }))
    timer.ref = false
    assert.is_true(green.wait())
    timer:close()
  end)

  it("JO7 waiting twice for what has ended returns at once both times", function()
    local g = after(0, "value")
    g:join()
    for _ = 1, 2 do
      local elapsed, list = support.timed(green.wait, { g })
      assert.are.equal(1, #list)
      assert.is_true(elapsed < 0.2)
      assert.is_true(g:join())
      assert.are.equal("value", g:get())
    end
  end)
end)

describe("join", function()
  it("JO8 with a timeout returns nil and leaves nothing behind", function()
    local g = endless()
    local elapsed, ok, message, code = support.timed(g.join, g, 0.02)
    assert.is_true(elapsed >= 0.019 and elapsed < 1)
    assert.are.same({ n = 3, nil, "timeout", "ETIMEDOUT" }, table.pack(ok, message, code))
    local bytes = growth(1000, function() g:join(0) end)
    assert.is_true(bytes < 20000, bytes)
    g:kill()
  end)

  it("JO8 an outer timeout fires inside join and is not swallowed", function()
    local g, scope = endless(), nil
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.005)
      scope = t
      g:join(10)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(scope, err))
    assert.is_false(g:ready())
    g:kill()
  end)

  it("JO8 many join one, and one joins itself never", function()
    local g = after(0.005, "v")
    local joiners = {}
    for i = 1, 10 do joiners[i] = green.spawn(function() return g:get() end) end
    for _, joiner in ipairs(joiners) do assert.are.equal("v", joiner:get()) end
    local self = green.spawn(function() return green.current():join() end)
    assert.is_false((self:pget()))
  end)

  it("green.list names who lives", function()
    local g = support.started(function() green.sleep(10) end)
    local found = false
    for _, each in ipairs(green.list()) do found = found or rawequal(each, g) end
    assert.is_true(found)
    g:kill()
  end)
end)
