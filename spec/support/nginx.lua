--- A real HTTP server for specs: an nginx of our own on free loopback ports.
--
--     local server = nginx.start { "location = /hello { return 200 hello; }" }
--     http.get(server:url("/hello"))
--     server:stop()
--
-- Each fragment is the inside of a `server { }` and gets a port of its own; a
-- table { "fragment", listen = "ssl http2" } has words after the port. Files
-- written by `server:write` are served where no location says otherwise. Uses
-- sockets only to find free ports and to see that it answers.

local lfs = require "lfs"
local socket = require "green.socket"

local M = {}

local Server = {}
Server.__index = Server

local CONF = [[
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 4096; }
http {
  access_log off;
  default_type application/octet-stream;
  keepalive_requests 1000000;
  client_max_body_size 64m;
  client_body_temp_path tmp-client; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
%s
}
]]

local SERVER = [[
  server {
    listen 127.0.0.1:%d %s;
    root %s/www;
%s
  }
]]

local function write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function run(command)
  assert(os.execute(command), command)
end

local function new_folder()
  local name = os.tmpname()
  os.remove(name)
  assert(lfs.mkdir(name))
  -- nginx started by root gives its work to another user, who must get in
  run(("chmod 755 %s"):format(name))
  return name
end

--- `n` ports that nobody listens on now.
function M.free_ports(n)
  local listeners, ports = {}, {}
  for i = 1, n do
    listeners[i] = assert(socket.bind("127.0.0.1", 0))
    ports[i] = select(2, listeners[i]:getsockname())
  end
  for i = 1, n do listeners[i]:close() end
  return ports
end

local function configuration(folder, fragments, ports)
  local servers = {}
  for i, fragment in ipairs(fragments) do
    local text, words = fragment, ""
    if type(fragment) == "table" then text, words = fragment[1], fragment.listen or "" end
    servers[i] = SERVER:format(ports[i], words, folder, text:gsub("@FOLDER@", folder))
  end
  return CONF:format(table.concat(servers))
end

local function answers(port)
  local client = socket.connect("127.0.0.1", port)
  if client then client:close() end
  return client ~= nil
end

--- Makes a certificate that only `cafile = server.folder .. "/cert.pem"` trusts.
--- `names` as in `subjectAltName`: "IP:127.0.0.1,DNS:localhost".
function M.certificate(folder, names)
  run(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=spec"
    .. " -addext subjectAltName=%s -keyout %s/key.pem -out %s/cert.pem 2>%s/openssl.log")
    :format(names, folder, folder, folder))
end

--- Starts an nginx with one `server` for each fragment, and returns it when it
--- answers. `@FOLDER@` in a fragment stands for its folder. With
--- `options.names` a certificate is made first (`M.certificate`).
---@param fragments (string|{[1]: string, listen: string})[]
---@param options? { names: string }
function M.start(fragments, options)
  local folder = new_folder()
  run(("mkdir %s/www"):format(folder))
  if options and options.names then M.certificate(folder, options.names) end
  local ports = M.free_ports(#fragments)
  write_file(folder .. "/nginx.conf", configuration(folder, fragments, ports))
  local command = ("nginx -p %s -c nginx.conf -e %s/error.log"):format(folder, folder)
  assert(os.execute(command), read_file(folder .. "/error.log"))
  for _, port in ipairs(ports) do
    while not answers(port) do run("sleep 0.01") end
  end
  return setmetatable({ folder = folder, ports = ports, port = ports[1] }, Server)
end

--- An address of the first server, or of the one with that number.
function Server:url(path, number)
  return ("http://127.0.0.1:%d%s"):format(self.ports[number or 1], path or "/")
end

--- Puts a file where it is served as `/name`.
function Server:write(name, text)
  write_file(self.folder .. "/www/" .. name, text)
end

--- Ends it, and removes its folder.
function Server:stop()
  local pid = assert(read_file(self.folder .. "/nginx.pid")):match("%d+")
  run("kill -TERM " .. pid)
  while lfs.attributes(self.folder .. "/nginx.pid") do run("sleep 0.01") end
  run("rm -rf " .. self.folder)
end

Server.__close = Server.stop

return M
