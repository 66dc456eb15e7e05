--- Green threads: functions that run concurrently and wait without holding up
-- each other, written as sequential code.
--
--   local green = require "green"
--   local pool = {}
--   for _, url in ipairs(urls) do pool[#pool + 1] = green.spawn(download, url) end
--   green.joinall(pool)

local core = require "green.core"
local check = require "green.check"
require "green.require"

local greenlet, hub = core.greenlet, core.hub

-- In C, where their documentation is: src/lua/ltask.c, ltimeout.c, lgreenlet.c.
local M = {
  spawn = greenlet.spawn,
  spawn_later = greenlet.spawn_later,
  greenlet = greenlet.greenlet,
  sleep = greenlet.sleep,
  yield = greenlet.yield,
  current = greenlet.current,
  main = greenlet.main,
  hub = greenlet.hub,
  list = greenlet.list,
  timeout = greenlet.timeout,
  istimeout = greenlet.istimeout,
  iscancelled = greenlet.iscancelled,
}

-- ---- waiting for several ------------------------------------------------

-- Gives greenlets as they end. Each that has not ended yet carries one link of
-- ours, and loses it when it ends or when we are closed.
local Gathering = {}
Gathering.__index = Gathering

local function gather(list, options)
  local linked, ended, waiter = {}, {}, greenlet.waiter()
  local function on_end(g)
    linked[g] = nil
    ended[#ended + 1] = g
    waiter:wake()
  end
  local seen = {}
  for _, g in ipairs(list) do
    if g:ready() then
      if not seen[g] then ended[#ended + 1] = g end
    elseif not linked[g] then
      linked[g] = true
      g:watch(on_end)
    end
    seen[g] = true
  end
  table.sort(ended, function(a, b) return a:order() < b:order() end)
  return setmetatable({
    linked = linked,
    ended = ended, -- in the order of their ends
    given = 0,     -- how many of these `next` has given
    limit = options.count or math.huge,
    deadline = options.timeout and hub.update() + options.timeout,
    waiter = waiter,
    on_end = on_end,
  }, Gathering)
end

-- Waits for another end; false when there is none to come, or not in time.
function Gathering:wait()
  if not next(self.linked) then return false end
  local timeout = self.deadline and math.max(0, self.deadline - hub.update())
  return self.waiter:wait(timeout) == true
end

-- The next one that has ended, or nil.
function Gathering:next()
  while self.given < self.limit do
    local g = self.ended[self.given + 1]
    if g then
      self.given = self.given + 1
      return g
    end
    if not self:wait() and not self.ended[self.given + 1] then break end
  end
  self:close()
end

function Gathering:close()
  for g in pairs(self.linked) do g:unlink(self.on_end) end
  self.linked = {}
end

Gathering.__close = Gathering.close

-- Those that ended, once all have or `options` say that it is enough.
local function collect(list, options)
  local gathering <close> = gather(list, options)
  local ended = {}
  for g in gathering.next, gathering do
    ended[#ended + 1] = g
    if options.raise_error and not g:successful() then g:get() end
  end
  return ended
end

local WAIT_OPTIONS = { timeout = "seconds", count = "count" }
local JOINALL_OPTIONS = { timeout = "seconds", count = "count", raise_error = "boolean" }

--- Waits until all greenlets of a list have ended, or `count` of them, or
--- `timeout` seconds are over. Returns those that have, in the order of their ends.
--- With `raise_error` the first failure in time is raised, the same value; the
--- others run on.
---
--- ```lua
--- local ended = green.joinall({ green.spawn(work, 1), green.spawn(work, 2) }, { timeout = 5 })
--- ```
---@async
---@param list greenlet[]
---@param options? { timeout?: number, count?: integer, raise_error?: boolean }
---@return greenlet[] ended
function M.joinall(list, options)
  check.greenlets(list, 1, "joinall")
  options = check.options(options, JOINALL_OPTIONS, 2, "joinall")
  return collect(list, options)
end

--- With a list: as joinall, but never raises their errors. Without: waits until
--- the loop has nothing to do, that is, until nothing is left that could run.
---
--- ```lua
--- local done = green.wait(nil, { timeout = 10 })
--- ```
---@async
---@param list? greenlet[]
---@param options? { timeout?: number, count?: integer }
---@return greenlet[]|boolean ended  without a list: false when the timeout was over first
function M.wait(list, options)
  options = check.options(options, WAIT_OPTIONS, 2, "wait")
  if list == nil then return hub.wait(options.timeout) end
  check.greenlets(list, 1, "wait")
  return collect(list, options)
end

--- Iterates over greenlets as they end, those that had ended before first. Leaving
--- the loop early leaves no link behind; who calls the iterator without a loop
--- closes the fourth value, or goes on until nil.
---
--- ```lua
--- for g in green.iwait(pool, { timeout = 5 }) do print(g.name, g.value) end
--- ```
---@async
---@param list greenlet[]
---@param options? { timeout?: number, count?: integer }
---@return fun(): greenlet? next
---@return nil state
---@return nil control
---@return table closing  to be closed
function M.iwait(list, options)
  check.greenlets(list, 1, "iwait")
  options = check.options(options, WAIT_OPTIONS, 2, "iwait")
  local gathering = gather(list, options)
  return function() return gathering:next() end, nil, nil, gathering
end

-- ---- killing ------------------------------------------------------------

--- Kills a greenlet: `g:kill(...)`.
---
--- ```lua
--- assert(green.kill(g, greenlet.exit, true, 5))
--- ```
---@async
---@param g greenlet
---@param err? any  raised in it; default `greenlet.exit`
---@param block? boolean  wait for its end; default true
---@param timeout? number  seconds to wait
---@return true|nil ended
---@return string? message  "timeout"
---@return string? code  "ETIMEDOUT"
function M.kill(g, err, block, timeout)
  check.greenlet(g, 1, "kill")
  return g:kill(err, block, timeout)
end

local KILLALL_OPTIONS = { block = "boolean", timeout = "seconds" }

--- Kills all greenlets of a list at once, and waits for their ends together. The
--- caller, if it is among them, is the last.
---
--- ```lua
--- green.killall(pool, nil, { timeout = 5 })
--- ```
---@async
---@param list greenlet[]
---@param err? any  raised in them; default `greenlet.exit`
---@param options? { block?: boolean, timeout?: number }  block: default true
---@return true|nil ended
---@return string? message  "timeout"
---@return string? code  "ETIMEDOUT"
function M.killall(list, err, options)
  check.greenlets(list, 1, "killall")
  options = check.options(options, KILLALL_OPTIONS, 3, "killall")
  local me, kill_me = greenlet.current(), false
  for _, g in ipairs(list) do
    if g == me then kill_me = true else g:kill(err, false) end
  end
  if kill_me then me:kill(err) end
  if options.block == false then return true end
  collect(list, { timeout = options.timeout })
  for _, g in ipairs(list) do
    if not g:ready() then return nil, "timeout", "ETIMEDOUT" end
  end
  return true
end

-- ---- timeouts -----------------------------------------------------------

-- The scope ends before the catcher returns: a timeout that is raised in here
-- is then an ordinary error to it (D7).
local function call_in(scope, fn, ...)
  local _ <close> = scope
  return fn(...)
end

local function settle(scope, ok, ...)
  if ok then return ... end
  local err = ...
  if err == scope then return nil, "timeout", "ETIMEDOUT" end
  error(err, 0)
end

--- Calls `fn(...)` and gives it `seconds`. Returns its results, or nil, "timeout",
--- "ETIMEDOUT". Other errors, timeouts of outer scopes among them, pass through.
---
--- ```lua
--- local line, message = green.with_timeout(5, sock.receive, sock)
--- ```
---@async
---@param seconds? number  nil: no limit
---@param fn function
---@param ... any  its arguments
---@return any ...
function M.with_timeout(seconds, fn, ...)
  if seconds ~= nil then check.seconds(seconds, 1, "with_timeout") end
  check.callable(fn, 2, "with_timeout")
  local scope = greenlet.timeout(seconds)
  return settle(scope, pcall(call_in, scope, fn, ...))
end

-- ---- settings and figures -----------------------------------------------

--- Changes settings, and returns all as they are then: `slice`, how long ready
--- greenlets may run before the loop looks for events; `shield`, how long the
--- cleanup of a killed greenlet may wait, both in seconds; `spawn_places`, whether
--- a greenlet remembers where it was spawned, for the report of its failure.
---
--- ```lua
--- green.config { shield = 30 }
--- ```
---@param options? { slice?: number, shield?: number, spawn_places?: boolean }
---@return { slice: number, shield: number, spawn_places: boolean }
function M.config(options)
  options = check.options(options, { slice = "seconds", shield = "seconds", spawn_places = "boolean" }, 1,
    "config")
  local current = greenlet.config { shield = options.shield, spawn_places = options.spawn_places }
  current.slice = hub.slice(options.slice)
  return current
end

--- Counts of what lives, for tests and reports.
---
--- ```lua
--- print(green.stats().greenlets)
--- ```
---@return { greenlets: integer, stacks: integer, free_stacks: integer, watchers: integer }
function M.stats()
  local stats = greenlet.stats()
  stats.watchers = hub.watchers()
  return stats
end

return M
