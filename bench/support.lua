--- What the benchmarks share: rounds of the things compared take turns, so
-- that both meet the same machine; the least CPU time of each counts, since
-- everything that disturbs a round makes it longer.

local M = {}

--- Prints one figure.
function M.put(name, metric, value, unit)
  io.write(("%-22s %-12s %10.3f %s\n"):format(name, metric, value, unit))
  io.stdout:flush()
end

--- Calls each of `contestants`, { name, fn }, `rounds` times by turns; fn
--- returns how many units it did in how many seconds of its own. Returns
--- name -> least nanoseconds a unit.
function M.compare(rounds, contestants)
  local least = {}
  for _ = 1, rounds do
    for _, contestant in ipairs(contestants) do
      local name, fn = contestant[1], contestant[2]
      collectgarbage()
      local units, seconds = fn()
      least[name] = math.min(least[name] or math.huge, seconds / units * 1e9)
    end
  end
  return least
end

--- compare() of "green" with one other, printed with the ratio and its target.
function M.duel(name, rounds, green_fn, other, other_fn, target)
  local least = M.compare(rounds, { { "green", green_fn }, { other, other_fn } })
  M.put(name, "green", least.green, "ns")
  M.put(name, other, least[other], "ns")
  M.put(name, "ratio", least.green / least[other], ("of %s; target %.2f"):format(other, target))
end

return M
