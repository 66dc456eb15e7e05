-- Downloads every photo of every user of a photo service (photo_server.lua):
-- list the users, log each one in, list its photos, save them, checked.
--
-- Each user is served by sequential code, `download_user`, in a green thread;
-- while one waits for the network the others run. Saved files appear under
-- their names only when whole and checked, whatever happens to the server, the
-- disk or this program.

local green = require "green"
local http = require "green.http"
local socket = require "green.socket"

local USAGE = [[
usage: greenlua downloader.lua [options]
  --server URL      the photo service (default http://127.0.0.1:8080)
  --output DIR      where the photos go (default photos); DIR/USER/NAME
  --concurrency N   at most N transfers at a time (default 50); of one user's,
                    one at a time
  --retries N       how often a failed transfer is tried again (default 3)
  --users A,B,...   only these users (default: all)
  -h, --help        this text
exit status: 0 all saved, 1 something failed, 2 wrong usage, 130 interrupted
]]

local TIMEOUT = 30        -- seconds for one transfer
local FIRST_PAUSE = 0.1   -- seconds before the first retry; doubled each time
local NAME_MAX = 200      -- bytes of a file's name; temporary names are longer

local stats = { users = 0, photos = 0, bytes = 0, busy = 0, latest = "" }

-- ---- the options -------------------------------------------------------

local function fail_usage(message)
  io.stderr:write("downloader: ", message, "\n", USAGE)
  os.exit(2)
end

local function count(option, text, least)
  local n = math.tointeger(tonumber(text))
  if not n or n < least then
    fail_usage(("option '%s' needs a whole number, at least %d, not '%s'")
      :format(option, least, text))
  end
  return n
end

local OPTIONS = {
  ["--server"] = function(o, value)
    if not value:find("^https?://[^/]") then
      fail_usage("option '--server' needs an http or https URL, not '" .. value .. "'")
    end
    o.server = value:gsub("/+$", "")
  end,
  ["--output"] = function(o, value)
    if value == "" then fail_usage("option '--output' needs the name of a folder") end
    o.output = value:find("^%-") and "./" .. value or value
  end,
  ["--concurrency"] = function(o, value) o.concurrency = count("--concurrency", value, 1) end,
  ["--retries"] = function(o, value) o.retries = count("--retries", value, 0) end,
  ["--users"] = function(o, value)
    o.users = {}
    for user in value:gmatch("[^,]+") do o.users[#o.users + 1] = user end
    if #o.users == 0 then fail_usage("option '--users' needs at least one name") end
  end,
}

local function read_options(args)
  local options = { server = "http://127.0.0.1:8080", output = "photos", concurrency = 50,
    retries = 3 }
  local i = 1
  while args[i] do
    local name, value = args[i]:match("^(%-%-%a+)=(.*)$")
    name = name or args[i]
    if name == "-h" or name == "--help" then
      io.write(USAGE)
      os.exit(0)
    elseif not OPTIONS[name] then
      fail_usage("unknown option '" .. args[i] .. "'")
    elseif not value then
      i = i + 1
      value = args[i] or fail_usage("option '" .. name .. "' needs a value")
    end
    OPTIONS[name](options, value)
    i = i + 1
  end
  return options
end

local options = read_options(arg)

-- ---- foreign text ------------------------------------------------------

local function hex_bytes(text)
  return (text:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end))
end

local function steers_terminal(code)
  return code < 32 or code >= 0x7f and code <= 0x9f          -- C0, DEL, C1
    or code == 0x61c or code >= 0x200e and code <= 0x200f    -- marks of direction
    or code >= 0x2028 and code <= 0x202e or code >= 0x2066 and code <= 0x2069
end

--- Text from elsewhere as it may be shown: what could steer the terminal, and
--- what is not UTF-8, becomes \xNN.
local function visible(text)
  if not utf8.len(text) then
    return (text:gsub("[^\32-\126]", hex_bytes))
  end
  return (text:gsub(utf8.charpattern, function(c)
    if steers_terminal(utf8.codepoint(c)) then return hex_bytes(c) end
  end))
end

--- A file name made of a name that the server chose: its last component, with
--- nothing in it that could lead elsewhere, be hidden, or look like an option.
local function safe_name(foreign)
  local name = foreign:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  name = name:match("[^/\\]*$"):gsub("[%c:]", "_")
  if not utf8.len(name) then name = name:gsub("[\x80-\xff]", "_") end
  name = name:gsub("[. ]+$", ""):gsub("^[.-]", "_")
  if #name > NAME_MAX then
    local extension = name:match("%.%w+$") or ""
    if #extension > 16 then extension = "" end
    local cut = NAME_MAX - #extension
    while cut > 0 and name:byte(cut + 1) & 0xc0 == 0x80 do cut = cut - 1 end -- whole characters
    name = name:sub(1, cut) .. extension
  end
  return name ~= "" and name or "_"
end

--- safe_name, and different from all that were `taken` in the same folder.
local function unique_name(foreign, taken)
  local name = safe_name(foreign)
  local candidate, n = name, 0
  while taken[candidate:lower()] do
    n = n + 1
    candidate = name .. "." .. n
  end
  taken[candidate:lower()] = true
  return candidate
end

-- ---- transfers ---------------------------------------------------------

-- Failures of this machine, which no other try and no other user can mend.
local LOCAL = { ENOSPC = true, EDQUOT = true, EFBIG = true, EIO = true, EROFS = true, EACCES = true,
  EPERM = true, ENOENT = true, ENOTDIR = true, EISDIR = true, EMFILE = true, ENFILE = true,
  ENAMETOOLONG = true }

--- One transfer, tried again when the server or the way to it failed. Returns
--- the response, or raises a message.
local function transfer(request)
  local pause, message = FIRST_PAUSE, nil
  request.timeout = TIMEOUT
  request.redirect = false
  for try = 0, options.retries do
    if try > 0 then
      green.sleep(pause)
      pause = pause * 2
    end
    local started = socket.gettime()
    local response, problem, code = http.request(request)
    stats.busy = stats.busy + socket.gettime() - started
    if response and response.status == 200 then return response end
    if response then
      message = ("%d %s"):format(response.status, response.reason or "")
      if response.status < 500 then break end
    elseif request.file and LOCAL[code] then
      error({ disk = ("cannot save %s: %s"):format(request.file, problem) }, 0)
    else
      message = problem
    end
  end
  error(("%s: %s"):format(request.url, message), 0)
end

--- Adler-32 (RFC 1950, 8.2), eight bytes at a time.
local function adler32(data)
  local a, b = 1, 0
  local whole = #data - #data % 8
  for i = 1, whole, 8 do
    local c1, c2, c3, c4, c5, c6, c7, c8 = data:byte(i, i + 7)
    b = (b + 8 * a + 8 * c1 + 7 * c2 + 6 * c3 + 5 * c4 + 4 * c5 + 3 * c6 + 2 * c7 + c8) % 65521
    a = (a + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8) % 65521
  end
  for i = whole + 1, #data do
    a = (a + data:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return ("%08x"):format(b << 16 | a)
end

local function read_file(path)
  local file <close> = assert(io.open(path, "rb"))
  return assert(file:read("a"))
end

-- ---- what is done for each user ----------------------------------------

--- Logs `user` in. Returns the headers that every later request must carry.
local function login(user)
  local name = user:gsub("[^%w._-]", function(c) return ("%%%02X"):format(c:byte()) end)
  local response = transfer { method = "POST", url = options.server .. "/login",
    body = "user=" .. name }
  local token = response.body:match("^(%w+)%s*$")
  if not token then error("the answer to the login holds no token", 0) end
  return { authorization = "Bearer " .. token }
end

--- The user's photos: a list of { url=, sum=, name= }.
local function list_photos(session)
  local response = transfer { url = options.server .. "/photos", headers = session }
  local photos, taken = {}, {}
  for line in response.body:gmatch("[^\n]+") do
    local path, sum, name = line:match("^(/[^\t]*)\t(%x+)\t([^\t]+)$")
    if not path then error("the list of photos cannot be read: " .. line, 0) end
    photos[#photos + 1] = { url = options.server .. path, sum = sum:lower(),
      name = unique_name(name, taken) }
  end
  return photos
end

--- A value that removes a file, if it is there, when its variable is closed: also
--- by an error, or by Ctrl-C.
local function temporary(path)
  return setmetatable({}, { __close = function() os.remove(path) end })
end

--- Saves one photo. It has its final name only when its sum is right; until
--- then it has one that no server can choose, since it begins with a dot.
local function save(session, photo, folder)
  local part = ("%s/.%s.part"):format(folder, photo.name)
  local _ <close> = temporary(part)
  transfer { url = photo.url, headers = session, file = part }
  local data = read_file(part)
  if adler32(data) ~= photo.sum then error(photo.url .. ": wrong checksum", 0) end
  assert(os.rename(part, folder .. "/" .. photo.name))
  stats.photos = stats.photos + 1
  stats.bytes = stats.bytes + #data
  stats.latest = photo.name
end

local function download_user(user, folder)
  local session = login(user)
  for _, photo in ipairs(list_photos(session)) do
    save(session, photo, folder)
  end
  stats.users = stats.users + 1
end

-- ---- all users together ------------------------------------------------

local function list_users()
  local users = {}
  for user in transfer({ url = options.server .. "/users" }).body:gmatch("[^\r\n]+") do
    users[#users + 1] = user
  end
  return users
end

--- Makes the folder of each user, many at a time. Returns user -> folder.
local function make_folders(users)
  local folders, taken, quoted = {}, {}, {}
  for i, user in ipairs(users) do
    folders[user] = options.output .. "/" .. unique_name(user, taken)
    quoted[#quoted + 1] = "'" .. folders[user]:gsub("'", [['\'']]) .. "'"
    if #quoted == 100 or i == #users then
      if not os.execute("mkdir -p -- " .. table.concat(quoted, " ")) then
        error({ disk = "cannot make the folders under " .. options.output }, 0)
      end
      quoted = {}
    end
  end
  return folders
end

--- Downloads all users, `concurrency` of them at a time. Returns the failures,
--- user -> message. A failure of the disk ends everything and is raised.
local function download_all(users, folders)
  local failures, position = {}, 0
  local function serve_users()
    while position < #users do
      position = position + 1
      local user = users[position]
      local ok, err = pcall(download_user, user, folders[user])
      if not ok and type(err) == "table" and err.disk then error(err, 0) end
      if not ok then failures[user] = tostring(err) end
    end
  end
  local pool = {}
  for i = 1, math.min(options.concurrency, #users) do
    pool[i] = green.spawn(serve_users)
  end
  local ok, err = pcall(green.joinall, pool, { raise_error = true })
  if not ok then
    green.killall(pool)
    error(err, 0)
  end
  return failures
end

-- ---- what the user sees ------------------------------------------------

local function erase_line()
  io.stderr:write("\r\27[K")
end

local function write_progress()
  local name = visible(stats.latest)
  if #name > 40 then name = name:sub(1, 37) .. "..." end
  io.stderr:write(("\r\27[K%d photos, %.1f MB  %s"):format(stats.photos, stats.bytes / 1e6, name))
end

--- On a terminal: a line that tells how far things are, erased at the end.
local function show_progress()
  if not os.execute("test -t 2") then return nil end
  return green.spawn(function()
    local _ <close> = setmetatable({}, { __close = erase_line })
    while true do
      green.sleep(0.1)
      write_progress()
    end
  end)
end

--- The most memory this process ever had, in MB, where the system tells.
local function peak_memory()
  local file <close> = io.open("/proc/self/status")
  return file and tonumber(file:read("a"):match("VmHWM:%s*(%d+) kB")) / 1024
end

local function print_summary(seconds)
  local line = "%-8s %s\n"
  local function put(name, ...) io.write(line:format(name, string.format(...))) end
  put("photos", "%d saved under %s, of %d users", stats.photos, options.output, stats.users)
  put("bytes", "%d", stats.bytes)
  put("time", "%.2f s; one after another it would have taken %.2f s", seconds, stats.busy)
  local memory = peak_memory()
  if memory then put("memory", "%.1f MB at most", memory) end
end

--- Prints each different failure once, with how many users met it.
local function print_failures(failures)
  local first, counts, order = {}, {}, {}
  for user, message in pairs(failures) do
    local kind = message:gsub("https?://%S*: ", "")
    if not counts[kind] then
      counts[kind] = 0
      first[kind] = user .. ": " .. message
      order[#order + 1] = kind
    end
    counts[kind] = counts[kind] + 1
  end
  table.sort(order)
  for _, kind in ipairs(order) do
    local others = counts[kind] > 1 and (" (and %d users more)"):format(counts[kind] - 1) or ""
    io.stderr:write("downloader: ", visible(first[kind]), others, "\n")
  end
  return #order > 0
end

local function main()
  -- Ctrl-C is raised in whatever waits, and no pcall holds it: only then is this
  -- block left before it is complete.
  local complete = false
  local _ <close> = setmetatable({}, { __close = function()
    if complete then return end
    io.stderr:write(("downloader: interrupted; %d photos are saved, each of them whole\n")
      :format(stats.photos))
  end })

  local started = socket.gettime()
  local progress = show_progress()
  local ok, failures = pcall(function()
    local users = options.users or list_users()
    return download_all(users, make_folders(users))
  end)
  if progress then progress:kill() end
  complete = true
  if not ok then
    local message = type(failures) == "table" and failures.disk or tostring(failures)
    io.stderr:write("downloader: ", visible(message), "\n")
    return 1
  end
  local failed = print_failures(failures)
  print_summary(socket.gettime() - started)
  return failed and 1 or 0
end

os.exit(main())
