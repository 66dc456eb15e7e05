--- Cancellation that wins (D7; ACCEPTANCE 20, LU4 and LU5).

local greenlet = require "greenlet"
local green = require "green"
local support = require "spec.support"

local function wait() green.sleep(10) end

local function wait_in_handler() green.sleep(0.001) return "handled" end

local function raising_close()
  return setmetatable({}, { __close = function() error("raised in __close") end })
end

-- Loops that swallow whatever is raised in them. None may survive a kill.
local SWALLOWERS = {
  ["pcall"] = function() while true do pcall(wait) end end,
  ["pcall of pcall"] = function() while true do pcall(pcall, wait) end end,
  ["coroutine.wrap in pcall"] = function()
    while true do pcall(coroutine.wrap(wait)) end
  end,
  ["coroutine.wrap"] = function() while true do coroutine.wrap(wait)() end end,
  ["coroutine.resume"] = function()
    while true do coroutine.resume(coroutine.create(wait)) end
  end,
  ["resume in resume"] = function()
    while true do
      coroutine.resume(coroutine.create(function() coroutine.resume(coroutine.create(wait)) end))
    end
  end,
  ["xpcall with a handler that waits"] = function()
    while true do xpcall(wait, wait_in_handler) end
  end,
  ["xpcall with a handler that returns another error"] = function()
    while true do xpcall(wait, function() return "another" end) end
  end,
  ["xpcall with a handler that raises"] = function()
    while true do xpcall(wait, function() error("another") end) end
  end,
  ["xpcall with debug.traceback"] = function() while true do xpcall(wait, debug.traceback) end end,
  ["pcall with a __close that raises"] = function()
    while true do
      pcall(function()
        local _ <close> = raising_close()
        wait()
      end)
    end
  end,
  ["pcall with a __close that uses pcall"] = function()
    while true do
      pcall(function()
        local _ <close> = setmetatable({}, { __close = function() pcall(error, "x") end })
        wait()
      end)
    end
  end,
  ["load"] = function() while true do load(wait) end end,
  ["a wrapped error"] = function()
    while true do
      pcall(function()
        local ok, err = pcall(wait)
        if not ok then error({ cause = err }) end
      end)
    end
  end,
  ["sort in pcall"] = function()
    while true do pcall(table.sort, { 3, 2, 1 }, wait) end
  end,
  ["gsub in pcall"] = function() while true do pcall(string.gsub, "abc", ".", wait) end end,
  ["__index in pcall"] = function()
    local o = setmetatable({}, { __index = wait })
    while true do pcall(function() return o.x end) end
  end,
  ["tostring in pcall"] = function()
    local o = setmetatable({}, { __tostring = wait })
    while true do pcall(tostring, o) end
  end,
  ["require in pcall"] = function()
    while true do
      package.preload["spec.swallows"] = wait
      pcall(require, "spec.swallows")
    end
  end,
  ["coroutine.close"] = function()
    while true do
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = wait })
        coroutine.yield()
      end)
      coroutine.resume(co)
      pcall(coroutine.close, co)
    end
  end,
  ["a wait of no time in pcall"] = function() while true do pcall(green.sleep, 0) end end,
}

local names = {}
for name in pairs(SWALLOWERS) do names[#names + 1] = name end
table.sort(names)

describe("cancel: nothing swallows it", function()
  support.modes(function(it)
    for _, name in ipairs(names) do
      it("LU4 a loop of " .. name .. " dies when killed", function()
        local g = support.started(SWALLOWERS[name])
        assert.is_true(g:kill(greenlet.exit, true, 5))
        assert.is_true(g.dead)
        assert.is_true(g:successful())
        package.preload["spec.swallows"] = nil
      end)
    end

    it("LU4 it dies of its own error value as well", function()
      for _, name in ipairs(names) do
        local reason = { name }
        local g = support.started(SWALLOWERS[name])
        assert(g:kill(reason, true, 5), name)
        assert(rawequal(g.error, reason), name)
      end
      package.preload["spec.swallows"] = nil
    end)

    it("LU4 a timeout ends the loop, at the scope where it was made", function()
      for _, name in ipairs(names) do
        local scope
        local ok, err = pcall(function()
          local t <close> = green.timeout(0.002)
          scope = t
          SWALLOWERS[name]()
        end)
        assert(not ok and rawequal(err, scope), name)
      end
      package.preload["spec.swallows"] = nil
    end)

    it("LU4 a pcall inside a cleanup still works", function()
      local inside
      local g = support.started(function()
        local _ <close> = setmetatable({}, { __close = function()
          inside = table.pack(pcall(error, "planned"))
          local ok, value = pcall(function()
            green.sleep(0.001)
            return "waited"
          end)
          inside[3], inside[4] = ok, value
        end })
        while true do pcall(wait) end
      end)
      assert.is_true(g:kill(nil, true, 5))
      assert.are.same({ false, "planned", true, "waited" }, { table.unpack(inside, 1, 4) })
    end)

    it("LU4 a cleanup waits for as long as its shield, and no longer", function()
      local previous = green.config().shield
      green.config { shield = 0.02 }
      local rounds = 0
      local g = support.started(function()
        local _ <close> = setmetatable({}, { __close = function()
          for _ = 1, 1000 do
            rounds = rounds + 1
            pcall(green.sleep, 0.005)
          end
        end })
        wait()
      end)
      local elapsed = support.timed(function() assert(g:kill(nil, true, 5)) end)
      green.config { shield = previous }
      assert.is_true(g.dead)
      assert.is_true(elapsed < 1)
      assert.is_true(rounds >= 1)
    end)
  end)

  support.it("LU4 with pcall captured before the module was loaded", function()
    local out = support.succeeds [[
      local pcall, xpcall, resume = pcall, xpcall, coroutine.resume
      local green = require "green"
      local loops = {
        function() while true do pcall(green.sleep, 10) end end,
        function() while true do xpcall(green.sleep, print, 10) end end,
        function() while true do resume(coroutine.create(green.sleep), 10) end end,
      }
      for _, loop in ipairs(loops) do
        local g = green.spawn(loop)
        green.sleep(0)
        io.write(tostring(g:kill(nil, true, 5)), " ")
      end
    ]]
    -- print, the handler, may show the object: what counts is the kills
    assert.are.equal(3, select(2, out:gsub("true ", "")))
  end)
end)

-- Notes names and errors of to-be-closed variables as they are closed.
local function journal()
  local log = { errors = {} }
  function log.closing(name, act)
    return setmetatable({}, { __close = function(_, err)
      log[#log + 1] = name
      log.errors[#log] = err == nil and "nil" or err
      if act then act() end
    end })
  end
  return log
end

local function nest(log, act)
  local _ <close> = log.closing("outer", act)
  local _ <close> = log.closing("middle", act)
  pcall(function()
    local _ <close> = log.closing("inner", act)
    wait()
  end)
end

describe("cancel: to-be-closed variables", function()
  support.modes(function(it)
    it("LU5 run in order on a kill, with the kill object as error", function()
      local log, reason = journal(), { "reason" }
      local g = support.started(nest, log)
      g:kill(reason)
      assert.are.same({ "inner", "middle", "outer" }, { table.unpack(log) })
      for i = 1, 3 do assert(rawequal(log.errors[i], reason), i) end
      assert.is_true(rawequal(g.error, reason))
    end)

    it("LU5 on a kill by exit likewise", function()
      local log = journal()
      support.started(nest, log):kill()
      assert.are.same({ "inner", "middle", "outer" }, { table.unpack(log) })
      for i = 1, 3 do assert(rawequal(log.errors[i], greenlet.exit), i) end
    end)

    it("LU5 on a timeout, with the timeout as error", function()
      local log, scope = journal(), nil
      local ok, err = pcall(function()
        local t <close> = green.timeout(0.002)
        scope = t
        nest(log)
      end)
      assert.is_false(ok)
      assert.is_true(rawequal(scope, err))
      assert.are.same({ "inner", "middle", "outer" }, { table.unpack(log) })
      for i = 1, 3 do assert(rawequal(log.errors[i], scope), i) end
    end)

    it("LU5 on an error and at the end", function()
      local log = journal()
      local failing = green.spawn(function()
        local _ <close> = log.closing "a"
        local _ <close> = log.closing "b"
        green.sleep(0)
        error("raised", 0)
      end)
      assert.are.same({ n = 2, false, "raised" }, table.pack(failing:pget()))
      green.spawn(function()
        local _ <close> = log.closing "c"
        local _ <close> = log.closing "d"
        green.sleep(0)
      end):get()
      assert.are.same({ "b", "a", "d", "c" }, { table.unpack(log) })
      assert.are.same({ "raised", "raised", "nil", "nil" }, log.errors)
    end)

    it("LU5 their waits on a kill are waits", function()
      local log, others = journal(), 0
      local g = support.started(nest, log, function() green.sleep(0.005) end)
      local other = green.spawn(function() while not g:ready() do
        others = others + 1
        green.sleep(0.001)
      end end)
      g:kill()
      other:join()
      assert.are.equal(3, #log)
      assert.is_true(others >= 3)
    end)

    it("LU5 an error in __close does not lose the kill", function()
      local log, after = journal(), false
      local function body()
        local _ <close> = log.closing "outer"
        pcall(function()
          local _ <close> = log.closing("inner", function() error("raised in __close", 0) end)
          wait()
        end)
        after = true
      end
      local g = support.started(body)
      assert.is_true(g:kill(nil, true, 5))
      assert.is_false(after)
      assert.is_true(g:successful())
      assert.are.same({ "inner", "outer" }, { table.unpack(log) })
      assert.is_true(rawequal(log.errors[2], greenlet.exit))
    end)

    it("LU5 under resume and wrap too, innermost first", function()
      for _, start in ipairs {
        function(fn) coroutine.resume(coroutine.create(fn)) end,
        function(fn) coroutine.wrap(fn)() end,
        function(fn) pcall(coroutine.wrap(fn)) end,
      } do
        local log, reason, after = journal(), { "reason" }, false
        local g = support.started(function()
          local _ <close> = log.closing "base"
          start(function()
            local _ <close> = log.closing "first coroutine"
            start(function()
              local _ <close> = log.closing "second coroutine"
              start(function()
                local _ <close> = log.closing "third coroutine"
                wait()
              end)
              after = true
            end)
            after = true
          end)
          after = true
        end)
        assert.is_true(g:kill(reason, true, 5))
        assert.is_false(after)
        assert.are.same({ "third coroutine", "second coroutine", "first coroutine", "base" },
                        { table.unpack(log) })
        for i = 1, 4 do assert(rawequal(log.errors[i], reason), i) end
      end
    end)

    it("LU5 a coroutine that the kill went through is dead", function()
      local co
      local g = support.started(function()
        co = coroutine.create(wait)
        coroutine.resume(co)
      end)
      g:kill()
      assert.are.equal("dead", coroutine.status(co))
    end)

    it("LU5 a second kill while the first is cleaned up for changes nothing", function()
      local log = journal()
      local g = support.started(nest, log, function() green.sleep(0.005) end)
      g:kill("first", false)
      green.sleep(0.002)
      g:kill("second")
      assert.are.same({ "inner", "middle", "outer" }, { table.unpack(log) })
      assert.are.equal("first", g.error)
    end)
  end)
end)
