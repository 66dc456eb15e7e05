--- What is reported: failures that nobody looked at, once, with both
--- tracebacks, and waits that nothing can ever end.

local support = require "spec.support"
local it = support.it

-- A script in which a greenlet fails in `culprit`; `look` is what is done with it.
local function failing(look)
  return ([[
    local green = require "green"
    local function culprit() error("planned failure") end
    local function spawner()
      return green.spawn(function()
        green.sleep(0)
        culprit()
        return 1
      end)
    end
    local g = spawner()
    %s
    g = nil
    for _ = 1, 5 do
      collectgarbage()
      green.sleep(0.002)
    end
  ]]):format(look)
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

local function assert_reported_once(result)
  assert.are.equal(1, count(result.stderr, "planned failure"))
  assert.matches("culprit", result.stderr)
  assert.matches("spawned at", result.stderr)
  -- the traceback of the failure, and the line that spawned
  assert.matches(":2: planned failure", result.stderr)
  assert.matches("spawned at:\n\t[^\n]*:4\n", result.stderr)
  assert.is_nil(result.signal)
end

describe("report: unobserved failures", function()
  it("once, though nobody refers to the greenlet any more", function()
    assert_reported_once(support.run(failing "green.sleep(0.005)"))
  end)

  it("once, when the program ends while the greenlet is still referred to", function()
    assert_reported_once(support.run(failing "green.sleep(0.005) kept = g"))
  end)

  it("once, a second after the failure, though it is still referred to", function()
    local result = support.run(failing [[
      kept = g
      green.sleep(1.3)
      io.stderr:write("the program goes on\n")
    ]])
    assert_reported_once(result)
    assert.matches("planned failure.*the program goes on", result.stderr)
  end)

  local OBSERVERS = {
    get = "pcall(g.get, g)",
    pget = "g:pget()",
    error = "green.sleep(0.005) local _ = g.error",
    traceback = "green.sleep(0.005) local _ = g.traceback",
    ["joinall with raise_error"] = "pcall(green.joinall, { g }, { raise_error = true })",
    link = "g:link(function() end) g:join()",
    link_error = "g:link_error(function() end) g:join()",
  }
  for how, look in pairs(OBSERVERS) do
    it("none of one that was looked at by " .. how, function()
      local result = support.run(failing(look))
      assert.are.equal("", result.stderr)
      assert.are.equal(0, result.status)
    end)
  end

  local NOT_OBSERVERS = {
    join = "g:join()",
    ["joinall without raise_error"] = "green.joinall { g }",
    link_value = "g:link_value(function() end) g:join()",
  }
  for how, look in pairs(NOT_OBSERVERS) do
    it("one of one that was only waited for by " .. how, function()
      assert_reported_once(support.run(failing(look)))
    end)
  end

  it("none of one that was killed", function()
    local result = support.run [[
      local green = require "green"
      local g = green.spawn(green.sleep, 10)
      green.sleep(0)
      g:kill()
    ]]
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.status)
  end)

  it("an error object is shown by its __tostring, and one without by its type", function()
    local result = support.run [[
      local green = require "green"
      local shown = setmetatable({}, { __tostring = function() return "SHOWN" end })
      green.spawn(function() error(shown) end)
      green.spawn(function() error({}) end)
      green.sleep(0.005)
    ]]
    assert.matches("SHOWN", result.stderr)
    assert.matches("table", result.stderr)
    assert.is_nil(result.signal)
  end)
end)

describe("report: exit status #host", function()
  it("is 1 after an unobserved failure, and 0 after an observed one", function()
    assert.are.equal(1, support.run(failing "green.sleep(0.005)").status)
    assert.are.equal(0, support.run(failing "g:pget()").status)
  end)
end)

describe("report: deadlock", function()
  it("says that it would block forever, and where everybody waits", function()
    local out = support.succeeds [[
      local green = require "green"
      local first, second
      first = green.spawn(function() second:join() end)
      second = green.spawn(function() first:join() end)
      first.name, second.name = "first", "second"
      local ok, err = pcall(first.join, first)
      io.write(tostring(ok), " ", tostring(err))
      first:kill()
      second:kill()
    ]]
    assert.matches("^false this operation would block forever", out)
    assert.matches("first[^\n]*join[^\n]*second[^\n]*:%d+", out)
    assert.matches("second[^\n]*join[^\n]*first[^\n]*:%d+", out)
    assert.matches("main", out)
  end)

  it("is an error like others: the program goes on after it", function()
    local out = support.succeeds [[
      local green = require "green"
      local g = green.greenlet(function() return "ran" end)
      for _ = 1, 3 do io.write(tostring((pcall(g.join, g))), " ") end
      g:start()
      io.write(g:get())
    ]]
    assert.are.equal("false false false ran", out)
  end)

  it("is none while a timer or a descriptor can still end the wait", function()
    local out = support.succeeds [[
      local green = require "green"
      local g = green.greenlet(function() return "ran" end)
      green.spawn_later(0.01, function() g:start() end)
      io.write(g:get())
    ]]
    assert.are.equal("ran", out)
  end)
end)
