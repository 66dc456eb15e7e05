--- TCP sockets over loopback: LuaSocket's surface (LSO1-LSO8) and what green
-- sockets promise beyond it (ACCEPTANCE 11, SO1-SO9).
--
-- LSO6 (elapsed seconds appended in LuaSocket's debug builds) is answered with
-- "never": green.socket is no debug build. SO6 has no file objects here: its
-- sense is that a descriptor is closed once, with its last user.

local green = require "green"
local socket = require "green.socket"
local support = require "spec.support"
local it = support.it

--- Something whose leaving closes all that it holds.
local function closer(...)
  local held = { ... }
  return setmetatable({}, { __close = function()
    for _, object in ipairs(held) do object:close() end
  end })
end

--- A connected pair: the client's side, the server's side, and a closer of both.
local function pair()
  local server <close> = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  local client = assert(socket.connect("127.0.0.1", port))
  local peer = assert(server:accept())
  return client, peer, closer(client, peer)
end

--- A port of 127.0.0.1 where nobody listens.
local function refused_port()
  local server <close> = assert(socket.bind("127.0.0.1", 0))
  return select(2, server:getsockname())
end

--- Calls fn(a, b, ...) with a pair, which is closed afterwards.
local function with_pair(fn, ...)
  local a, b, _ <close> = pair()
  return fn(a, b, ...)
end

--- The port of a server whose queue is full, so that connecting to it hangs, and
--- a closer.
local function silent_server()
  local server = assert(socket.bind("127.0.0.1", 0, 0))
  local _, port = server:getsockname()
  local fillers = {}
  for i = 1, 4 do
    fillers[i] = socket.tcp()
    fillers[i]:settimeout(0)
    fillers[i]:connect("127.0.0.1", port)
  end
  return port, closer(server, table.unpack(fillers))
end

describe("receive", function()
  it("LSO1 reads a line, drops every CR, returns no terminator", function()
    with_pair(function(a, b)
      b:send("one\r\ntwo\nth\rr\ree\r\n\nlast")
      assert.are.equal("one", a:receive())
      assert.are.equal("two", a:receive("*l"))
      assert.are.equal("three", a:receive())
      assert.are.equal("", a:receive())
      b:close()
      assert.are.same({ nil, "closed", "last", "EOF" }, { a:receive() })
    end)
  end)

  it("LSO1 a long line keeps nothing of its CRs, and what follows it stays", function()
    with_pair(function(a, b)
      b:send(("x\r"):rep(5000) .. "\r\nnext\r\n")
      assert.is_true(("x"):rep(5000) == a:receive())
      assert.are.equal("next\r\n", a:receive("*L"))
    end)
  end)

  it("a line of 1 MiB costs no more than its bytes", function()
    with_pair(function(a, b)
      local text = ("x"):rep(1 << 20)
      local sender = green.spawn(function() return b:send(text .. "\n") end)
      local start = os.clock()
      local line = a:receive()
      assert.is_true(text == line)
      assert.is_true(os.clock() - start < (support.is_sanitized and 5 or 1))
      assert.are.equal(#text + 1, sender:get())
    end)
  end)

  it("a finalizer may close the socket while its line is copied", function()
    local previous = collectgarbage("incremental", 1, 1000)
    local _ <close> = setmetatable({}, { __close = function()
      collectgarbage("incremental", 200, 100) -- the defaults
      collectgarbage(previous)
    end })
    for _ = 1, 5 do
      with_pair(function(a, b)
        b:send((("x"):rep(300) .. "\n"):rep(150))
        a:receive()
        setmetatable({}, { __gc = function() a:close() end })
        a:settimeout(0)
        local line, message
        repeat
          line, message = a:receive()
          assert.is_true(line == nil or line == ("x"):rep(300))
        until not line
        if message == "timeout" then -- with a big heap the collector has not come by yet
          collectgarbage()
          line, message = a:receive()
        end
        assert.is_nil(line)
        assert.are.equal("closed", message)
        assert.are.same({ nil, "closed", "", "EBADF" }, { a:receive(5) })
        assert.is_false(a:dirty())
      end)
    end
  end)

  it("LSO1 a pattern without its star is misuse", function()
    with_pair(function(a)
      for _, pattern in ipairs { "l", "a", "x", "" } do
        assert.has_error(function() a:receive(pattern) end,
          "bad argument #1 to 'receive' (invalid receive pattern)")
      end
    end)
  end)

  it("LSO2 '*a' reads until the close, and wants one byte at least", function()
    with_pair(function(a, b)
      b:send("abc")
      b:send("def")
      b:close()
      assert.are.equal("abcdef", a:receive("*a"))
      assert.are.same({ nil, "closed", "", "EOF" }, { a:receive("*a") })
    end)
  end)

  it("LSO2 a timeout in the middle of '*a' gives what has come", function()
    with_pair(function(a, b)
      a:settimeout(0.02)
      b:send("half")
      assert.are.same({ nil, "timeout", "half", "ETIMEDOUT" }, { a:receive("*a") })
    end)
  end)

  it("LSO3 a number counts the prefix", function()
    with_pair(function(a, b)
      b:send("abcdefghij")
      assert.are.equal("1234abcdef", a:receive(10, "1234"))
      assert.are.equal("ghi", a:receive("3"))
      assert.are.equal("long prefix", a:receive(4, "long prefix"))
      assert.are.equal("x", a:receive(0, "x"))
      assert.are.equal("j", a:receive(1))
    end)
  end)

  it("LSO3 receive(0) waits until something can be read, and takes nothing", function()
    with_pair(function(a, b)
      a:settimeout(0)
      assert.are.same({ nil, "timeout", "", "ETIMEDOUT" }, { a:receive(0) })
      a:settimeout(nil)
      green.spawn_later(0.01, b.send, b, "x")
      assert.are.equal("", a:receive(0))
      assert.is_true(a:dirty())
      assert.are.equal("x", a:receive(1))
      b:close()
      assert.are.same({ nil, "closed", "", "EOF" }, { a:receive(0) })
    end)
  end)

  it("LSO4 the prefix stands before success and partial alike", function()
    with_pair(function(a, b)
      b:send("line\nrest")
      assert.are.equal("> line", a:receive("*l", "> "))
      b:close()
      assert.are.same({ nil, "closed", "> rest", "EOF" }, { a:receive("*l", "> ") })
      assert.are.same({ nil, "closed", "> ", "EOF" }, { a:receive("*a", "> ") })
    end)
  end)

  it("LSO4 negative numbers and NaN are misuse", function()
    with_pair(function(a)
      for _, n in ipairs { -1, "-1", 0 / 0, -math.huge } do
        assert.has_error(function() a:receive(n) end,
          "bad argument #1 to 'receive' (invalid receive pattern)")
      end
    end)
  end)

  it("LSO5 what was read too far stays for the next call", function()
    with_pair(function(a, b)
      a:settimeout(0.02)
      b:send("ab\ncd")
      assert.are.equal("a", a:receive(1))
      assert.is_true(a:dirty())
      assert.are.equal("b", a:receive())
      assert.are.same({ nil, "timeout", "cd", "ETIMEDOUT" }, { a:receive(3) })
      assert.is_false(a:dirty())
    end)
  end)

  it("LSO6 nothing is appended to the results", function()
    with_pair(function(a, b)
      assert.are.equal(1, select("#", b:send("x\n")))
      assert.are.equal(1, select("#", a:receive()))
    end)
  end)

  it("LSO7 both modes count from the start of the call, the smaller ends it", function()
    with_pair(function(a)
      for _, times in ipairs { { 0.02, 5 }, { 5, 0.02 }, { nil, 0.02 }, { 0.02, -1 } } do
        assert.are.equal(1, a:settimeout(times[1], "b"))
        assert.are.equal(1, a:settimeout(times[2], "total"))
        local elapsed, _, message = support.timed(a.receive, a, 1)
        assert.are.equal("timeout", message)
        assert.is_true(elapsed >= 0.02 and elapsed < 1)
      end
      assert.are.same({ 0.02, -1 }, { a:gettimeout() })
      assert.has_error(function() a:settimeout(1, "x") end,
        "bad argument #2 to 'settimeout' (invalid timeout mode)")
    end)
  end)

  it("LSO7 a slow trickle does not stretch the timeout", function()
    with_pair(function(a, b)
      a:settimeout(0.05)
      local feeder = green.spawn(function()
        while b:send("x") do green.sleep(0.005) end
      end)
      local elapsed, data, message = support.timed(a.receive, a, 1000000)
      feeder:kill()
      assert.is_nil(data)
      assert.are.equal("timeout", message)
      assert.is_true(elapsed >= 0.05 and elapsed < 1)
    end)
  end)

  it("LSO7 with timeout 0 nobody else runs", function()
    with_pair(function(a)
      local ran = false
      local other = green.spawn(function() ran = true end)
      a:settimeout(0)
      assert.are.equal("timeout", select(2, a:receive()))
      assert.is_false(ran)
      other:join()
    end)
  end)

  it("LSO8 a greenlet that receives does not disturb one that sends", function()
    with_pair(function(a, b)
      local echo = green.spawn(function()
        for _ = 1, 100 do b:send(assert(b:receive()) .. "\n") end
      end)
      local sender = green.spawn(function()
        for i = 1, 100 do a:send(i .. "\n") end
      end)
      for i = 1, 100 do assert.are.equal(tostring(i), a:receive()) end
      green.joinall({ echo, sender }, { raise_error = true })
    end)
  end)

  it("'*L' keeps the line as it came", function()
    with_pair(function(a, b)
      b:send("one\r\n")
      assert.are.equal("one\r\n", a:receive("*L"))
    end)
  end)

  it("100,000 bytes and binary zeros arrive unchanged", function()
    with_pair(function(a, b)
      local all = ("\0\r\n\255"):rep(25000)
      green.spawn(function()
        b:send(all)
        b:close()
      end)
      assert.are.equal(all, a:receive("*a"))
    end)
  end)
end)

describe("send", function()
  it("returns the index of the last byte, as string.sub counts", function()
    with_pair(function(a, b)
      assert.are.equal(5, b:send("hello"))
      assert.are.equal(4, b:send("hello", 2, 4))
      assert.are.equal(5, b:send("hello", -2))
      assert.are.equal(2, b:send("hello", 1, -4))
      assert.are.equal(5, b:send("hello", 0, 100))
      assert.are.equal(2, b:send(42))
      b:close()
      assert.are.equal("hello" .. "ell" .. "lo" .. "he" .. "hello" .. "42", a:receive("*a"))
    end)
  end)

  it("SO5 an empty send does nothing, with or without a timeout", function()
    with_pair(function(a)
      assert.are.equal(0, a:send(""))
      assert.are.equal(2, a:send("hello", 3, 2))
      a:settimeout(0)
      assert.are.equal(0, a:send(""))
      assert.are.same({ 0, 0 }, { select(2, a:getstats()), (a:getstats()) })
    end)
  end)

  it("SO5 with timeout 0 it makes one attempt", function()
    with_pair(function(a, b)
      a:settimeout(0)
      assert.are.equal(5, a:send("hello"))
      assert.are.equal("hello", b:receive(5))
    end)
  end)

  it("T45 to a peer that is gone says closed, and no signal comes", function()
    with_pair(function(a, b)
      b:setoption("linger", { on = true, timeout = 0 })
      b:close()
      local _, message = support.eventually(function()
        local last, message = a:send("x")
        if not last then return true, message end
      end), select(2, a:send("x"))
      assert.are.equal("closed", message)
    end)
  end)

  it("SO4 one deadline covers all of a long send, and tells how far it came", function()
    with_pair(function(a, b)
      local data = ("x"):rep(64 * 1024 * 1024)
      a:settimeout(0.1)
      local reader = green.spawn(function()
        while b:receive(4096) do green.sleep(0.005) end
      end)
      local elapsed, last, message, sent, code = support.timed(a.send, a, data)
      assert.are.same({ nil, "timeout", "ETIMEDOUT" }, { last, message, code })
      assert.is_true(sent > 0 and sent < #data)
      assert.are.equal(sent, select(2, a:getstats()))
      assert.is_true(elapsed >= 0.09 and elapsed < 0.5)
      reader:kill()
    end)
  end)
end)

describe("several greenlets on one socket", function()
  it("SO1 close wakes who receives", function()
    with_pair(function(a)
      local results
      local reader = support.started(function() results = { a:receive() } end)
      local elapsed = support.timed(function()
        assert.are.equal(1, a:close())
        reader:join()
      end)
      assert.are.same({ nil, "closed", "", "EBADF" }, results)
      assert.is_true(elapsed < 0.1)
    end)
  end)

  it("SO1 close wakes who sends and who accepts", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    local a, b, _ <close> = pair()
    local sent, accepted
    local sender = support.started(function() sent = { a:send(("x"):rep(16 * 1024 * 1024)) } end)
    local accepter = support.started(function() accepted = { server:accept() } end)
    a:close()
    server:close()
    green.joinall { sender, accepter }
    assert.are.same({ "closed", "EBADF" }, { sent[2], sent[4] })
    assert.is_true(sent[3] > 0)
    assert.are.same({ nil, "closed", "EBADF" }, accepted)
    assert.is_true(b:getfd() >= 0)
  end)

  it("SO2 a second reader is refused at once, the first is undisturbed", function()
    with_pair(function(a, b)
      local first
      local reader = support.started(function() first = a:receive(6) end)
      b:send("abc")
      support.eventually(function() return a:dirty() end)
      local elapsed, data, message, partial, code = support.timed(a.receive, a, 1)
      assert.are.same({ nil, "already used by another greenlet", "", "EBUSY" },
        { data, message, partial, code })
      assert.is_true(elapsed < 0.1)
      b:send("def")
      reader:join()
      assert.are.equal("abcdef", first)
    end)
  end)

  it("SO3 100 KB both ways at once do not hang, nor does the close", function()
    local elapsed = support.timed(with_pair, function(a, b)
      local data = ("0123456789"):rep(10000)
      local function exchange(s)
        local sender = green.spawn(function() return s:send(data) end)
        assert.are.equal(data, s:receive(#data))
        assert.are.equal(#data, sender:get())
      end
      green.joinall({ green.spawn(exchange, a), green.spawn(exchange, b) }, { raise_error = true })
    end)
    assert.is_true(elapsed < 5)
  end)

  it("SO4 a receive ends when its timeout is over", function()
    with_pair(function(a)
      a:settimeout(0.1)
      local elapsed, data, message, partial, code = support.timed(a.receive, a)
      assert.are.same({ nil, "timeout", "", "ETIMEDOUT" }, { data, message, partial, code })
      assert.is_true(elapsed >= 0.1 and elapsed < 0.5)
    end)
  end)

  it("SO6 a descriptor is closed once: its next user is left alone", function()
    local a, b, _ <close> = pair()
    local fd = a:getfd()
    a:close()
    local c, d, _ <close> = pair()
    assert.is_true(c:getfd() == fd or d:getfd() == fd)
    assert.are.equal(1, a:close())
    assert.are.equal(1, c:send("x"))
    assert.are.equal("x", d:receive(1))
    assert.are.equal("closed", select(2, b:receive()))
  end)

  it("SO6 a descriptor taken by getfd and setfd(-1) stays open", function()
    local a, b, _ <close> = pair()
    local c <close> = socket.tcp()
    local fd = a:getfd()
    a:setfd(-1)
    assert.are.equal(-1, a:getfd())
    assert.are.equal("closed", select(2, a:receive()))
    a:close()
    c:setfd(fd)
    assert.are.equal(fd, c:getfd())
    assert.are.equal(1, b:send("x"))
    assert.are.equal(1, c:connect("127.0.0.1", 1) or 1) -- now a client
    assert.are.equal("x", c:receive(1))
  end)

  it("SO9 a kill or an outer timeout loses nothing, and the socket goes on", function()
    with_pair(function(a, b)
      b:send("abc")
      local ok, err = pcall(function()
        local _ <close> = green.timeout(0.02)
        a:receive(6)
      end)
      assert.is_false(ok)
      assert.is_true(green.istimeout(err))
      local reader = support.started(function() a:receive(6) end)
      reader:kill()
      b:send("def\n")
      assert.are.equal("abcdef", a:receive())
    end)
  end)

  it("a fast peer does not starve the others", function()
    with_pair(function(a, b)
      local turns = 0
      local counter = green.spawn(function()
        while true do
          turns = turns + 1
          green.yield()
        end
      end)
      for _ = 1, 200 do
        b:send("x")
        a:receive(1)
      end
      counter:kill()
      assert.is_true(turns > 10)
    end)
  end)
end)

describe("connect", function()
  it("SO7 refused is said quickly, and leaves nothing open", function()
    local port = refused_port()
    local elapsed, client, message, code = support.timed(socket.connect, "127.0.0.1", port)
    assert.are.same({ nil, "connection refused", "ECONNREFUSED" }, { client, message, code })
    assert.is_true(elapsed < 1)
    local s <close> = socket.tcp()
    assert.are.same({ nil, "connection refused", "ECONNREFUSED" }, { s:connect("localhost", port) })
    assert.matches("^tcp{client}: 0x%x+$", tostring(s))
  end)

  it("SO7 with timeout 0 it goes on by itself", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local s <close> = socket.tcp()
    s:settimeout(0)
    assert.are.same({ nil, "timeout", "ETIMEDOUT" }, { s:connect("127.0.0.1", port) })
    local peer <close> = assert(server:accept())
    assert.are.equal(1, s:connect("127.0.0.1", port))
    assert.are.same({ nil, "already connected", "EISCONN" }, { s:connect("127.0.0.1", port) })
    assert.are.equal(1, peer:send("x"))
    assert.are.equal("x", support.eventually(function() return s:receive(1) end))
  end)

  it("SO7 a bad port is misuse", function()
    for _, port in ipairs { -1, 65536, 1.5, 2 ^ 60, "70000" } do
      local ok, message = pcall(function() socket.connect("127.0.0.1", port) end)
      assert.is_false(ok)
      assert.matches("bad argument #2 to '[%w.]*connect' %(port out of range", message)
    end
    assert.are.equal("EAI_SERVICE", select(3, socket.connect("127.0.0.1", "no-such-service")))
  end)

  it("SO7 a kill or a timeout closes the half-open socket", function()
    local port, _ <close> = silent_server()
    local before = support.descriptors()
    local connecting = support.started(socket.connect, "127.0.0.1", port)
    assert.are_not.same(before, support.descriptors())
    connecting:kill()
    assert.are.same(before, support.descriptors())
    assert.is_false((pcall(function()
      local _ <close> = green.timeout(0.02)
      return socket.connect("127.0.0.1", port)
    end)))
    assert.are.same(before, support.descriptors())
    local s <close> = socket.tcp()
    s:settimeout(0.02)
    assert.are.same({ nil, "timeout", "ETIMEDOUT" }, { s:connect("127.0.0.1", port) })
    assert.are.same(before, support.descriptors())
  end)

  it("by host name, from a local address, over one family", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local a <close> = assert(socket.connect("localhost", port))
    assert.are.same({ "127.0.0.1", port, "inet" }, { a:getpeername() })
    local b <close> = assert(socket.connect("127.0.0.1", port, "127.0.0.2"))
    assert.are.equal("127.0.0.2", (b:getsockname()))
    assert.is_nil((socket.connect6("127.0.0.1", port)))
    local c <close> = assert(socket.connect4("localhost", port))
    assert.are.equal("inet4", c:getfamily())
  end)

  it("over IPv6", function()
    local server <close> = assert(socket.bind("::1", 0))
    local address, port, family = server:getsockname()
    assert.are.same({ "::1", "inet6" }, { address, family })
    local client <close> = assert(socket.connect("::1", port))
    assert.are.equal("inet6", client:getfamily())
    local peer <close> = assert(server:accept())
    assert.are.equal("inet6", peer:getfamily())
  end)
end)

describe("a server", function()
  it("is made in LuaSocket's three steps, and changes its class", function()
    local s <close> = socket.tcp()
    assert.matches("^tcp{master}: 0x%x+$", tostring(s))
    assert.are.equal(-1, s:getfd())
    assert.are.equal(1, s:bind("*", 0))
    assert.are.equal("0.0.0.0", (s:getsockname()))
    assert.are.equal(1, s:listen())
    assert.matches("^tcp{server}: ", tostring(s))
    assert.are.equal("tcp{server}", getmetatable(s).__index.class)
  end)

  it("says when its address is in use", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    assert.are.same({ nil, "address already in use", "EADDRINUSE" }, { socket.bind("127.0.0.1", port) })
  end)

  it("accept has its own timeout, which the client does not inherit", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    server:settimeout(0.02)
    assert.are.same({ nil, "timeout", "ETIMEDOUT" }, { server:accept() })
    local a <close> = assert(socket.connect("127.0.0.1", (select(2, server:getsockname()))))
    local b <close> = assert(server:accept())
    assert.are.same({ -1, -1 }, { b:gettimeout() })
    assert.is_true(a:getfd() >= 0)
  end)

  it("serves 100 connections, a greenlet each", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0, 128))
    local _, port = server:getsockname()
    local acceptor = green.spawn(function()
      while true do
        green.spawn(function(client)
          local _ <close> = client
          client:send(client:receive() .. "!\n")
        end, assert(server:accept()))
      end
    end)
    local clients = {}
    for i = 1, 100 do
      clients[i] = green.spawn(function()
        local client <close> = assert(socket.connect("127.0.0.1", port))
        client:send(i .. "\n")
        return client:receive()
      end)
    end
    for i = 1, 100 do assert.are.equal(i .. "!", clients[i]:get()) end
    acceptor:kill()
  end)
end)

describe("closing and asking", function()
  it("SO8 a closed socket says so, whatever is asked", function()
    with_pair(function(a)
      a:close()
      assert.are.same({ nil, "closed", "EBADF" }, { a:shutdown() })
      assert.are.same({ nil, "closed", "", "EBADF" }, { a:receive() })
      assert.are.same({ nil, "closed", 0, "EBADF" }, { a:send("x") })
      assert.are.same({ nil, "closed", "EBADF" }, { a:connect("127.0.0.1", 1) })
      assert.are.equal("EBADF", select(3, a:getpeername()))
      assert.are.equal("EBADF", select(3, a:getsockname()))
      assert.are.same({ nil, "getsockopt failed", "EBADF" }, { a:getoption("keepalive") })
      assert.are.same({ -1, false }, { a:getfd(), a:dirty() })
    end)
  end)

  it("SO8 nothing keeps a socket alive after its timeout", function()
    local weak = setmetatable({}, { __mode = "v" })
    do
      local a, b = pair()
      local _ <close> = b
      a:settimeout(0.01)
      a:receive()
      weak[1] = a
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)

  it("shutdown lets the peer read to the end", function()
    with_pair(function(a, b)
      a:send("bye")
      assert.are.equal(1, a:shutdown("send"))
      assert.are.equal("bye", b:receive("*a"))
      assert.are.equal(2, b:send("ok"))
      b:close()
      assert.are.equal("ok", a:receive("*a"))
      assert.has_error(function() a:shutdown("halfway") end,
        "bad argument #1 to 'shutdown' (invalid option 'halfway')")
    end)
  end)

  it("a method of another class is misuse", function()
    with_pair(function(a)
      assert.has_error(function() a:accept() end,
        "calling 'accept' on bad self (tcp{server} expected, got tcp{client})")
      local s <close> = socket.tcp()
      assert.has_error(function() s:receive() end,
        "calling 'receive' on bad self (tcp{client} expected, got tcp{master})")
      assert.has_error(function() a.receive(42) end,
        "bad argument #1 to 'receive' (tcp{client} expected, got number)")
    end)
  end)

  it("T46 every descriptor is close-on-exec from birth", function()
    local server <close> = assert(socket.bind("127.0.0.1", 0))
    local a, b, _ <close> = pair()
    local s <close> = assert(socket.tcp4())
    local t <close> = assert(socket.tcp6())
    for _, object in ipairs { server, a, b, s, t } do
      local info <close> = assert(io.open("/proc/self/fdinfo/" .. object:getfd()))
      local flags = tonumber(info:read("a"):match("flags:%s*(%d+)"), 8)
      assert.are_not.equal(0, flags & 0x80000) -- O_CLOEXEC, 02000000
    end
  end)

  it("getstats counts, setstats sets", function()
    with_pair(function(a, b)
      a:send("12345")
      b:receive(2)
      local received, sent, age = a:getstats()
      assert.are.same({ 0, 5 }, { received, sent })
      assert.is_true(age >= 0 and age < 10)
      assert.are.equal(5, (b:getstats())) -- what the buffer took counts
      assert.are.equal(1, a:setstats(10, 20, 30))
      received, sent, age = a:getstats()
      assert.are.same({ 10, 20 }, { received, sent })
      assert.is_true(age >= 30 and age < 31)
    end)
  end)
end)

describe("options", function()
  it("are set and read back", function()
    with_pair(function(a)
      for _, name in ipairs { "keepalive", "reuseaddr", "tcp-nodelay" } do
        for _, value in ipairs { true, false } do
          assert.are.equal(1, a:setoption(name, value))
          assert.are.equal(value, a:getoption(name))
        end
      end
      for _, name in ipairs { "tcp-keepidle", "tcp-keepcnt", "tcp-keepintvl" } do
        assert.are.equal(1, a:setoption(name, 7))
        assert.are.equal(7, a:getoption(name))
      end
      assert.are.equal(1, a:setoption("linger", { on = true, timeout = 3 }))
      assert.are.same({ on = true, timeout = 3 }, a:getoption("linger"))
      assert.are.equal(1, a:setoption("recv-buffer-size", 8192))
      assert.is_true(a:getoption("recv-buffer-size") >= 8192)
      assert.is_nil(a:getoption("error"))
    end)
  end)

  it("of a wrong name or value are misuse", function()
    with_pair(function(a)
      assert.has_error(function() a:setoption("bogus", true) end,
        "bad argument #1 to 'setoption' (unsupported option `bogus')")
      assert.has_error(function() a:getoption("tcp-fastopen") end,
        "bad argument #1 to 'getoption' (unsupported option `tcp-fastopen')")
      assert.has_error(function() a:setoption("keepalive", 1) end,
        "bad argument #2 to 'setoption' (boolean expected, got number)")
      assert.has_error(function() a:setoption("linger", { on = 1 }) end,
        "bad argument #2 to 'setoption' (invalid 'on' field)")
    end)
  end)

  it("fail with LuaSocket's words", function()
    local s <close> = socket.tcp()
    assert.are.same({ nil, "setsockopt failed", "EBADF" }, { s:setoption("keepalive", true) })
    local v6 <close> = assert(socket.tcp6())
    assert.is_true(v6:getoption("ipv6-v6only"))
  end)
end)

it("gettime is the wall clock, with a fraction", function()
  local now = socket.gettime()
  assert.is_true(math.abs(now - os.time()) <= 1.5)
  assert.are.equal("float", math.type(now))
end)
