--- Peers over loopback that let others wait: sockets whose other end is silent,
-- full or deaf, and an HTTP server that stops in the middle.

local green = require "green"
local socket = require "green.socket"

local M = {}

--- Something whose leaving closes all that it holds.
function M.closer(...)
  local held = { ... }
  local function close()
    for _, object in ipairs(held) do object:close() end
  end
  return setmetatable({ close = close }, { __close = close })
end

--- A server that listens at a free port of 127.0.0.1, and the port.
---@param backlog? integer
function M.listener(backlog)
  local server = assert(socket.bind("127.0.0.1", 0, backlog))
  return server, (select(2, server:getsockname()))
end

--- A connected pair: the client's side, the server's side, and a closer of both.
function M.pair()
  local server <close>, port = M.listener()
  local client = assert(socket.connect("127.0.0.1", port))
  local peer = assert(server:accept())
  return client, peer, M.closer(client, peer)
end

--- The port of a server whose queue is full, so that connecting to it hangs, and
--- a closer. (The kernel drops a SYN then; it comes again a second later.)
function M.full_listener()
  local server, port = M.listener(0)
  local fillers = {}
  for i = 1, 4 do
    fillers[i] = socket.tcp()
    fillers[i]:settimeout(0)
    fillers[i]:connect("127.0.0.1", port)
  end
  return port, M.closer(server, table.unpack(fillers))
end

--- Sends through `client` until the buffers of both ends are full.
function M.fill(client)
  local block = ("x"):rep(65536)
  client:settimeout(0.005)
  while client:send(block) do end
  client:settimeout(nil)
end

-- The path of a request, once its head has been read; nil at the end.
local function read_path(client)
  local path
  repeat
    local line = client:receive("*l")
    path = path or (line and line:match("^%S+ (%S+)"))
  until not line or line == ""
  return path
end

local WORKS = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworks"

-- Answers "/works"; to other paths it says `answers[path]` and nothing more.
local function converse(client, answers)
  local _ <close> = client
  while true do
    local path = read_path(client)
    if not path then return end
    client:send(path == "/works" and WORKS or answers[path] or "")
  end
end

--- An HTTP server that says "works" at "/works", and elsewhere only what
--- `answers` has, path -> text, however little of a response that is.
---@param answers? table<string, string>
---@return table server  url, port; to be closed
function M.stalling_http(answers)
  local listener, port = M.listener()
  local conversations = {}
  local function serve(client)
    local me = green.current()
    conversations[me] = true
    local _ <close> = setmetatable({}, { __close = function() conversations[me] = nil end })
    converse(client, answers or {})
  end
  local acceptor = green.spawn(function()
    while true do green.spawn(serve, assert(listener:accept())) end
  end)
  local function close()
    local all = { acceptor }
    for g in pairs(conversations) do all[#all + 1] = g end
    green.killall(all)
    listener:close()
  end
  return setmetatable({ url = "http://127.0.0.1:" .. port, port = port, close = close },
                      { __close = close })
end

return M
