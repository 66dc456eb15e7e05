--- Timeouts (ACCEPTANCE 4). TO1 and TO2 of each blocking call: spec/blocking_spec.lua.
--
-- A Lua block cannot swallow an error by itself, so TO4's `false` means that
-- the object raises itself, as with no error given; with_timeout is the call
-- that turns the own timeout, and only that, into a result.

local green = require "green"
local loop = require "green.loop"
local support = require "spec.support"
local it = support.it

local function busy(seconds)
  local stop = support.clock() + seconds
  while support.clock() < stop do end
end

describe("timeout: own and foreign", function()
  it("TO2 raises itself, not a copy, and only where it was made", function()
    local scope
    local other = support.started(function() return (green.sleep(0.02)) end)
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.005)
      scope = t
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(scope, err))
    assert.is_true(green.istimeout(err))
    assert.is_true(green.iscancelled(err))
    assert.is_true(scope.expired)
    assert.is_false(scope.pending)
    assert.is_true((other:pget()))
  end)

  it("TO2 a greenlet without a wait gets it at its next one", function()
    local ok, err = pcall(function()
      local _ <close> = green.timeout(0.001)
      busy(0.005)
      green.sleep(0)
      green.sleep(0)
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(green.istimeout(err))
  end)

  it("TO3 the outer one is shorter: the inner is pending at the raise, cancelled after", function()
    local inner, at_raise, raised, outer
    local ok = xpcall(function()
      local t <close> = green.timeout(0.005)
      outer = t
      local u <close> = green.timeout(5)
      inner = u
      green.sleep(10)
    end, function(err)
      raised, at_raise = err, inner.pending
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(outer, raised))
    assert.is_true(at_raise)
    assert.is_false(inner.pending)
    assert.is_false(inner.expired)
  end)

  it("TO3 the inner one is shorter: the outer is still pending at the catch", function()
    local outer <close> = green.timeout(5)
    local inner
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.005)
      inner = t
      green.sleep(10)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(inner, err))
    assert.is_true(outer.pending)
    green.sleep(0)
  end)

  it("TO3 both expire: the outer one wins in the end", function()
    local outer
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.002)
      outer = t
      pcall(function()
        local _ <close> = green.timeout(0.001)
        busy(0.01)
        green.sleep(5)
      end)
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(outer, err))
  end)

  it("TO3 an open timeout is not swallowed by a pcall inside its block", function()
    local rounds, outer = 0, nil
    local ok, err = pcall(function()
      local t <close> = green.timeout(0.002)
      outer = t
      while true do
        pcall(green.sleep, 5)
        rounds = rounds + 1
      end
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(outer, err))
    assert.are.equal(0, rounds)
  end)
end)

describe("timeout: what it raises and says", function()
  it("TO4 a string changes the message, the object stays", function()
    local t
    local ok, err = pcall(function()
      local scope <close> = green.timeout(0.001, "too late")
      t = scope
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(t, err))
    assert.are.equal("too late", tostring(err))
    local plain <close> = green.timeout(1)
    assert.are.equal("timeout: 1 s", tostring(plain))
    assert.are.equal(1, plain.seconds)
  end)

  it("TO4 another value is raised in its stead; false means itself", function()
    local reason = { "reason" }
    local _, err = pcall(function()
      local _ <close> = green.timeout(0.001, reason)
      green.sleep(5)
    end)
    assert.is_true(rawequal(reason, err))
    local t
    _, err = pcall(function()
      local scope <close> = green.timeout(0.001, false)
      t = scope
      green.sleep(5)
    end)
    assert.is_true(rawequal(t, err))
  end)

  it("TO4 it can be started again", function()
    local t = green.timeout(0.02)
    green.sleep(0.012)
    t:start()
    green.sleep(0.012)
    assert.is_true(t.pending)
    t:cancel()
    assert.is_false(t.pending)
    local ok, err = pcall(function()
      local _ <close> = t
      t:start()
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(t, err))
  end)

  it("TO5 cancelled inside the block it does not raise", function()
    local t <close> = green.timeout(0.003)
    t:cancel()
    t:cancel()
    assert.is_false(t.pending)
    green.sleep(0.01)
    assert.is_false(t.expired)
  end)

  it("TO5 nil seconds: no timer", function()
    local t <close> = green.timeout(nil)
    assert.is_false(t.pending)
    assert.is_nil(t.seconds)
    assert.is_true(green.wait())
    green.sleep(0.002)
  end)

  it("TO5 leaving the block frees the error object", function()
    local weak = setmetatable({}, { __mode = "k" })
    local function block()
      local reason = {}
      weak[reason] = true
      local _ <close> = green.timeout(10, reason)
      green.sleep(0)
    end
    block()
    pcall(function()
      local reason = {}
      weak[reason] = true
      local _ <close> = green.timeout(0.001, reason)
      green.sleep(5)
    end)
    support.eventually(function()
      collectgarbage()
      return next(weak) == nil
    end)
  end)

  it("TO5 a thousand blocks leave nothing behind", function()
    for _ = 1, 1000 do
      local _ <close> = green.timeout(10)
    end
    assert.is_true(green.wait())
  end)

  it("TO6 starting one refreshes the loop's clock", function()
    for _, start in ipairs {
      function() green.timeout(1):cancel() end,
      function() green.sleep(0.001) end,
    } do
      loop.update()
      local before = loop.now()
      busy(0.02)
      assert.is_true(loop.now() - before < 0.015)
      start()
      assert.is_true(loop.now() - before >= 0.019)
    end
  end)

  it("TO8 started after a long run without a wait it does not expire early", function()
    loop.update()
    busy(0.05)
    local elapsed, ok = support.timed(pcall, function()
      local _ <close> = green.timeout(0.03)
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(elapsed >= 0.028 and elapsed < 1)
    busy(0.05)
    elapsed = support.timed(green.sleep, 0.03)
    assert.is_true(elapsed >= 0.028 and elapsed < 1)
  end)
end)

describe("with_timeout", function()
  it("TO7 gives the results in time, and nil, timeout after it", function()
    assert.are.same({ n = 3, 1, [3] = 3 }, table.pack(green.with_timeout(5, function(a, b, c)
      green.sleep(0)
      return a, b, c
    end, 1, nil, 3)))
    assert.are.same({ n = 3, nil, "timeout", "ETIMEDOUT" },
                    table.pack(green.with_timeout(0.002, green.sleep, 5)))
  end)

  it("TO7 does not catch a foreign timeout", function()
    local foreign
    local ok, err = pcall(green.with_timeout, 5, function()
      local t <close> = green.timeout(0.002)
      foreign = t
      green.sleep(5)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(foreign, err))
    ok, err = pcall(function()
      local t <close> = green.timeout(0.002)
      foreign = t
      green.with_timeout(5, green.sleep, 10)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(foreign, err))
  end)

  it("TO7 an error of the function passes as it is", function()
    local reason = {}
    local ok, err = pcall(green.with_timeout, 5, error, reason)
    assert.is_false(ok)
    assert.is_true(rawequal(reason, err))
  end)
end)
