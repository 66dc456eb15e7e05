--- A wait works at every place where Lua calls out (ACCEPTANCE 20, LU1 to LU3):
-- two greenlets at the same place interleave, with a collection at each wait.

local green = require "green"
local support = require "spec.support"

-- Each place calls `wait(v)`, which waits and returns v, at least once where
-- its name says, and raises when something there comes out wrong.
local PLACES = {}

PLACES["pcall"] = function(wait)
  assert(select("#", pcall(wait, 1)) == 2)
  local ok, err = pcall(function() error { wait(2) } end)
  assert(not ok and err[1] == 2)
end

PLACES["xpcall"] = function(wait)
  local ok, value = xpcall(wait, function() error("no error here") end, 1)
  assert(ok and value == 1)
end

PLACES["the handler of xpcall"] = function(wait)
  local ok, value = xpcall(error, function(e) return wait(e .. " handled") end, "raised")
  assert(not ok and value == "raised handled")
end

PLACES["__tostring of an error object"] = function(wait)
  local reason = setmetatable({}, { __tostring = function() return wait("text") end })
  local _, err = pcall(error, reason)
  assert(tostring(err) == "text")
  assert(string.format("%s|%s", err, err) == "text|text")
end

local function object(metamethod, fn)
  return setmetatable({}, { [metamethod] = fn })
end

PLACES["__index"] = function(wait)
  local o = object("__index", function(_, key) return wait(key .. "!") end)
  assert(o.a == "a!" and o.b == "b!")
  assert(table.concat(setmetatable({}, {
    __index = function(_, i) return wait(tostring(i)) end,
    __len = function() return 3 end,
  })) == "123")
end

PLACES["__newindex"] = function(wait)
  local set = {}
  local o = object("__newindex", function(_, key, value) set[key] = wait(value) end)
  o.a, o.b = 1, 2
  assert(set.a == 1 and set.b == 2)
end

PLACES["__call"] = function(wait)
  local o = object("__call", function(_, ...) return wait(select("#", ...)) end)
  assert(o(nil, nil) == 2)
end

for name, compare in pairs {
  __eq = function(a, b) return a == b end,
  __lt = function(a, b) return a < b end,
  __le = function(a, b) return a <= b end,
} do
  PLACES[name] = function(wait)
    local meta = { [name] = function() return wait(true) end }
    local a, b = setmetatable({}, meta), setmetatable({}, meta)
    assert(compare(a, b) == true)
    if compare(b, a) then meta[name] = function() return wait(false) end end
    assert(compare(a, b) == false)
  end
end

for name, operate in pairs {
  __add = function(a, b) return a + b end,
  __sub = function(a, b) return a - b end,
  __mul = function(a, b) return a * b end,
  __div = function(a, b) return a / b end,
  __mod = function(a, b) return a % b end,
  __pow = function(a, b) return a ^ b end,
  __idiv = function(a, b) return a // b end,
  __band = function(a, b) return a & b end,
  __bor = function(a, b) return a | b end,
  __bxor = function(a, b) return a ~ b end,
  __shl = function(a, b) return a << b end,
  __shr = function(a, b) return a >> b end,
  __unm = function(a) return -a end,
  __bnot = function(a) return ~a end,
  __len = function(a) return #a end,
} do
  PLACES[name] = function(wait)
    local o = object(name, function() return wait(name) end)
    local first, second = operate(o, 1), operate(o, o)
    assert(first == name and second == name)
    if name ~= "__len" and name ~= "__unm" and name ~= "__bnot" then
      assert(operate(1, o) == name)
    end
  end
end

if support.concat_is_safe() then
  PLACES["__concat"] = function(wait)
    local o = object("__concat", function(a, b)
      return wait((type(a) == "table" and "o" or a) .. (type(b) == "table" and "o" or b))
    end)
    assert("a" .. "b" .. o .. "c" .. o == "aboco")
  end
end

PLACES["__close"] = function(wait)
  local order = {}
  local function closing(name)
    return setmetatable({}, { __close = function() order[#order + 1] = wait(name) end })
  end
  do
    local _ <close> = closing "last"
    local _ <close> = closing "first"
  end
  local ok = pcall(function()
    local _ <close> = closing "by error"
    error("x")
  end)
  assert(not ok)
  assert(table.concat(order, ",") == "first,last,by error")
end

PLACES["__pairs"] = function(wait)
  local o = object("__pairs", function(self)
    return function(_, i) if i < 3 then return wait(i + 1) end end, self, 0
  end)
  local sum = 0
  for i in pairs(o) do sum = sum + i end
  assert(sum == 6)
end

PLACES["the iterator of a for"] = function(wait)
  local sum = 0
  for i in function(_, last)
    last = (last or 0) + 1
    if last <= 4 then return wait(last) end
  end do
    sum = sum + i
  end
  assert(sum == 10)
end

PLACES["the closing value of a for"] = function(wait)
  local closed
  local closing = setmetatable({}, { __close = function() closed = wait("closed") end })
  for _ in function() return 1 end, nil, nil, closing do -- luacheck: ignore 512 (left early)
    break
  end
  assert(closed == "closed")
end

PLACES["table.sort"] = function(wait)
  local list = { 5, 3, 8, 1, 9, 2, 7 }
  table.sort(list, function(a, b) return wait(a < b) end)
  assert(table.concat(list, ",") == "1,2,3,5,7,8,9")
end

PLACES["string.gsub with a function"] = function(wait)
  assert((("abc"):gsub(".", function(c) return wait(c:upper()) end)) == "ABC")
end

PLACES["string.gsub with a table"] = function(wait)
  local map = object("__index", function(_, c) return wait(c .. c) end)
  assert((("abc"):gsub("%w", map)) == "aabbcc")
end

PLACES["a reader of load"] = function(wait)
  local pieces, i = { "local a = 1 ", "local b = 2 ", "return a + b" }, 0
  local fn = load(function()
    i = i + 1
    return wait(pieces[i])
  end)
  assert(fn() == 3)
  local bad, message = load(function() return wait("=") end)
  assert(not bad and message:find("unexpected symbol"))
end

PLACES["require"] = function(wait, id)
  local name = "spec.waits." .. id
  package.preload[name] = function(...) return wait { name = (...) } end
  local module = require(name)
  package.preload[name], package.loaded[name] = nil, nil
  assert(module.name == name)
end

PLACES["dofile"] = function(wait, id)
  local path, name = os.tmpname(), "spec.waits.file." .. id
  local file = assert(io.open(path, "w"))
  file:write(("local wait = require '%s' return wait(1) + wait(2)"):format(name))
  file:close()
  package.loaded[name] = wait
  local result = dofile(path)
  package.loaded[name] = nil
  os.remove(path)
  assert(result == 3)
end

PLACES["a debug hook"] = function(wait)
  local lines, inside = 0, false
  debug.sethook(function()
    if inside or lines >= 3 then return end
    inside = true
    lines = wait(lines + 1)
    inside = false
  end, "l")
  local sum = 0
  for i = 1, 3 do
    sum = sum + i
  end
  debug.sethook()
  assert(sum == 6 and lines == 3)
end

PLACES["a coroutine, three levels deep"] = function(wait)
  local function nested(n)
    return coroutine.wrap(function()
      if n == 0 then
        coroutine.yield(wait("deep"))
        return wait("end")
      end
      local inner = nested(n - 1)
      coroutine.yield(inner())
      return inner()
    end)
  end
  local outer = nested(2)
  assert(outer() == "deep" and outer() == "end")
end

PLACES["an iterator by coroutine.wrap"] = function(wait)
  local sum = 0
  for i in coroutine.wrap(function() for i = 1, 4 do coroutine.yield(wait(i)) end end) do
    sum = sum + i
  end
  assert(sum == 10)
end

PLACES["__close under coroutine.close"] = function(wait)
  local closed
  local co = coroutine.create(function()
    local _ <close> = setmetatable({}, { __close = function() closed = wait("closed") end })
    coroutine.yield()
  end)
  coroutine.resume(co)
  assert(coroutine.close(co) and closed == "closed")
end

PLACES["sort in gsub in pcall in a coroutine in __index"] = function(wait)
  local o = object("__index", function(_, key)
    return coroutine.wrap(function()
      local _, result = pcall(string.gsub, key, "%w+", function(word)
        local letters = {}
        for c in word:gmatch(".") do letters[#letters + 1] = c end
        table.sort(letters, function(a, b) return wait(a < b) end)
        return table.concat(letters)
      end)
      return result
    end)()
  end)
  assert(o["cab fed"] == "abc def")
end

-- Runs the place in two greenlets; each notes its name before and after every
-- wait, so that both were inside at the same time or the log tells otherwise.
local function interleaved(place)
  local log = {}
  local function body(id)
    place(function(value)
      log[#log + 1] = "in " .. id
      support.stress_wait()
      log[#log + 1] = "out " .. id
      return value
    end, id)
    return id
  end
  local one, two = green.spawn(body, "1"), green.spawn(body, "2")
  assert(one:get() == "1" and two:get() == "2")
  assert(table.concat(log, " ", 1, 2) == "in 1 in 2", table.concat(log, " "))
end

local names = {}
for name in pairs(PLACES) do names[#names + 1] = name end
table.sort(names)

describe("lua: a wait works everywhere", function()
  support.modes(function(it)
    for _, name in ipairs(names) do
      it("LU1 in " .. name, function() interleaved(PLACES[name]) end)
    end

    it("LU1 in all places at once", function()
      local tasks = {}
      for i, name in ipairs(names) do
        tasks[i] = green.spawn(PLACES[name], function(value)
          support.stress_wait()
          return value
        end, "all" .. i)
      end
      green.joinall(tasks, { raise_error = true })
    end)

    it("LU1 in the main greenlet", function()
      local other = green.spawn(function() for _ = 1, 50 do support.stress_wait() end end)
      for _, name in ipairs { "pcall", "table.sort", "an iterator by coroutine.wrap" } do
        PLACES[name](function(value)
          support.stress_wait()
          return value
        end, "main")
      end
      other:join()
    end)

    it("LU2 resume returns only for a yield, the end or an error", function()
      local returned = {}
      local g = green.spawn(function()
        local co = coroutine.create(function()
          green.sleep(0.002)
          coroutine.yield("yielded")
          green.sleep(0)
          return "ended"
        end)
        for i = 1, 3 do returned[i] = { coroutine.resume(co) } end
        local failing = coroutine.create(function()
          green.sleep(0)
          error("raised", 0)
        end)
        returned[4] = { coroutine.resume(failing) }
      end)
      g:get()
      assert.are.same({ { true, "yielded" }, { true, "ended" },
                        { false, "cannot resume dead coroutine" }, { false, "raised" } }, returned)
    end)

    it("LU2 a waiting coroutine is normal, and its greenlet goes on where it was", function()
      local co, status
      local g = support.started(function()
        co = coroutine.create(function()
          green.sleep(0.001)
          return coroutine.running() == co, coroutine.isyieldable()
        end)
        return coroutine.resume(co)
      end)
      status = coroutine.status(co)
      local ok, same, yieldable = g:get()
      assert.are.equal("normal", status)
      assert.are.same({ true, true, true }, { ok, same, yieldable })
    end)

    it("LU2 at the base of a greenlet there is nothing to yield from", function()
      local g = green.spawn(function()
        local _, is_main = coroutine.running()
        return is_main, coroutine.isyieldable(), pcall(coroutine.yield)
      end)
      local is_main, yieldable, ok, err = g:get()
      assert.are.same({ true, false, false }, { is_main, yieldable, ok })
      assert.matches("attempt to yield from outside a coroutine", err)
    end)

    it("LU3 one coroutine resumed while it waits in another greenlet", function()
      local co = coroutine.create(function()
        green.sleep(0.005)
        return "done"
      end)
      local first = support.started(function() return coroutine.resume(co) end)
      local second = green.spawn(function() return coroutine.resume(co) end)
      local ok, err = second:get()
      assert.is_false(ok)
      assert.are.equal("cannot resume non-suspended coroutine", err)
      local closed, why = pcall(coroutine.close, co)
      assert.is_false(closed)
      assert.matches("cannot close a normal coroutine", why)
      assert.are.same({ n = 2, true, "done" }, table.pack(first:get()))
    end)

    it("LU3 a wrapped one likewise", function()
      local fn = coroutine.wrap(function() green.sleep(0.002) end)
      local first = support.started(fn)
      local ok, err = pcall(fn)
      assert.is_false(ok)
      assert.matches("cannot resume non%-suspended coroutine", err)
      first:get()
    end)
  end)
end)
