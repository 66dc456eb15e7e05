--- TCP sockets that let the other greenlets run while they wait, with
-- LuaSocket's names and results. What waits is in C (core.socket).
--
--     local socket = require "green.socket"
--     local client <close> = assert(socket.connect("localhost", 80))
--     assert(client:send("GET / HTTP/1.0\r\n\r\n"))
--     print(client:receive())

local core = require "green.core"

local M = core.socket

--- `green.sleep`, under LuaSocket's name.
M.sleep = core.greenlet.sleep

return M
