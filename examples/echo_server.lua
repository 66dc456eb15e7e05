-- An echo server: every line comes back to who sent it. One greenlet per
-- connection, and the code of a connection is a plain loop.
--
--   greenlua echo_server.lua [PORT [ADDRESS]]
--
-- Try it with `nc 127.0.0.1 7777`, from as many terminals as you like.

local green = require "green"
local socket = require "green.socket"

local port = tonumber(arg and arg[1]) or 7777
local address = arg and arg[2] or "127.0.0.1"

local function serve(client)
  local _ <close> = client
  while true do
    local line = client:receive("*l")
    if not line or not client:send(line .. "\n") then return end
  end
end

local server <close> = assert(socket.bind(address, port))
io.stderr:write(("echo on %s, port %d\n"):format(server:getsockname()))
while true do
  green.spawn(serve, assert(server:accept()))
end
