/*
 * green.config: the settings of a universe. May use the hub.
 */
#include <math.h>
#include <string.h>

#include "lcheck.h"
#include "lrecord.h"

/* Takes a number of seconds from field `name` of the table at 1, if it is there. */
static void take_seconds(lua_State *L, const char *name, double *value) {
  if (lua_getfield(L, 1, name) != LUA_TNIL) {
    double seconds = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : NAN;
    if (!(seconds >= 0 && seconds < DEADLINE_NEVER))
      luaL_error(L, "bad field '%s' in argument #1 to 'config' (seconds expected, got %s)", name,
                 luaL_tolstring(L, -1, NULL));
    *value = seconds;
  }
  lua_pop(L, 1);
}

static void take_boolean(lua_State *L, const char *name, bool *value) {
  int type = lua_getfield(L, 1, name);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN)
    luaL_error(L, "bad field '%s' in argument #1 to 'config' (boolean expected, got %s)", name,
               luaL_typename(L, -1));
  if (type == LUA_TBOOLEAN) *value = lua_toboolean(L, -1);
  lua_pop(L, 1);
}

static const char *const config_names[] = {"shield", "spawn_places", NULL};

static void check_config_names(lua_State *L) {
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    const char *name = lua_tostring(L, -1);
    int i = 0;
    while (config_names[i] && name && strcmp(name, config_names[i]) != 0) i++;
    if (!name || !config_names[i])
      luaL_error(L, "bad argument #1 to 'config' (unknown field '%s')", luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
  }
}

/*
---Sets what is given, and returns what is in force. `shield`: seconds that a
---cleanup may wait after a kill. `spawn_places`: whether each greenlet remembers
---where it was spawned, for reports of its failure; true, at a sixth of what a
---spawn costs.
---@param values? {shield?: number, spawn_places?: boolean}
---@return {shield: number, spawn_places: boolean}
*/
static int l_config(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  if (!lua_isnoneornil(L, 1)) {
    luaL_checktype(L, 1, LUA_TTABLE);
    check_config_names(L);
    take_seconds(L, "shield", &u->shield);
    take_boolean(L, "spawn_places", &u->notes_spawner);
  }
  lua_createtable(L, 0, 2);
  lua_pushnumber(L, u->shield);
  lua_setfield(L, -2, "shield");
  lua_pushboolean(L, u->notes_spawner);
  lua_setfield(L, -2, "spawn_places");
  return 1;
}

void lconfig_open(lua_State *L, int module) {
  lua_pushcfunction(L, l_config);
  lua_setfield(L, module, "config");
}
