--- Watchers in detail (HB6, HB7, HB10); what the hub does with them is in
--- hub_spec.lua.

local green = require "green"
local loop = require "green.loop"
local support = require "spec.support"
local it = support.it

local function listener()
  return assert(require "green.socket".bind("127.0.0.1", 0))
end

-- libev's inotify descriptor stays open for the life of the loop.
local function warm_inotify()
  local stat <close> = loop.stat("/")
  stat:start(function() end)
end

describe("loop: start and stop", function()
  it("HB6 start returns the watcher and counts it until it stops", function()
    local before = green.stats().watchers
    local timer = loop.timer(10)
    assert.are.equal(before, green.stats().watchers)
    assert.is_true(rawequal(timer, timer:start(print)))
    assert.are.equal(before + 1, green.stats().watchers)
    timer:stop()
    timer:stop()
    assert.are.equal(before, green.stats().watchers)
  end)

  it("HB6 starting again replaces the callback and the time", function()
    local got = {}
    local timer <close> = loop.timer(0.002)
    timer:start(function() got[#got + 1] = "first" end)
    timer:start(function(value) got[#got + 1] = value end, "second")
    support.eventually(function() return #got > 0 end)
    green.sleep(0.005)
    assert.are.same({ "second" }, got)
  end)

  it("HB6 a one-shot timer may start itself anew", function()
    local count = 0
    local timer <close> = loop.timer(0.001)
    local function tick()
      count = count + 1
      if count < 3 then timer:start(tick) end
    end
    timer:start(tick)
    support.eventually(function() return count == 3 end)
    assert.is_false(timer.active)
  end)

  it("HB6 what is due is dropped by a stop in another callback of the turn", function()
    local fired = 0
    local first, second = loop.timer(0.001), loop.timer(0.001)
    local function fire()
      fired = fired + 1
      first:stop()
      second:stop()
    end
    first:start(fire)
    second:start(fire)
    local stop = support.clock() + 0.005
    while support.clock() < stop do end -- both are due in the same turn
    support.eventually(function() return fired > 0 end)
    green.sleep(0.003)
    assert.are.equal(1, fired)
  end)

  it("HB6 again without a repeat stops, and with a callback starts", function()
    local fired = 0
    local once <close> = loop.timer(10)
    once:start(print)
    once:again()
    assert.is_false(once.active)
    local many <close> = loop.timer(10, 0.001)
    many:again(function() fired = fired + 1 end)
    support.eventually(function() return fired >= 2 end)
  end)

  it("HB6 a timer counts from its start, not from the loop's last look at the clock", function()
    local stop = support.clock() + 0.02
    while support.clock() < stop do end
    local start, fired = support.clock(), nil
    local timer <close> = loop.timer(0.01)
    timer:start(function() fired = support.clock() end)
    support.eventually(function() return fired end)
    assert.is_true(fired - start >= 0.0099)
  end)

  it("HB6 leaving the scope closes", function()
    local kept
    do
      local timer <close> = loop.timer(10)
      timer:start(print)
      kept = timer
    end
    assert.is_false(kept.active)
    assert.matches("closed", tostring(kept))
  end)

  it("HB6 a stopped one is collected with its callback", function()
    local weak = setmetatable({}, { __mode = "v" })
    do
      local timer = loop.timer(10)
      timer:start(function() return timer end)
      timer:stop()
      weak[1] = timer.callback
    end
    support.eventually(function()
      collectgarbage()
      return weak[1] == nil
    end)
  end)

  it("HB3 an error in a callback is reported, and its watcher goes on", function()
    local result = support.run [[
      local green, loop = require "green", require "green.loop"
      local count, timer = 0, loop.timer(0.001, 0.001)
      timer:start(function() count = count + 1; error("planned") end)
      while count < 2 do green.sleep(0.001) end
      timer:close()
      io.write("goes on")
    ]]
    assert.are.equal("goes on", result.stdout)
    assert.matches("error in a timer's callback: .-planned", result.stderr)
  end)
end)

describe("loop: ref", function()
  it("JO6 may change while the watcher is started, and any number of times", function()
    local timer <close> = loop.timer(10)
    for _ = 1, 3 do
      timer.ref = false
      timer.ref = false
      timer:start(print)
      assert.is_true(green.wait())
      timer.ref = true
      timer.ref = false
      assert.is_true(green.wait())
      timer:stop()
      timer:stop()
    end
    assert.is_true(green.wait())
    timer.ref = true
    timer:start(print)
    assert.is_false(green.wait(nil, { timeout = 0.005 }))
  end)

  it("JO6 an unreferenced one-shot timer leaves the count right", function()
    local fired, timer = 0, loop.timer(0.001)
    timer.ref = false
    for i = 1, 5 do
      timer:start(function() fired = fired + 1 end)
      support.eventually(function() return fired == i end)
    end
    timer:close()
    local held <close> = loop.timer(10)
    held:start(print)
    assert.is_false(green.wait(nil, { timeout = 0.005 }))
  end)
end)

describe("loop: io", function()
  it("HB7 a descriptor that is closed under it stops it, with the reason", function()
    local sock, told = listener(), nil
    local watcher <close> = loop.io(sock:getfd(), "r")
    watcher:start(function() told = watcher.error end)
    sock:close()
    support.eventually(function() return told end)
    assert.are.equal("EBADF", told)
    assert.is_nil(watcher.events)
    assert.is_false(watcher.active)
  end)

  it("HB7 one that is not open, or absurd, is refused at start", function()
    for _, fd in ipairs { 999, 2 ^ 31 - 1 } do
      local watcher <close> = loop.io(math.tointeger(fd), "r")
      local ok, err = pcall(watcher.start, watcher, print)
      assert.is_false(ok)
      assert.matches("cannot watch descriptor", err)
      assert.is_false(watcher.active)
    end
  end)

  it("HB7 methods of another kind and wrong settings are refused", function()
    local timer <close> = loop.timer(1)
    local idle <close> = loop.idle()
    assert.error_matches(function() idle:again() end, "for timer watchers")
    assert.error_matches(function() timer:send() end, "for async watchers")
    assert.error_matches(function() timer.ref = 1 end, "must be a boolean")
    assert.error_matches(function() timer.after = 1 end, "cannot set 'after'")
    assert.error_matches(function() loop.io(0, "x") end, "bad argument #2 to 'io'")
    assert.error_matches(function() loop.timer(-1) end, "bad argument #1 to 'timer'")
    assert.error_matches(function() loop.timer(1, 0 / 0) end, "bad argument #2 to 'timer'")
    assert.error_matches(function() loop.stat("a\0b") end, "bad argument #1 to 'stat'")
    assert.is_nil(timer.no_such_field)
    assert.is_nil(timer[1])
  end)
end)

describe("loop: stat", function()
  warm_inotify()

  it("HB10 sees a write and an unlink", function()
    local path = os.tmpname()
    local sizes = {}
    local watcher <close> = loop.stat(path, 0.01)
    watcher:start(function() sizes[#sizes + 1] = watcher.attr and watcher.attr.size or "gone" end)
    assert.are.equal(0, watcher.attr.size)
    assert.are.equal(1, watcher.attr.nlink)
    local file = assert(io.open(path, "w"))
    file:write("12345")
    file:close()
    support.eventually(function() return sizes[#sizes] == 5 end)
    os.remove(path)
    support.eventually(function() return sizes[#sizes] == "gone" end)
    assert.are.equal(5, watcher.prev.size)
  end)
end)

describe("loop: run_callback", function()
  it("HB6 one that asks again does not starve timers", function()
    local count, stop = 0, false
    local function again()
      count = count + 1
      if not stop then loop.run_callback(again) end
    end
    again()
    green.sleep(0.005)
    stop = true
    assert.is_true(count > 1)
    assert.is_true(green.wait())
  end)

  it("HB6 nil arguments arrive, and stop is harmless at any time", function()
    local got
    local call = loop.run_callback(function(...) got = table.pack(...) end, nil, 2, nil)
    support.eventually(function() return got end)
    assert.are.same({ n = 3, nil, 2, nil }, got)
    call:stop()
    call = loop.run_callback(error, "never")
    call:stop()
    call:stop()
    assert.is_true(green.wait())
  end)

  it("HB6 the last event of the loop may ask for one", function()
    local g = green.greenlet(function() return "ran" end)
    local timer <close> = loop.timer(0.001)
    timer:start(function() loop.run_callback(g.start, g) end)
    assert.are.equal("ran", g:get()) -- and not: this operation would block forever
  end)
end)
