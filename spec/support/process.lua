--- Runs Lua scripts in a fresh process of the interpreter that runs the specs.
--
-- For what can crash, abort, exit or print to stderr. May use: nothing of
-- greenlua, so that it works when greenlua does not.

local M = {}

--- The interpreter that runs this spec: the host or a stock `lua5.4`.
-- GREENLUA in the environment overrides it; otherwise it is what lies lowest in
-- `arg` (options of the interpreter stand between it and the script).
local function find_interpreter()
  local given = os.getenv("GREENLUA")
  if given and given ~= "" then return given end
  local index = 0
  while arg and arg[index - 1] do index = index - 1 end
  return index < 0 and arg[index] or "lua5.4"
end

M.interpreter = find_interpreter()

--- Is it the host, with the modules inside and Ctrl-C, exit status and so on?
M.is_host = M.interpreter:find("greenlua", 1, true) ~= nil

--- Was it built with AddressSanitizer? Then it is slower and larger.
local function has_sanitizer()
  local exe <close> = assert(io.open("/proc/self/exe", "rb"))
  return exe:read("a"):find("__asan_init", 1, true) ~= nil
end

M.is_sanitized = has_sanitizer()

local function quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

local function read_and_remove(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  os.remove(path)
  return text
end

local function write_temporary(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

--- Options of `run`, all may be missing.
---@class RunOptions
---@field args string[]       arguments of the script
---@field flags string[]      options of the interpreter, before the script
---@field env table           more environment: name -> value
---@field stdin string        what the script reads
---@field timeout number      seconds until it is killed, default 20

--- What `run` returns.
---@class RunResult
---@field stdout string
---@field stderr string
---@field status integer|nil  exit status; nil when a signal ended it
---@field signal integer|nil  the signal that ended it
---@field timedout boolean    it had to be killed

local function command_line(path, files, options)
  local words = { "exec env" }
  for name, value in pairs(options.env or {}) do
    words[#words + 1] = quote(name .. "=" .. value)
  end
  words[#words + 1] = ("timeout -s KILL %g"):format(options.timeout or 20)
  words[#words + 1] = quote(M.interpreter)
  for _, flag in ipairs(options.flags or {}) do words[#words + 1] = quote(flag) end
  words[#words + 1] = quote(path)
  for _, word in ipairs(options.args or {}) do words[#words + 1] = quote(word) end
  words[#words + 1] = ("<%s >%s 2>%s"):format(quote(files.stdin), quote(files.stdout),
                                              quote(files.stderr))
  return table.concat(words, " ")
end

--- Runs `script` (source text) as a file of its own.
---@param script string
---@param options? RunOptions
---@return RunResult
function M.run(script, options)
  options = options or {}
  local path = write_temporary(script)
  local files = {
    stdin = write_temporary(options.stdin or ""),
    stdout = os.tmpname(),
    stderr = os.tmpname(),
  }
  local _, how, code = os.execute(command_line(path, files, options))
  os.remove(path)
  os.remove(files.stdin)
  -- timeout(1) with -s KILL kills itself the same way, so a time limit shows as
  -- signal 9; nothing in these scripts sends that one.
  return {
    stdout = read_and_remove(files.stdout),
    stderr = read_and_remove(files.stderr),
    status = how == "exit" and code or nil,
    signal = how == "signal" and code or nil,
    timedout = (how == "signal" and code == 9) or (how == "exit" and code == 137),
  }
end

--- As `run`, and raises unless the script ended with status 0 in silence on
--- stderr. Returns its stdout.
---@param script string
---@param options? RunOptions
---@return string
function M.succeeds(script, options)
  local result = M.run(script, options)
  if result.status ~= 0 or result.stderr ~= "" then
    error(("the script ended with status %s, signal %s\nstdout: %s\nstderr: %s"):format(
      tostring(result.status), tostring(result.signal), result.stdout, result.stderr), 2)
  end
  return result.stdout
end

return M
