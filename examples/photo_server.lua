-- A small photo service over HTTP/1.1, written with green sockets: one
-- greenlet per connection, sequential code in each. It serves what
-- downloader.lua asks for:
--
--   GET  /users          the names, one a line
--   POST /login          body "user=NAME"; answers with a token
--   GET  /photos         with "Authorization: Bearer TOKEN": that user's
--                        photos, a line each: PATH <tab> ADLER-32 <tab> NAME
--   GET  /photos/USER/N  with the same header: the photo
--
-- Each answer comes after a settable delay, as from a busy server far away.

local green = require "green"
local socket = require "green.socket"

local USAGE = [[
usage: greenlua photo_server.lua [options]
  --port N       port to listen on (default 8080; 0: any free one)
  --host ADDR    address to listen on (default 127.0.0.1)
  --users N      how many users there are (default 50)
  --photos N     how many photos each has (default 20)
  --size N       bytes of a photo, about (default 16384)
  --delay S      seconds before each answer (default 0.05)
  -h, --help     this text
]]

local MAX_HEAD = 8192  -- bytes of a request's head
local MAX_BODY = 65536 -- bytes of a request's body
local PATIENCE = 30    -- seconds a client may take for one request, or be idle

local REASONS = {
  [200] = "OK", [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden",
  [404] = "Not Found", [405] = "Method Not Allowed", [408] = "Request Timeout",
  [413] = "Content Too Large", [431] = "Request Header Fields Too Large",
  [501] = "Not Implemented", [505] = "HTTP Version Not Supported",
}

-- ---- the options -------------------------------------------------------

local function fail_usage(message)
  io.stderr:write("photo_server: ", message, "\n", USAGE)
  os.exit(2)
end

local function read_options(args)
  local options = { port = 8080, host = "127.0.0.1", users = 50, photos = 20, size = 16384,
    delay = 0.05 }
  local i = 1
  while args[i] do
    local name = args[i]:match("^%-%-(%a+)$")
    if args[i] == "-h" or name == "help" then
      io.write(USAGE)
      os.exit(0)
    elseif not name or options[name] == nil then
      fail_usage("unknown option '" .. args[i] .. "'")
    elseif args[i + 1] == nil then
      fail_usage("option '" .. args[i] .. "' needs a value")
    end
    local value = args[i + 1]
    if name ~= "host" then
      value = name == "delay" and tonumber(value) or math.tointeger(tonumber(value))
      if not value or value < 0 or value == math.huge then
        fail_usage("option '" .. args[i] .. "' needs a number, not '" .. args[i + 1] .. "'")
      end
    end
    options[name] = value
    i = i + 2
  end
  return options
end

-- ---- the photos --------------------------------------------------------

--- Adler-32 (RFC 1950, 8.2), eight bytes at a time.
local function adler32(data)
  local a, b = 1, 0
  local whole = #data - #data % 8
  for i = 1, whole, 8 do
    local c1, c2, c3, c4, c5, c6, c7, c8 = data:byte(i, i + 7)
    b = (b + 8 * a + 8 * c1 + 7 * c2 + 6 * c3 + 5 * c4 + 4 * c5 + 3 * c6 + 2 * c7 + c8) % 65521
    a = (a + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8) % 65521
  end
  for i = whole + 1, #data do
    a = (a + data:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return b << 16 | a
end

--- The photo's bytes. They depend on user and number only, and no two lines of
--- a photo are alike, so a lost, doubled or exchanged piece changes the sum.
local function photo_body(user, number, size)
  local lines, length = {}, 0
  while length < size do
    local line = ("%s photo %03d line %06d\n"):format(user, number, #lines + 1)
    lines[#lines + 1] = line
    length = length + #line
  end
  return table.concat(lines)
end

--- Every user with the list of its photos, as it is sent: made once.
local function make_albums(options)
  local albums, names = {}, {}
  for u = 1, options.users do
    local user, lines = ("user%02d"):format(u), {}
    for n = 1, options.photos do
      local sum = adler32(photo_body(user, n, options.size))
      lines[n] = ("/photos/%s/%d\t%08x\tphoto%03d.jpg\n"):format(user, n, sum, n)
    end
    albums[user] = table.concat(lines)
    names[u] = user .. "\n"
  end
  return albums, table.concat(names)
end

-- ---- HTTP --------------------------------------------------------------

--- Waits for bytes and returns what is there, at most `max`; or nil, message.
local function receive_some(client, max)
  client:settimeout(PATIENCE)
  local first, message = client:receive(1)
  if not first or max == 1 then return first, message end
  client:settimeout(0)
  local rest, _, partial = client:receive(max - 1)
  return first .. (rest or partial)
end

--- Reads one head. Returns its text and the bytes that followed it; or nil and
--- the status to answer with; or nil and nothing when the client is gone.
local function read_head(client, buffer)
  while true do
    local head_end, body_start = buffer:find("\r\n\r\n", 1, true)
    if head_end and head_end <= MAX_HEAD then
      return buffer:sub(1, head_end + 1), buffer:sub(body_start + 1)
    elseif head_end or #buffer >= MAX_HEAD then
      return nil, 431
    end
    local data, message = receive_some(client, MAX_HEAD)
    if not data then
      return nil, message == "timeout" and buffer ~= "" and 408 or nil
    end
    buffer = buffer .. data
  end
end

--- Returns { method=, path=, version=, headers= }, or nil and the status to
--- answer with. Strict: whatever could be read in two ways is refused.
local function parse_head(head)
  local method, path, version, fields = head:match("^(%u+) (/%g*) HTTP/1%.(%d)\r\n(.*)$")
  if not method then
    return nil, head:find(" HTTP/[02-9]") and 505 or 400
  end
  local headers = {}
  for line in fields:gmatch("(.-)\r\n") do
    local name, value = line:match("^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not name or value:find("[\0\r\n]") then return nil, 400 end
    name = name:lower()
    if headers[name] then return nil, 400 end
    headers[name] = value
  end
  return { method = method, path = path, version = version, headers = headers }
end

--- Reads the body announced by the head. Returns it and the bytes after it; or
--- nil and the status to answer with.
local function read_body(client, headers, buffer)
  if headers["transfer-encoding"] then return nil, 501 end
  local announced = headers["content-length"] or "0"
  local length = announced:match("^%d+$") and tonumber(announced)
  if not length then return nil, 400 end
  if length > MAX_BODY then return nil, 413 end
  if #buffer < length then
    client:settimeout(PATIENCE, "total")
    local data = client:receive(length, buffer)
    if not data then return nil end
    return data, ""
  end
  return buffer:sub(1, length), buffer:sub(length + 1)
end

--- The next request, with its body, and the bytes that followed it. Or nil and
--- the status to answer with, or nil alone when the client is gone.
local function read_request(client, buffer)
  local head, rest = read_head(client, buffer)
  if not head then return nil, rest end
  local request, status = parse_head(head)
  if not request then return nil, status end
  local body, after = read_body(client, request.headers, rest)
  if not body then return nil, after end
  request.body = body
  return request, after
end

local function send_response(client, status, body, keep)
  client:settimeout(PATIENCE)
  return client:send(("HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n" ..
    "connection: %s\r\n\r\n%s"):format(status, REASONS[status], #body,
    keep and "keep-alive" or "close", body))
end

-- ---- the service -------------------------------------------------------

local options = read_options(arg)
local albums, names = make_albums(options)
local sessions = {} -- token -> user

local function session_user(request)
  local token = (request.headers.authorization or ""):match("^Bearer (%x+)$")
  return token and sessions[token]
end

local function login(request)
  local user = request.body:match("^user=([%w._-]+)$")
  if not albums[user] then return 403, "no such user\n" end
  local token = ("%016x%016x"):format(math.random(0), math.random(0))
  sessions[token] = user
  return 200, token .. "\n"
end

local function photo(request, user)
  local owner, number = request.path:match("^/photos/([%w._-]+)/(%d+)$")
  number = math.tointeger(tonumber(number))
  if not number or number < 1 or number > options.photos then return 404, "no such photo\n" end
  if owner ~= user then return 403, "not your photo\n" end
  return 200, photo_body(owner, number, options.size)
end

--- Answers one request: status and body.
local function respond(request)
  local expected = request.path == "/login" and "POST" or "GET"
  if request.method ~= expected then return 405, "method not allowed\n" end
  if request.path == "/users" then return 200, names end
  if request.path == "/login" then return login(request) end
  local user = session_user(request)
  if not user then return 401, "log in first\n" end
  if request.path == "/photos" then return 200, albums[user] end
  return photo(request, user)
end

local function keeps_alive(request)
  local connection = (request.headers.connection or ""):lower()
  if request.version == "0" then return connection == "keep-alive" end
  return connection ~= "close"
end

--- Serves one connection until either side has had enough. To-be-closed: the
--- socket is closed however this ends.
local function serve(client)
  local connection <close> = client
  local buffer = ""
  connection:setoption("tcp-nodelay", true)
  while true do
    local request, rest = read_request(connection, buffer)
    if not request then
      if rest then send_response(connection, rest, REASONS[rest] .. "\n", false) end
      return
    end
    green.sleep(options.delay)
    local keep, status, body = keeps_alive(request), respond(request)
    if not send_response(connection, status, body, keep) or not keep then return end
    buffer = rest
  end
end

local function main()
  local server, message = socket.bind(options.host, options.port, 1024)
  if not server then
    io.stderr:write(("photo_server: cannot listen on %s port %d: %s\n")
      :format(options.host, options.port, message))
    os.exit(1)
  end
  local _, port = server:getsockname()
  print(("listening on http://%s:%d"):format(options.host, port))
  io.stdout:flush()
  while true do
    local client, problem = server:accept()
    if client then
      green.spawn(serve, client)
    else
      -- out of descriptors, or the client left again: others are served meanwhile
      io.stderr:write("photo_server: accept: ", problem, "\n")
      green.sleep(0.1)
    end
  end
end

main()
