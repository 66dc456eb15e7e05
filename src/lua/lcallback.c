/*
 * A function and its arguments, kept in a userdata until the loop calls it.
 */
#include "lcallback.h"

#include <lauxlib.h>

void lcallback_check(lua_State *L, int arg, const char *fname, int shown) {
  if (lua_isfunction(L, arg)) return;
  if (luaL_getmetafield(L, arg, "__call") == LUA_TNIL)
    luaL_error(L, "bad argument #%d to '%s' (function expected, got %s)", shown, fname,
               lua_isnone(L, arg) ? "no value" : luaL_typename(L, arg));
  lua_pop(L, 1);
}

void lcallback_pack(lua_State *L, int first) {
  int nargs = lua_gettop(L) - first;
  if (nargs == 0) {
    lua_pushnil(L);
    return;
  }
  lua_createtable(L, nargs, 1);
  lua_insert(L, first + 1); /* function, table, arguments */
  for (int i = nargs; i > 0; i--) lua_rawseti(L, first + 1, i);
  lua_pushinteger(L, nargs); /* arguments may be nil */
  lua_setfield(L, first + 1, "n");
}

void lcallback_keep(lua_State *L, int owner) {
  owner = lua_absindex(L, owner);
  lua_setiuservalue(L, owner, LCALLBACK_ARGS);
  lua_setiuservalue(L, owner, LCALLBACK_FUNCTION);
}

void lcallback_drop(lua_State *L, int owner) {
  lua_pushvalue(L, owner);
  lua_pushnil(L);
  lua_pushnil(L);
  lcallback_keep(L, -3);
  lua_pop(L, 1);
}

int lcallback_push(lua_State *L, int owner) {
  owner = lua_absindex(L, owner);
  lua_getiuservalue(L, owner, LCALLBACK_FUNCTION);
  if (lua_getiuservalue(L, owner, LCALLBACK_ARGS) == LUA_TNIL) {
    lua_pop(L, 1);
    return 0;
  }
  lua_getfield(L, -1, "n");
  int nargs = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, nargs, "too many arguments of a callback");
  for (int i = 1; i <= nargs; i++) lua_rawgeti(L, -i, i);
  lua_remove(L, -nargs - 1);
  return nargs;
}
