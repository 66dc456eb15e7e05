--- The life of a spawned greenlet (ACCEPTANCE 2).
--
-- Observing a failure (`.error`, `pget`, ...) belongs to these specs: what
-- fails unobserved is reported on stderr, and the wrapper of `it` minds.

local greenlet = require "greenlet"
local green = require "green"
local support = require "spec.support"
local it = support.it

local function sleeper()
  green.sleep(10)
end

describe("life: states", function()
  it("SP1 unstarted, started, running, ended", function()
    local seen
    local g = green.greenlet(function(value)
      local self = green.current()
      seen = { self.started, self.dead, self:ready() }
      return value, "more"
    end, "value")
    assert.are.same({ false, false, false }, { not not g.started, g.dead, g:ready() })
    assert.is_nil(g.value)
    g:start()
    assert.are.same({ true, false, false }, { g.started, g.dead, g:ready() })
    assert.is_true(g:join())
    assert.are.same({ true, false, false }, seen)
    assert.are.same({ true, true, true }, { g.dead, g:ready(), g:successful() })
    assert.are.equal("value", g.value)
    assert.is_nil(g.error)
  end)

  it("SP1 a second start does nothing, before and after the end", function()
    local runs = 0
    local g = green.greenlet(function() runs = runs + 1 end)
    g:start()
    g:start()
    g:start_later(0)
    g:join()
    g:start()
    green.sleep(0)
    assert.are.equal(1, runs)
  end)

  it("SP1 arguments are dropped at the end, the value is kept", function()
    local weak = setmetatable({}, { __mode = "k" })
    local g
    do
      local argument = {}
      weak[argument] = true
      g = green.spawn(function(a) return type(a) end, argument)
    end
    g:join()
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
    assert.are.equal("table", g.value)
  end)

  it("SP1 spawn_later starts on time and not before", function()
    local elapsed = support.timed(function()
      local g = green.spawn_later(0.02, function(a) return a end, "x")
      green.sleep(0)
      assert.is_false(g:ready())
      assert.are.equal("x", g:get())
    end)
    assert.is_true(elapsed >= 0.019 and elapsed < 1)
  end)

  it("SP9 the current greenlet is never seen dead, not even by the tracer", function()
    local dead_seen, looked = false, 0
    local g = green.greenlet(function() looked = looked + 1 end)
    greenlet.settrace(function(_, _, target)
      looked = looked + 1
      if target == g and not g:ready() then dead_seen = dead_seen or g.dead end
      if green.current().dead and green.current() == g and not g:ready() then dead_seen = true end
    end)
    g:start()
    g:join()
    greenlet.settrace(nil)
    assert.is_true(looked > 1)
    assert.is_false(dead_seen)
  end)

  it("SP10 what is spawned by one that ends at once still runs", function()
    local ran = {}
    green.spawn(function()
      green.spawn(function()
        ran[#ran + 1] = "child"
        green.spawn(function() ran[#ran + 1] = "grandchild" end)
      end)
    end)
    support.eventually(function() return #ran == 2 end)
    assert.are.same({ "child", "grandchild" }, ran)
  end)
end)

-- The ways to kill before the first run; each leaves `g` ended without running.
local KILLERS = {
  ["g:kill()"] = function(g) assert.is_true(g:kill()) end,
  ["g:kill, not blocking"] = function(g) g:kill(greenlet.exit, false) end,
  ["green.kill"] = function(g) assert.is_true(green.kill(g)) end,
  ["killall"] = function(g) green.killall({ g }) end,
  ["killall, not blocking"] = function(g) green.killall({ g }, nil, { block = false }) end,
  ["g:throw()"] = function(g) g:throw() end,
}

local STARTERS = {
  ["unstarted"] = function() end,
  ["after start"] = function(g) g:start() end,
  ["after start_later"] = function(g) g:start_later(0.001) end,
}

describe("life: killed before the first run", function()
  for how, kill in pairs(KILLERS) do
    for state, start in pairs(STARTERS) do
      it("SP2 " .. how .. ", " .. state, function()
        local ran, linked = false, 0
        local g = green.greenlet(function() ran = true end)
        g:link(function(ended)
          assert(rawequal(ended, g))
          linked = linked + 1
        end)
        start(g)
        kill(g)
        support.eventually(function() return g:ready() and linked > 0 end)
        green.sleep(0.005)
        assert.is_false(ran)
        assert.are.equal(1, linked)
        assert.is_true(g.dead)
        assert.is_true(g:successful())
        assert.is_true(rawequal(greenlet.exit, g.value))
        assert.is_true(g:kill())
        g:start()
        green.sleep(0)
        assert.is_false(ran)
        assert.are.equal(1, linked)
      end)
    end
  end

  local REASONS = { string = "a reason", table = { "reason" }, number = 7, boolean = false }
  for kind, reason in pairs(REASONS) do
    it("SP2 by a " .. kind .. ": not successful, and that is its error", function()
      local ran = false
      local g = green.spawn(function() ran = true end)
      assert.is_true(g:kill(reason))
      assert.is_false(ran)
      assert.is_false(g:successful())
      assert.is_true(rawequal(reason, g.error))
      assert.is_nil(g.value)
    end)
  end

  it("SP2 nil is no reason", function()
    local g <close> = green.spawn(function() end)
    -- none and nil in first place mean the exit object
    assert.is_true(g:kill(nil))
    assert.is_true(g:successful())
  end)
end)

describe("life: killed while it waits", function()
  it("SP3 what comes after the wait does not run", function()
    local after = false
    local g = support.started(function()
      green.sleep(10)
      after = true
    end)
    local elapsed = support.timed(function() assert.is_true(g:kill()) end)
    assert.is_true(elapsed < 1)
    assert.is_true(g.dead)
    assert.is_false(after)
  end)

  it("SP3 a blocking kill waits for the cleanup, which may wait", function()
    local steps = {}
    local g = support.started(function()
      local _ <close> = setmetatable({}, { __close = function()
        steps[#steps + 1] = "cleanup"
        green.sleep(0.02)
        steps[#steps + 1] = "cleaned"
      end })
      sleeper()
    end)
    assert.is_true(g:kill())
    assert.are.same({ "cleanup", "cleaned" }, steps)
    assert.is_true(g.dead)
  end)

  it("SP3 a blocking kill has a timeout of its own", function()
    local g = support.started(function()
      local _ <close> = setmetatable({}, { __close = function() green.sleep(0.1) end })
      sleeper()
    end)
    local ok, message, code = g:kill(greenlet.exit, true, 0.01)
    assert.are.same({ n = 3, nil, "timeout", "ETIMEDOUT" }, table.pack(ok, message, code))
    assert.is_false(g:ready())
    assert.is_true(g:join())
  end)

  it("SP3 a kill that does not block returns before the greenlet has run", function()
    local g = support.started(sleeper)
    g:kill(greenlet.exit, false)
    assert.is_false(g:ready())
    assert.is_true(g:join())
  end)

  it("SP3 a greenlet that kills itself ends there", function()
    local after = false
    local g = green.spawn(function()
      green.current():kill()
      after = true
    end)
    g:join()
    assert.is_false(after)
    assert.is_true(g:successful())
  end)

  it("SP4 by an error of one's own: not successful, get raises it, value is nil", function()
    local reason = { "reason" }
    local g = support.started(sleeper)
    g:kill(reason)
    assert.is_false(g:successful())
    assert.is_nil(g.value)
    local ok, err = pcall(g.get, g)
    assert.is_false(ok)
    assert.is_true(rawequal(reason, err))
    assert.is_true(rawequal(reason, select(2, g:pget())))
  end)
end)

describe("life: links", function()
  it("SP5 a thousand run in the order added, in the hub", function()
    local order, hub = {}, nil
    local g = green.spawn(function() return 1 end)
    for i = 1, 1000 do
      g:link(function(ended)
        order[#order + 1] = i
        hub = hub or (green.current() == green.hub() and ended == g)
      end)
    end
    g:join()
    support.eventually(function() return #order == 1000 end)
    for i = 1, 1000 do assert(order[i] == i) end
    assert.is_true(hub)
  end)

  it("SP5 linking after the end still fires", function()
    local got
    local g = green.spawn(function() return "value" end)
    g:join()
    g:link(function(ended) got = ended.value end)
    support.eventually(function() return got end)
    assert.are.equal("value", got)
  end)

  it("SP5 value and error links fire only for their case", function()
    local fired = {}
    local good = green.spawn(function() return 1 end)
    local bad = green.spawn(function() error("planned", 0) end)
    for name, g in pairs { good = good, bad = bad } do
      g:link_value(function() fired[#fired + 1] = name .. " value" end)
      g:link_error(function(ended) fired[#fired + 1] = name .. " error " .. ended.error end)
    end
    green.joinall { good, bad }
    support.eventually(function() return #fired == 2 end)
    green.sleep(0)
    table.sort(fired)
    assert.are.same({ "bad error planned", "good value" }, fired)
  end)

  it("SP6 a link that unlinks a later one prevents it", function()
    local fired = {}
    local g = green.spawn(function() end)
    local function late() fired[#fired + 1] = "late" end
    g:link(function()
      fired[#fired + 1] = "first"
      g:unlink(late)
    end)
    g:link(late)
    g:link(function() fired[#fired + 1] = "last" end)
    g:join()
    support.eventually(function() return fired[#fired] == "last" end)
    assert.are.same({ "first", "last" }, fired)
  end)

  it("SP6 a raising link stops neither the other links nor the loop", function()
    local result = support.run [[
      local green = require "green"
      local fired = 0
      local g = green.spawn(function() end)
      g:link(function() fired = fired + 1 error("raising link") end)
      g:link(function() fired = fired + 1 end)
      g:join()
      green.sleep(0.01)
      io.write(fired, " alive")
    ]]
    assert.are.equal("2 alive", result.stdout)
    assert.matches("raising link", result.stderr)
    assert.is_nil(result.signal)
  end)

  it("SP6 a link that waits gets an error that says so", function()
    local result = support.run [[
      local green = require "green"
      local g = green.spawn(function() end)
      g:link(function() io.write(tostring(select(2, pcall(green.sleep, 0.01)))) end)
      g:join()
      green.sleep(0.01)
    ]]
    assert.matches("cannot wait", result.stdout)
    assert.is_nil(result.signal)
  end)
end)

describe("life: failures", function()
  it("SP7 a runaway recursion fails that greenlet alone", function()
    local result = support.run [[
      local green = require "green"
      local function runaway() return 1 + runaway() end
      local other = green.spawn(function() green.sleep(0.01) return "lives" end)
      green.spawn(runaway)
      io.write(other:get())
    ]]
    assert.are.equal("lives", result.stdout)
    assert.is_nil(result.signal)
    local _, reports = result.stderr:gsub("stack overflow", "")
    assert.is_true(reports >= 1)
    local _, failures = result.stderr:gsub("greenlet%-%d+[^\n]* failed", "")
    assert.is_true(failures <= 1)
  end)
end)

describe("life: scoped use", function()
  it("SP8 leaving joins", function()
    local done = false
    do
      local _ <close> = green.spawn(function()
        green.sleep(0.01)
        done = true
      end)
    end
    assert.is_true(done)
  end)

  it("SP8 leaving by an error kills", function()
    local after, task = false, nil
    local elapsed = support.timed(function()
      local ok, err = pcall(function()
        local g <close> = green.spawn(function()
          green.sleep(10)
          after = true
        end)
        task = g
        green.sleep(0)
        error("raised", 0)
      end)
      assert.are.same({ false, "raised" }, { ok, err })
    end)
    assert.is_true(elapsed < 1)
    assert.is_true(task.dead)
    assert.is_false(after)
  end)

  it("SP8 a join that is interrupted still kills", function()
    local task
    local elapsed = support.timed(function()
      local ok, err = pcall(function()
        local _ <close> = green.timeout(0.01)
        local g <close> = green.spawn(sleeper)
        task = g
      end)
      assert.is_false(ok)
      assert.is_true(green.istimeout(err))
    end)
    assert.is_true(elapsed < 1)
    support.eventually(function() return task.dead end)
  end)

  it("SP8 an unstarted one is left alone", function()
    local ran = false
    do local _ <close> = green.greenlet(function() ran = true end) end
    assert.is_false(ran)
  end)
end)
