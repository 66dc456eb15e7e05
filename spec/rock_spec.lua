--- The rock: built offline from the checkout, it gives a stock lua5.4 the
--- modules, and a greenlua command. #host (run once, not in each interpreter)

local support = require "spec.support"
local it = support.it

--- Runs a command in sh. Returns what it wrote to stdout and stderr, and its status.
local function sh(command)
  local pipe = assert(io.popen("exec 2>&1 </dev/null; " .. command))
  local text = pipe:read("a")
  local _, _, status = pipe:close()
  return text, status
end

describe("the rock #host", function()
  local tree

  setup(function()
    tree = sh("mktemp -d"):gsub("\n", "")
    local text, status = sh("luarocks --lua-version 5.4 make --tree " .. tree .. " rockspec/greenlua-scm-1.rockspec")
    assert(status == 0, text)
  end)

  teardown(function() sh("rm -rf " .. tree) end)

  local function stock(code)
    return sh(("cd / && LUA_PATH='%s/share/lua/5.4/?.lua;;' LUA_CPATH='%s/lib/lua/5.4/?.so;;' lua5.4 -e '%s'")
      :format(tree, tree, code))
  end

  it("is what luarocks lint accepts", function()
    assert.are.equal(0, select(2, sh "luarocks lint rockspec/greenlua-scm-1.rockspec"))
  end)

  it("runs greenlets in a stock lua5.4", function()
    local text, status = stock [[
      local green = require "green"
      local list = {}
      for i = 1, 3 do list[i] = green.spawn(function() green.sleep(0.01 * (4 - i)) print(i) end) end
      green.joinall(list)]]
    assert.are.equal("3\n2\n1\n", text)
    assert.are.equal(0, status)
  end)

  it("holds every module", function()
    local text = stock [[for _, m in ipairs { "greenlet", "green", "green.loop", "green.socket",
      "green.dns", "green.http" } do require(m) end print "all"]]
    assert.are.equal("all\n", text)
  end)

  it("takes Lua from its host, and shows one name", function()
    local so = tree .. "/lib/lua/5.4/green/core.so"
    assert.are.equal("luaopen_green_core\n", (sh("nm -D --defined-only " .. so .. " | sed 's/.* //'")))
    assert.are.equal("", (sh("ldd " .. so .. " | grep liblua || :")))
  end)

  it("installs the command", function()
    assert.are.equal("7\n", (sh("cd / && " .. tree .. "/bin/greenlua -e 'require \"green\".sleep(0) print(7)'")))
  end)
end)
