/* Running chunks: as lua5.4 does, with its messages. */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

static const char *progname; /* stands before messages; main.c sets it */

const char *chunk_progname(const char *name) {
  const char *old = progname;
  progname = name;
  return old;
}

/* Message handler: a string gets a traceback. An object stays what it is, since
** it is what the variables to be closed are told (D7); chunk_report words it. */
static int add_traceback(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING && lua_type(L, 1) != LUA_TNUMBER) return 1;
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

int chunk_call(lua_State *L, int nargs, int nresults) {
  int handler = lua_gettop(L) - nargs;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, handler);
  int status = lua_pcall(L, nargs, nresults, handler);
  lua_remove(L, handler);
  return status;
}

/* Pushes an error as lua5.4 words it. */
static const char *push_text(lua_State *L, int error) {
  if (lua_isstring(L, error)) {
    lua_pushvalue(L, error);
    return lua_tostring(L, -1);
  }
  if (luaL_callmeta(L, error, "__tostring")) {
    if (lua_type(L, -1) == LUA_TSTRING) return lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  return lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, error));
}

int chunk_report(lua_State *L, int status) {
  if (status == LUA_OK) return status;
  const char *message = push_text(L, lua_gettop(L));
  fflush(stdout); /* what the program wrote comes first, also in a merged log */
  fprintf(stderr, "%s%s%s\n", progname ? progname : "", progname ? ": " : "", message);
  fflush(stderr);
  lua_pop(L, 2);
  return status;
}

int chunk_string(lua_State *L, const char *code, const char *name) {
  int status = luaL_loadbuffer(L, code, strlen(code), name);
  if (status == LUA_OK) status = chunk_call(L, 0, 0);
  return chunk_report(L, status);
}

int chunk_file(lua_State *L, const char *path, const char *mode, int nargs) {
  int status = luaL_loadfilex(L, path, mode);
  if (status == LUA_OK) {
    lua_insert(L, -1 - nargs);
    status = chunk_call(L, nargs, 0);
  } else {
    lua_insert(L, -1 - nargs);
    lua_pop(L, nargs);
  }
  return chunk_report(L, status);
}

/* "mod", "g=mod", or "mod-suffix", whose global is "mod". */
int chunk_library(lua_State *L, const char *spec) {
  const char *equals = strchr(spec, '=');
  const char *module = equals ? equals + 1 : spec;
  size_t n = equals ? (size_t)(equals - spec) : strcspn(spec, "-");
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  int status = chunk_call(L, 1, 1);
  if (status == LUA_OK) {
    const char *global = lua_pushlstring(L, spec, n);
    lua_insert(L, -2);
    lua_setglobal(L, global);
    lua_pop(L, 1);
  }
  return chunk_report(L, status);
}
