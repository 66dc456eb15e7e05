/*
 * luaopen_green_core: makes the thread's universe and opens the bindings. May
 * use the hub.
 */
#include <stdlib.h>
#include <string.h>

#include "lcheck.h"
#include "lgreen.h"
#include "lrecord.h"

#define SHIELD_DEFAULT 5.0 /* seconds that a cleanup may wait after a kill */

static const char opened = 0; /* its address is the registry's key of what was opened */

/* The finalizer that runs last, since the universe was made first. Not when
** the state is closed from inside a greenlet: its stack is still in use. */
static int close_universe(lua_State *L) {
  LUniverse *u = lua_touserdata(L, 1);
  if (universe() != u) return 0;
  lreport_flush(u); /* in stock Lua nobody has asked for it */
  if (running(u) != u->main) return 0;
  free(u->threads);
  u->threads = NULL;
  hub_close(&u->hub);
  return 0;
}

static lua_State *anchored_thread(lua_State *L) {
  lua_State *T = lua_newthread(L);
  lua_sethook(T, NULL, 0, 0);
  luaL_ref(L, LUA_REGISTRYINDEX);
  return T;
}

static lua_State *main_state(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *M = lua_tothread(L, -1);
  lua_pop(L, 1);
  return M;
}

/* One of the two greenlets that exist from the start; `T` is its state. It is
** left on L's top, for now without a metatable. */
static LGreenlet *permanent(lua_State *L, LKind kind, lua_State *T) {
  lua_pushnil(L);
  LGreenlet *lg = lgreenlet_new(L, kind, -2); /* its metatable is made later: nil */
  lua_remove(L, -2);
  lg->T = lg->at = T;
  return lg;
}

static void start_universe(lua_State *L, LUniverse *u) {
  lua_newtable(L);
  u->objects = luaL_ref(L, LUA_REGISTRYINDEX);
  u->idle = u->empty = -1;
  u->shield = SHIELD_DEFAULT;
  u->notes_spawner = true;
  u->H = anchored_thread(L);
  u->S = anchored_thread(L);
  u->A = anchored_thread(L);
  lua_newtable(L);
  lua_xmove(L, u->A, 1); /* the anchors: A[1] */
  u->main = permanent(L, KIND_MAIN, main_state(L));
  u->self = permanent(L, KIND_HUB, u->H);
  int code = hub_init(&u->hub, &u->self->task, &u->main->task);
  if (code < 0) luaL_error(L, "cannot make the hub: %s", status_text(code));
  u->main->task.g.name = "main";
  u->self->task.g.name = "hub";
}

/* The two become objects: objects[record] = greenlet, since they have no slot. */
static void name_permanent(lua_State *L, LUniverse *u, int main, int self) {
  lua_pushvalue(L, main);
  luaL_setmetatable(L, GREENLET_TYPE);
  lgreenlet_anchor(L, u->main);
  lua_pushvalue(L, self);
  luaL_setmetatable(L, GREENLET_TYPE);
  lgreenlet_anchor(L, u->self);
}

/* Leaves the objects of main and of the hub on the stack. */
static void make_universe(lua_State *L) {
  if (hub_current()) luaL_error(L, "this OS thread has a hub already, of another Lua state");
  LUniverse *u = lua_newuserdatauv(L, sizeof *u, 0);
  memset(u, 0, sizeof *u);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_universe);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  luaL_ref(L, LUA_REGISTRYINDEX);
  start_universe(L, u);
}

static void add(lua_State *L, const char *name, lua_CFunction open) {
  lua_pushcfunction(L, open);
  lua_call(L, 0, 1);
  lua_setfield(L, -2, name);
}

int luaopen_green_core(lua_State *L) {
  lua_settop(L, 0);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &opened) == LUA_TTABLE) return 1; /* package.loaded was cleared */
  lua_settop(L, 0);
  make_universe(L);
  lua_createtable(L, 0, 5);
  add(L, "greenlet", lgreenlet_open);
  name_permanent(L, universe(), 1, 2);
  add(L, "hub", lhub_open);
  add(L, "dns", ldns_open);
  add(L, "socket", lsocket_open);
  add(L, "http", lhttp_open);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &opened);
  return 1;
}
