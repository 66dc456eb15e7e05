--- Fetching over HTTP (ACCEPTANCE 21, HC1, HC2, HC5; THREATS T1, T5, T6, T8-T10,
-- T12, T14, T18, T21, T25): against a real nginx, and against small servers of
-- green sockets that do what no honest server does.

local lfs = require "lfs"
local green = require "green"
local dns = require "green.dns"
local http = require "green.http"
local socket = require "green.socket"
local support = require "spec.support"
local dnsmasq = require "spec.support.dnsmasq"
local nginx = require "spec.support.nginx"

-- Connections kept for reuse are descriptors, and would be taken for leaks.
local function it(name, body)
  return support.it(name, function()
    body()
    http.close_idle()
  end)
end

-- ---- servers of our own ----

-- The lines of a request's head, and its body.
local function read_request(client)
  local lines, length = {}, 0
  while true do
    local line = client:receive("*l")
    if not line then return nil end
    if line == "" then break end
    lines[#lines + 1] = line
    length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
  end
  return lines, length > 0 and client:receive(length) or ""
end

-- A loopback server that calls handler(client, path, lines, body) for each request;
-- the connection ends when that returns nothing. To be closed.
local function serving(handler)
  local listener = assert(socket.bind("127.0.0.1", 0))
  local port = select(2, listener:getsockname())
  local server = { url = "http://127.0.0.1:" .. port, port = port, greenlets = {}, requests = 0 }
  local function converse(client)
    local _ <close> = client
    repeat
      local lines, body = read_request(client)
      if not lines then return end
      server.requests = server.requests + 1
    until not handler(client, lines[1]:match("^%S+ (%S+)"), lines, body)
  end
  server.greenlets[1] = green.spawn(function()
    while true do
      local client = listener:accept()
      if not client then return end
      server.greenlets[#server.greenlets + 1] = green.spawn(converse, client)
    end
  end)
  return setmetatable(server, {
    __close = function()
      green.killall(server.greenlets)
      listener:close()
    end,
  })
end

local function answer(text)
  return serving(function(client) client:send(text) end)
end

local function redirecting(location, status)
  return ("HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n")
    :format(status or 302, location)
end

local function ok(body)
  return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body)
end

-- ---- files ----

local function in_folder()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  return setmetatable({ path = path }, { __close = function() os.execute("rm -rf " .. path) end })
end

local function listing(folder)
  local names = {}
  for name in lfs.dir(folder.path) do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function resident_bytes()
  return tonumber(contents("/proc/self/status"):match("VmRSS:%s*(%d+)")) * 1024
end

local function threads()
  local n = 0
  for name in lfs.dir("/proc/self/task") do
    if name ~= "." and name ~= ".." then n = n + 1 end
  end
  return n
end

describe("http against nginx", function()
  local server
  local big = ("0123456789abcdef"):rep(1024 * 1024 / 16)

  setup(function()
    server = nginx.start({
      [[location = /hello { add_header X-Two a; add_header X-Two b; return 200 hello; }
        location = /connection { return 200 $connection; }
        location = /echo { return 200 "$request_method $http_x_test|$http_user_agent|$http_accept"; }
        location = /moved { return 301 /hello; }
        location = /gone { return 404 sorry; }]],
      { [[ssl_certificate cert.pem; ssl_certificate_key key.pem;
          location = /hello { return 200 "$server_protocol $connection"; }
          location = /down { return 302 http://127.0.0.1:1/; }]], listen = "ssl http2" },
    }, { names = "IP:127.0.0.1" })
    server:write("big", big)
    -- The pool of Lua threads, and their stacks, grow to what the largest crowd
    -- needs, in two rounds under a generational collector, and stay so: no leak.
    for _ = 1, 2 do
      local crowd = {}
      for i = 1, 100 do crowd[i] = green.spawn(http.get, server:url("/big")) end
      green.joinall(crowd, { raise_error = true })
      collectgarbage()
    end
    http.close_idle()
  end)

  teardown(function() server:stop() end)

  it("a body comes in a string, with status and headers", function()
    local response = assert(http.get(server:url("/hello")))
    assert.are.equal(200, response.status)
    assert.are.equal("OK", response.reason)
    assert.are.equal("1.1", response.version)
    assert.are.equal("hello", response.body)
    assert.are.equal("5", response.headers["content-length"])
    assert.are.equal("a, b", response.headers["x-two"])
    assert.are.equal(server:url("/hello"), response.url)
  end)

  it("a status of 404 is a response, not an error", function()
    local response = assert(http.get(server:url("/gone")))
    assert.are.equal(404, response.status)
    assert.are.equal("sorry", response.body)
  end)

  it("method, headers and body go out as given", function()
    local response = assert(http.request {
      url = server:url("/echo"), method = "DELETE", headers = { ["X-Test"] = "yes", Accept = "" },
    })
    assert.are.equal("DELETE yes|greenlua|", response.body)
    assert.are.equal(200, assert(http.request { url = server:url("/big"), method = "HEAD" }).status)
  end)

  it("redirects are followed, and need not be", function()
    local response = assert(http.get(server:url("/moved")))
    assert.are.equal("hello", response.body)
    assert.are.equal(server:url("/hello"), response.url)
    response = assert(http.get(server:url("/moved"), { redirect = false }))
    assert.are.equal(301, response.status)
  end)

  it("all greenlets share the connections, streams too", function()
    local first = assert(http.get(server:url("/connection"))).body
    local seen = green.spawn(function() return assert(http.get(server:url("/connection"))).body end)
    assert.are.equal(first, seen:get())
    local streamed
    assert(http.get(server:url("/connection"), { sink = function(piece) streamed = piece end }))
    assert.are.equal(first, streamed)
    assert(http.get(server:url("/moved")))
    assert.are.equal(first, assert(http.get(server:url("/connection"))).body)
  end)

  it("HC2 100 at once, by name, and no thread is made", function()
    local before, most = threads(), 0
    local url = ("http://localhost:%d/big"):format(server.port)
    local list = {}
    for i = 1, 100 do
      list[i] = green.spawn(function()
        local response = assert(http.get(url))
        most = math.max(most, threads())
        return #response.body
      end)
    end
    for _, g in ipairs(list) do assert.are.equal(#big, g:get()) end
    assert.are.equal(before, most)
  end)

  it("T46 no descriptor of a fetch is inherited by a child", function()
    local before = support.descriptors()
    assert(http.get(server:url("/hello")))
    local pipe = assert(io.popen("ls /proc/self/fd"))
    local inherited = " " .. pipe:read("a"):gsub("%s+", " ")
    pipe:close()
    local new = 0
    for number, target in pairs(support.descriptors()) do
      if target ~= before[number] and target:find("^socket:") then
        new = new + 1
        assert.is_nil(inherited:find(" " .. number .. " ", 1, true), number)
      end
    end
    assert.is_true(new > 0)
  end)

  it("a sink gets the body in pieces, and the response", function()
    local pieces, status = {}, nil
    local response = assert(http.get(server:url("/big"), {
      sink = function(piece, head)
        pieces[#pieces + 1], status = piece, head.status
        green.sleep(0)
      end,
    }))
    assert.is_nil(response.body)
    assert.are.equal(200, status)
    assert.is_true(table.concat(pieces) == big)
  end)

  it("the sink's own waits count against the timeout", function()
    local response, message, code = http.get(server:url("/big"), {
      timeout = 0.05,
      sink = function() green.sleep(0.1) end,
    })
    assert.is_nil(response)
    assert.are.same({ "timeout", "ETIMEDOUT" }, { message, code })
  end)

  it("an error of the sink is raised to the caller, and ends the transfer", function()
    local mine = {}
    local _, err = pcall(http.get, server:url("/big"), { sink = function() error(mine) end })
    assert.are.equal(mine, err)
  end)

  it("T18 a file appears complete under its name, or not at all", function()
    local folder <close> = in_folder()
    local path = folder.path .. "/photo"
    local response = assert(http.get(server:url("/big"), { file = path }))
    assert.are.equal(#big, response.bytes)
    assert.are.equal(path, response.file)
    assert.is_true(contents(path) == big)
    response = assert(http.get(server:url("/gone"), { file = folder.path .. "/gone" }))
    assert.are.equal("sorry", response.body)
    assert.are.same({ "photo" }, listing(folder))
  end)

  it("T18 a planted link is replaced, not followed", function()
    local folder <close> = in_folder()
    local victim, path = folder.path .. "/victim", folder.path .. "/photo"
    local file = assert(io.open(victim, "w"))
    file:write("precious")
    file:close()
    assert(lfs.link(victim, path, true))
    assert(http.get(server:url("/hello"), { file = path }))
    assert.are.equal("precious", contents(victim))
    assert.are.equal("file", lfs.symlinkattributes(path, "mode"))
  end)

  it("T21 errors of writing name the file and the cause", function()
    local response, message, code = http.get(server:url("/hello"), { file = "/nonexistent/photo" })
    assert.is_nil(response)
    assert.are.equal("cannot write /nonexistent/photo: No such file or directory", message)
    assert.are.equal("ENOENT", code)
  end)

  it("T21 a file that may not grow fails, and leaves nothing", function()
    local folder <close> = in_folder()
    local script = ("print(require('green.http').get(%q, { file = %q }))")
      :format(server:url("/big"), folder.path .. "/photo")
    local command = ("ulimit -f 8; '%s' - <<'END'\n%s\nEND"):format(support.interpreter, script)
    local pipe = assert(io.popen(command))
    local said = pipe:read("a")
    assert.is_true((pipe:close()))
    assert.is_truthy(said:find("cannot write .*/photo: File too large"), said)
    assert.are.same({}, listing(folder))
  end)

  it("T10 a body larger than allowed is an error", function()
    local response, message, code = http.get(server:url("/big"), { max_body = 1000 })
    assert.is_nil(response)
    assert.are.equal("too large", message)
    assert.are.equal("EFBIG", code)
    assert(http.get(server:url("/big"), { max_body = #big }))
  end)

  it("T1 a certificate that nobody vouches for is refused", function()
    local url = server:url("/hello", 2):gsub("^http:", "https:")
    local response, message, code = http.get(url)
    assert.is_nil(response)
    assert.is_truthy(message:find("^certificate verify failed: .*self.signed"), message)
    assert.are.equal("EKEYREJECTED", code)
    assert.are.equal(200, assert(http.get(url, { verify = false })).status)
    local cafile = server.folder .. "/cert.pem"
    assert.are.equal("2", assert(http.get(url, { cafile = cafile })).version)
    response, message = http.get((url:gsub("127.0.0.1", "localhost")), { cafile = cafile })
    assert.is_nil(response)
    assert.is_truthy(message:find("certificate verify failed", 1, true), message)
  end)

  it("HC5 a streamed body has no HTTP/2 connection to share", function()
    local url = server:url("/hello", 2):gsub("^http:", "https:")
    local cafile, said = server.folder .. "/cert.pem", nil
    assert.is_truthy(assert(http.get(url, { cafile = cafile })).body:find("^HTTP/2"))
    local options = { cafile = cafile, sink = function(piece) said = piece end }
    assert(http.get(url, options))
    assert.is_truthy(said:find("^HTTP/1.1"), said)
    local before = said
    assert(http.get(url, options))
    assert.are.equal(before, said) -- the connection is used again
  end)

  it("T5 a redirect from https to http is refused", function()
    local url = server:url("/down", 2):gsub("^http:", "https:")
    local response, message, code = http.get(url, { cafile = server.folder .. "/cert.pem" })
    assert.is_nil(response)
    assert.are.equal("redirect refused: from https to http", message)
    assert.are.equal("EPERM", code)
  end)
end)

describe("http against hostile servers", function()
  it("a body goes out whole, with its length, and nothing made up", function()
    local seen, got
    local server <close> = serving(function(client, _, lines, body)
      seen, got = table.concat(lines, "\n"):lower(), body
      return client:send(ok("thanks"))
    end)
    local body = ("\0\r\nx"):rep(500000)
    assert.are.equal("thanks", assert(http.request { url = server.url, body = body }).body)
    assert.is_true(got == body)
    assert.is_truthy(seen:find("^post / "))
    assert.is_nil(seen:find("expect:", 1, true))
    assert.is_nil(seen:find("content-type:", 1, true))
    assert(http.request { url = server.url, method = "PUT", headers = { ["Content-Type"] = "a/b" } })
    assert.is_truthy(seen:find("content%-length: 0"))
    assert.is_truthy(seen:find("content-type: a/b", 1, true))
  end)

  it("T14 a body shorter than announced is an error, and no file", function()
    local server <close> = answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    local response, message, code = http.get(server.url)
    assert.is_nil(response)
    assert.are.equal("body shorter than announced", message)
    assert.are.equal("EOF", code)
    local folder <close> = in_folder()
    assert.is_nil(http.get(server.url, { file = folder.path .. "/photo" }))
    assert.are.same({}, listing(folder))
  end)

  it("T14 a chunked body without its end is an error", function()
    local server <close> = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    local response, message = http.get(server.url)
    assert.is_nil(response)
    assert.are.equal("body shorter than announced", message)
  end)

  it("T14 bytes beyond the announced length end the connection's reuse", function()
    local text = ok("hello") .. ok("evil")
    local server <close> = serving(function(client) return client:send(text) end)
    assert.are.equal("hello", assert(http.get(server.url)).body)
    assert.are.equal("hello", assert(http.get(server.url)).body)
  end)

  it("T9 endless heads end with an error of ours, and memory stays flat", function()
    local function endless(first, more)
      return function(client)
        client:send(first)
        while client:send(more) do end
      end
    end
    local servers = {
      { "HTTP/1.1 200 OK\r\n", "X: y\r\n" },
      { "HTTP/1.1 200 OK\r\nX: ", ("x"):rep(4096) },
      { "", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" },
    }
    for i, parts in ipairs(servers) do
      local server <close> = serving(endless(parts[1], parts[2]))
      local before = resident_bytes()
      local response, message, code = http.get(server.url)
      assert.is_nil(response)
      assert.are.equal("response head too large", message, i)
      assert.are.equal("EMSGSIZE", code)
      assert.is_true(resident_bytes() - before < 4 * 1024 * 1024)
    end
  end)

  it("T10 an endless body ends with an error, in a file's error page too", function()
    local status = "200 OK"
    local server <close> = serving(function(client)
      client:send("HTTP/1.1 " .. status .. "\r\n\r\n")
      while client:send(("0"):rep(65536)) do end
    end)
    local _, message = http.get(server.url, { max_body = 1024 * 1024 })
    assert.are.equal("too large", message)
    status = "404 Not Found"
    local folder <close> = in_folder()
    _, message = http.get(server.url, { file = folder.path .. "/x", max_body = 1024 * 1024 })
    assert.are.equal("too large", message)
    assert.are.same({}, listing(folder))
  end)

  it("T12 a body that stalls, and a head that never comes, end in time", function()
    local server <close> = serving(function(client, path)
      if path == "/body" then client:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") end
      green.sleep(60)
    end)
    local seconds, response, message, code = support.timed(http.get, server.url .. "/body",
      { stall = 0.05 })
    assert.is_nil(response)
    assert.are.equal("timeout", message)
    assert.are.equal("ETIMEDOUT", code)
    assert.is_true(seconds < 5)
    seconds, response, message = support.timed(http.get, server.url .. "/head", { timeout = 0.05 })
    assert.is_nil(response)
    assert.are.equal("timeout", message)
    assert.is_true(seconds >= 0.045 and seconds < 5)
  end)

  it("T8 redirects end, with the chain in the error", function()
    local server
    server = serving(function(client, path)
      local n = tonumber(path:match("%d+"))
      return client:send(redirecting("/" .. n + 1))
    end)
    local closing <close> = server
    local response, message, code = http.get(closing.url .. "/0")
    assert.is_nil(response)
    assert.are.equal("ELOOP", code)
    assert.is_truthy(message:find("^too many redirects: .*/0 %-> .*/10$"), message)
    assert.are.equal(11, server.requests)
    message = select(2, http.get(server.url:gsub("//", "//user:secret@") .. "/0", { redirect = 1 }))
    assert.is_nil(message:find("secret", 1, true))
  end)

  it("T5 a redirect to another scheme is refused", function()
    local schemes = {
      "file", "ftp", "scp", "gopher", "smb", "sftp", "ldap", "dict", "telnet", "tftp", "imap", "pop3",
      "smtp", "rtsp", "mqtt", "ws", "data", "javascript", "FILE", "File", "ftps", "smbs", "rtmp",
      "imaps", "ldaps", "gophers", "mailto",
    }
    local location
    local server <close> = serving(function(client) return client:send(redirecting(location)) end)
    for _, scheme in ipairs(schemes) do
      for _, form in ipairs { "%s:///etc/passwd", "%s://127.0.0.1:1/", "%s:x" } do
        location = form:format(scheme)
        local response, message, code = http.get(server.url)
        assert.is_nil(response, location)
        assert.are.equal(("redirect refused: unsupported scheme '%s'"):format(scheme:lower()), message)
        assert.are.equal("EPROTONOSUPPORT", code)
        message = select(2, http.get(location))
        assert.are.equal(("unsupported scheme '%s'"):format(scheme:lower()), message)
      end
    end
    location = "fi\tle:///etc/passwd"
    assert.is_nil(http.get(server.url))
  end)

  it("T6 what the caller told one origin is not told to another", function()
    local seen
    local other <close> = serving(function(client, _, lines)
      seen = table.concat(lines, "\n"):lower()
      return client:send(ok("there"))
    end)
    local status = 302
    local server <close> = serving(function(client, path, lines)
      if path == "/here" then
        seen = table.concat(lines, "\n"):lower()
        return client:send(ok("here"))
      end
      return client:send(redirecting(path == "/same" and "/here" or other.url .. "/", status))
    end)
    local headers = {
      Authorization = "Bearer secret", Cookie = "s=secret", ["X-Api-Key"] = "secret",
      Referer = "http://secret/", Accept = "text/plain",
    }
    local url = server.url:gsub("//", "//user:secret@")
    assert(http.get(url .. "/", { headers = headers }))
    assert.is_nil(seen:find("secret", 1, true), seen)
    assert.is_nil(seen:find("authorization", 1, true), seen)
    assert.is_truthy(seen:find("accept: text/plain", 1, true))
    assert(http.get(server.url .. "/", { headers = headers, allow_cross_origin = { "X-API-Key" } }))
    assert.is_truthy(seen:find("x-api-key: secret", 1, true))
    assert.is_nil(seen:find("cookie", 1, true))
    assert(http.get(server.url .. "/same", { headers = headers }))
    assert.is_truthy(seen:find("authorization: bearer secret", 1, true))
    status = 307
    assert(http.request { url = server.url .. "/", body = "x", headers = { ["Content-Type"] = "a/b" } })
    assert.is_truthy(seen:find("^post .*content%-type: a/b"), seen)
    status = 303
    assert(http.request { url = server.url .. "/", body = "x", headers = { ["Content-Type"] = "a/b" } })
    assert.is_truthy(seen:find("^get "), seen)
    assert.is_nil(seen:find("content-", 1, true))
  end)

  it("T25 CR, LF and NUL are refused wherever a value goes out", function()
    local server <close> = answer(ok("x"))
    for _, bad in ipairs { "a\rb", "a\nb", "a\0b" } do
      local url = server.url .. "/"
      assert.has_error(function() http.request { url = url, method = bad } end)
      assert.has_error(function() http.get(url, { headers = { [bad] = "x" } }) end)
      assert.has_error(function() http.get(url, { headers = { x = bad } }) end)
      assert.has_error(function() http.get(url, { headers = { x = { "fine", bad } } }) end)
      assert.has_error(function() http.get(url, { proxy = "http://127.0.0.1:1/" .. bad }) end)
      assert.is_nil(http.get(url .. bad))
      assert.is_nil(http.get("http://" .. bad .. "/"))
    end
    for _, name in ipairs { "", "a b", "a:", "é" } do
      assert.has_error(function() http.get(server.url, { headers = { [name] = "x" } }) end)
    end
    assert.has_error(function() http.get(server.url, { headers = { ["Content-Length"] = 7 } }) end)
    assert.has_error(function() http.get(server.url, { headers = { ["Transfer-Encoding"] = "x" } }) end)
    assert.are.equal(0, server.requests)
  end)

  it("wrong fields of a core transfer are named", function()
    local cases = {
      { { url = {} }, "bad field 'url' (string expected, got table)" },
      { { method = "a\0b" }, "bad field 'method' (it holds a NUL byte)" },
      { { port = "x" }, "bad field 'port' (number expected, got string)" },
      { { body = true }, "bad field 'body' (string expected, got boolean)" },
      { { headers = { "x", {} } }, "bad field 'headers' (strings without NUL bytes expected)" },
    }
    for _, case in ipairs(cases) do
      local transfer = require "green.core".http.transfer()
      assert.are.same({ false, case[2] }, { pcall(transfer.start, transfer, case[1]) })
    end
  end)

  it("options that are not known or of the wrong type are told", function()
    local cases = {
      { { timeuot = 1 }, "unknown option 'timeuot'" }, { { timeout = -1 }, "option 'timeout'" },
      { { redirect = -1 }, "option 'redirect'" }, { { stall = "x" }, "option 'stall'" },
      { { sink = 1 }, "option 'sink'" }, { { sink = print, file = "x" }, "exclude each other" },
      { { proxy = "socks5://127.0.0.1:1" }, "option 'proxy'" },
      { { proxy = "127.0.0.1" }, "option 'proxy'" }, { { headers = { x = {} , [1] = "y" } }, "header" },
      { { headers = { {} } }, 'malformed header name "1"' },
    }
    for _, case in ipairs(cases) do
      local fine, message = pcall(http.get, "http://127.0.0.1:1/", case[1])
      assert.is_false(fine)
      assert.is_truthy(message:find("bad argument #2 to 'get'", 1, true), message)
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
    assert.has_error(function() http.get() end)
    assert.has_error(function() http.request {} end)
    assert.is_nil(http.get("127.0.0.1"))
    assert.is_nil(http.get("http://"))
    assert.is_nil(http.get(""))
  end)

  it("a refused connection is told as such", function()
    local port = nginx.free_ports(1)[1]
    local response, message, code = http.get(("http://127.0.0.1:%d/"):format(port))
    assert.is_nil(response)
    assert.are.equal("connection refused", message)
    assert.are.equal("ECONNREFUSED", code)
  end)

  it("HC3 a proxy gets the request, and no name is looked up but its own", function()
    local line
    local proxy <close> = serving(function(client, _, lines)
      line = lines[1]
      return client:send(ok("by proxy"))
    end)
    local response = assert(http.get("http://nobody.invalid/x", {
      proxy = "http://localhost:" .. proxy.port,
    }))
    assert.are.equal("by proxy", response.body)
    assert.are.equal("GET http://nobody.invalid/x HTTP/1.1", line)
  end)

  it("HC5 a consumer that stops reading stops the server, and memory", function()
    local sent = 0
    local server <close> = serving(function(client)
      client:send("HTTP/1.1 200 OK\r\n\r\n")
      local block = ("z"):rep(65536)
      while client:send(block) do sent = sent + #block end
    end)
    local pieces = 0
    local before = resident_bytes()
    local consumer = green.spawn(http.get, server.url, {
      sink = function()
        pieces = pieces + 1
        green.sleep(60)
      end,
    })
    support.eventually(function() return pieces == 1 end)
    local last
    support.eventually(function() -- until it stands still
      local still = sent == last
      last = sent
      green.sleep(0.05)
      return still
    end)
    -- what the kernel buffers on both sides comes on top of our own limit
    assert.is_true(sent < 16 * 1024 * 1024, sent)
    assert.is_true(resident_bytes() - before < 4 * 1024 * 1024)
    consumer:kill()
  end)
end)

describe("http and kill", function()
  -- Kills a fetch that waits, while others tick. Returns how long the kill took
  -- and the ticker's longest gap.
  local function kill_while(url, options, is_there)
    local gap, last = 0, support.clock()
    local ticker = green.spawn(function()
      while true do
        green.sleep(0.001)
        gap, last = math.max(gap, support.clock() - last), support.clock()
      end
    end)
    local g = green.spawn(http.get, url, options)
    support.eventually(is_there)
    gap = 0
    local seconds = support.timed(g.kill, g)
    green.sleep(0.005)
    ticker:kill()
    assert.is_true(g:ready())
    return seconds, gap
  end

  -- The machine may be busy: one good round of five shows that it can be done.
  local function ends_soon(url, options, is_there)
    local seconds, gap
    for _ = 1, 5 do
      seconds, gap = kill_while(url, options, is_there)
      if seconds < 0.05 and gap < 0.02 then return end
    end
    error(("the kill took %g s, the longest gap was %g s"):format(seconds, gap))
  end

  it("HC1 HC2 while the name is being resolved", function()
    local names <close> = dnsmasq.start()
    names:pause()
    dns.servers(names.address)
    local _ <close> = setmetatable({}, { __close = function() dns.servers(nil) end })
    local before, n, most = threads(), 0, 0
    ends_soon("http://silent.test/", nil, function()
      n = n + 1
      most = math.max(most, threads())
      green.sleep(0.01)
      return n % 3 == 0
    end)
    assert.are.equal(before, most)
    names:resume() -- the look-ups that were left alone end
  end)

  it("HC1 while it connects", function()
    -- a listener whose queue is full answers no further SYN
    local listener <close> = assert(socket.bind("127.0.0.1", 0, 1))
    local port = select(2, listener:getsockname())
    local crowd = {}
    repeat
      local client = socket.tcp4()
      crowd[#crowd + 1] = client
      client:settimeout(0.05)
    until not client:connect("127.0.0.1", port)
    local n = 0
    ends_soon(("http://127.0.0.1:%d/"):format(port), nil, function()
      n = n + 1
      green.sleep(0.01)
      return n % 3 == 0
    end)
    for _, client in ipairs(crowd) do client:close() end
  end)

  it("HC1 in the head, in the body, and in the sink", function()
    local reached = 0
    local server <close> = serving(function(client, path)
      if path ~= "/head" then client:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") end
      reached = reached + 1
      green.sleep(60)
    end)
    local seen = 0
    local function arrived()
      if reached <= seen then return false end
      seen = reached
      return true
    end
    ends_soon(server.url .. "/head", nil, arrived)
    ends_soon(server.url .. "/body", nil, arrived)
    local inside = false
    ends_soon(server.url .. "/sink", {
      sink = function()
        inside = true
        green.sleep(60)
      end,
    }, function()
      if not inside then return false end
      inside = false
      return true
    end)
  end)

  it("HC1 in the middle of a file: it is gone", function()
    local folder <close> = in_folder()
    local server <close> = serving(function(client)
      client:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
      green.sleep(60)
    end)
    local g = green.spawn(http.get, server.url, { file = folder.path .. "/photo" })
    support.eventually(function() return #listing(folder) == 1 end)
    assert.is_truthy(listing(folder)[1]:find("^%.green%-"))
    g:kill()
    assert.are.same({}, listing(folder))
  end)

  it("an outer timeout ends a fetch, and the next one works", function()
    local server <close> = serving(function(client, path)
      if path == "/slow" then green.sleep(60) end
      return client:send(ok("fine"))
    end)
    local response, message = green.with_timeout(0.02, http.get, server.url .. "/slow")
    assert.is_nil(response)
    assert.are.equal("timeout", message)
    assert.are.equal("fine", assert(http.get(server.url)).body)
  end)
end)
