--- The checks of arguments of functions written in Lua.

local check = require "green.check"
local green = require "green"
local support = require "spec.support"
local it = support.it

-- What a public function that makes one check says to its caller.
local function message(name, ...)
  local arguments = table.pack(...)
  local function public() check[name](table.unpack(arguments, 1, arguments.n)) end
  local ok, err = pcall(function() public() end)
  return ok or err
end

describe("check", function()
  it("lets pass what is right", function()
    assert.are.equal("x", check.type("x", "string", 1, "f"))
    assert.is_nil(check.optional(nil, "table", 1, "f"))
    assert.are.equal(math.huge, check.seconds(math.huge, 1, "f"))
    assert.are.equal(print, check.callable(print, 1, "f"))
    local object = setmetatable({}, { __call = function() end })
    assert.are.equal(object, check.callable(object, 1, "f"))
    assert.are.equal(green.current(), check.greenlet(green.current(), 1, "f"))
    local unstarted = green.greenlet(print)
    assert.are.equal(unstarted, check.greenlet(unstarted, 1, "f"))
    assert.are.same({ green.current() }, check.greenlets({ green.current() }, 1, "f"))
    assert.are.same({}, check.options(nil, {}, 1, "f"))
    local options = { timeout = 0, count = 3, on = print, flag = false, free = {} }
    assert.are.equal(options, check.options(options, {
      timeout = "seconds", count = "count", on = "callable", flag = "boolean", free = "any",
    }, 1, "f"))
  end)

  it("speaks as Lua does, of the line that called the public function", function()
    local err = message("type", 42, "string", 2, "f")
    assert.matches("check_spec.lua:%d+: bad argument #2 to 'f' %(string expected, got number%)$", err)
    assert.matches("string expected, got no value", message("type", nil, "string", 1, "f"))
    assert.matches("greenlet expected, got FILE%*", message("greenlet", io.stdout, 1, "f"))
    assert.matches("function expected, got table", message("callable", {}, 1, "f"))
    assert.matches("bad argument #3 to 'f' %(odd%)", message("fail", 3, "f", "odd"))
  end)

  it("refuses times that are none", function()
    for _, value in ipairs { -1, 0 / 0, -math.huge, "1" } do
      assert.matches("bad argument #1 to 'f'", message("seconds", value, 1, "f"))
    end
  end)

  it("names the element of a list, and the option", function()
    assert.matches("greenlet expected as element 2, got string",
                   message("greenlets", { green.current(), "x" }, 1, "f"))
    local known = { timeout = "seconds", count = "count", block = "boolean" }
    assert.matches("unknown option 'timout'", message("options", { timout = 1 }, known, 2, "f"))
    assert.matches("option 'timeout': number expected", message("options", { timeout = "1" }, known, 2, "f"))
    assert.matches("option 'count': must not be negative", message("options", { count = -1 }, known, 2, "f"))
    assert.matches("option 'count': integer expected", message("options", { count = 1.5 }, known, 2, "f"))
    assert.matches("option 'block': boolean expected", message("options", { block = 1 }, known, 2, "f"))
    assert.matches("table expected, got number", message("options", 1, known, 2, "f"))
  end)
end)
