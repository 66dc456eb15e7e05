--- The event loop from below: watchers whose callbacks run in the hub, where
-- nothing may wait, and the loop's clock. Programs seldom need this; greenlets
-- and `green.sleep` say the same in sequence.
--
--   local loop = require "green.loop"
--   local timer <close> = loop.timer(0.1, 0.1)
--   timer:start(print, "tick")
--   green.sleep(1)

local hub = require "green.core".hub

---@class green.watcher
---@field active boolean     is it started?
---@field pending boolean    has an event come whose callback has not run yet?
---@field ref boolean        does it keep the loop alive while it is started? May be set; true at first
---@field callback? function what its last start was given
---@field events? "r"|"w"|"rw"  io: what the descriptor was last ready for
---@field error? string      io: "EBADF" when the descriptor was closed under it
---@field attr? table        stat: what is there: `{size=, mtime=, nlink=, mode=}`; nil: nothing
---@field prev? table        stat: what was there before

return {
  io = hub.io,
  timer = hub.timer,
  prepare = hub.prepare,
  check = hub.check,
  idle = hub.idle,
  async = hub.async,
  stat = hub.stat,
  run_callback = hub.run_callback,
  now = hub.now,
  update = hub.update,
}
