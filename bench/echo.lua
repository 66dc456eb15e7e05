-- The green side of the echo benchmark: prints its port on 127.0.0.1, then
-- echoes messages of 64 bytes, one greenlet per connection, until it is killed.

local green = require "green"
local socket = require "green.socket"

local MESSAGE = 64

local function echo(client)
  while true do
    local message = client:receive(MESSAGE)
    if not message or not client:send(message) then break end
  end
  client:close()
end

local server = assert(socket.bind("127.0.0.1", 0, 1024))
local _, port = server:getsockname()
print(port)
io.stdout:flush()
while true do
  green.spawn(echo, assert(server:accept()))
end
