--- `require` with green threads (D17): a greenlet that requires a module which
-- another one is loading waits for that load; stock Lua would run its body twice.
--
-- `require` itself is left alone, and so are its messages and results: what the
-- searchers find is wrapped. A load that fails wakes those who wait, and the
-- first of them tries itself. A module that requires itself, also by way of
-- another greenlet, is loaded again and again until the stack is full, as in
-- stock Lua: that is no wait.

local greenlet = require "green.core".greenlet

local loaded = package.loaded
local loading = {} -- name of a module -> { owner = greenlet, waiters = set of waiters }
local awaited = {} -- greenlet -> name of the module it waits for

-- Would waiting for `load` be waiting for oneself?
local function is_cycle(load, me)
  while load do
    if load.owner == me then return true end
    load = loading[awaited[load.owner]]
  end
  return false
end

local function stop_waiting(waiting)
  awaited[waiting.greenlet] = nil
  waiting.load.waiters[waiting.waiter] = nil
end

-- Waits until `load` has ended, however it did.
local function wait_for(load, name, me)
  local waiter = greenlet.waiter()
  local _ <close> = setmetatable({ greenlet = me, load = load, waiter = waiter }, { __close = stop_waiting })
  awaited[me] = name
  load.waiters[waiter] = true
  waiter:wait()
end

local function end_load(load)
  loading[load.name] = nil
  for waiter in pairs(load.waiters) do waiter:wake() end
end

local load_metatable = { __close = end_load }

-- Runs `loader` as the only one that loads `name`; `require` does the rest.
local function load_once(loader, name, data)
  local me = greenlet.current()
  local load = loading[name]
  while load and not is_cycle(load, me) do
    wait_for(load, name, me)
    if loaded[name] then return loaded[name] end
    load = loading[name]
  end
  if load then return loader(name, data) end
  local mine <close> = setmetatable({ name = name, owner = me, waiters = {} }, load_metatable)
  loading[name] = mine
  return loader(name, data)
end

-- pcall, so that messages of the searcher do not begin with a place in this file.
local function guarded(searcher)
  return function(name)
    local ok, loader, data = pcall(searcher, name)
    if not ok then error(loader, 0) end
    if type(loader) ~= "function" then return loader, data end
    return function(...) return load_once(loader, ...) end, data
  end
end

-- Once for a Lua state, also when this module is loaded again (busted forgets
-- modules between files): of two layers each would see half of a cycle, and wait.
local registry = debug.getregistry()
if not registry["green.require"] then
  registry["green.require"] = true
  for i, searcher in ipairs(package.searchers) do package.searchers[i] = guarded(searcher) end
end

return true
