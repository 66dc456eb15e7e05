--- Names to addresses, without blocking anybody else.
--
-- The resolver is c-ares on the hub's loop; it reads the hosts file and
-- resolv.conf, shares lookups in flight and keeps answers as long as their TTL
-- says. GREENLUA_DNS_SERVERS in the environment names other servers than
-- resolv.conf's. `getaddrinfo` and `toip` are C: see their doc blocks in ldns.c.

local core = require "green.core".dns
local check = require "green.check"

local M = {
  getaddrinfo = core.getaddrinfo,
  toip = core.toip,
}

-- A list of servers as the core takes it; what is no string is no address either.
local function joined(list)
  local words = {}
  for i, server in ipairs(list) do words[i] = tostring(server) end
  return table.concat(words, ",")
end

--- Sets the servers to ask, when an argument is given: a list or a string of
--- addresses with or without ports, nil for those of resolv.conf. What was
--- known is forgotten; lookups in flight end with the servers they began with.
--- Returns the servers in use.
---
--- ```lua
--- dns.servers { "127.0.0.1:5353", "[::1]:53" }
--- dns.servers(nil)                                 -- resolv.conf's again
--- ```
---@param ... string[]|string|nil
---@return string[]
function M.servers(...)
  if select("#", ...) == 0 then return core.servers() end
  local servers = ...
  if type(servers) == "table" then
    servers = joined(servers)
  else
    check.optional(servers, "string", 1, "servers")
  end
  return core.servers(servers) or check.fail(1, "servers",
    ("addresses such as '127.0.0.1:53' expected, got '%s'"):format(servers))
end

--- Sets how long and how often each server is asked before the lookup fails
--- with "EAI_AGAIN": `timeout` seconds before the second try, twice that before
--- the third, and so on. Returns both. Without options it changes nothing.
---
--- ```lua
--- dns.config { timeout = 0.5, tries = 3 }
--- print(dns.config().tries)                        -- 3
--- ```
---@param options? {timeout?: number, tries?: integer}
---@return {timeout: number, tries: integer}
function M.config(options)
  options = check.options(options, { timeout = "seconds", tries = "count" }, 1, "config")
  if options.timeout == 0 or options.tries == 0 then
    check.fail(1, "config", "timeout and tries must be greater than 0")
  end
  local timeout, tries = core.config(options.timeout, options.tries)
  if not timeout then check.fail(1, "config", "at most 60 seconds and 10 tries expected") end
  return { timeout = timeout, tries = tries }
end

return M
