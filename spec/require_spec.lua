--- `require` with green threads (D17).

local green = require "green"
local support = require "spec.support"
local it = support.it

-- Calls `body` with a module of a fresh name in package.preload.
local function with_module(loader, body)
  local name = "spec.made." .. tostring(loader):match("0x%x+")
  package.preload[name] = loader
  local _ <close> = setmetatable({}, { __close = function()
    package.preload[name] = nil
    package.loaded[name] = nil
  end })
  body(name)
end

describe("require", function()
  it("D17 a second greenlet waits for the first's load", function()
    local loads = 0
    with_module(function()
      loads = loads + 1
      green.sleep(0.005)
      return { load = loads }
    end, function(name)
      local tasks = {}
      for i = 1, 3 do tasks[i] = green.spawn(require, name) end
      local first, data = tasks[1]:get()
      assert.are.equal(1, first.load)
      assert.are.equal(":preload:", data)
      for i = 2, 3 do assert.is_true(rawequal(first, (tasks[i]:get()))) end
      assert.are.equal(1, loads)
    end)
  end)

  it("D17 when a load fails, one who waits tries itself", function()
    local loads = 0
    with_module(function()
      loads = loads + 1
      local mine = loads
      green.sleep(0.002)
      if mine == 1 then error("planned", 0) end
      return mine
    end, function(name)
      local first, second, third = green.spawn(require, name), green.spawn(require, name),
                                   green.spawn(require, name)
      assert.are.same({ false, "planned" }, { first:pget() })
      assert.are.equal(2, (second:get()))
      assert.are.equal(2, (third:get()))
      assert.are.equal(2, loads)
    end)
  end)

  it("D17 a killed load does not hold the others", function()
    local loads = 0
    with_module(function()
      loads = loads + 1
      green.sleep(loads == 1 and 10 or 0)
      return loads
    end, function(name)
      local first, second = support.started(require, name), support.started(require, name)
      first:kill()
      assert.are.equal(2, (second:get()))
    end)
  end)

  it("D17 two that require each other's module crosswise do not hang", function()
    local names = {}
    local function loader(other)
      return function()
        green.sleep(0.002)
        return require(names[other])
      end
    end
    with_module(loader(2), function(one)
      with_module(loader(1), function(two)
        names[1], names[2] = one, two
        local a, b = green.spawn(require, one), green.spawn(require, two)
        green.joinall({ a, b }, { timeout = 30 })
        assert.is_true(a:ready() and b:ready())
        assert.is_truthy(a.error)
        assert.is_truthy(b.error)
      end)
    end)
  end)

  it("D17 the searchers are wrapped once, however often green is loaded", function()
    local out = support.succeeds [[
      require "green"
      local before = table.pack(table.unpack(package.searchers))
      package.loaded["green.require"] = nil
      require "green.require"
      for i = 1, before.n do assert(package.searchers[i] == before[i]) end
      print(#package.searchers == before.n)
    ]]
    assert.are.equal("true\n", out)
  end)

  it("D17 messages, results and the list of searchers stay Lua's own", function()
    local out = support.succeeds [[
      local before = #package.searchers
      require "green"
      print(before == #package.searchers)
      print(pcall(function() require "no.such.module" end))
      package.path = os.tmpname()
      local file = io.open(package.path, "w")
      file:write("return = 1")
      file:close()
      print(pcall(require, "broken"))
      os.remove(package.path)
      print(pcall(require))
    ]]
    local lines = {}
    for line in out:gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.are.equal("true", lines[1])
    assert.matches(":4: module 'no.such.module' not found:", lines[2])
    assert.matches("false\terror loading module 'broken' from file", out)
    assert.matches("bad argument #1 to 'require' %(string expected, got no value%)", out)
  end)
end)
