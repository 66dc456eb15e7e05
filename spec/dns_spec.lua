--- Names to addresses (ACCEPTANCE 14, DN1-DN6), against a real dnsmasq on
-- loopback. What a server can do wrong is in spec/c/resolver_test.c.

local green = require "green"
local dns = require "green.dns"
local support = require "spec.support"
local dnsmasq = require "spec.support.dnsmasq"
local it = support.it

green.sleep(0) -- the hub takes its own stack at the first wait: before anything is counted

-- A scope in which lookups ask `address` alone, with little patience.
local function asking(address)
  dns.config { timeout = 0.2, tries = 2 }
  dns.servers(address)
  return setmetatable({}, {
    __close = function()
      dns.config { timeout = 2, tries = 2 }
      dns.servers(nil)
    end,
  })
end

local function addresses(list)
  local found = {}
  for i, entry in ipairs(list) do found[i] = entry.addr end
  table.sort(found)
  return found
end

-- The system resolver's IPv4 addresses, sorted; nil when it has none.
local function of_the_system(name)
  local pipe = assert(io.popen("getent ahostsv4 '" .. name .. "'"))
  local found, seen = {}, {}
  for address in pipe:read("a"):gmatch("(%S+)[^\n]*\n") do
    if not seen[address] then found[#found + 1] = address end
    seen[address] = true
  end
  pipe:close()
  table.sort(found)
  return #found > 0 and found or nil
end

local RECORDS = {
  ["www.test"] = { "10.0.0.1", "fd00::1" },
  ["four.test"] = { "10.0.0.4" },
  ["many.test"] = { "10.0.0.11", "10.0.0.12", "10.0.0.13" },
}

describe("dns: what needs no server", function()
  it("DN1 numbers and names of the hosts file are the system resolver's", function()
    local names = { "localhost", "127.0.0.1", "255.255.255.255", "127.1", "0x7f.1", "2130706433" }
    for line in io.lines("/etc/hosts") do
      local address, rest = line:gsub("#.*", ""):match("^%s*([%d.]+)%s+(.*)")
      for name in (address and rest or ""):gmatch("%S+") do names[#names + 1] = name end
    end
    for _, name in ipairs(names) do
      local list = assert(dns.getaddrinfo(name, "inet"))
      assert.are.same(of_the_system(name), addresses(list), name)
    end
  end)

  it("DN6 numbers in all forms, scopes, and families that do not fit", function()
    local table_of_the_manual = {
      { "127.1", nil, "inet 127.0.0.1" }, { "0x7f.1", nil, "inet 127.0.0.1" },
      { "0177.0.0.1", nil, "inet 127.0.0.1" }, { "2130706433", nil, "inet 127.0.0.1" },
      { "::1", nil, "inet6 ::1" }, { "fe80::1%lo", nil, "inet6 fe80::1%lo" },
      { "::ffff:1.2.3.4", "inet", "inet 1.2.3.4" },
      { "127.0.0.1", "inet6", nil }, { "::1", "inet", nil }, { "b\u{fc}cher.test", nil, nil },
      { "", nil, nil }, { "a..b", nil, nil }, { "a b", nil, nil }, { "localhost\0.evil", nil, nil },
      { ("a"):rep(64), nil, nil }, { ("a."):rep(127) .. "a", nil, nil },
    }
    for _, row in ipairs(table_of_the_manual) do
      local list, message, code = dns.getaddrinfo(row[1], row[2])
      if row[3] then
        assert.are.equal(row[3], list[1].family .. " " .. list[1].addr)
        assert.are.equal(1, #list)
      else
        assert.is_nil(list, row[1])
        assert.are.equal("host or service not provided, or not known", message)
        assert.are.equal("EAI_NONAME", code)
      end
    end
  end)

  it("DN6 localhost and what is below it is loopback, in both families", function()
    for _, name in ipairs { "localhost", "localhost.", "x.localhost", "A.LocalHost." } do
      assert.are.same({ "127.0.0.1", "::1" }, addresses(dns.getaddrinfo(name)), name)
      assert.are.same({ "127.0.0.1" }, addresses(dns.getaddrinfo(name, "inet")))
      assert.are.same({ "::1" }, addresses(dns.getaddrinfo(name, "inet6")))
    end
  end)

  it("T33 a hostile name is refused at once", function()
    local taken, list = support.timed(dns.getaddrinfo, "www.test\n10.0.0.1")
    assert.is_nil(list)
    assert.is_true(taken < 0.5)
  end)
end)

describe("dns: lookups", function()
  it("DN1 getaddrinfo and toip have LuaSocket's shapes and words", function()
    local server <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking(server.address)
    assert.are.same({ { family = "inet", addr = "10.0.0.4" } }, dns.getaddrinfo("four.test"))
    local ip, all = dns.toip("four.test")
    assert.are.equal("10.0.0.4", ip)
    assert.are.same({ name = "four.test", alias = {}, ip = { "10.0.0.4" } }, all)
    assert.are.same({ "10.0.0.1", "fd00::1" }, addresses(dns.getaddrinfo("WWW.test.")))
    assert.are.same({ "fd00::1" }, addresses(dns.getaddrinfo("www.test", "inet6")))
    assert.are.same({ "10.0.0.11", "10.0.0.12", "10.0.0.13" },
      addresses(dns.getaddrinfo("many.test")))
    assert.are.same({ nil, "host not found", "EAI_NONAME" }, { dns.toip("missing.test") })
    assert.are.same({ nil, "host or service not provided, or not known", "EAI_NONAME" },
      { dns.getaddrinfo("missing.test") })
    assert.are.same({ nil, "temporary failure in name resolution", "EAI_AGAIN" },
      { dns.getaddrinfo("refused.example") })
  end)

  it("DN2 a silent server ends in EAI_AGAIN, and others run meanwhile", function()
    local server <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking(server.address)
    server:pause()
    local ticks = 0
    local ticker <close> = setmetatable({ g = green.spawn(function()
      while true do green.sleep(0.01) ticks = ticks + 1 end
    end) }, { __close = function(self) self.g:kill() end })
    local taken, list, message, code = support.timed(dns.getaddrinfo, "www.test")
    assert.is_nil(list)
    assert.are.equal("temporary failure in name resolution", message)
    assert.are.equal("EAI_AGAIN", code)
    assert.is_true(taken > 0.5 and taken < 5) -- 0.2 and 0.4 s
    assert.is_true(ticks > 10)
    assert.is_false(ticker.g:ready())
  end)

  it("DN2 a timeout interrupts a storm of lookups", function()
    local server <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking(server.address)
    server:pause()
    local lookups = {}
    for i = 1, 20 do
      lookups[i] = green.spawn(function()
        return green.with_timeout(0.05, dns.getaddrinfo, ("storm%d.test"):format(i), "inet")
      end)
    end
    local taken, ended = support.timed(green.joinall, lookups)
    assert.are.equal(20, #ended)
    assert.is_true(taken < 0.5)
    for _, g in ipairs(lookups) do
      assert.are.same({ nil, "timeout", "ETIMEDOUT" }, { g:get() })
    end
  end)

  it("DN4 a dead server costs one timeout, then none", function()
    local dead <close> = dnsmasq.start(RECORDS)
    local good <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking { dead.address, good.address }
    dead:pause()
    assert.are.equal("10.0.0.4", dns.toip("four.test"))
    local taken = support.timed(function()
      for _, name in ipairs { "www.test", "many.test" } do assert(dns.toip(name)) end
    end)
    assert.is_true(taken < 0.2)
  end)

  it("DN5 of 100 waiters 99 are killed: the last gets the answer, the next asks nobody", function()
    local server <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking(server.address)
    dns.config { timeout = 5 }
    server:pause()
    local waiters = {}
    for i = 1, 100 do waiters[i] = green.spawn(dns.toip, "www.test") end
    green.sleep(0)
    local last = table.remove(waiters)
    green.killall(waiters)
    for _, g in ipairs(waiters) do assert.is_true(g:ready()) end
    assert.is_false(last:ready())
    server:resume()
    assert.are.equal("10.0.0.1", (last:get()))
    assert.are.equal("10.0.0.1", (dns.toip("www.test")))
    assert.are.equal(1, server:questions("www.test", "A"))
  end)

  it("DN5 a kill that is pending when the answer is known", function()
    local server <close> = dnsmasq.start(RECORDS)
    local _ <close> = asking(server.address)
    assert(dns.toip("www.test"))
    local reached = false
    local g = green.spawn(function()
      local me <close> = setmetatable({}, {
        __close = function() reached = dns.toip("www.test") end,
      })
      green.sleep(10)
      return me
    end)
    green.sleep(0)
    g:kill()
    assert.are.equal("10.0.0.1", reached)
    assert.are.equal(1, server:questions("www.test", "A"))
  end)

  it("DN9 other servers know other answers, and what was known is forgotten", function()
    local one <close> = dnsmasq.start(RECORDS)
    local other <close> = dnsmasq.start { ["www.test"] = { "10.9.9.9" } }
    local _ <close> = asking(one.address)
    assert.are.equal("10.0.0.1", (dns.toip("www.test")))
    assert.are.same({ other.address }, dns.servers { other.address })
    assert.are.equal("10.9.9.9", (dns.toip("www.test")))
  end)
end)

describe("dns: a process of its own", function()
  local function toip_of(name, env)
    return support.succeeds(('print((require "green.dns".toip(%q)))'):format(name), { env = env })
  end

  it("GREENLUA_DNS_SERVERS names the servers", function()
    local server <close> = dnsmasq.start(RECORDS)
    assert.are.equal("10.0.0.4\n", toip_of("four.test", { GREENLUA_DNS_SERVERS = server.address }))
  end)

  it("DN4 the search list is walked, past a refusal too", function()
    local server <close> = dnsmasq.start(RECORDS)
    local env = { GREENLUA_DNS_SERVERS = server.address, LOCALDOMAIN = "none.test test" }
    assert.are.equal("10.0.0.4\n", toip_of("four", env))
    assert.are.equal("nil\n", toip_of("four.", env))
    env.RES_OPTIONS = "ndots:0" -- now the bare name is asked first, and refused
    assert.are.equal("10.0.0.4\n", toip_of("four", env))
  end)

  it("a connect with timeout 0 does not wait, and finds the answer later", function()
    local server <close> = dnsmasq.start(RECORDS)
    local out = support.succeeds([[
      local green, socket = require "green", require "green.socket"
      local turns = 0
      local other = green.spawn(function() while true do turns = turns + 1 green.sleep(0) end end)
      green.sleep(0)
      local function connect(name)
        local before = turns
        local s <close> = socket.tcp()
        s:settimeout(0)
        local _, message = s:connect(name, 9)
        return message, turns - before
      end
      print(connect "none.test")
      setmetatable({}, { __gc = function() print(connect "four.test") end })
      collectgarbage()
      local message
      repeat green.sleep(0.01) message = connect "none.test" until message ~= "timeout"
      print(message)
      other:kill()
    ]], { env = { GREENLUA_DNS_SERVERS = server.address } })
    assert.are.equal("timeout\t0\ntimeout\t0\nhost or service not provided, or not known\n", out)
  end)

  it("DN5 the program ends while a query is open", function()
    local server <close> = dnsmasq.start(RECORDS)
    server:pause()
    local out = support.succeeds([[
      local green = require "green"
      print(green.with_timeout(0.05, require "green.dns".toip, "www.test"))
    ]], { env = { GREENLUA_DNS_SERVERS = server.address } })
    assert.are.equal("nil\ttimeout\tETIMEDOUT\n", out)
  end)
end)

describe("dns: misuse", function()
  it("raises errors that name function and argument", function()
    local function fails(pattern, fn, ...)
      local ok, message = pcall(fn, ...)
      assert.is_false(ok)
      assert(message:find(pattern), message)
    end
    fails("#1 to '.*getaddrinfo' %(string expected, got table%)", dns.getaddrinfo, {})
    fails("#2 to '.*getaddrinfo' %(invalid option 'ipx'%)", dns.getaddrinfo, "a.test", "ipx")
    fails("#1 to '.*toip' %(string expected, got no value%)", dns.toip)
    fails("#1 to 'servers' %(string expected, got boolean%)", dns.servers, true)
    fails("#1 to 'servers' %(addresses .* expected, got 'nonsense'%)", dns.servers, "nonsense")
    fails("#1 to 'servers'", dns.servers, {})
    fails("#1 to 'servers'", dns.servers, { "127.0.0.1", false })
    fails("unknown option 'timeuot'", dns.config, { timeuot = 1 })
    fails("greater than 0", dns.config, { tries = 0 })
    fails("at most 60 seconds", dns.config, { timeout = math.huge })
  end)

  it("leaves the settings as they were", function()
    local before = dns.config()
    pcall(dns.config, { timeout = 100 })
    assert.are.same(before, dns.config())
    local servers = dns.servers()
    pcall(dns.servers, "127.0.0.1:0")
    assert.are.same(servers, dns.servers())
  end)
end)
