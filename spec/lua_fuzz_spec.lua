--- Random nests of everything that catches, killed and timed out at random
--- (ACCEPTANCE 20, LU16): every to-be-closed variable is closed once, in
--- reverse order, and every greenlet is dead in the end.
--
-- Quick by default; GREENLUA_FUZZ=n asks for n variables, GREENLUA_SEED=n
-- replays. All choices come from the seed and all waits are turns of the run
-- queue, so a failure's seed repeats it.

local greenlet = require "greenlet"
local green = require "green"
local support = require "spec.support"

local VARIABLES = tonumber(os.getenv("GREENLUA_FUZZ")) or 3000
local SEED = tonumber(os.getenv("GREENLUA_SEED")) or os.time()

-- A generator of one's own: math.random's state is everybody's.
local function random_source(seed)
  local state = seed % 0x7fffffff + 1
  return function(n)
    state = state * 48271 % 0x7fffffff
    return state % n + 1
  end
end

local CONSTRUCTS = {
  function(go) pcall(go) end,
  function(go) xpcall(go, function(e) return e end) end,
  function(go) xpcall(go, function() return "replaced by the handler" end) end,
  function(go) xpcall(go, debug.traceback) end,
  function(go) table.sort({ 2, 1 }, go) end,
  function(go) pcall(table.sort, { 3, 1, 2 }, go) end,
  function(go) string.gsub("x", ".", go) end,
  function(go) coroutine.wrap(go)() end,
  function(go) pcall(coroutine.wrap(go)) end,
  function(go)
    -- an ordinary error leaves a coroutine's variables open until it is closed
    local co = coroutine.create(go)
    coroutine.resume(co)
    coroutine.close(co)
  end,
  function(go) load(go) end,
  function(go) tostring(setmetatable({}, { __tostring = function() go() return "" end })) end,
  function(go) return setmetatable({}, { __index = go }).x end,
  function(go) for _ in go do break end end, -- luacheck: ignore 512 (left early)
  function(go)
    local _ <close> = setmetatable({}, { __close = go })
  end,
  function(go)
    local co = coroutine.create(function()
      local _ <close> = setmetatable({}, { __close = go })
      coroutine.yield()
    end)
    coroutine.resume(co)
    pcall(coroutine.close, co)
  end,
}

-- What a cleanup may do besides noting that it ran.
local CLEANUPS = {
  function() end,
  function() pcall(green.sleep, 0) end,
  function() pcall(error, "inside a cleanup") end,
  function() collectgarbage("step") end,
  function() pcall(function() pcall(green.sleep, 0) error("x") end) end,
  function() green.sleep(0) end,
  function() coroutine.wrap(function() pcall(green.sleep, 0) end)() end,
  function() error("raised by a cleanup", 0) end,
  function() for _ = 1, 3 do pcall(green.sleep, 0) end end,
}

-- One greenlet's record: the stack of its open variables, and what went wrong.
local function new_nest(random, plan)
  local nest = { open = {}, opened = 0, wrong = nil, plan = plan }

  local function closing()
    local id = nest.opened + 1
    local cleanup = CLEANUPS[random(plan.cleanups)]
    nest.opened = id
    nest.open[#nest.open + 1] = id
    return setmetatable({}, { __close = function()
      local top = table.remove(nest.open)
      if top ~= id then
        nest.wrong = nest.wrong or ("variable %d closed, %s was due"):format(id, tostring(top))
      end
      cleanup()
    end })
  end

  local function wait()
    if nest.opened > 60 then error("enough") end -- loops that time out again and again
    if random(3) == 1 then green.sleep(0) else green.sleep(10) end
  end

  local function level(depth)
    local _ <close> = closing()
    local t
    if plan.timeouts and random(4) == 1 then t = green.timeout(random(4) / 1000) end
    local _ <close> = t
    if depth == 0 then
      repeat wait() until false
    end
    CONSTRUCTS[random(#CONSTRUCTS)](function()
      level(depth - 1)
      return nil
    end)
    if not plan.timeouts then nest.wrong = nest.wrong or "it went on after the kill" end
  end

  nest.body = function() level(random(7)) end
  return nest
end

local function check(nest, g)
  assert(g.dead, "a greenlet is alive")
  assert(not nest.wrong, nest.wrong)
  assert(#nest.open == 0, #nest.open .. " variables were not closed")
end

-- Starts a dozen nests, kills them at random, and checks. Returns how many
-- variables that were.
local function round(random, plan)
  local nests, tasks, variables = {}, {}, 0
  for i = 1, 12 do
    nests[i] = new_nest(random, plan)
    tasks[i] = green.spawn(nests[i].body)
  end
  for _ = 1, random(4) do green.sleep(0) end
  if plan.timeouts then green.sleep(random(4) / 1000) end
  for i = 1, 12 do
    local reason = random(2) == 1 and greenlet.exit or { "a kill" }
    tasks[i]:kill(reason, false)
    if random(3) == 1 then green.sleep(0) end
  end
  local ended = green.joinall(tasks, { timeout = 10 })
  assert(#ended == 12, 12 - #ended .. " greenlets outlived their kill")
  for i = 1, 12 do
    local _ = tasks[i].error
    check(nests[i], tasks[i])
    variables = variables + nests[i].opened
  end
  return variables
end

local function fuzz(plan)
  local random = random_source(SEED)
  local ok, err = pcall(function()
    local variables = 0
    while variables < VARIABLES do variables = variables + round(random, plan) end
  end)
  if not ok then error(("GREENLUA_SEED=%d: %s"):format(SEED, tostring(err)), 0) end
end

describe("lua: fuzz", function()
  support.modes(function(it)
    it("LU16 killed at random", function() fuzz { cleanups = #CLEANUPS } end)

    it("LU16 timed out and killed at random", function()
      fuzz { cleanups = #CLEANUPS, timeouts = true }
    end)

    it("LU16 with a shield that is over at once", function()
      local previous = green.config().shield
      local _ <close> = setmetatable({}, { __close = function()
        green.config { shield = previous }
      end })
      green.config { shield = 0 }
      fuzz { cleanups = #CLEANUPS }
    end)
  end)
end)
