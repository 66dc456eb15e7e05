--- The specs' own tools: the wrapper that finds what stays behind, and the rule
--- that every spec goes through it.

local lfs = require "lfs"
local green = require "green"
local support = require "spec.support"
local it = support.it

local function complaint(body)
  local ok, err = pcall(support.wrapped(body))
  return ok and "" or tostring(err)
end

describe("support", function()
  it("finds a greenlet that is left", function()
    local left
    local err = complaint(function() left = support.started(green.sleep, 60) end)
    left:kill()
    assert.matches("greenlets left", err)
  end)

  it("finds a descriptor that is left", function()
    local left
    local err = complaint(function() left = assert(io.open("/dev/null")) end)
    left:close()
    assert.matches("descriptors left: %d+ %-> /dev/null", err)
  end)

  it("finds memory that is left", function()
    local left
    assert.matches("bytes of Lua memory left", complaint(function() left = ("x"):rep(200000) end))
    assert.are.equal(200000, #left)
  end)

  it("finds a watcher that is left", function()
    local left
    local err = complaint(function()
      left = require "green.loop".timer(60)
      left:start(error)
    end)
    left:close()
    assert.matches("watchers left", err)
  end)

  it("is silent when nothing is left, and lets errors through", function()
    assert.are.equal("", complaint(function() green.spawn(green.sleep, 0):join() end))
    assert.are.equal("raised", complaint(function() error("raised", 0) end))
  end)

  it("run gives output, status, signal and time-out of a process of its own", function()
    local result = support.run([[
      io.write(io.read("a"), arg[1], os.getenv("NAME"))
      io.stderr:write("on stderr")
      os.exit(3)
    ]], { stdin = "in ", args = { "it's $HOME " }, env = { NAME = "a 'name'" } })
    assert.are.equal("in it's $HOME a 'name'", result.stdout)
    assert.are.equal("on stderr", result.stderr)
    assert.are.equal(3, result.status)
    assert.is_true(support.run("while true do end", { timeout = 0.2 }).timedout)
  end)

  it("every spec file is wrapped", function()
    for name in lfs.dir("spec") do
      if name:find("_spec%.lua$") then
        local file = assert(io.open("spec/" .. name))
        local text = file:read("a")
        file:close()
        assert(text:find("support.it", 1, true) or text:find("support.modes", 1, true)
          or text:find("support.wrapped", 1, true), name .. " does not use support.it")
      end
    end
  end)
end)
