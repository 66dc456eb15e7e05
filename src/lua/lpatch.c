/*
 * What the standard library must know of greenlets: to a script, a greenlet's
 * own state is no coroutine that could be yielded (D1), and debug's functions
 * take a greenlet where they take a thread. May use the hub.
 */
#include <lualib.h>

#include "lcheck.h"
#include "lrecord.h"

/* The running greenlet if `L` is its own state and not a coroutine in it. */
static LGreenlet *at_base(lua_State *L) {
  LUniverse *u = universe();
  LGreenlet *lg = u ? running(u) : NULL;
  return lg && lg->T == L ? lg : NULL;
}

/*
---As in Lua; the own thread of a greenlet counts as a main one.
---@return thread
---@return boolean ismain
*/
static int l_running(lua_State *L) {
  LGreenlet *lg = at_base(L);
  bool ismain = lua_pushthread(L);
  if (lg) lg->handed = true;
  lua_pushboolean(L, lg || ismain);
  return 2;
}

/*
---As in Lua; false in a greenlet outside of its coroutines.
---@param co? thread
---@return boolean
*/
static int l_isyieldable(lua_State *L) {
  lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
  lua_pushboolean(L, !at_base(co) && lua_isyieldable(co));
  return 1;
}

/*
---As in Lua; an error in a greenlet outside of its coroutines.
---@param ... any
---@return any ...
*/
static int l_yield(lua_State *L) {
  if (at_base(L)) return luaL_error(L, "attempt to yield from outside a coroutine");
  return lua_yield(L, lua_gettop(L));
}

/* Runs the original, upvalue 1, in this call's own frame, so that levels count
** as before; a greenlet at 1 stands for the thread that it waits on. */
static int l_with_greenlet(lua_State *L) {
  LGreenlet *lg = lua_isuserdata(L, 1) && hub_current() ? lgreenlet_test(L, 1) : NULL;
  if (lg) {
    lgreenlet_push_thread(L, lg);
    if (lua_isnil(L, -1)) return luaL_argerror(L, 1, "the greenlet is dead");
    lua_replace(L, 1);
  }
  return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* os.exit(code, true) closes the state, which only main's stack can do: from a
** greenlet the process ends without (D12: later carried out by main). Upvalue 1
** is the original. */
static int l_exit(lua_State *L) {
  LUniverse *u = universe();
  if (u && running(u) != u->main) lua_settop(L, 1);
  return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Puts `replacement` over the C function in field `name` of the library on the
** top, which becomes its upvalue 1. */
static void patch(lua_State *L, const char *name, lua_CFunction replacement) {
  if (lua_getfield(L, -1, name) == LUA_TFUNCTION && lua_iscfunction(L, -1)) {
    lua_pushcclosure(L, replacement, 1);
    lua_setfield(L, -2, name);
  } else {
    lua_pop(L, 1);
  }
}

/* A script's hook lives in a weak table of ldblib.c, keyed by thread; the C
** hook alone, which lua_newthread passes on, finds nothing there. */
void lpatch_inherit_hook(lua_State *from, lua_State *to) {
  int top = lua_gettop(from);
  if (lua_getfield(from, LUA_REGISTRYINDEX, "_HOOKKEY") == LUA_TTABLE) {
    lua_pushthread(to);
    lua_xmove(to, from, 1);
    lua_pushthread(from);
    lua_rawget(from, -3);
    lua_rawset(from, -3);
  }
  lua_settop(from, top);
  lua_sethook(to, lua_gethook(from), lua_gethookmask(from), lua_gethookcount(from));
}

/* Strings that are raised where nothing may be allocated: once interned and
** anchored, pushing them finds them (lstring.c, internshrstr). D11. */
static void anchor_messages(lua_State *L) {
  static const char *const messages[] = {
      "cannot resume dead coroutine", "cannot resume non-suspended coroutine",     "C stack overflow",
      "error in error handling",      "attempt to yield from outside a coroutine", "not enough memory"};
  lua_newtable(L);
  for (int i = 0; i < (int)(sizeof messages / sizeof *messages); i++) {
    lua_pushstring(L, messages[i]);
    lua_rawseti(L, -2, i + 1);
  }
  luaL_ref(L, LUA_REGISTRYINDEX);
}

static const luaL_Reg coroutine_functions[] = {
    {"running", l_running}, {"isyieldable", l_isyieldable}, {"yield", l_yield}, {NULL, NULL}};

void lpatch_open(lua_State *L) {
  int top = lua_gettop(L);
  anchor_messages(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE) luaL_setfuncs(L, coroutine_functions, 0);
  lua_pop(L, 1);
  if (lua_getfield(L, -1, LUA_DBLIBNAME) == LUA_TTABLE) {
    patch(L, "traceback", l_with_greenlet);
    patch(L, "getinfo", l_with_greenlet);
    patch(L, "getlocal", l_with_greenlet);
  }
  lua_pop(L, 1);
  if (lua_getfield(L, -1, LUA_OSLIBNAME) == LUA_TTABLE) patch(L, "exit", l_exit);
  lua_settop(L, top);
}
