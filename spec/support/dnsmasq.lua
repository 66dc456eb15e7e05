--- A real DNS server on a free port of loopback: dnsmasq, with given records.
--
--     local server <close> = dnsmasq.start { ["www.test"] = { "10.0.0.1", "fd00::1" } }
--     dns.servers(server.address)
--
-- Names below `.test` that are not given do not exist; everything else is
-- REFUSED, as a server does that is not responsible.

local M = {}

local Server = {}
Server.__index = Server

local function shell(command, ...)
  return os.execute(command:format(...)) == true
end

local function contents(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("a")
  file:close()
  return text
end

local function command_line(port, files, records, options)
  local words = {
    "dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces",
    "--listen-address=127.0.0.1 --local=/test/ --log-queries",
    "--user=$(id -un) --port=" .. port,
    "--pid-file=" .. files.pid, "--log-facility=" .. files.log,
  }
  for name, addresses in pairs(records) do
    for _, address in ipairs(addresses) do
      words[#words + 1] = ("--host-record=%s,%s,%d"):format(name, address, options.ttl or 60)
    end
  end
  words[#words + 1] = "2>>" .. files.log
  return table.concat(words, " ")
end

--- Starts a server with `records`, name -> list of addresses. It answers as
--- soon as this returns: dnsmasq goes to the background once it is bound.
---@param records? table<string, string[]>
---@param options? { ttl?: integer }
---@return table server  address = "127.0.0.1:PORT"; to be closed
function M.start(records, options)
  local files = { pid = os.tmpname(), log = os.tmpname() }
  for _ = 1, 20 do
    local port = math.random(20000, 29999) -- a port that is taken makes dnsmasq fail
    if shell("%s", command_line(port, files, records or {}, options or {})) then
      return setmetatable({
        address = "127.0.0.1:" .. port, files = files, pid = tonumber(contents(files.pid)),
      }, Server)
    end
  end
  error("dnsmasq does not start: " .. contents(files.log))
end

--- How many questions for `name` (all names: nil) of `type` ("A", "AAAA"; nil:
--- both) have come so far.
---@param name? string
---@param type? string
---@return integer
function Server:questions(name, type)
  local count = 0
  for asked, about in contents(self.files.log):gmatch("query%[(%u+)%] (%S+) from") do
    if (not name or about == name) and (not type or asked == type) then count = count + 1 end
  end
  return count
end

--- From now on it is silent; what is asked meanwhile is answered after `resume`.
function Server:pause() assert(shell("kill -STOP %d", self.pid)) end

function Server:resume() assert(shell("kill -CONT %d", self.pid)) end

--- Ends the server and removes its files.
function Server:stop()
  if not self.pid then return end
  shell("kill -KILL %d", self.pid)
  os.remove(self.files.pid)
  os.remove(self.files.log)
  self.pid = nil
end

Server.__close = Server.stop
Server.__gc = Server.stop

return M
