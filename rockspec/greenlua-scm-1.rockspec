rockspec_format = "3.0"
package = "greenlua"
version = "scm-1"

source = {
  url = "git+file://.", -- `luarocks make` in a checkout; there is no other way yet
}

description = {
  summary = "Green threads for Lua: write sequential code, run it concurrently",
  detailed = [[
greenlua gives Lua 5.4 what gevent gives Python: greenlets on a libev loop, sockets, DNS and HTTP
that wait without blocking anybody else, inside any C call or coroutine. This rock holds the modules
for a stock lua5.4 and the greenlua command.]],
  license = "MIT",
}

supported_platforms = { "linux" }

dependencies = { "lua ~> 5.4" }

-- Named after Debian's packages, so that the message about a missing one tells
-- what to install. curl/curl.h (libcurl4-openssl-dev) lies where only the compiler
-- finds it: `make rock` checks for it. libcurl is opened when green.http is used.
external_dependencies = {
  LIBEV_DEV = { header = "ev.h", library = "libev.so" },
  LIBC_ARES_DEV = { header = "ares.h", library = "libcares.so" },
}

build = {
  type = "make",
  build_target = "rock",
  install_target = "install-rock",
  -- The command is linked with the system's Lua, so that nothing is fetched.
  build_variables = { LUA = "system", LUA_INC = "$(LUA_INCDIR)", BUILD = "build/rock" },
  install_variables = {
    LUA = "system",
    LUA_INC = "$(LUA_INCDIR)",
    BUILD = "build/rock",
    BINDIR = "$(BINDIR)",
    LIBDIR = "$(LIBDIR)",
    LUADIR = "$(LUADIR)",
  },
}
