-- `make demo` shows what it promises: tools/demo runs the downloader against the
-- photo server and checks files, sums, time and memory itself.

local support = require "spec.support"
local it = support.it

local function demo(...)
  local slack = support.is_sanitized and "DEMO_SLACK=10 " or ""
  local words = { slack .. "timeout -s KILL 120 tools/demo", support.interpreter, ... }
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>&1"))
  local text = pipe:read("a")
  local _, _, status = pipe:close()
  return text, status
end

--- The command lines of all processes of this machine.
local function command_lines()
  local pipe <close> = assert(io.popen("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"))
  return pipe:read("a")
end

describe("tools/demo", function()
  it("fetches 1,000 photos in 1.5 times the ideal time and 60 MB, and stops the server", function()
    local text, status = demo()
    assert.are.equal(0, status, text)
    assert.is_truthy(text:find("\nphotos%s+1000 saved "), text)
    assert.is_truthy(text:find("\nchecked  1000 files, every checksum right"), text)
    local port = text:match("listening on http://127%.0%.0%.1:(%d+)")
    assert.is_nil(command_lines():find("--server http://127.0.0.1:" .. port, 1, true))
    local socket = require "green.socket"
    local client, message = socket.connect("127.0.0.1", tonumber(port))
    assert.is_nil(client)
    assert.are.equal("connection refused", message)
  end)

  it("holds with another number of transfers at a time", function()
    local text, status = demo("20")
    assert.are.equal(0, status, text)
  end)

  it("fails, and says why, when there is no such program", function()
    local pipe = assert(io.popen("tools/demo build/no-such-greenlua 2>&1"))
    local text = pipe:read("a")
    local _, _, status = pipe:close()
    assert.are.equal(1, status)
    assert.is_truthy(text:find("demo: the photo server ended", 1, true), text)
  end)
end)
