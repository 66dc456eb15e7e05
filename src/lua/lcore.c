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

/* The finalizer that runs last, since the universe was made first. Not when
** the state is closed from inside a greenlet: its stack is still in use. */
static int close_universe(lua_State *L) {
  LUniverse *u = lua_touserdata(L, 1);
  if (universe() != u || running(u) != u->main) return 0;
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

static int new_table(lua_State *L) {
  lua_newtable(L);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

/* One of the two greenlets that exist from the start; `T` is its state. */
static LGreenlet *permanent(lua_State *L, LUniverse *u, LKind kind, lua_State *T) {
  LGreenlet *lg = lgreenlet_new(L, u, kind);
  lg->T = lg->at = T;
  luaL_ref(L, LUA_REGISTRYINDEX);
  return lg;
}

static lua_State *main_state(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *M = lua_tothread(L, -1);
  lua_pop(L, 1);
  return M;
}

/* objects[record] = its greenlet, for the two that have no slot. */
static void anchor_permanent(lua_State *L, LGreenlet *lg, const char *name) {
  for (int ref = 1;; ref++) { /* found again by its address: it was anchored by reference */
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    if (lua_touserdata(L, -1) == lg) break;
    lua_pop(L, 1);
  }
  lg->task.g.name = name;
  lgreenlet_anchor(L, lg);
}

static void start_universe(lua_State *L, LUniverse *u) {
  u->anchors = new_table(L);
  u->objects = new_table(L);
  u->metatable = new_table(L);
  u->idle = u->empty = -1;
  u->shield = SHIELD_DEFAULT;
  u->H = anchored_thread(L);
  u->S = anchored_thread(L);
  u->main = permanent(L, u, KIND_MAIN, main_state(L));
  u->self = permanent(L, u, KIND_HUB, u->H);
  int code = hub_init(&u->hub, &u->self->task, &u->main->task);
  if (code < 0) luaL_error(L, "cannot make the hub: %s", status_text(code));
}

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
  anchor_permanent(L, u->main, "main");
  anchor_permanent(L, u->self, "hub");
}

static void add(lua_State *L, const char *name, lua_CFunction open) {
  lua_pushcfunction(L, open);
  lua_call(L, 0, 1);
  lua_setfield(L, -2, name);
}

int luaopen_green_core(lua_State *L) {
  make_universe(L);
  lua_createtable(L, 0, 5);
  add(L, "greenlet", lgreenlet_open);
  add(L, "hub", lhub_open);
  add(L, "dns", ldns_open);
  add(L, "socket", lsocket_open);
  add(L, "http", lhttp_open);
  return 1;
}
