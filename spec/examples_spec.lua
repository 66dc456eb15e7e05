-- The examples, and the programs in the manuals, do what they say. They run as
-- processes of their own; the network is this machine's loopback.

local support = require "spec.support"
local it = support.it

-- ---- processes -------------------------------------------------------------

local function quote(text) return "'" .. text:gsub("'", [['\'']]) .. "'" end

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read("a")
end

local here = output_of("pwd"):gsub("\n", "")

--- The interpreter, as a word that is true in every folder.
local interpreter = support.interpreter
if interpreter:find("/") and not interpreter:find("^/") then
  interpreter = here .. "/" .. interpreter
end
interpreter = quote(interpreter)

local Process = {}
Process.__index = Process
Process.__close = function(self) self:stop() end

--- Starts a command by a shell; `setup` runs in that shell before it. stdout
--- and stderr arrive together in `read`. A pipe and not `&`, since a shell starts
--- what it puts in the background with SIGINT ignored (POSIX, 2.11).
local function start(command, setup)
  local pipe = assert(io.popen(("echo $$; %s exec %s 2>&1"):format(setup or "", command)))
  return setmetatable({ pipe = pipe, pid = pipe:read("n", "l") }, Process)
end

function Process:signal(name)
  os.execute(("kill -%s %d 2>/dev/null"):format(name, self.pid))
end

--- Everything it prints until its end. Returns that, and its exit status, or
--- nil and the signal that ended it.
function Process:finish()
  local text = self.pipe:read("a")
  local _, how, code = self.pipe:close()
  self.pipe = nil
  if how == "signal" then return text, nil, code end
  return text, code
end

function Process:stop()
  if not self.pipe then return end
  self:signal("KILL")
  self:finish()
end

--- Does `text` complain about this option of this program?
local function blames(text, program, option)
  return text:find("^" .. program .. ": [^\n]*option '" .. option:gsub("%-", "%%-") .. "'")
end

local function run(command, setup)
  local process <close> = start("timeout -s KILL 60 " .. command, setup)
  return process:finish()
end

local function example(name, ...)
  local words = { interpreter, here .. "/examples/" .. name .. ".lua" }
  for _, word in ipairs { ... } do words[#words + 1] = quote(tostring(word)) end
  return table.concat(words, " ")
end

--- A server on a free port: the process, its `url` and `port`.
local function start_server(command)
  local server = start(command)
  local line = server.pipe:read("l") or ""
  server.url = line:match("^listening on (http://127%.0%.0%.1:%d+)$")
  if not server.url then
    local rest = server:finish()
    error("the server did not start: " .. line .. rest)
  end
  server.port = math.tointeger(tonumber(server.url:match("%d+$")))
  return server
end

local function photo_server(...)
  return start_server(example("photo_server", "--port", "0", ...))
end

-- ---- files -----------------------------------------------------------------

--- A temporary folder, removed with all in it when its variable is closed.
local function folder()
  local path = output_of("mktemp -d"):gsub("\n", "")
  return setmetatable({ path = path }, {
    __tostring = function(self) return self.path end,
    __close = function(self) os.execute("rm -rf " .. quote(self.path)) end,
  })
end

--- The regular files under a folder, relative to it, in order.
local function files_in(path)
  local list = {}
  local text = output_of("cd " .. quote(tostring(path)) .. " && find . -type f | LC_ALL=C sort")
  for name in text:gmatch("%./([^\n]+)") do list[#list + 1] = name end
  return list
end

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

--- The photo as photo_server.lua promises it, written down a second time.
local function expected_photo(user, number, size)
  local lines, length, n = {}, 0, 0
  while length < size do
    n = n + 1
    lines[n] = ("%s photo %03d line %06d\n"):format(user, number, n)
    length = length + #lines[n]
  end
  return table.concat(lines)
end

--- Every file with a final name is a whole photo. Returns how many there are.
local function whole_photos(path, size)
  local count = 0
  for _, name in ipairs(files_in(path)) do
    local user, number = name:match("^(user%d+)[/-]photo(%d+)%.jpg$")
    if user then
      assert.are.equal(expected_photo(user, tonumber(number), size),
        contents(path .. "/" .. name))
      count = count + 1
    else
      assert.is_truthy(name:find("/%.[^/]+$"), "neither a photo nor temporary: " .. name)
    end
  end
  return count
end

-- ---- the examples ------------------------------------------------------------

describe("red_blue.lua", function()
  it("prints red, blue, red done, and nothing else", function()
    local text, status = run(example("red_blue"))
    assert.are.equal("red\nblue\nred done\n", text)
    assert.are.equal(0, status)
  end)
end)

describe("photo_server.lua", function()
  it("refuses options that it does not know, and values that are none", function()
    for _, args in ipairs { { "--nonsense", "1" }, { "--port" }, { "--users", "many" },
      { "--delay", "-1" }, { "--photos", "1.5" } } do
      local text, status = run(example("photo_server", table.unpack(args)))
      assert.are.equal(2, status)
      assert.is_truthy(blames(text, "photo_server", args[1]), text)
      assert.is_truthy(text:find("usage:", 1, true))
    end
  end)

  it("T23 answers what it cannot serve with the status that tells why", function()
    local server <close> = photo_server("--users", "1", "--photos", "1", "--delay", "0")
    local socket = require "green.socket"
    for _, case in ipairs {
      { "GET /users HTTP/1.1\r\n\r\n", 200 },
      { "GET /users HTTP/2.0\r\n\r\n", 505 },
      { "GET  /users HTTP/1.1\r\n\r\n", 400 },
      { "get /users HTTP/1.1\r\n\r\n", 400 },
      { "GET /users HTTP/1.1\r\nHost : x\r\n\r\n", 400 },
      { "GET /users HTTP/1.1\r\nA: 1\r\nA: 2\r\n\r\n", 400 },
      { "GET /users HTTP/1.1\r\nA: x\ny\r\n\r\n", 400 },
      { "GET /users HTTP/1.1\r\n folded: x\r\n\r\n", 400 },
      { "GET /users HTTP/1.1\r\nA: " .. ("x"):rep(9000) .. "\r\n\r\n", 431 },
      { "GET /users HTTP/1.1\r\nA: " .. ("x"):rep(9000), 431 }, -- and it never ends
      { "POST /login HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400 },
      { "POST /login HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413 },
      { "POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501 },
      { "POST /login HTTP/1.1\r\nContent-Length: 9\r\n\r\nuser=nono", 403 },
      { "GET /login HTTP/1.1\r\n\r\n", 405 },
      { "GET /photos HTTP/1.1\r\n\r\n", 401 },
      { "GET /photos HTTP/1.1\r\nAuthorization: Bearer 00\r\n\r\n", 401 },
    } do
      local client <close> = assert(socket.connect("127.0.0.1", server.port))
      client:settimeout(10)
      assert(client:send(case[1]))
      local line = client:receive("*l")
      assert.are.equal(case[2], tonumber(tostring(line):match("^HTTP/1%.1 (%d+)")), case[1])
    end
  end)

  it("keeps a connection and answers pipelined requests in order", function()
    local server <close> = photo_server("--users", "2", "--photos", "1", "--delay", "0")
    local socket = require "green.socket"
    local client <close> = assert(socket.connect("127.0.0.1", server.port))
    client:settimeout(10)
    client:send("GET /users HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
    local all = assert(client:receive("*a"))
    assert.is_truthy(all:find("^HTTP/1%.1 200 .-user01\nuser02\nHTTP/1%.1 401 "), all)
  end)
end)

describe("downloader.lua", function()
  it("saves every photo of every user, each whole, and sums up", function()
    local server <close> = photo_server("--users", "8", "--photos", "5", "--size", "3000",
      "--delay", "0.01")
    local output <close> = folder()
    local text, status = run(example("downloader", "--server", server.url, "--output", output))
    assert.are.equal(0, status, text)
    assert.are.equal(40, whole_photos(output.path, 3000))
    assert.are.equal(40, #files_in(output))
    assert.is_truthy(text:find("40 saved under", 1, true), text)
    local bytes = 5 * 8 * #expected_photo("user01", 1, 3000)
    assert.are.equal(bytes, tonumber(text:match("bytes%s+(%d+)")))
    local took, alone = text:match("time%s+([%d.]+) s; one after another .- ([%d.]+) s\n")
    assert.is_true(tonumber(alone) >= 0.01 * (1 + 8 * 7), text)
    assert.is_true(tonumber(took) < tonumber(alone), text)
  end)

  it("keeps to the users and to the concurrency that it was given", function()
    local server <close> = photo_server("--users", "4", "--photos", "3", "--size", "100",
      "--delay", "0.02")
    local output <close> = folder()
    local text, status = run(example("downloader", "--server", server.url, "--output", output,
      "--users", "user02,user04", "--concurrency", "1"))
    assert.are.equal(0, status, text)
    assert.are.equal(6, whole_photos(output.path, 100))
    assert.is_true(tonumber(text:match("time%s+([%d.]+)")) >= 0.02 * 2 * 5, text)
  end)

  it("refuses options that it does not know, and values that are none", function()
    for _, args in ipairs { { "--nonsense" }, { "--server" }, { "--server", "ftp://x/" },
      { "--concurrency", "0" }, { "--retries", "-1" }, { "--retries", "some" }, { "--users", "," },
      { "--output", "" } } do
      local text, status = run(example("downloader", table.unpack(args)))
      assert.are.equal(2, status)
      assert.is_truthy(blames(text, "downloader", args[1]), text)
    end
    local text, status = run(example("downloader", "--help"))
    assert.are.equal(0, status)
    assert.is_truthy(text:find("^usage:"))
  end)

  it("names a user that cannot log in, serves the others, and ends with 1", function()
    local server <close> = photo_server("--users", "2", "--photos", "2", "--size", "100",
      "--delay", "0")
    local output <close> = folder()
    local text, status = run(example("downloader", "--server", server.url, "--output", output,
      "--users", "user01,stranger"))
    assert.are.equal(1, status)
    assert.is_truthy(text:find("stranger: .*403"), text)
    assert.are.equal(2, whole_photos(output.path, 100))
  end)

  it("says so when there is no server", function()
    local output <close> = folder()
    local text, status = run(example("downloader", "--server", "http://127.0.0.1:1", "--output",
      output, "--retries", "0"))
    assert.are.equal(1, status)
    assert.is_truthy(text:find("^downloader: .*connection refused"), text)
  end)
end)

describe("downloader.lua, stopped half-way", function()
  local SIZE = 50000

  --- Runs it until some photos are there, calls `strike(downloader, server)`, and
  --- returns what it printed, its status, and how many whole photos are there.
  local function stopped(strike)
    local server <close> = photo_server("--users", "10", "--photos", "30", "--size", SIZE,
      "--delay", "0.02")
    local output <close> = folder()
    local downloader <close> = start(example("downloader", "--server", server.url, "--output",
      output, "--retries", "1"))
    support.eventually(function() return #files_in(output) >= 30 end, 20)
    strike(downloader, server)
    local text, status = downloader:finish()
    local count = whole_photos(output.path, SIZE)
    assert.is_true(count > 0 and count < 300, count .. " photos")
    return text, status, #files_in(output) - count
  end

  it("Ctrl-C ends it with 130 and a message; whole photos stay", function()
    local text, status, others = stopped(function(downloader) downloader:signal("INT") end)
    if support.is_host then
      assert.is_truthy(text:find("interrupted; %d+ photos are saved"), text)
      assert.are.equal(130, status)
      assert.are.equal(0, others)
    else -- there Ctrl-C is an error like others, which a pcall catches (D17)
      assert.is_truthy(text:find("interrupted", 1, true), text)
      assert.are.equal(1, status)
    end
  end)

  it("kill -9 of the server ends it with 1 and a message; whole photos stay", function()
    local text, status, others = stopped(function(_, server) server:signal("KILL") end)
    assert.are.equal(1, status)
    assert.is_truthy(text:find("downloader: user%d+: http://"), text)
    assert.are.equal(0, others)
  end)

  it("kill -9 of itself leaves whole photos, and another run completes them", function()
    local server <close> = photo_server("--users", "5", "--photos", "20", "--size", SIZE,
      "--delay", "0.02")
    local output <close> = folder()
    do
      local downloader <close> = start(example("downloader", "--server", server.url, "--output",
        output))
      support.eventually(function() return #files_in(output) >= 20 end, 20)
      downloader:signal("KILL")
    end
    assert.is_true(whole_photos(output.path, SIZE) < 100)
    local text, status = run(example("downloader", "--server", server.url, "--output", output))
    assert.are.equal(0, status, text)
    assert.are.equal(100, whole_photos(output.path, SIZE))
  end)

  --- A disk that takes no more ends it: status 1, a message, no partial photo.
  local function full(output, setup)
    local server <close> = photo_server("--users", "4", "--photos", "5", "--size", SIZE,
      "--delay", "0.005")
    local text, status = run(example("downloader", "--server", server.url, "--output",
      output .. "/photos", "--concurrency", "2"), setup)
    assert.are.equal(1, status, text)
    assert.is_truthy(text:find("^downloader: cannot save .+: %S"), text)
    assert.is_true(whole_photos(output .. "/photos", SIZE) < 20)
    return text
  end

  it("T21 a file size limit ends it with 1 and a message", function()
    local output <close> = folder()
    full(output.path, "ulimit -f 40;") -- blocks of 512 bytes; pipes are not files
    assert.are.same({}, files_in(output))
  end)

  it("T21 a full disk ends it with 1 and a message; whole photos stay", function()
    local output <close> = folder()
    local mounted = os.execute(("mount -t tmpfs -o size=400k tmpfs %s 2>/dev/null")
      :format(quote(output.path)))
    if not mounted then return pending("needs to be root to mount a small disk") end
    local _ <close> = setmetatable({}, { __close = function()
      os.execute("umount " .. quote(output.path))
    end })
    local text = full(output.path)
    assert.is_truthy(text:lower():find("no space left", 1, true), text)
    assert.is_true(whole_photos(output.path .. "/photos", SIZE) > 0)
  end)
end)

-- A photo service that means no good: whatever is asked for, any user is let in
-- and has photos of the names given, one each in hexadecimal, as arguments.
local HOSTILE_SERVER = [[
local green, socket = require "green", require "green.socket"
local server = assert(socket.bind("127.0.0.1", 0))
local list = {}
for i = 2, #arg do
  local name = arg[i]:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)
  local sum = name:find("^wrong") and "00000001" or "00620062" -- the Adler-32 of "" and of "a"
  list[#list + 1] = ("/x\t%s\t%s\n"):format(sum, name)
end
local answers = { ["/users"] = arg[1] .. "\n", ["/login"] = "7\n" }
answers["/photos"] = table.concat(list)
local function serve(client)
  while true do
    local path = (client:receive("*l") or ""):match(" (/%S*)")
    if not path then return client:close() end
    local length = 0
    for line in function() return client:receive("*l") end do
      if line == "" then break end
      length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
    end
    if length > 0 then client:receive(length) end -- receive(0) waits (LSO3)
    green.sleep(0.05)
    local body = answers[path] or "a"
    client:send(("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"):format(#body, body))
  end
end
print("listening on http://127.0.0.1:" .. select(2, server:getsockname()))
io.stdout:flush()
while true do green.spawn(serve, assert(server:accept())) end
]]

describe("downloader.lua, given names by a hostile server", function()
  --- A hostile server; its script lies in `work`.
  local function hostile_server(work, user, names)
    local path = work .. "/hostile.lua"
    local file <close> = assert(io.open(path, "wb"))
    file:write(HOSTILE_SERVER)
    file:close()
    local words = { interpreter, quote(path), quote(user) }
    for _, name in ipairs(names) do
      words[#words + 1] = name:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    end
    return start_server(table.concat(words, " "))
  end

  --- Downloads photos of these names. Returns the names of the files that came.
  local function saved_as(user, names)
    local work <close> = folder()
    os.execute("mkdir " .. quote(work.path .. "/out"))
    local server <close> = hostile_server(work.path, user, names)
    local text, status = run(example("downloader", "--server", server.url, "--output",
      work.path .. "/out/put"))
    assert.are.equal(0, status, text)
    local outside = output_of(("cd %s && find . -type f ! -path './out/put/*' ! -name hostile.lua")
      :format(quote(work.path)))
    assert.are.equal("", outside)
    return files_in(work.path .. "/out/put")
  end

  it("T15 a name is its last component and stays in its folder", function()
    for name, expected in pairs {
      ["../../evil"] = "evil", ["/etc/passwd"] = "passwd", ["..\\..\\evil"] = "evil",
      ["%2e%2e%2fevil"] = "evil", ["a/.."] = "_", [".."] = "_", ["/"] = "_", ["C:evil"] = "C_evil",
      ["\xc0\xaf\xc0\xae"] = "____", ["x%00.jpg"] = "x_.jpg", ["dot. ."] = "dot",
    } do
      assert.are.same({ "u/" .. expected }, saved_as("u", { name }), name)
    end
  end)

  it("T16 a name is never hidden, an option, empty, or too long", function()
    local long = ("n"):rep(300) .. ".jpg"
    for name, expected in pairs {
      [".bashrc"] = "_bashrc", ["-rf"] = "_rf", ["%2ebashrc"] = "_bashrc", ["..."] = "_",
      [long] = ("n"):rep(196) .. ".jpg", [("\u{e9}"):rep(150)] = ("\u{e9}"):rep(100),
    } do
      assert.are.same({ "u/" .. expected }, saved_as("u", { name }), name)
    end
  end)

  it("T15 a user's name makes no folder elsewhere", function()
    assert.are.same({ "evil/a.jpg" }, saved_as("../../evil", { "a.jpg" }))
    assert.are.same({ "_/a.jpg" }, saved_as("..", { "a.jpg" }))
  end)

  it("T20 photos of one name get different files", function()
    assert.are.same({ "u/A.jpg.1", "u/a.jpg", "u/a.jpg.2" },
      saved_as("u", { "a.jpg", "A.jpg", "x/a.jpg" }))
  end)

  it("a photo with a wrong checksum is not saved, and ends it with 1", function()
    local work <close> = folder()
    local server <close> = hostile_server(work.path, "u", { "right", "wrong" })
    local text, status = run(example("downloader", "--server", server.url, "--output",
      work.path .. "/out"))
    assert.are.equal(1, status)
    assert.is_truthy(text:find("wrong checksum", 1, true), text)
    assert.are.same({ "u/right" }, files_in(work.path .. "/out"))
  end)

  it("T36 what could steer a terminal is shown as \\xNN, on a terminal and off it", function()
    local work <close> = folder()
    local names = {}
    for i = 1, 6 do names[i] = ("%d\u{202e}gpj.exe \u{9b}31m \a \27[31m"):format(i) end
    local server <close> = hostile_server(work.path, "u", names)
    local command = example("downloader", "--server", server.url, "--output", work.path .. "/out")
    local text, status = run("script -qec " .. quote(command) .. " " .. quote(work.path .. "/log"))
    assert.are.equal(0, status, text)
    assert.is_truthy(text:find("photos, ", 1, true), "no progress was shown")
    assert.is_truthy(text:find("\\xe2\\x80\\xae", 1, true), text)
    local rest = text:gsub("\r\27%[K", "")
    for _, raw in ipairs { "\27", "\a", "\u{202e}", "\u{9b}" } do
      assert.is_nil(rest:find(raw, 1, true))
    end

    text, status = run(example("downloader", "--server", "http://127.0.0.1:1/\27[31m", "--output",
      work.path .. "/out", "--retries", "0"))
    assert.are.equal(1, status)
    assert.is_nil(text:find("\27"), text)
  end)
end)

describe("callbacks.lua", function()
  it("saves every photo of every user as well", function()
    local server <close> = photo_server("--users", "5", "--photos", "4", "--size", "30000",
      "--delay", "0.01")
    local output <close> = folder()
    local text, status = run(example("callbacks", "127.0.0.1", server.port, output))
    assert.are.equal("20 photos saved, 0 users failed\n", text)
    assert.are.equal(0, status)
    assert.are.equal(20, whole_photos(output.path, 30000))
  end)

  it("says so when there is no server", function()
    local output <close> = folder()
    local text, status = run(example("callbacks", "127.0.0.1", "1", output))
    assert.is_truthy(text:find("connection refused", 1, true), text)
    assert.are.equal(1, status)
  end)
end)

-- ---- the manuals ---------------------------------------------------------------

describe("the programs in", function()
  local manuals = output_of("ls README.md doc/*.md examples/README.md src/README.md 2>/dev/null")
  for manual in manuals:gmatch("%S+") do
    local count = 0
    for program in contents(manual):gmatch("```lua\n(.-)```") do
      count = count + 1
      it(("%s run: number %d"):format(manual, count), function()
        local work <close> = folder()
        local server <close> = photo_server("--users", "2", "--photos", "2", "--size", "100",
          "--delay", "0")
        local path = work.path .. "/program.lua"
        local file <close> = assert(io.open(path, "w"))
        file:write((program:gsub("http://127%.0%.0%.1:8080", server.url)))
        file:close()
        local text, status = run(interpreter .. " " .. quote(path),
          ("cd %s;"):format(quote(work.path)))
        assert.are.equal(0, status, text)
      end)
    end
  end
end)
