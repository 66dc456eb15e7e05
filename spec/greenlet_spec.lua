--- The raw core from Lua: switch, throw, parent, death, tracer (ACCEPTANCE 1).

local greenlet = require "greenlet"
local green = require "green"
local support = require "spec.support"
local it = support.it

local function pack(...) return table.pack(...) end

describe("greenlet: switching", function()
  it("GC1 the founding example prints red, blue, red done", function()
    local said, gr1, gr2 = {}
    gr1 = greenlet.new(function()
      said[#said + 1] = "red"
      gr2:switch()
      said[#said + 1] = "red done"
    end)
    gr2 = greenlet.new(function()
      said[#said + 1] = "blue"
      gr1:switch()
      said[#said + 1] = "blue done"
    end)
    gr1:switch()
    assert.are.same({ "red", "blue", "red done" }, said)
    assert.is_true(gr1.dead)
    assert.is_false(gr2.dead)
    gr2:throw()
  end)

  it("GC1 child and parent alternate strictly, and values go both ways", function()
    local steps = {}
    local child = greenlet.new(function(first)
      local value = first
      for i = 1, 3 do
        steps[#steps + 1] = "child " .. value
        value = greenlet.current().parent:switch(i * 10)
      end
      steps[#steps + 1] = "child " .. value
      return "end"
    end)
    for i = 1, 3 do
      local got = child:switch(i)
      steps[#steps + 1] = "parent " .. got
    end
    assert.are.equal("end", child:switch(4))
    assert.are.same({ "child 1", "parent 10", "child 2", "parent 20", "child 3", "parent 30",
                      "child 4" }, steps)
    assert.is_true(child.dead)
  end)

  it("GC1 a child starts grandchildren the same way", function()
    local steps = {}
    local child = greenlet.new(function()
      local grandchild = greenlet.new(function()
        steps[#steps + 1] = "grandchild"
        greenlet.current().parent:switch()
        steps[#steps + 1] = "grandchild again"
      end)
      grandchild:switch()
      steps[#steps + 1] = "child"
      grandchild:switch()
      steps[#steps + 1] = "child again"
    end)
    child:switch()
    assert.are.same({ "grandchild", "child", "grandchild again", "child again" }, steps)
  end)

  it("GC1 arguments and results keep their number, nils included", function()
    local g = greenlet.new(function(...)
      local got = pack(...)
      local again = pack(greenlet.current().parent:switch(nil, got.n, nil))
      return again.n, nil, nil
    end)
    assert.are.same({ n = 3, [2] = 4 }, pack(g:switch(nil, 2, nil, nil)))
    assert.are.same({ n = 3, 2 }, pack(g:switch(nil, nil)))
  end)

  it("GC1 a switch to the current greenlet returns its arguments", function()
    assert.are.same({ n = 2, 1, 2 }, pack(greenlet.current():switch(1, 2)))
  end)

  it("GC1 a hundred thousand switches leave the stacks where they were", function()
    local g = greenlet.new(function()
      local main = greenlet.current().parent
      while true do main:switch() end
    end)
    for _ = 1, 100000 do g:switch() end
    g:throw()
    assert.is_true(g.dead)
  end)
end)

describe("greenlet: errors and death", function()
  it("GC2 an uncaught error surfaces at the parent's switch, as the same value", function()
    local reason = { "reason" }
    local g = greenlet.new(function() error(reason) end)
    local ok, err = pcall(g.switch, g)
    assert.is_false(ok)
    assert.is_true(rawequal(reason, err))
    assert.is_true(g.dead)
  end)

  it("GC2 of a reparented child it surfaces at the new parent", function()
    local caught
    local child = greenlet.new(function() error("from the child", 0) end)
    local other = greenlet.new(function()
      child.parent = greenlet.current()
      local ok, err = pcall(child.switch, child)
      caught = { ok, err }
    end)
    other:switch()
    assert.are.same({ false, "from the child" }, caught)
    assert.is_true(child.dead)
    assert.is_true(other.dead)
  end)

  it("GC2 a child reparented while it is suspended fails in the new parent", function()
    local main = greenlet.current()
    local child = greenlet.new(function()
      main:switch()
      error("late", 0)
    end)
    local keeper = greenlet.new(function()
      local ok, err = pcall(main.switch, main, "ready")
      return ok, err
    end)
    child:switch()
    assert.are.equal("ready", keeper:switch())
    child.parent = keeper
    assert.are.same({ n = 2, false, "late" }, pack(child:switch()))
    assert.is_true(child.dead)
    assert.is_true(keeper.dead)
  end)

  it("GC3 a switch into a dead one returns at once with what it carried", function()
    local g = greenlet.new(function() end)
    g:switch()
    assert.is_true(g.dead)
    assert.are.equal(0, pack(g:switch()).n)
    assert.are.same({ n = 1, "back" }, pack(g:switch("back")))
  end)

  it("GC3 it goes to the nearest living ancestor", function()
    local child
    local parent = greenlet.new(function()
      child = greenlet.new(function() end)
      child:switch()
      local got = greenlet.current().parent:switch("parked")
      return "ancestor got " .. got
    end)
    assert.are.equal("parked", parent:switch())
    assert.is_true(child.dead)
    assert.are.equal("ancestor got this", child:switch("this"))
  end)

  it("GC3 a dead one reparented to an unstarted one starts that", function()
    local dead = greenlet.new(function() end)
    dead:switch()
    local fresh = greenlet.new(function(...) return "started", ... end)
    dead.parent = fresh
    assert.are.same({ n = 2, "started", 1 }, pack(dead:switch(1)))
    assert.is_true(fresh.dead)
  end)

  it("GC4 the end under an unstarted parent starts it with the result", function()
    local got
    local parent = greenlet.new(function(...) got = pack(...) return "from the parent" end)
    local child = greenlet.new(function() return 1, nil, 3 end, parent)
    assert.are.equal("from the parent", child:switch())
    assert.are.same({ n = 3, 1, [3] = 3 }, got)
  end)

  it("GC4 a parent that cannot take the result fails, and the caller gets that", function()
    local parent = greenlet.new(function(value) return value.field end)
    local child = greenlet.new(function() return nil end, parent)
    local ok, err = pcall(child.switch, child)
    assert.is_false(ok)
    assert.matches("attempt to index a nil value", err)
    assert.is_true(parent.dead)
    assert.is_true(child.dead)
  end)
end)

describe("greenlet: throw", function()
  it("GC5 throw of exit returns the exit object, also when it is dead", function()
    local main = greenlet.current()
    local g = greenlet.new(function() main:switch() end)
    g:switch()
    assert.is_true(rawequal(greenlet.exit, (g:throw())))
    assert.is_true(g.dead)
    assert.is_true(rawequal(greenlet.exit, (g:throw(greenlet.exit))))
    assert.are.equal("GreenletExit", tostring(greenlet.exit))
  end)

  it("GC5 throw of exit into an unstarted one: it never runs", function()
    local ran = false
    local g = greenlet.new(function() ran = true end)
    assert.is_true(rawequal(greenlet.exit, (g:throw())))
    assert.is_true(g.dead)
    assert.is_false(ran)
  end)

  it("GC5 what is thrown is raised where it is suspended and can be caught", function()
    local main = greenlet.current()
    local g = greenlet.new(function()
      local ok, err = pcall(main.switch, main)
      return ok, err
    end)
    g:switch()
    assert.are.same({ n = 2, false, "thrown" }, pack(g:throw("thrown")))
    assert.is_true(g.dead)
  end)

  it("GC5 an error passes every unstarted ancestor up to one that can catch it", function()
    local ran = 0
    local function never() ran = ran + 1 end
    local reason = { "reason" }
    local oldest = greenlet.new(never)
    local middle = greenlet.new(never, oldest)
    local youngest = greenlet.new(never, middle)
    local ok, err = pcall(youngest.throw, youngest, reason)
    assert.is_false(ok)
    assert.is_true(rawequal(reason, err))
    assert.are.same({ true, true, true }, { oldest.dead, middle.dead, youngest.dead })
    assert.are.equal(0, ran)
  end)

  it("GC5 a started ancestor catches what the unstarted ones below let pass", function()
    local catcher = greenlet.new(function()
      local child = greenlet.new(function() end)
      local grandchild = greenlet.new(function() end, child)
      local ok, err = pcall(grandchild.throw, grandchild, "up")
      return ok, err, child.dead, grandchild.dead
    end)
    assert.are.same({ n = 4, false, "up", true, true }, pack(catcher:switch()))
  end)

  it("GC5 an error thrown into a dead one is raised in its ancestor", function()
    local g = greenlet.new(function() end)
    g:switch()
    local ok, err = pcall(g.throw, g, "to the ancestor")
    assert.is_false(ok)
    assert.are.equal("to the ancestor", err)
  end)
end)

describe("greenlet: parents", function()
  local function rejects(pattern, g, parent)
    local before = g.parent
    local ok, err = pcall(function() g.parent = parent end)
    assert.is_false(ok)
    assert.matches(pattern, err)
    assert.is_true(rawequal(before, g.parent))
  end

  it("GC7 the parent is the creator, or the one that is given", function()
    local one = greenlet.new(function() end)
    local two = greenlet.new(function() end, one)
    assert.are.equal(greenlet.current(), one.parent)
    assert.are.equal(one, two.parent)
    two.parent = greenlet.current()
    assert.are.equal(greenlet.current(), two.parent)
  end)

  it("GC7 cycles are refused and change nothing", function()
    local one = greenlet.new(function() end)
    local two = greenlet.new(function() end, one)
    local three = greenlet.new(function() end, two)
    rejects("cyclic parent chain", one, one)
    rejects("cyclic parent chain", one, two)
    rejects("cyclic parent chain", one, three)
  end)

  it("GC7 a parent of another type is refused", function()
    local g = greenlet.new(function() end)
    for _, value in ipairs { 42, "parent", {}, true, print } do
      rejects("greenlet expected, got " .. type(value), g, value)
    end
    rejects("greenlet expected, got n", g, nil)
    assert.has_error(function() greenlet.new(print, 42) end,
                     "bad argument #2 to 'new' (greenlet expected, got number)")
  end)

  it("GC7 main can have no parent", function()
    local main = green.main()
    local g = greenlet.new(function() end)
    assert.is_nil(main.parent)
    local ok, err = pcall(function() main.parent = g end)
    assert.is_false(ok)
    assert.matches("the main greenlet has no parent", err)
  end)

  it("GC7 a child of the new parent stays reparentable to its sibling", function()
    local one, two = greenlet.new(function() end), greenlet.new(function() end)
    two.parent = one
    two.parent = greenlet.current()
    one.parent = two
    assert.are.equal(two, one.parent)
  end)
end)

-- Generators built from greenlets, as the suite of greenlet has them.
local function generator(body)
  local caller
  local function yield(...)
    return caller:switch(...)
  end
  local g = greenlet.new(function()
    body(yield)
    return nil
  end)
  return function()
    if g.dead then error("the generator has ended", 2) end
    caller = greenlet.current()
    g.parent = caller
    return g:switch()
  end
end

local function permutations(list)
  return generator(function(yield)
    local function permute(n)
      if n <= 1 then return yield(table.concat(list)) end
      for i = 1, n do
        list[n], list[i] = list[i], list[n]
        permute(n - 1)
        list[n], list[i] = list[i], list[n]
      end
    end
    permute(#list)
  end)
end

describe("greenlet: generators", function()
  it("GC10 permutations yield from nested calls", function()
    local seen, count = {}, 0
    for word in permutations { "a", "b", "c", "d" } do
      assert.is_nil(seen[word])
      seen[word], count = true, count + 1
    end
    assert.are.equal(24, count)
    assert.is_true(seen.dcba and seen.abcd)
  end)

  it("GC10 generators nest in each other", function()
    local pairs_of = generator(function(yield)
      for word in permutations { "x", "y" } do
        for other in permutations { "1", "2" } do yield(word .. other) end
      end
    end)
    local all = {}
    for word in pairs_of do all[#all + 1] = word end
    table.sort(all)
    assert.are.same({ "xy12", "xy21", "yx12", "yx21" }, all)
  end)

  it("GC10 misuse raises", function()
    local once = generator(function(yield) yield(1) end)
    assert.are.equal(1, once())
    assert.is_nil(once())
    assert.has_error(once, "the generator has ended")
    local failing = generator(function() error("inside", 0) end)
    assert.has_error(failing, "inside")
    assert.has_error(failing, "the generator has ended")
  end)
end)

-- Runs in a process of its own, and either works or ends with a clear message.
local function survives(script)
  local result = support.run(script)
  assert.is_nil(result.signal, "signal " .. tostring(result.signal) .. ": " .. result.stderr)
  assert.is_false(result.timedout)
  return result
end

describe("greenlet: abuse", function()
  it("GC11 a tracer that switches in the middle of a switch", function()
    local result = survives [[
      local greenlet = require "greenlet"
      local other = greenlet.new(function()
        while true do greenlet.current().parent:switch() end
      end)
      local inside = false
      greenlet.settrace(function()
        if inside then return end
        inside = true
        pcall(other.switch, other)
        inside = false
      end)
      local g = greenlet.new(function() return "done" end)
      local got = g:switch()
      greenlet.settrace(nil)
      io.write("alive ", tostring(g.dead))
    ]]
    assert.is_true(result.stdout == "alive true" or result.stderr ~= "")
  end)

  it("GC11 a tracer that waits gets an error that says so", function()
    local result = survives [[
      local greenlet, green = require "greenlet", require "green"
      local ok, err
      greenlet.settrace(function() if ok == nil then ok, err = pcall(green.sleep, 0) end end)
      greenlet.new(function() end):switch()
      greenlet.settrace(nil)
      io.write(tostring(ok), " ", tostring(err))
    ]]
    assert.matches("^false 'sleep' cannot wait", result.stdout)
  end)

  it("GC11 a finalizer that switches", function()
    local result = survives [[
      local greenlet = require "greenlet"
      local g = greenlet.new(function()
        while true do greenlet.current().parent:switch("in") end
      end)
      local ok, err
      setmetatable({}, { __gc = function() ok, err = pcall(g.switch, g) end })
      collectgarbage()
      collectgarbage()
      io.write(tostring(ok), " ", tostring(err))
    ]]
    -- a raw switch is no wait: it may work; refusing it has to say why
    assert.is_true(result.stdout == "true in" or result.stdout:find("^false .") ~= nil)
    assert.are.equal(0, result.status)
  end)

  it("GC11 a body that is cleared and reparented while it runs", function()
    local result = survives [[
      local greenlet = require "greenlet"
      local main = greenlet.current()
      local g
      g = greenlet.new(function()
        local self = greenlet.current()
        g = nil
        collectgarbage()
        local middle = greenlet.new(function(...) return "middle", ... end, main)
        self.parent = middle
        return "end"
      end)
      io.write(table.concat({ g:switch() }, " "))
    ]]
    assert.are.equal("middle end", result.stdout)
  end)

  it("GC11 a greenlet thrown into while it is throwing into another", function()
    local result = survives [[
      local greenlet = require "greenlet"
      local main = greenlet.current()
      local a, b
      a = greenlet.new(function() pcall(main.switch, main) b:throw("from a") end)
      b = greenlet.new(function() pcall(main.switch, main) a:throw("from b") end)
      a:switch()
      b:switch()
      io.write(tostring(select(2, pcall(a.throw, a, "first"))))
    ]]
    assert.are.equal(0, result.status)
  end)
end)

describe("greenlet: tracing", function()
  local function traced(fn)
    local events = {}
    local previous = greenlet.settrace(function(event, origin, target)
      events[#events + 1] = { event, origin, target }
    end)
    local ok, err = pcall(fn)
    greenlet.settrace(previous)
    if not ok then error(err, 0) end
    return events
  end

  local function assert_events(expected, events)
    assert.are.equal(#expected, #events)
    for i, event in ipairs(expected) do
      assert.are.equal(event[1], events[i][1])
      assert.is_true(rawequal(event[2], events[i][2]))
      assert.is_true(rawequal(event[3], events[i][3]))
    end
  end

  it("GC14 start, switch and return", function()
    local main = greenlet.current()
    local g = greenlet.new(function() main:switch() end)
    local events = traced(function()
      g:switch()
      g:switch()
    end)
    assert_events({ { "switch", main, g }, { "switch", g, main }, { "switch", main, g },
                    { "switch", g, main } }, events)
  end)

  it("GC14 an error and a throw", function()
    local main = greenlet.current()
    local failing = greenlet.new(function() error("x", 0) end)
    local thrown = greenlet.new(function() main:switch() end)
    local events = traced(function()
      pcall(failing.switch, failing)
      thrown:switch()
      pcall(thrown.throw, thrown, "y")
    end)
    assert_events({ { "switch", main, failing }, { "throw", failing, main },
                    { "switch", main, thrown }, { "switch", thrown, main },
                    { "throw", main, thrown }, { "throw", thrown, main } }, events)
  end)

  it("GC14 a tracer that raises turns itself off, and the switch goes on", function()
    local script = [[
      local greenlet = require "greenlet"
      local calls = 0
      greenlet.settrace(function() calls = calls + 1 error("tracer") end)
      local g = greenlet.new(function() return "done" end)
      local ok, got = pcall(g.switch, g)
      io.write(calls, " ", tostring(greenlet.settrace(nil)), " ")
      if not ok then got = g.dead and "done" or g:switch() end
      io.write(got)
    ]]
    local result = support.run(script)
    assert.are.equal("1 nil done", result.stdout)
  end)

  it("GC14 settrace returns the one before", function()
    local function tracer() end
    assert.is_nil(greenlet.settrace(tracer))
    assert.are.equal(tracer, greenlet.settrace(nil))
    assert.is_nil(greenlet.settrace(nil))
  end)
end)

describe("greenlet: its face", function()
  it("shows name and state", function()
    local main = greenlet.current()
    local g = greenlet.new(function() main:switch(tostring(greenlet.current())) end)
    g.name = "worker"
    assert.are.equal("greenlet: worker (new)", tostring(g))
    assert.are.equal("greenlet: worker (current)", g:switch())
    assert.are.equal("greenlet: worker (suspended)", tostring(g))
    g:switch()
    assert.are.equal("greenlet: worker (dead)", tostring(g))
    assert.are.equal("main", green.main().name)
    assert.are.equal("hub", green.hub().name)
    assert.matches("^greenlet%-%d+$", greenlet.new(print).name)
  end)
end)
