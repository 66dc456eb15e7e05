--- HTTP for green threads: `local http = require "green.http"`.
--
--     local response = assert(http.get("https://example.org/"))
--     print(response.status, response.headers["content-type"], #response.body)
--
-- A request waits greenly; all greenlets share the connections. This file is
-- the policy (options, redirects, where the body goes); one exchange of a
-- request for a response is core.http's.

local core = require "green.core".http
local check = require "green.check"

local M = {}

local REDIRECTS = 10 -- as Go; counted over the whole request (T8)
local MAX_BODY = 64 * 1024 * 1024 -- of a body that is kept in memory (T10)
local TIMEOUT = 300 -- seconds for a request whose body is kept in memory (T12)
local CONNECT_TIMEOUT = 30
local STALL = 30 -- seconds without a byte
-- A redirect's own body is read, for the sake of the connection, if it is this
-- small and this quick.
local SKIP_BYTES, SKIP_SECONDS = 64 * 1024, 1

local OPTIONS = {
  url = "string", method = "string", headers = "table", body = "string",
  timeout = "seconds", connect_timeout = "seconds", stall = "any", redirect = "any",
  sink = "callable", file = "string", max_body = "count",
  proxy = "string", cafile = "string", verify = "boolean", allow_cross_origin = "table",
}

local SCHEMES = { http = true, https = true }
local PROXY_SCHEMES = { http = true, https = true, socks5h = true }
local REDIRECT_STATUS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- What the caller said to one origin is not for another (T6), but for these.
local SAFE_ACROSS_ORIGINS = {
  accept = true, ["accept-language"] = true, ["accept-encoding"] = true, ["user-agent"] = true,
  ["content-type"] = true, ["content-language"] = true,
}

-- ---- URLs ----

--- Without user and password, for messages (T38).
local function shown(url)
  return (url:gsub("^(%a[%w+.-]*://)[^/?#]*@", "%1***@"))
end

--- A URL or a reference that the library may see, or nil and what is wrong.
-- The scheme is looked at here: the messages are ours, and so is the promise.
local function locate(text, base)
  if text:find("%c") then return nil, "malformed URL: it holds control characters", "EINVAL" end
  local scheme = text:match("^%s*(%a[%w+.-]*):")
  if scheme and not SCHEMES[scheme:lower()] then
    return nil, ("unsupported scheme '%s'"):format(scheme:lower()), "EPROTONOSUPPORT"
  end
  local url, message, code = core.url(text, base)
  if not url then return nil, message, code end
  if not SCHEMES[url.scheme] then
    return nil, ("unsupported scheme '%s'"):format(url.scheme), "EPROTONOSUPPORT"
  end
  if url.host:find("[\128-\255]") then
    return nil, "malformed URL: the host must be in ASCII (punycode)", "EINVAL"
  end
  return url
end

local function same_origin(a, b)
  return a.scheme == b.scheme and a.port == b.port and a.host:lower() == b.host:lower()
end

-- ---- options ----

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$" -- RFC 9110, 5.6.2

-- What is wrong with a header that the caller sets; nil: nothing (T25).
local function name_problem(name)
  if type(name) ~= "string" or not name:find(TOKEN) then
    return ("malformed header name %q"):format(tostring(name))
  end
end

local function value_problem(name, value)
  if type(value) ~= "string" and type(value) ~= "number" then
    return ("header '%s': string expected, got %s"):format(name, type(value))
  end
  if tostring(value):find("[\r\n\0]") then
    return ("header '%s': CR, LF or NUL in its value"):format(name)
  end
end

-- Lengths are counted, not believed: a wrong one would smuggle a request.
local function is_ours(name, value, body)
  if name == "transfer-encoding" then return true, "header 'transfer-encoding' cannot be set" end
  if name ~= "content-length" then return false end
  if tostring(value) == tostring(#(body or "")) then return true end
  return true, "header 'content-length' does not match the body"
end

-- Appends {name, value} to `fields`, or returns what is wrong.
local function add_field(fields, name, value, body)
  local problem = value_problem(name, value)
  if problem then return problem end
  local ours
  ours, problem = is_ours(name:lower(), value, body)
  if not ours then fields[#fields + 1] = { name, tostring(value) } end
  return problem
end

-- The caller's headers as a list of {name, value}; a list of values gives as
-- many lines.
local function fields_of(options)
  local fields, agent = {}, false
  for name, value in pairs(options.headers or {}) do
    local malformed = name_problem(name)
    if malformed then return nil, malformed end
    for _, one in ipairs(type(value) == "table" and value or { value }) do
      local problem = add_field(fields, name, one, options.body)
      if problem then return nil, problem end
    end
    agent = agent or name:lower() == "user-agent"
  end
  if not agent then fields[#fields + 1] = { "User-Agent", "greenlua" } end
  return fields
end

local function proxy_of(text)
  if text:find("[%c%s]") or not text:find(":%d+/?$") then
    return nil, "option 'proxy': an URL with a port expected"
  end
  local proxy, message = core.url(text)
  if not proxy then return nil, "option 'proxy': " .. message end
  if not PROXY_SCHEMES[proxy.scheme] then
    return nil, "option 'proxy': http, https or socks5h expected"
  end
  return proxy
end

-- 0 and false both mean that a redirect is an answer like others.
local function redirects_of(value)
  if value == nil or value == true then return REDIRECTS end
  if value == false then return 0 end
  if math.type(value) == "integer" and value >= 0 then return value end
  return nil, "option 'redirect': a count or false expected"
end

local function stall_of(value)
  if value == nil then return STALL end
  if value == false then return 0 end
  if type(value) == "number" and value > 0 then return value end
  return nil, "option 'stall': seconds or false expected"
end

local function method_of(options)
  local method = options.method or (options.body and "POST" or "GET")
  if method:find(TOKEN) then return method end
  return nil, ("option 'method': malformed method %q"):format(method)
end

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[tostring(name):lower()] = true end
  return set
end

-- The request that options describe, or nil and what is wrong with them. What
-- core.http's `start` reads is in it under the same names.
local function prepare(url, options)
  local problem
  local q = { text = url, body = options.body, sink = options.sink, file = options.file }
  if q.sink and q.file then return nil, "options 'sink' and 'file' exclude each other" end
  q.stream = (q.sink or q.file) ~= nil
  q.max_body = options.max_body or (not q.stream and MAX_BODY or nil)
  q.timeout = options.timeout or (not q.stream and TIMEOUT or nil)
  q.connect_timeout = options.connect_timeout or CONNECT_TIMEOUT
  q.cafile, q.insecure = options.cafile, options.verify == false
  q.kept = set_of(options.allow_cross_origin or {})
  q.method, problem = method_of(options)
  if problem then return nil, problem end
  q.fields, problem = fields_of(options)
  if problem then return nil, problem end
  q.redirects, problem = redirects_of(options.redirect)
  if problem then return nil, problem end
  q.stall, problem = stall_of(options.stall)
  if problem then return nil, problem end
  if options.proxy then
    q.via, problem = proxy_of(options.proxy)
    q.proxy = options.proxy
  end
  if problem then return nil, problem end
  return q
end

-- ---- redirects ----

-- Only fields that may go on to `target`; without a body, none about one.
local function filter_fields(q, across)
  local fields = {}
  for _, field in ipairs(q.fields) do
    local name = field[1]:lower()
    local keep = not across or SAFE_ACROSS_ORIGINS[name] or q.kept[name]
    if not q.body and name:find("^content%-") then keep = false end
    if keep then fields[#fields + 1] = field end
  end
  q.fields = fields
end

-- As browsers do (Fetch standard, 4.4): these turn into a GET without body.
local function becomes_get(status, method)
  if status == 303 then return method ~= "GET" and method ~= "HEAD" end
  return (status == 301 or status == 302) and method == "POST"
end

-- Changes `q` into the request for the redirect's target.
local function follow(q, from, status, location)
  local target, message, code = locate(location, from.url)
  if not target then return nil, "redirect refused: " .. message, code end
  if from.scheme == "https" and target.scheme == "http" then
    return nil, "redirect refused: from https to http", "EPERM"
  end
  if becomes_get(status, q.method) then q.method, q.body = "GET", nil end
  filter_fields(q, not same_origin(from, target))
  return target
end

-- ---- the exchange ----

-- One hop: status, headers, reason, version, or nil, message, code.
local function exchange(transfer, q, target)
  local peer = q.via or target
  q.url, q.host, q.port = target.url, peer.host, peer.port
  q.headers = {}
  for i, field in ipairs(q.fields) do
    q.headers[2 * i - 1], q.headers[2 * i] = field[1], field[2]
  end
  local ok, message, code = transfer:start(q)
  if not ok then return nil, message, code end
  return transfer:head()
end

-- The final head's response, still without a body.
local function exchanges(transfer, q)
  local target, message, code = locate(q.text)
  local chain = {}
  while target do
    local status, headers, reason, version = exchange(transfer, q, target)
    if not status then return nil, headers, reason end
    local location = q.redirects > 0 and REDIRECT_STATUS[status] and headers.location
    if not location then
      return {
        status = status, reason = reason, headers = headers, version = version, url = target.url,
      }
    end
    chain[#chain + 1] = shown(target.url)
    if #chain > q.redirects then
      return nil, "too many redirects: " .. table.concat(chain, " -> "), "ELOOP"
    end
    target, message, code = follow(q, target, status, location)
    if target then transfer:skip(SKIP_BYTES, SKIP_SECONDS) end
  end
  return nil, message, code
end

-- The sink runs in this greenlet and may wait: the server then waits as well.
local function pour(transfer, sink, response)
  local piece, message, code = transfer:read()
  while piece do
    sink(piece, response)
    piece, message, code = transfer:read()
  end
  if message then return nil, message, code end
  return response
end

local function save(transfer, path, response)
  local file, message, code = core.tempfile(path)
  if not file then return nil, message, code end
  local _ <close> = file
  local bytes
  bytes, message, code = transfer:save(file)
  if not bytes then return nil, message, code end
  response.file, response.bytes = path, bytes
  return response
end

local function perform(q)
  local transfer <close> = core.transfer(q.timeout)
  local response, message, code = exchanges(transfer, q)
  if not response then return nil, message, code end
  if q.sink then return pour(transfer, q.sink, response) end
  if q.file and response.status >= 200 and response.status < 300 then
    return save(transfer, q.file, response)
  end
  response.body, message, code = transfer:body(q.max_body or MAX_BODY)
  if not response.body then return nil, message, code end
  return response
end

---@class green.http.response
---@field status integer
---@field reason string  "" over HTTP/2
---@field headers table<string, string>  lower-case names; values of the same name joined by ", "
---@field body string?  nil when a sink or a file got it
---@field url string  after redirects
---@field version string  "1.0", "1.1", "2"
---@field file string?  where the body was saved
---@field bytes integer?  how long the file is

---@class green.http.options
---@field url string?  for `request`
---@field method string?  default "GET", with a body "POST"
---@field headers table<string, string|number|string[]>?
---@field body string?
---@field timeout number?  seconds for everything; default 300, with a sink or file none
---@field connect_timeout number?  seconds for the look-up and the connection; default 30
---@field stall number|false?  seconds without a byte that end it; default 30
---@field redirect integer|false?  how many are followed; default 10
---@field sink fun(piece: string, response: green.http.response)?  gets the body; may wait
---@field file string?  path that a body of status 2xx is saved under, when it is complete
---@field max_body integer?  bytes; default 64 MiB for a body in memory, else none
---@field proxy string?  "http://host:port", also https, socks5h
---@field cafile string?  certificates to trust instead of the system's
---@field verify boolean?  false: accept any certificate. Dangerous
---@field allow_cross_origin string[]?  headers that a redirect to another origin may see

--- Fetches `url`.
---
--- ```lua
--- local response = assert(http.get("http://127.0.0.1:8080/photo.jpg", { file = "photo.jpg" }))
--- ```
---@async
---@param url string
---@param options? green.http.options
---@return green.http.response?
---@return string? message
---@return string? code
function M.get(url, options)
  check.type(url, "string", 1, "get")
  options = check.options(options, OPTIONS, 2, "get")
  local q, problem = prepare(url, options)
  if not q then check.fail(2, "get", problem) end
  return perform(q)
end

--- Sends the request that `options` describe.
---
--- ```lua
--- local response = assert(http.request {
---   url = "http://127.0.0.1:8080/login", method = "POST", body = "name=ann",
---   headers = { ["Content-Type"] = "application/x-www-form-urlencoded" },
--- })
--- ```
---@async
---@param options green.http.options
---@return green.http.response?
---@return string? message
---@return string? code
function M.request(options)
  check.type(options, "table", 1, "request")
  check.options(options, OPTIONS, 1, "request")
  if not options.url then check.fail(1, "request", "option 'url' is missing") end
  local q, problem = prepare(options.url, options)
  if not q then check.fail(1, "request", problem) end
  return perform(q)
end

--- Closes the connections that are kept for reuse, unless a transfer is under
--- way. `http.close_idle()`
function M.close_idle()
  core.close_idle()
end

return M
