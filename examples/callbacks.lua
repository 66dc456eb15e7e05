-- The download of downloader.lua once more, without its options, retries and
-- summary, and without green threads: event-loop watchers and callbacks, as
-- libev and libuv have them. Compare `download_user` there with what becomes of
-- it here: the order of the steps is spread over functions that end by naming
-- the next one, what a step needs later must be kept in a table by hand, a loop
-- over the photos is a counter in that table, and an error has no caller to go
-- to: each callback must end the whole by itself.
--
-- usage: greenlua callbacks.lua SERVER-HOST SERVER-PORT OUTPUT-FOLDER

local green = require "green"
local loop = require "green.loop"
local socket = require "green.socket"

local TIMEOUT = 30 -- seconds for one answer

local host, port, output = arg[1], arg[2], arg[3]
if not output then
  io.stderr:write("usage: greenlua callbacks.lua SERVER-HOST SERVER-PORT OUTPUT-FOLDER\n")
  os.exit(2)
end

local saved, failed, running = 0, 0, 0

-- ---- one connection ----------------------------------------------------
-- { sock=, readable=, writable=, timer=, out=, buffer=, done= }; at any time
-- one request is under way, and `done(body)` or `done(nil, message)` is called
-- at its end.

local function close_connection(conn)
  for _, name in ipairs { "readable", "writable", "timer" } do
    if conn[name] then conn[name]:close() end
    conn[name] = nil
  end
  conn.sock:close()
end

local function finish(conn, body, message)
  local done = conn.done
  conn.done = nil
  conn.timer:stop()
  if message then close_connection(conn) end
  done(body, message)
end

--- Takes one whole answer off the buffer, if there is one.
local function take_answer(conn)
  local _, head_end = conn.buffer:find("\r\n\r\n", 1, true)
  if not head_end then return end
  local head = conn.buffer:sub(1, head_end)
  local status = head:match("^HTTP/1%.1 (%d%d%d)")
  local length = tonumber(head:lower():match("\r\ncontent%-length: *(%d+)\r\n"))
  if not status or not length then return finish(conn, nil, "malformed answer") end
  if #conn.buffer < head_end + length then return end
  local body = conn.buffer:sub(head_end + 1, head_end + length)
  conn.buffer = conn.buffer:sub(head_end + length + 1)
  if status == "200" then
    finish(conn, body)
  else
    finish(conn, nil, "status " .. status)
  end
end

local function on_readable(conn)
  local data, message, partial = conn.sock:receive(65536)
  conn.buffer = conn.buffer .. (data or partial)
  if not conn.done then return close_connection(conn) end -- closed while idle
  if message and message ~= "timeout" then return finish(conn, nil, message) end
  take_answer(conn)
end

local function on_writable(conn)
  local last, message, partial = conn.sock:send(conn.out)
  conn.out = conn.out:sub((last or partial) + 1)
  if message and message ~= "timeout" then
    conn.writable:stop()
    finish(conn, nil, message)
  elseif conn.out == "" then
    conn.writable:stop()
  end
end

local function request(conn, method, path, token, body, done)
  conn.out = ("%s %s HTTP/1.1\r\nhost: %s\r\n%scontent-length: %d\r\n\r\n%s"):format(method, path,
    host, token and "authorization: Bearer " .. token .. "\r\n" or "", #body, body)
  conn.done = done
  conn.timer = conn.timer or loop.timer(TIMEOUT, TIMEOUT)
  conn.timer:stop()
  conn.timer:start(finish, conn, nil, "timeout")
  conn.writable:start(on_writable, conn)
end

--- Calls `done(conn)` or `done(nil, message)`.
local function connect(done)
  local conn = { sock = assert(socket.tcp4()), buffer = "" }
  conn.sock:settimeout(0)
  local ok, message = conn.sock:connect(host, port)
  if not ok and message ~= "timeout" then
    conn.sock:close()
    return done(nil, message)
  end
  conn.readable = loop.io(conn.sock:getfd(), "r")
  conn.writable = loop.io(conn.sock:getfd(), "w")
  conn.writable:start(function()
    conn.writable:stop()
    local problem = conn.sock:getoption("error")
    if problem then
      close_connection(conn)
      return done(nil, problem)
    end
    conn.readable:start(on_readable, conn)
    done(conn)
  end)
end

-- ---- one user ----------------------------------------------------------

local function user_ended(user, conn, message)
  if conn and not message then close_connection(conn) end
  if message then
    io.stderr:write("callbacks: ", user, ": ", message, "\n")
    failed = failed + 1
  end
  running = running - 1
end

local function save(user, name, body)
  local path = ("%s/%s-%s"):format(output, user, name)
  local file, message = io.open(path .. ".part", "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write(body)
  if ok then ok, message = file:close() else file:close() end
  if not ok then
    os.remove(path .. ".part")
    return nil, message
  end
  saved = saved + 1
  return os.rename(path .. ".part", path)
end

local function next_photo(user, conn, token, photos, position)
  local photo = photos[position]
  if not photo then return user_ended(user, conn) end
  request(conn, "GET", photo.path, token, "", function(body, message)
    if not body then return user_ended(user, conn, message) end
    local ok, problem = save(user, photo.name, body)
    if not ok then
      close_connection(conn)
      return user_ended(user, conn, problem)
    end
    next_photo(user, conn, token, photos, position + 1)
  end)
end

local function on_list(user, conn, token, body, message)
  if not body then return user_ended(user, conn, message) end
  local photos = {}
  for path, name in body:gmatch("(%g+)\t%x+\t([%w_-][%w._-]*)\n") do
    photos[#photos + 1] = { path = path, name = name }
  end
  next_photo(user, conn, token, photos, 1)
end

local function on_login(user, conn, body, message)
  if not body then return user_ended(user, conn, message) end
  local token = body:match("%w+")
  request(conn, "GET", "/photos", token, "", function(list, problem)
    on_list(user, conn, token, list, problem)
  end)
end

local function start_user(user)
  running = running + 1
  connect(function(conn, message)
    if not conn then return user_ended(user, nil, message) end
    request(conn, "POST", "/login", nil, "user=" .. user, function(body, problem)
      on_login(user, conn, body, problem)
    end)
  end)
end

-- ---- all users ---------------------------------------------------------

local function on_users(conn, body, message)
  if body then
    close_connection(conn)
    for user in body:gmatch("[%w_-]+") do start_user(user) end
  else
    io.stderr:write("callbacks: ", message, "\n")
    failed = failed + 1
  end
  running = running - 1
end

running = 1
connect(function(conn, message)
  if not conn then return on_users(nil, nil, message) end
  request(conn, "GET", "/users", nil, "", function(body, problem) on_users(conn, body, problem) end)
end)

green.wait() -- until no watcher is left
print(("%d photos saved, %d users failed"):format(saved, failed))
os.exit(failed == 0 and running == 0 and 0 or 1)
