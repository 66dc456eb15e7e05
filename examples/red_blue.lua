-- The example that greenlet's manual opens with: two bodies that hand control
-- to each other. It prints "red", "blue", "red done"; "blue done" is never
-- reached, since the end of `first` returns to its parent, the main greenlet.

local greenlet = require "greenlet"

local first, second

first = greenlet.new(function()
  print "red"
  second:switch()
  print "red done"
end)

second = greenlet.new(function()
  print "blue"
  first:switch()
  print "blue done"
end)

first:switch()
