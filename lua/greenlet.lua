--- Raw greenlets: stacks that hand control to each other by `switch`, as in
-- Python's greenlet. No loop, no scheduler: who switches says to whom.
--
--   local greenlet = require "greenlet"
--   local child = greenlet.new(function(word)
--     print(word, greenlet.current().parent:switch("ping"))
--   end)
--   print(child:switch("hello"))   --> ping
--   child:switch("pong")           --> hello   pong

local core = require "green.core".greenlet

return {
  new = core.new,
  current = core.current,
  settrace = core.settrace,
  exit = core.exit,
}
