--- The executable: options, messages and statuses as lua5.4 has them; then what
--- is greenlua's own. Each spec runs a process. #host

local support = require "spec.support"
local it = support.it

local HERE = os.getenv "PWD" or "."
local LUA = support.interpreter:find "^/" and support.interpreter or HERE .. "/" .. support.interpreter

--- Runs a command in sh, in which $LUA is the executable. Returns what it wrote
--- to stdout and stderr, and its status.
local function sh(command, environment)
  local exports = environment and "export " .. environment .. "; " or ""
  local pipe = assert(io.popen("exec 2>&1 </dev/null; export LUA='" .. LUA .. "'; " .. exports .. command))
  local text = pipe:read("a")
  local _, _, status = pipe:close()
  return text, status
end

--- The same for a script, which goes through a file of its own.
local function run(script)
  return support.run(script)
end

describe("options #host", function()
  it("are carried out in their order", function()
    local text, status = sh [[$LUA -e 'x = 1' -e'x = x + 1' -l g=string -lstring -e 'print(x, g == string)']]
    assert.are.equal("2\ttrue\n", text)
    assert.are.equal(0, status)
  end)

  it("-W turns warnings on", function()
    assert.are.equal("Lua warning: w\n", (sh [[$LUA -W -e 'warn("w")']]))
    assert.are.equal("", (sh [[$LUA -e 'warn("w")']]))
  end)

  it("fill arg and ...", function()
    local text = sh [[echo 'print(arg[-1], #arg, arg[1], ...)' | $LUA -W - a b]]
    assert.are.equal("-W\t2\ta\ta\tb\n", text)
  end)

  it("-- ends them, and - is stdin", function()
    assert.is_truthy((sh "$LUA -- -nofile"):find("cannot open -nofile", 1, true))
    assert.are.equal("7\n", (sh "echo 'print(7)' | $LUA -"))
    assert.are.equal("7\n", (sh "echo 'print(7)' | $LUA"))
  end)

  for _, bad in ipairs { "-x", "-vv", "-Ex", "--nosuch", "-e", "-l" } do
    it("refuse " .. bad .. " with the usage", function()
      local text, status = sh("$LUA " .. bad)
      assert.are.equal(1, status)
      assert.is_truthy(text:find(bad, 1, true))
      assert.is_truthy(text:find("usage:", 1, true))
    end)
  end

  it("-v names the versions of what is inside", function()
    local text, status = sh "$LUA -v"
    assert.are.equal(0, status)
    assert.is_truthy(text:find("^greenlua %d+%.%d+%.%d+ "))
    for _, name in ipairs { "Lua 5%.4%.%d+", "libev %d+%.%d+", "c%-ares %d+%.%d+", "libcurl [%d.n]+" } do
      assert.is_truthy(text:find(name), name)
    end
  end)

  it("--help and --version end with 0", function()
    assert.are.equal(0, select(2, sh "$LUA --help"))
    assert.are.equal(0, select(2, sh "$LUA --version"))
  end)
end)

describe("environment #host", function()
  it("LUA_INIT_5_4 goes before LUA_INIT, and @ names a file", function()
    assert.are.equal("b\n", (sh("$LUA -e ''", [[LUA_INIT='print("a")' LUA_INIT_5_4='print("b")']])))
    assert.is_truthy((sh("$LUA -e ''", "LUA_INIT=@/nosuch.lua")):find("cannot open /nosuch.lua", 1, true))
  end)

  it("-E ignores LUA_INIT, LUA_PATH and GREENLUA_*", function()
    local text = sh([[$LUA -E -e 'print(os.getenv("GREENLUA_X"), package.path:find("nosuch"))']],
      [[LUA_INIT='print("a")' LUA_PATH='/nosuch/?.lua;;' GREENLUA_X=1]])
    assert.are.equal("nil\tnil\n", text)
  end)

  it("T41 modules inside win over files in the current folder, which -E does not look in", function()
    local text = sh([[d=$(mktemp -d) && cd $d && echo 'print "planted"' >green.lua &&
      echo 'print "mine"' >mine.lua && $LUA -e 'require "green" require "mine"';
      $LUA -E -e 'print(pcall(require, "mine"))' | head -n 1 | cut -c1-5; rm -r $d]])
    assert.are.equal("mine\nfalse\n", text)
  end)

  it("T39 a privileged program ignores what its caller set, and says so", function()
    if sh "id -u" ~= "0\n" then return pending "T39: only root can make a setuid program" end
    local text = sh([[d=$(mktemp -d) && chmod 755 $d && cp $LUA $d/g && chmod 4755 $d/g &&
      setpriv --reuid=65534 --clear-groups env LUA_INIT='print("executed")' GREENLUA_X=1 \
      $d/g -e 'print(os.getenv "GREENLUA_X", os.getenv "LUA_INIT")'; rm -r $d]])
    assert.is_nil(text:find("executed", 1, true))
    assert.is_truthy(text:find("%d+ environment variables are ignored"), text)
    assert.is_truthy(text:find("nil\tnil\n", 1, true))
  end)
end)

describe("errors #host", function()
  it("go to stderr after the program's name, with a traceback, and the status is 1", function()
    local text, status = sh [[$LUA -e 'error "boom"']]
    assert.are.equal(1, status)
    assert.is_truthy(text:find("greenlua: (command line):1: boom\nstack traceback:\n", 1, true), text)
  end)

  it("that are objects are shown by __tostring, or by their type", function()
    assert.is_truthy((sh [[$LUA -e 'error(setmetatable({}, {__tostring = function() return "shown" end}))']])
      :find("greenlua: shown\n", 1, true))
    assert.is_truthy((sh [[$LUA -e 'error({})']]):find("(error object is a table value)", 1, true))
  end)

  it("T42 a precompiled script needs --binary", function()
    local text = sh [[f=$(mktemp) && $LUA -e 'io.open("'$f'", "wb"):write(string.dump(load "print(5)")):close()' &&
      $LUA $f | head -n 1; $LUA --binary $f; rm $f]]
    assert.is_truthy(text:find("attempt to load a binary chunk", 1, true), text)
    assert.is_truthy(text:find("\n5\n$"), text)
  end)

  it("of a greenlet that nobody looks at are reported once and make the status 1", function()
    local result = run([[require "green".spawn(function() error "unseen" end)]])
    assert.are.equal(1, result.status)
    assert.are.equal(1, select(2, result.stderr:gsub("unseen", "")))
  end)
end)

describe("life #host", function()
  it("runs the script on the main greenlet, and waits for the spawned ones", function()
    local result = run([[
      local green = require "green"
      assert(green.current() == green.main())
      green.spawn(function() green.sleep(0.05) print "spawned" end)
      print "main"]])
    assert.are.equal("main\nspawned\n", result.stdout)
    assert.are.equal(0, result.status)
  end)

  it("os.exit ends it at once", function()
    local text, status = sh [[$LUA -e 'local g = require "green" g.spawn(g.sleep, 100) os.exit(7)']]
    assert.are.equal("", text)
    assert.are.equal(7, status)
  end)

  it("waits that can never end are an error", function()
    local text, status = sh [[$LUA -e 'local g = require "green"
      local a, b a = g.spawn(function() b:join() end) b = g.spawn(function() a:join() end)']]
    assert.are.equal(1, status)
    assert.is_truthy(text:find("this operation would block forever", 1, true), text)
  end)

  it("waits at its end in no coroutine of the script's, which may be gone", function()
    local result = run([[
      local green = require "green"
      coroutine.wrap(function() green.sleep(0.001) end)()
      green.spawn(function()
        for _ = 1, 2 do collectgarbage() end
        print(coroutine.status(green.main().thread), debug.traceback(green.main().thread, "main"))
      end)]])
    assert.are.equal("", result.stderr)
    assert.matches("^normal\tmain\nstack traceback:\n", result.stdout)
    assert.are.equal(0, result.status)
  end)

  it("has the collector in generational mode, as lua5.4 (D16)", function()
    assert.are.equal("generational\n", (sh [[$LUA -e 'print(collectgarbage "generational")']]))
  end)

  it("T45 a closed stdout ends it by SIGPIPE, and children get the default", function()
    local text = sh [[bash -c "$LUA -e 'while true do print(1) end' | head -n 0; echo \${PIPESTATUS[0]}"]]
    assert.are.equal("141\n", text)
    assert.are.equal("y\n", (sh [[$LUA -e 'os.execute "yes | head -n 1"']]))
    local caught = sh [[$LUA -e 'io.write((io.popen("grep SigIgn /proc/self/status"):read("a")))']]
    assert.are.equal(0, tonumber(caught:match "%x+$" or caught:match "(%x+)\n", 16) & (1 << 12))
  end)
end)

describe("Ctrl-C #host", function()
  -- `timeout` of coreutils sends the signal, once: without --foreground it sends
  -- it to its group as well, a second press. A shell would start a program in
  -- the background with SIGINT ignored.
  local function interrupted(script)
    return sh("timeout --foreground --preserve-status -s INT -k 10 0.7 $LUA -e '" .. script .. "'")
  end

  it("unwinds every greenlet, however it waits or computes", function()
    local script = [[
      local green = require "green"
      local function noted(n) return setmetatable({}, { __close = function() print(n) end }) end
      local function sleeper(n) local _ <close> = noted(n) while true do pcall(green.sleep, 100) end end
      green.spawn(sleeper, "a")
      green.spawn(sleeper, "b")
      sleeper("main")]]
    local text = interrupted(script)
    for _, name in ipairs { "a\n", "b\n", "main\n" } do assert.is_truthy(text:find(name, 1, true), text) end
    assert.are.equal(1, select(2, text:gsub("interrupted!", "")))
  end)

  it("ends a loop that never waits", function()
    assert.is_truthy((interrupted [[
      local _ <close> = setmetatable({}, { __close = function() print "closed" end })
      while true do pcall(function() end) end]]):find("closed\n", 1, true))
  end)

  it("gives the status 130", function()
    local text, status = interrupted [[require "green".sleep(100)]]
    assert.are.equal(130, status)
    assert.is_truthy(text:find("interrupted!", 1, true))
  end)

  it("may come while a greenlet ends, which has no state any more", function()
    for i = 1, 40 do
      local text, status = sh("timeout --foreground --preserve-status -s INT -k 10 " .. 0.05 + i / 1000 .. [[ $LUA -e '
        local green = require "green"
        while true do
          for _ = 1, 20 do green.spawn(function() end) end
          green.sleep(0)
        end']])
      assert.are.equal(130, status, text)
    end
  end)

  it("may come while the state closes, when the hub is gone", function()
    local text = sh [[$LUA -e '
      local heap = {} -- frees for some time, after the last finalizer, which is the hub
      for i = 1, 1000000 do heap[i] = { i } end
      setmetatable({}, { __gc = function() os.execute "(sleep 0.01; kill -INT $PPID) &" end })
      '; echo $?]]
    assert.are.equal("130\n", text)
  end)

  it("pressed again ends it at once", function()
    local text, status = sh [[timeout -k 1 10 $LUA -e '
      local function press() io.popen("kill -INT $PPID"):close() end
      local _ <close> = setmetatable({}, { __close = function()
        print "closing" io.stdout:flush() press() while true do end
      end })
      press() while true do end'; echo $?]]
    assert.are.equal("closing\n130\n", text)
    assert.are.equal(0, status)
  end)
end)

describe("the REPL #host", function()
  local function repl(input)
    return (sh("printf '" .. input:gsub("\n", "\\n") .. "' | $LUA -i")):gsub("^.-\n.-\n.-\n", "")
  end

  it("prints expressions, takes = and several lines, and goes on after errors", function()
    assert.are.equal("> 3\n> 4\n> >> >> 5\n> \n", repl "1 + 2\n= 4\nfor i = 5, 5 do\nprint(i)\nend\n")
    local text = repl "error [[x]]\nprint [[on]]\n"
    assert.is_truthy(text:find("stdin:1: x", 1, true) and text:find("on\n", 1, true), text)
  end)

  it("goes on after a kill of main, which ends its chunk", function()
    local text = sh [[{ echo 'g = require "green" g.main():kill() g.sleep(0) print "no"'; sleep 0.1
      echo 'print(g.current() == g.main(), pcall(g.sleep, 0.001))'; } | $LUA -i]]
    assert.is_truthy(text:find("GreenletExit\n> true\ttrue\n> \n$"), text)
  end)

  it("lets greenlets run while it waits for a line", function()
    local text = sh [[{ echo 'g = require "green".spawn(function() io.write "ran " end)'; sleep 0.3
      echo 'print(g.dead)'; } | $LUA -i]]
    assert.is_truthy(text:find("ran > true\n", 1, true) or text:find("> ran true\n", 1, true), text)
  end)
end)
