--- Bad input (issue's list, T54's neighbour): every public function given wrong
--- types, too few arguments, negative times, NaN, huge numbers, closed objects
--- and dead greenlets answers with a Lua error that names function and argument,
--- and never crashes.
--
-- It goes by table, and a public function that is missing from the table fails
-- the spec: so nobody adds one without saying what it refuses.

local green = require "green"
local loop = require "green.loop"
local socket = require "green.socket"
local support = require "spec.support"
local it = support.it

local NAN, HUGE = 0 / 0, math.huge

-- A call that is to be refused for its argument `arg` (self not counted).
local function bad(arg, ...) return { arg = arg, args = table.pack(...) } end

local NOTHING = {} -- takes no arguments, or any value: nothing to refuse

-- Refused wherever seconds are expected, at place `arg` after `...`.
local function seconds(arg, ...)
  local list = {}
  for _, value in ipairs { "soon", -1, -HUGE, NAN, {}, true } do
    local args = table.pack(...)
    args[arg], args.n = value, math.max(args.n, arg)
    list[#list + 1] = { arg = arg, args = args }
  end
  return list
end

local function both(...)
  local all = {}
  for _, list in ipairs { ... } do
    if list.args then all[#all + 1] = list else table.move(list, 1, #list, #all + 1, all) end
  end
  return all
end

-- A list of greenlets at 1 and options at `place`.
local function gathers(place, first)
  local list = first and { bad(1), bad(1, nil) } or {}
  for _, value in ipairs { 42, "list", print, { 42 }, { {} }, { print } } do
    list[#list + 1] = bad(1, value)
  end
  for _, options in ipairs {
    42, "options", { timeout = "soon" }, { timeout = -1 }, { timeout = NAN },
    { no_such_option = 1 },
  } do
    local args = { {}, n = place }
    args[place] = options
    list[#list + 1] = { arg = place, args = args }
  end
  return list
end

local function callable(...) -- a function at 1
  return both({ bad(1), bad(1, nil), bad(1, 42), bad(1, "name"), bad(1, true), bad(1, {}) }, ...)
end

local function host(...) -- a host at 1, a port at 2
  return both({ bad(1), bad(1, {}, 80), bad(1, print, 80), bad(2, "127.0.0.1"),
                bad(2, "127.0.0.1", {}), bad(2, "127.0.0.1", true) }, ...)
end

local MODULES = {
  greenlet = {
    new = callable(bad(2, print, 42), bad(2, print, {}), bad(2, print, "parent")),
    current = NOTHING,
    settrace = { bad(1, 42), bad(1, {}), bad(1, "name") },
  },
  green = {
    spawn = callable(),
    spawn_later = both(seconds(1, nil, print), bad(1), bad(2, 1), bad(2, 1, 42), bad(2, 1, {})),
    greenlet = callable(),
    sleep = seconds(1),
    yield = NOTHING, current = NOTHING, main = NOTHING, hub = NOTHING, list = NOTHING,
    stats = NOTHING, iscancelled = NOTHING, istimeout = NOTHING,
    joinall = both(gathers(2, true), bad(2, {}, { count = -1 }), bad(2, {}, { count = 1.5 }),
                   bad(2, {}, { raise_error = 42 })),
    wait = gathers(2),
    iwait = both(gathers(2, true), bad(2, {}, { count = "all" })),
    kill = { bad(1), bad(1, 42), bad(1, {}), bad(1, io.stdout) },
    killall = both(gathers(3, true), bad(3, {}, nil, { block = 42 })),
    timeout = seconds(1),
    with_timeout = both(seconds(1, nil, print), bad(2, 1), bad(2, 1, 42), bad(2, 1, {})),
    config = { bad(1, 42), bad(1, { slice = -1 }), bad(1, { slice = "x" }),
               bad(1, { shield = NAN }), bad(1, { no_such_option = 1 }) },
  },
  ["green.loop"] = {
    io = { bad(1), bad(1, "fd"), bad(1, -1), bad(1, 1.5), bad(1, 2 ^ 53), bad(1, {}), bad(2, 0),
           bad(2, 0, ""), bad(2, 0, "x"), bad(2, 0, {}) },
    timer = both(bad(1), seconds(1), seconds(2, 1)),
    prepare = NOTHING, check = NOTHING, idle = NOTHING, async = NOTHING,
    stat = both(bad(1), bad(1, {}), bad(1, print), seconds(2, "/")),
    run_callback = callable(),
    now = NOTHING, update = NOTHING,
  },
  ["green.socket"] = {
    tcp = NOTHING, tcp4 = NOTHING, tcp6 = NOTHING, gettime = NOTHING,
    connect = host(), connect4 = host(), connect6 = host(), bind = host(),
    sleep = seconds(1),
  },
  ["green.dns"] = {
    getaddrinfo = { bad(1), bad(1, {}), bad(1, print), bad(2, "localhost", "inet5"),
                    bad(2, "localhost", {}) },
    toip = { bad(1), bad(1, {}), bad(1, print) },
    servers = { bad(1, print), bad(1, true), bad(1, { {} }) },
    config = { bad(1, 42), bad(1, { timeout = -1 }), bad(1, { timeout = NAN }),
               bad(1, { tries = "x" }),
               bad(1, { no_such_option = 1 }) },
  },
  ["green.http"] = {
    get = { bad(1), bad(1, {}), bad(1, print), bad(2, "http://127.0.0.1:1/", 42),
            bad(2, "http://127.0.0.1:1/", { timeout = -1 }),
            bad(2, "http://127.0.0.1:1/", { timeout = "x" }),
            bad(2, "http://127.0.0.1:1/", { no_such_option = 1 }) },
    request = { bad(1), bad(1, 42), bad(1, {}), bad(1, { url = {} }),
                bad(1, { url = "http://127.0.0.1:1/", sink = 42 }) },
    close_idle = NOTHING,
  },
}

local function new_listener() return assert(socket.bind("127.0.0.1", 0)) end

local function new_client()
  local listener <close> = new_listener()
  local _, port = listener:getsockname()
  return assert(socket.connect("127.0.0.1", port))
end

-- Classes: how to make one, what to do with it, and what its methods refuse;
-- `make_for`: methods that only another state of the object has.
local CLASSES = {
  greenlet = {
    make = function() return green.greenlet(function() end) end,
    drop = function(g) g:kill() end,
    methods = {
      switch = NOTHING, throw = NOTHING, start = NOTHING, order = NOTHING, ready = NOTHING,
      successful = NOTHING,
      start_later = both(bad(1), seconds(1)),
      join = seconds(1), get = seconds(1), pget = seconds(1),
      kill = seconds(3, nil, true),
      link = callable(), link_value = callable(), link_error = callable(), unlink = callable(),
      watch = callable(),
    },
  },
  timeout = {
    make = function() return green.timeout(10) end,
    drop = function(t) t:cancel() end,
    methods = { cancel = NOTHING, close = NOTHING, start = NOTHING },
  },
  timer = {
    make = function() return loop.timer(10) end,
    drop = function(w) w:close() end,
    methods = {
      start = callable(), stop = NOTHING, close = NOTHING, again = NOTHING, send = NOTHING,
    },
  },
  callback = {
    make = function() return loop.run_callback(function() end) end,
    drop = function(c) c:stop() end,
    methods = { stop = NOTHING },
  },
  socket = {
    make = new_listener,
    drop = function(s) s:close() end,
    make_for = {
      connect = socket.tcp4, setpeername = socket.tcp4, bind = socket.tcp4,
      setsockname = socket.tcp4, listen = socket.tcp4,
      send = new_client, receive = new_client, shutdown = new_client, setstats = new_client,
    },
    methods = {
      connect = host(), setpeername = host(), bind = host(), setsockname = host(),
      send = { bad(1), bad(1, {}), bad(1, print), bad(2, "x", {}), bad(3, "x", 1, {}) },
      receive = { bad(1, "x"), bad(1, "l"), bad(1, -1), bad(1, {}), bad(2, 1, {}) },
      accept = NOTHING, close = NOTHING, dirty = NOTHING, getfamily = NOTHING, getfd = NOTHING,
      getpeername = NOTHING, getsockname = NOTHING, getstats = NOTHING, gettimeout = NOTHING,
      listen = { bad(1, "x"), bad(1, {}) },
      shutdown = { bad(1, "x"), bad(1, {}) },
      settimeout = { bad(1, "x"), bad(1, {}), bad(1, NAN), bad(2, 1, "x"), bad(2, 1, {}) },
      setoption = { bad(1), bad(1, {}), bad(1, "no-such-option"), bad(2, "linger", 42) },
      getoption = { bad(1), bad(1, {}), bad(1, "no-such-option") },
      setfd = { bad(1), bad(1, "x"), bad(1, {}) },
      setstats = { bad(1, "x"), bad(1, {}) },
    },
  },
}

-- Calls by the name, as a script does, so that the error can name it. No tail
-- call: Lua forgets the name of a function that is tail-called.
local function caller(name, separator)
  return assert(load(("local o = ... return function(...) local _ = o%s%s(...) end")
    :format(separator, name)))
end

local function refuses(full_name, call, case)
  local ok, err = pcall(call, table.unpack(case.args, 1, case.args.n))
  local shown = {}
  for i = 1, case.args.n do shown[i] = tostring(case.args[i]) end
  shown = ("%s(%s)"):format(full_name, table.concat(shown, ", "))
  assert(not ok, shown .. " was accepted")
  assert(type(err) == "string", shown .. " raised no text: " .. tostring(err))
  local expected = ("bad argument #%d to '"):format(case.arg)
  assert(err:find(expected, 1, true), shown .. ": " .. err)
  local name = full_name:match("[%w_]+$")
  assert(err:find("[.':]" .. name .. "'"), shown .. " does not name it: " .. err)
end

local function functions_of(module)
  local names = {}
  for name, value in pairs(module) do
    if type(value) == "function" and not tostring(name):find("^_") then names[name] = value end
  end
  return names
end

-- The methods of an object, by its __index: a table, or a C closure over tables.
local function methods_of(object)
  local index = getmetatable(object).__index
  if type(index) == "table" then return functions_of(index) end
  local methods, i = {}, 1
  while true do
    local name, value = debug.getupvalue(index, i)
    if not name then return methods end
    if type(value) == "table" then
      for key, fn in pairs(functions_of(value)) do methods[key] = fn end
    end
    i = i + 1
  end
end

local function assert_complete(what, actual, stated)
  for name in pairs(actual) do
    assert(stated[name], ("%s.%s is public and not in the table"):format(what, name))
  end
  for name in pairs(stated) do
    assert(actual[name], ("%s.%s is in the table and not there"):format(what, name))
  end
end

describe("bad input: modules", function()
  for module_name, stated in pairs(MODULES) do
    local module = require(module_name) -- here, as it stays loaded
    it("every function of " .. module_name .. " is in the table", function()
      assert_complete(module_name, functions_of(module), stated)
    end)
    for name, cases in pairs(stated) do
      if #cases > 0 then
        it(module_name .. "." .. name .. " names itself and the argument", function()
          local call = caller(name, ".")(module)
          for _, case in ipairs(cases) do refuses(module_name .. "." .. name, call, case) end
        end)
      end
    end
  end
end)

describe("bad input: methods", function()
  for class_name, class in pairs(CLASSES) do
    it("every method of a " .. class_name .. " is in the table", function()
      local object = class.make()
      local methods = methods_of(object)
      class.drop(object)
      assert(next(methods), "no methods found")
      assert_complete(class_name, methods, class.methods)
    end)

    it("methods of a " .. class_name .. " refuse another self", function()
      local object = class.make()
      for name, method in pairs(methods_of(object)) do
        for _, self in ipairs { 42, "self", {}, print, io.stdout, true } do
          local ok, err = pcall(method, self)
          assert(not ok, name)
          assert(err:find("bad argument #1", 1, true), name .. ": " .. err)
        end
        assert(not pcall(method), name)
      end
      class.drop(object)
    end)

    for name, cases in pairs(class.methods) do
      if #cases > 0 then
        it(class_name .. ":" .. name .. " names itself and the argument", function()
          local object = (class.make_for and class.make_for[name] or class.make)()
          local call = caller(name, ":")(object)
          for _, case in ipairs(cases) do refuses(class_name .. ":" .. name, call, case) end
          class.drop(object)
        end)
      end
    end
  end
end)

describe("bad input: what is over", function()
  it("a dead greenlet answers every method", function()
    local g = green.spawn(function() return "value" end)
    g:join()
    g:start()
    g:start_later(0)
    assert.is_true(g:join(0))
    assert.are.equal("value", g:get(0))
    assert.is_true(g:kill())
    assert.are.equal(0, select("#", g:switch()))
    g.name = "renamed"
    assert.is_true(g.dead and g:ready() and g:successful())
  end)

  it("a closed watcher refuses, and closes again", function()
    local w = loop.timer(1)
    w:close()
    w:close()
    for _, name in ipairs { "start", "again" } do
      local ok, err = pcall(w[name], w, print)
      assert.is_false(ok)
      assert.matches("closed", err)
    end
  end)

  it("a closed socket answers every method with nil, closed, or refuses", function()
    local closed = socket.tcp4()
    closed:close()
    for name, method in pairs(methods_of(closed)) do
      if name ~= "setfd" then
        local ok, err = pcall(method, closed, "127.0.0.1", 1)
        assert(ok or type(err) == "string", name)
      end
    end
    assert.are.same({ n = 4, nil, "closed", "", "EBADF" }, table.pack(closed:receive())) -- luacheck: ignore
  end)

  it("an ended timeout can be cancelled, closed and asked", function()
    local t = green.timeout(0.001)
    pcall(function()
      local _ <close> = t
      green.sleep(1)
    end)
    t:cancel()
    t:close()
    assert.is_true(t.expired)
    assert.is_false(t.pending)
  end)

  it("unknown fields are nil to read and errors to write", function()
    local w, g, t = loop.timer(1), green.current(), green.timeout(10)
    for name, object in pairs { watcher = w, greenlet = g, timeout = t } do
      assert(object.no_such_field == nil, name)
      assert(object[42] == nil, name)
      assert(not pcall(function() object.no_such_field = 1 end), name)
    end
    assert.has_error(function() g.dead = true end)
    assert.has_error(function() g.name = {} end)
    w:close()
    t:cancel()
  end)

  it("huge times are for ever, not an overflow", function()
    for _, value in ipairs { HUGE, 1e308, math.maxinteger, 2 ^ 53 } do
      local g = support.started(green.sleep, value)
      green.sleep(0.001)
      assert.is_false(g:ready())
      g:kill()
      local t = green.timeout(value)
      green.sleep(0)
      assert.is_true(t.pending)
      t:cancel()
      local w = loop.timer(value)
      w:start(error)
      green.sleep(0)
      w:close()
    end
  end)
end)

-- Every function with every evil value in each of three places, each call in a
-- greenlet of its own that is killed when it waits. Nothing to expect but life.
local BARRAGE = [[
  local green, greenlet, loop = require "green", require "greenlet", require "green.loop"
  local module_name = ...
  local module = require(module_name)
  local dead = green.spawn(function() end)
  dead:join()
  local closed = loop.timer(1)
  closed:close()
  local EVIL = {
    n = 16, -1, 0, 1.5, 0 / 0, math.huge, math.mininteger, "", "\0x", ("x"):rep(100000), {}, { {} },
    print, dead, green.greenlet(print), closed,
  }
  local calls = 0
  local function call(fn, ...)
    calls = calls + 1
    local g = green.spawn(function(...) pcall(fn, ...) end, ...)
    green.sleep(0)
    g:kill()
  end
  for name, fn in pairs(module) do
    if type(fn) == "function" and name ~= "settrace" then
      for i = 1, EVIL.n do
        call(fn, EVIL[i])
        for j = 1, EVIL.n do
          call(fn, EVIL[i], EVIL[j])
          if i % 4 == j % 4 then call(fn, EVIL[i], EVIL[j], EVIL[(i + j) % EVIL.n + 1]) end
        end
      end
    end
  end
  io.stdout:write("alive after ", calls > 0 and "calls" or "nothing", "\n")
  os.exit(0)
]]

describe("bad input: barrage", function()
  -- The names and addresses of sockets, DNS and HTTP would leave the machine.
  for _, name in ipairs { "greenlet", "green", "green.loop" } do
    it(name .. " survives every evil value in every place", function()
      local result = support.run(BARRAGE, { args = { name }, timeout = 60 })
      assert(result.status == 0, ("status %s, signal %s: %s"):format(
        tostring(result.status), tostring(result.signal), result.stderr:sub(-2000)))
      assert.matches("alive after calls", result.stdout)
    end)
  end
end)
