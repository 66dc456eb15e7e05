-- Half of bench/walk: `walk.lua serve` answers each byte with one, a while
-- later, so that who asks has to wait; `walk.lua ask PORT COUNT` asks.

local green = require "green"
local socket = require "green.socket"

local function serve()
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  print(port)
  io.stdout:flush()
  local client = assert(server:accept())
  while client:receive(1) do
    green.sleep(0.001)
    client:send("x")
  end
end

local function ask(port, count)
  local client = assert(socket.connect("127.0.0.1", port))
  client:setoption("tcp-nodelay", true)
  for _ = 1, count do
    assert(client:send("x"))
    assert(client:receive(1))
  end
end

if arg[1] == "serve" then serve() else ask(tonumber(arg[2]), tonumber(arg[3])) end
