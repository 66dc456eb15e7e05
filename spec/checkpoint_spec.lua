--- Where a greenlet may lose control, counted (STYLE, after Trio's checkpoints):
--- a function that is not marked ---@async never switches, and one that is
--- switches when it must wait, and, but for a yield, only then (D6).

local green = require "green"
local greenlet = require "greenlet"
local loop = require "green.loop"
local dns = require "green.dns"
local http = require "green.http"
local socket = require "green.socket"
local support = require "spec.support"
local peers = require "spec.support.peers"
local it = support.it

-- How often anybody switched while `fn` ran.
local function switches(fn, ...)
  local count = 0
  local previous = greenlet.settrace(function() count = count + 1 end)
  local _ <close> = setmetatable({}, { __close = function() greenlet.settrace(previous) end })
  fn(...)
  return count
end

local function ended()
  local g = green.spawn(function() return "value" end)
  g:join()
  return g
end

-- A call of every function that is not marked; `true` stands for those whose
-- own call is part of counting.
local STAYS = {
  greenlet = {
    new = function() greenlet.new(print) end,
    current = greenlet.current,
    settrace = true,
  },
  green = {
    spawn = function() green.spawn(function() end) end,
    spawn_later = function() green.spawn_later(0, function() end) end,
    greenlet = function() green.greenlet(print) end,
    current = green.current, main = green.main, hub = green.hub, list = green.list,
    stats = green.stats, config = green.config,
    iscancelled = function() green.iscancelled("error") end,
    istimeout = function() green.istimeout("error") end,
    timeout = function() green.timeout(1):close() end,
  },
  ["green.loop"] = {
    io = function() loop.io(0, "r"):close() end,
    timer = function() loop.timer(1):close() end,
    prepare = function() loop.prepare():close() end,
    check = function() loop.check():close() end,
    idle = function() loop.idle():close() end,
    async = function() loop.async():close() end,
    stat = function() loop.stat("/"):close() end,
    run_callback = function() loop.run_callback(function() end):stop() end,
    now = loop.now, update = loop.update,
  },
  ["green.socket"] = {
    tcp = function() socket.tcp():close() end,
    tcp4 = function() socket.tcp4():close() end,
    tcp6 = function() socket.tcp6():close() end,
    gettime = socket.gettime,
  },
  ["green.dns"] = { servers = function() dns.servers() end, config = dns.config },
  ["green.http"] = { close_idle = http.close_idle },
}

-- Public functions that are marked: spec/blocking_spec.lua makes them wait.
local WAITS = {
  greenlet = {},
  green = {
    "sleep", "yield", "joinall", "wait", "iwait", "kill", "killall", "with_timeout",
  },
  ["green.loop"] = {},
  ["green.socket"] = { "connect", "connect4", "connect6", "bind", "sleep" },
  ["green.dns"] = { "getaddrinfo", "toip" },
  ["green.http"] = { "get", "request" },
}

describe("checkpoints: modules", function()
  for module, stays in pairs(STAYS) do
    it("every function of " .. module .. " either waits or is counted here", function()
      local waits = {}
      for _, name in ipairs(WAITS[module]) do waits[name] = true end
      for name, value in pairs(require(module)) do
        if type(value) == "function" then
          assert(stays[name] or waits[name], module .. "." .. name)
          assert(not (stays[name] and waits[name]), module .. "." .. name)
        end
      end
    end)

    for name, call in pairs(stays) do
      if call ~= true then
        it(module .. "." .. name .. " does not switch", function()
          assert.are.equal(0, switches(call))
        end)
      end
    end
  end
end)

describe("checkpoints: methods that never wait", function()
  it("of greenlets do not switch", function()
    local g = support.started(green.sleep, 10)
    local function link() end
    assert.are.equal(0, switches(function()
      for _, field in ipairs { "dead", "parent", "value", "error", "traceback", "started" } do
        local _ = g[field]
      end
      tostring(g)
      g.name = "renamed"
      g:ready()
      g:successful()
      g:order()
      g:link(link)
      g:unlink(link)
      g:link_value(link)
      g:link_error(link)
      g:unlink(link)
      green.greenlet(link):start_later(0)
      g:kill(nil, false)
    end))
    green.sleep(0.001)
  end)

  it("of sockets do not switch", function()
    local client, _, pair = peers.pair()
    local _ <close> = pair
    assert.are.equal(0, switches(function()
      client:settimeout(1)
      client:gettimeout()
      client:getstats()
      client:setstats(0)
      client:dirty()
      client:getfd()
      client:getfamily()
      client:getpeername()
      client:getsockname()
      client:setoption("tcp-nodelay", true)
      client:getoption("tcp-nodelay")
      client:shutdown("send")
      client:close()
    end))
  end)

  it("of watchers and timeouts do not switch", function()
    assert.are.equal(0, switches(function()
      local w = loop.timer(10)
      w:start(print)
      w:stop()
      w:again()
      w:close()
      local t = green.timeout(10)
      t:start()
      t:cancel()
      t:close()
    end))
  end)
end)

describe("checkpoints: what need not wait", function()
  local cases = {
    ["join of one that has ended"] = function(g) g:join() end,
    ["get of one that has ended"] = function(g) g:get() end,
    ["pget of one that has ended"] = function(g) g:pget() end,
    ["kill of one that has ended"] = function(g) g:kill() end,
    ["joinall of those that have ended"] = function(g) green.joinall { g, g } end,
    ["wait for those that have ended"] = function(g) green.wait { g } end,
    ["iwait over those that have ended"] = function(g) for _ in green.iwait { g } do end end,
    ["killall of those that have ended"] = function(g) green.killall { g } end,
    ["leaving the scope of one that has ended"] = function(g) local _ <close> = g end,
    ["joinall of nothing"] = function() green.joinall {} end,
    ["with_timeout of a function that does not wait"] = function()
      green.with_timeout(1, type, 1)
    end,
    ["lookup of a number"] = function() assert(dns.getaddrinfo "127.0.0.1") end,
    ["lookup of localhost"] = function() assert(dns.toip "localhost") end,
    ["binding to a number"] = function() assert(socket.bind("127.0.0.1", 0)):close() end,
    ["killing one that has not run"] = function() green.spawn(print):kill() end,
  }
  for name, call in pairs(cases) do
    it("D6 " .. name .. " does not switch", function()
      local g = ended()
      assert.are.equal(0, switches(call, g))
    end)
  end

  it("D6 a receive from the buffer, a send with room, an accept from the queue", function()
    local server <close>, port = peers.listener()
    local client <close> = assert(socket.connect("127.0.0.1", port))
    assert.are.equal(0, switches(function()
      local peer <close> = assert(server:accept())
      assert(peer:send("one\ntwo\nfour!"))
      assert.are.equal("one", client:receive())
      assert.are.equal("two", client:receive("*l"))
      assert.are.equal("four", client:receive(4))
    end))
  end)
end)

describe("checkpoints: what must wait", function()
  for name, call in pairs {
    ["sleep"] = function() green.sleep(0.001) end,
    ["join"] = function() green.spawn(green.yield):join() end,
    ["get"] = function() green.spawn(green.yield):get() end,
    ["pget"] = function() green.spawn(green.yield):pget() end,
    ["kill"] = function() support.started(green.sleep, 10):kill() end,
    ["joinall"] = function() green.joinall { green.spawn(green.yield) } end,
    ["iwait"] = function() for _ in green.iwait { green.spawn(green.yield) } do end end,
    ["wait"] = function() green.wait(nil, { timeout = 0.001 }) end,
    ["leaving a scope"] = function() local _ <close> = green.spawn(green.yield) end,
  } do
    it(name .. " switches", function()
      assert(switches(call) >= 2, "it came back without leaving")
    end)
  end

  it("yield switches when another greenlet is ready, and runs it once", function()
    local turns = 0
    local g = green.spawn(function()
      while true do
        turns = turns + 1
        green.yield()
      end
    end)
    assert(switches(green.yield) >= 2)
    assert.are.equal(1, turns)
    g:kill()
  end)

  it("a receive of what has not come yet: there and back", function()
    local client, peer, pair = peers.pair()
    local _ <close> = pair
    green.spawn(function() peer:send("late\n") end)
    assert(switches(function() assert.are.equal("late", client:receive()) end) >= 2)
  end)
end)
