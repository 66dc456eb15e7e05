--- The shared contract of spec/support/blocking.lua over every blocking call of
--- the library, and a table that fails when one is missing.

local lfs = require "lfs"
local green = require "green"
local greenlet = require "greenlet"
local core = require "green.core"
local loop = require "green.loop"
local dns = require "green.dns"
local http = require "green.http"
local socket = require "green.socket"
local support = require "spec.support"
local blocking = require "spec.support.blocking"
local dnsmasq = require "spec.support.dnsmasq"
local peers = require "spec.support.peers"
local it, behaves = support.it, blocking.behaves

-- ---- greenlets and the hub ----

local function sleep_on()
  while true do green.sleep(10) end
end

-- A greenlet that never ends by itself, and a wait for it.
local function waits_for(own, wait, works)
  return function()
    local g = green.spawn(sleep_on)
    return {
      own = own,
      wait = function(timeout) return wait(g, timeout) end,
      works = function()
        assert(not g:ready())
        if works then works(g) end
      end,
      close = function() g:kill() end,
    }
  end
end

-- A greenlet whose cleanup waits, so that killing it takes long.
local function waits_for_cleanup(own, wait)
  return function()
    local waiter = core.greenlet.waiter()
    local g = support.started(function()
      local _ <close> = setmetatable({}, { __close = function() waiter:wait() end })
      sleep_on()
    end)
    return {
      own = own,
      wait = function(timeout) return wait(g, timeout) end,
      works = function()
        assert(not g:ready())
        waiter:wake()
        assert(g:join(5))
      end,
      close = function() waiter:wake() end,
    }
  end
end

behaves("sleep", true, function()
  return { own = "end", wait = function(seconds) green.sleep(seconds or 10) end }
end)
behaves("join", true, waits_for("nil", function(g, t) return g:join(t) end, function(g)
  g:kill(nil, false)
  assert(g:join(5))
end))
behaves("get", true, waits_for("raise", function(g, t) return g:get(t) end, function(g)
  g:kill("planned", false)
  assert(select(2, pcall(g.get, g, 5)) == "planned")
end))
behaves("pget", true, waits_for("false", function(g, t) return g:pget(t) end))
behaves("joinall", true, waits_for("empty", function(g, t)
  return green.joinall({ g }, { timeout = t })
end))
behaves("wait for a list", true, waits_for("empty", function(g, t)
  return green.wait({ g }, { timeout = t })
end))
behaves("wait for the loop", true, waits_for("false", function(_, t)
  return green.wait(nil, { timeout = t })
end))
behaves("iwait", true, waits_for("end", function(g, t)
  for _ in green.iwait({ g }, { timeout = t }) do error("nothing ends here") end
end))
behaves("iwait without a loop", true, waits_for("false", function(g, t)
  local next_ended, _, _, closing = green.iwait({ g }, { timeout = t })
  local _ <close> = closing
  return next_ended()
end))
behaves("with_timeout", true, function()
  return { own = "nil", wait = function(t) return green.with_timeout(t or 20, green.sleep, 10) end }
end)
behaves("leaving a greenlet's scope", false, function()
  return { wait = function() local _ <close> = green.spawn(sleep_on) end }
end)
behaves("g:kill", true, waits_for_cleanup("nil", function(g, t) return g:kill(nil, true, t) end))
behaves("green.kill", true, waits_for_cleanup("nil", function(g, t)
  return green.kill(g, nil, true, t)
end))
behaves("killall", true, waits_for_cleanup("nil", function(g, t)
  return green.killall({ g }, nil, { timeout = t })
end))

behaves("a waiter", true, function()
  local waiter = core.greenlet.waiter()
  return {
    own = "nil",
    wait = function(timeout) return waiter:wait(timeout) end,
    works = function()
      waiter:wake()
      assert(waiter:wait(5) == true)
      loop.run_callback(waiter.wake, waiter)
      assert(waiter:wait(5) == true)
    end,
  }
end)

-- A watcher of the loop that wakes whoever waits for it; `fire` makes it fire.
local function waits_for_watcher(watcher, fire, close)
  local waiter = core.greenlet.waiter()
  watcher:start(waiter.wake, waiter)
  return {
    own = "nil",
    wait = function(timeout) return waiter:wait(timeout) end,
    works = function()
      assert(watcher.active)
      fire(watcher)
      assert(waiter:wait(5) == true)
    end,
    close = function()
      watcher:close()
      if close then close() end
    end,
  }
end

behaves("a timer of the loop", true, function()
  return waits_for_watcher(loop.timer(10, 0.001), function(w) w:again() end)
end)
behaves("an async watcher of the loop", true, function()
  return waits_for_watcher(loop.async(), function(w) w:send() end)
end)
behaves("an io watcher of the loop", true, function()
  local client, peer, pair = peers.pair()
  return waits_for_watcher(loop.io(client:getfd(), "r"), function() peer:send("x") end, pair.close)
end)

-- One greenlet loads the module, and waits in it; the call is a second one's.
behaves("require of a module that another greenlet loads", false, function()
  local waiter = core.greenlet.waiter()
  local name = "spec.loaded_by_another"
  package.preload[name] = function()
    waiter:wait()
    return "the module"
  end
  local loader = support.started(require, name)
  return {
    wait = function() require(name) end,
    works = function()
      waiter:wake()
      assert(require(name) == "the module")
      assert(loader:get(5) == "the module")
    end,
    close = function()
      loader:kill()
      package.preload[name], package.loaded[name] = nil, nil
    end,
  }
end)

-- ---- raw greenlets ----

-- Who switches to a raw greenlet that then waits is suspended as long.
local function raw_case(enter)
  return function()
    return {
      wait = function()
        local g = greenlet.new(function(...)
          pcall(...)
          sleep_on()
        end)
        local _ <close> = setmetatable({}, { __close = function() g:kill() end })
        enter(g)
      end,
    }
  end
end

behaves("g:switch", false, raw_case(function(g) g:switch(function() end) end))
behaves("g:throw", false, raw_case(function(g)
  local me = greenlet.current()
  g:switch(me.switch, me)
  g:throw("not the end")
end))

-- ---- sockets ----

local function receives(pattern, sends)
  return function()
    local client, peer, pair = peers.pair()
    return {
      own = "nil",
      wait = function(timeout)
        client:settimeout(timeout)
        return client:receive(pattern)
      end,
      works = function()
        client:settimeout(5)
        assert(peer:send(sends))
        if pattern == "*a" then peer:shutdown("send") end
        local got = assert(client:receive(pattern))
        assert(got == (pattern == 0 and "" or (sends:gsub("\n", ""))), got)
      end,
      close = pair.close,
    }
  end
end

behaves("receive a line", true, receives("*l", "hello\n"))
behaves("receive all", true, receives("*a", "hello"))
behaves("receive a number of bytes", true, receives(5, "hello"))
behaves("receive 0 bytes", true, receives(0, "hello"))

behaves("send", true, function()
  local client, peer, pair = peers.pair()
  local data = ("x"):rep(1024 * 1024)
  peers.fill(client)
  return {
    own = "nil",
    wait = function(timeout)
      client:settimeout(timeout)
      return client:send(data)
    end,
    works = function()
      client:settimeout(10)
      peer:settimeout(10)
      local sender = green.spawn(function()
        assert(client:send("the end"))
        return client:shutdown("send")
      end)
      assert(peer:receive("*a"):sub(-7) == "the end")
      assert(sender:get())
    end,
    close = pair.close,
  }
end)

behaves("accept", true, function()
  local server, port = peers.listener()
  return {
    own = "nil",
    wait = function(timeout)
      server:settimeout(timeout)
      return server:accept()
    end,
    works = function()
      server:settimeout(5)
      local client <close> = assert(socket.connect("127.0.0.1", port))
      local peer <close> = assert(server:accept())
      assert(client:send("hello\n"))
      assert(peer:receive() == "hello")
    end,
    close = function() server:close() end,
  }
end)

-- Connects `client` to a server that accepts, and says a word.
local function connects(client, host)
  local server <close>, port = peers.listener()
  client:settimeout(5)
  assert(client:connect(host or "127.0.0.1", port))
  local peer <close> = assert(server:accept())
  assert(client:send("hello\n"))
  assert(peer:receive() == "hello")
end

for name, constructor in pairs { ["connect"] = socket.tcp, ["connect (tcp4)"] = socket.tcp4 } do
  behaves(name, true, function()
    local port, full = peers.full_listener()
    local client = constructor()
    return {
      own = "nil",
      wait = function(timeout)
        client:settimeout(timeout)
        return client:connect("127.0.0.1", port)
      end,
      works = function() connects(client) end,
      close = function() peers.closer(client, full).close() end,
    }
  end)
end

for _, name in ipairs { "connect", "connect4" } do
  behaves("socket." .. name, false, function()
    local port, full = peers.full_listener()
    return {
      wait = function() return socket[name]("127.0.0.1", port) end,
      close = full.close,
    }
  end)
end

-- ---- names ----

local names -- the server that is silent while a case waits

-- `wait` may ask for slow.test, whose server answers again in `works`.
local function with_silent_dns(case)
  names:pause()
  dns.config { timeout = 1, tries = 2 }
  dns.servers(names.address) -- forgets what was known
  local works, close = case.works, case.close
  function case.works()
    names:resume()
    works()
  end
  function case.close()
    names:resume()
    if close then close() end
    dns.config { timeout = 2, tries = 2 }
    dns.servers(nil)
  end
  return case
end

local function looks_up()
  assert(dns.getaddrinfo("slow.test", "inet")[1].addr == "127.0.0.1")
end

-- Not in a describe of their own: that would register them too late for the table below.
setup(function() names = dnsmasq.start { ["slow.test"] = { "127.0.0.1", "::1" } } end)
teardown(function() names:stop() end)

for name, wait in pairs {
  ["dns.getaddrinfo"] = function() return dns.getaddrinfo("slow.test") end,
  ["dns.toip"] = function() return dns.toip("slow.test") end,
  ["socket.connect by name"] = function() return socket.connect("slow.test", 1) end,
  ["socket.connect4 by name"] = function() return socket.connect4("slow.test", 1) end,
  ["socket.connect6 by name"] = function() return socket.connect6("slow.test", 1) end,
  ["socket.connect from a name"] = function()
    return socket.connect("127.0.0.1", 1, "slow.test", 0)
  end,
  ["socket.bind by name"] = function() return socket.bind("slow.test", 0) end,
} do
  behaves(name, false, function()
    return with_silent_dns { wait = wait, works = looks_up }
  end)
end

behaves("connect by name", true, function()
  local client = socket.tcp()
  return with_silent_dns {
    own = "nil",
    wait = function(timeout)
      client:settimeout(timeout)
      return client:connect("slow.test", 1)
    end,
    works = function() connects(client, "slow.test") end,
    close = function() client:close() end,
  }
end)

behaves("bind by name", true, function()
  local server = socket.tcp()
  return with_silent_dns {
    own = "nil",
    wait = function(timeout)
      server:settimeout(timeout)
      return server:bind("slow.test", 0)
    end,
    works = function()
      server:settimeout(5)
      assert(server:bind("slow.test", 0))
    end,
    close = function() server:close() end,
  }
end)

behaves("http.get by name", true, function()
  local server = peers.stalling_http()
  local url = ("http://slow.test:%d/works"):format(server.port)
  return with_silent_dns {
    own = "nil",
    wait = function(timeout) return http.get(url, { timeout = timeout }) end,
    works = function() assert(assert(http.get(url)).body == "works") end,
    close = function()
      http.close_idle()
      server:close()
    end,
  }
end)

-- ---- HTTP ----

local HALF = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"

local ANSWERS = {
  ["/silent"] = nil,
  ["/half-head"] = "HTTP/1.1 200 OK\r\nContent-Le",
  ["/half-body"] = HALF,
  ["/half-redirect"] = HALF:gsub("200 OK", "302 Found\r\nLocation: /silent"),
}

-- What `fetch(url, timeout)` waits for is the rest of `path`.
local function fetches(path, own, fetch)
  return function()
    local server = peers.stalling_http(ANSWERS)
    return {
      own = own,
      wait = function(timeout) return fetch(server.url .. path, timeout) end,
      works = function() assert(assert(http.get(server.url .. "/works")).body == "works") end,
      close = function()
        http.close_idle()
        server:close()
      end,
    }
  end
end

local function get(url, timeout) return http.get(url, { timeout = timeout }) end

local FILE = os.tmpname()
os.remove(FILE)

behaves("http.get of an answer that never comes", true, fetches("/silent", "nil", get))
behaves("http.get of half a head", true, fetches("/half-head", "nil", get))
behaves("http.get of half a body", true, fetches("/half-body", "nil", get))
behaves("http.get of half a redirect", true, fetches("/half-redirect", "nil", get))
behaves("http.get of half a body for a sink", true, fetches("/half-body", "nil", function(url, t)
  return http.get(url, { timeout = t, sink = function() end })
end))
behaves("http.get of half a body for a file", true, fetches("/half-body", "nil", function(url, t)
  local _ <close> = setmetatable({}, {
    __close = function() assert(not lfs.attributes(FILE), "half a body has become a file") end,
  })
  return http.get(url, { timeout = t, file = FILE })
end))
behaves("http.get with a sink that waits", false, fetches("/half-body", nil, function(url)
  return http.get(url, { sink = function() green.sleep(10) end })
end))
behaves("http.request", true, fetches("/silent", "nil", function(url, timeout)
  return http.request { url = url, method = "POST", body = "data", timeout = timeout }
end))
behaves("http.get of a server that is full", true, function()
  local port, full = peers.full_listener()
  return {
    own = "nil",
    wait = function(timeout) return get(("http://127.0.0.1:%d/"):format(port), timeout) end,
    close = function()
      http.close_idle() -- and with the last connection libcurl's own descriptors
      full.close()
    end,
  }
end)

-- ---- is anything missing? ----

-- What the sources mark with ---@async, as FILE.FUNCTION, and the situations
-- above in which it waits; or why there is none.
local COVERED = {
  ["green.joinall"] = { "joinall" },
  ["green.wait"] = { "wait for a list", "wait for the loop" },
  ["green.iwait"] = { "iwait", "iwait without a loop" },
  ["green.kill"] = { "green.kill" },
  ["green.killall"] = { "killall" },
  ["green.with_timeout"] = { "with_timeout" },
  ["green.http.get"] = {
    "http.get of an answer that never comes", "http.get of half a head",
    "http.get of half a body", "http.get of half a redirect",
    "http.get of half a body for a sink", "http.get of half a body for a file",
    "http.get with a sink that waits", "http.get of a server that is full", "http.get by name",
  },
  ["green.http.request"] = { "http.request" },
  ["ltask.l_join"] = { "join", "leaving a greenlet's scope" },
  ["ltask.l_get"] = { "get" },
  ["ltask.l_pget"] = { "pget" },
  ["ltask.l_kill"] = { "g:kill" },
  ["lwait.l_sleep"] = { "sleep" },
  ["lwait.l_yield"] = "it waits for nothing: its turn comes at once",
  ["lwait.l_waiter_wait"] = {
    "a waiter", "a timer of the loop", "an async watcher of the loop",
    "an io watcher of the loop", "require of a module that another greenlet loads",
  },
  ["lhub.wait_idle"] = { "wait for the loop" },
  ["lswitch.l_switch"] = { "g:switch" },
  ["lswitch.l_throw"] = { "g:throw" },
  ["ldns.getaddrinfo_"] = { "dns.getaddrinfo" },
  ["ldns.toip"] = { "dns.toip" },
  ["lsocket.l_connect"] = { "connect", "connect (tcp4)", "connect by name" },
  ["lsocket.f_connect"] = {
    "socket.connect", "socket.connect by name", "socket.connect from a name",
  },
  ["lsocket.f_connect4"] = { "socket.connect4", "socket.connect4 by name" },
  ["lsocket.f_connect6"] = { "socket.connect6 by name" },
  ["lsocket.l_bind"] = { "bind by name" },
  ["lsocket.f_bind"] = { "socket.bind by name" },
  ["lsocket.l_accept"] = { "accept" },
  ["lsockio.l_receive"] = {
    "receive a line", "receive all", "receive a number of bytes", "receive 0 bytes",
  },
  ["lsockio.l_send"] = { "send" },
  ["lhttp.start_transfer"] = { "http.get by name" },
  ["lhttp.read_head"] = { "http.get of an answer that never comes", "http.get of half a head" },
  ["lhttp.read_body"] = { "http.get of half a body" },
  ["lhttp.read_piece"] = { "http.get of half a body for a sink" },
  ["lhttp.save_body"] = { "http.get of half a body for a file" },
  ["lhttp.skip_body"] = { "http.get of half a redirect" },
}

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local function files_of(folder, pattern)
  local found = {}
  for name in lfs.dir(folder) do
    local short = name:match(pattern)
    if short then found[short] = folder .. "/" .. name end
  end
  return found
end

-- FILE.FUNCTION -> true, of all functions with the mark. In C the doc block is
-- a comment right before the function; in Lua it is lines of `---`.
local function marked()
  local found = {}
  for name, path in pairs(files_of("src/lua", "^(l%w+)%.c$")) do
    local text = contents(path)
    for block, stop in text:gmatch("/%*(.-)%*/()") do
      if block:find("\n---@async", 1, true) then
        local fn = text:match("^%s*static int ([%w_]+)%(", stop)
        found[name .. "." .. assert(fn, block)] = true
      end
    end
  end
  local modules = files_of("lua/green", "^(%w+)%.lua$")
  for name, path in pairs(modules) do modules[name] = { "green." .. name, path } end
  modules[1] = { "green", "lua/green.lua" }
  for _, module in pairs(modules) do
    for lines in contents(module[2]):gmatch("\n%-%-%-@async(\n.-)\n%s") do
      found[module[1] .. "." .. assert(lines:match("\nfunction M[.:]([%w_]+)"), lines)] = true
    end
  end
  return found
end

describe("every blocking call", function()
  it("TO1 TO2 SO9 that the sources mark is covered", function()
    local found, count = marked(), 0
    for name in pairs(found) do
      assert(COVERED[name], name .. " may wait, and no situation above makes it")
      count = count + 1
    end
    for name in pairs(COVERED) do assert(found[name], name .. " is not marked ---@async") end
    assert(count >= 35, count .. " marks found")
  end)

  it("TO1 TO2 SO9 is in a registered situation, and every situation is some call's", function()
    local used = {}
    for name, situations in pairs(COVERED) do
      for _, situation in ipairs(type(situations) == "table" and situations or {}) do
        assert(blocking.situations[situation], name .. ": no situation " .. situation)
        used[situation] = true
      end
    end
    for situation in pairs(blocking.situations) do assert(used[situation], situation) end
  end)
end)
