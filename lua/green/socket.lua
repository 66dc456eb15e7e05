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

--- `socket.connect` over IPv4 only.
---@async
---@param host string
---@param port integer|string
---@param laddr? string
---@param lport? integer|string
---@return tcp? client
---@return string? message
---@return string? code
function M.connect4(host, port, laddr, lport)
  return M.connect(host, port, laddr, lport, "inet")
end

--- `socket.connect` over IPv6 only.
---@async
---@param host string
---@param port integer|string
---@param laddr? string
---@param lport? integer|string
---@return tcp? client
---@return string? message
---@return string? code
function M.connect6(host, port, laddr, lport)
  return M.connect(host, port, laddr, lport, "inet6")
end

return M
