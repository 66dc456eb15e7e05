--- What must be back where it was when a spec has ended (STYLE, 'Specs'):
-- greenlets, watchers, descriptors, stacks, Lua bytes, and a silent stderr.

local lfs = require "lfs"
local green = require "green"

local M = {}

-- Less than this is no leak. Lua's table of short strings doubles when a spec
-- interns many, by 64 KiB at the size that it has here, and shrinks only when it
-- is three quarters empty (lstring.c, growstrtab; lgc.c, checkSizes); tables of
-- luassert grow. A forgotten greenlet is also counted by itself.
local BYTES_TOLERATED = 128 * 1024

-- How long what ends by itself (unwinding of collected greenlets, closing in
-- the next turn of the loop) may take. Ends a wait, decides nothing.
local SETTLE_LIMIT = 2

-- What is made once and kept (the hub's stack, pooled Lua threads) exists before
-- anything is counted.
local function warm_up()
  local tasks = {}
  for i = 1, 300 do tasks[i] = green.spawn(green.sleep, 0) end
  green.joinall(tasks)
  green.sleep(0.001)
end

warm_up()

--- number of the descriptor -> what it is, without the one that lists them.
function M.descriptors()
  local found = {}
  for entry in lfs.dir("/proc/self/fd") do
    if entry:match("^%d+$") then
      found[entry] = lfs.symlinkattributes("/proc/self/fd/" .. entry, "target")
    end
  end
  for entry, target in pairs(found) do
    -- the directory stream that was open while it was read: /proc/PID/fd
    if target == nil or target:match("^/proc/%d+/fd$") then found[entry] = nil end
  end
  return found
end

-- When stderr is a regular file (`2>FILE`, as `make test` does), its size tells
-- whether something was reported; a terminal or a pipe cannot be asked.
local function stderr_size()
  io.stderr:flush()
  local attributes = lfs.attributes("/proc/self/fd/2")
  if attributes and attributes.mode == "file" then return attributes.size end
  return nil
end

local function stderr_since(size)
  local path = lfs.symlinkattributes("/proc/self/fd/2", "target")
  local file = path and io.open(path, "rb")
  if not file then return "(cannot be read)" end
  file:seek("set", size)
  local text = file:read("a")
  file:close()
  return text
end

local function collect()
  collectgarbage()
  collectgarbage()
end

--- Everything countable, now.
function M.snapshot()
  collect()
  local stats = green.stats()
  local alive = {}
  for _, g in ipairs(green.list()) do alive[g] = true end
  local snapshot = {
    alive = alive,
    stacks = stats.stacks,
    watchers = stats.watchers,
    descriptors = M.descriptors(),
    stderr = stderr_size(),
  }
  snapshot.bytes = collectgarbage("count") * 1024
  return snapshot
end

local function greenlets_left(before)
  local names = {}
  for _, g in ipairs(green.list()) do
    if not before.alive[g] then names[#names + 1] = tostring(g) end
  end
  if #names > 0 then
    local first = table.concat(names, ", ", 1, math.min(#names, 5))
    return ("%d greenlets left: %s"):format(#names, first)
  end
end

local function descriptors_left(before)
  local names = {}
  for number, target in pairs(M.descriptors()) do
    if before.descriptors[number] ~= target then
      names[#names + 1] = number .. " -> " .. target
    end
  end
  if #names > 0 then return "descriptors left: " .. table.concat(names, ", ") end
end

local function count_left(what, was, is)
  if was and is and is > was then return ("%s left: %d, were %d"):format(what, is, was) end
end

-- A Lua stack that was deep once is halved by each cycle (lgc.c, traversethread;
-- ldo.c, luaD_shrinkstack): collect as long as that helps.
local function settled_bytes()
  local bytes, before = collectgarbage("count"), math.huge
  while bytes < 0.9 * before do
    before = bytes
    collect()
    bytes = collectgarbage("count")
  end
  return bytes * 1024
end

local function bytes_left(before, tolerated)
  local bytes = settled_bytes()
  if bytes > before.bytes + tolerated then
    return ("%d bytes of Lua memory left"):format(bytes - before.bytes)
  end
end

local function first_leak(before, tolerated)
  collect()
  local stats = green.stats()
  return greenlets_left(before)
    or count_left("stacks", before.stacks, stats.stacks)
    or count_left("watchers", before.watchers, stats.watchers)
    or descriptors_left(before)
    or bytes_left(before, tolerated)
end

--- What has not come back since `before`, as a text, or nil. Gives the loop
--- time to finish what ends by itself.
---@param before table  of `snapshot`
---@param tolerated? integer  bytes of Lua memory that may stay
function M.since(before, tolerated)
  tolerated = tolerated or BYTES_TOLERATED
  local clock = require("system").monotime
  local limit = clock() + SETTLE_LIMIT
  local leak = first_leak(before, tolerated)
  while leak and clock() < limit do
    green.sleep(0.002)
    leak = first_leak(before, tolerated)
  end
  if leak then return leak end
  local size = stderr_size()
  if size and before.stderr and size > before.stderr then
    return "on stderr: " .. stderr_since(before.stderr)
  end
end

return M
