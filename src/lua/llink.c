/*
 * Links: what is called after the end of a greenlet. May use the hub.
 */
#include <stddef.h>

#include "lcheck.h"
#include "lrecord.h"

enum { LINK_ANY, LINK_VALUE, LINK_ERROR, LINK_QUIET }; /* the second of each pair in links */

/* While it has links a greenlet is anchored under this: not under its record's
** own address, where main and the hub are for good. */
static const void *links_key(LGreenlet *lg) { return (char *)lg + 2; }

static bool kind_fits(lua_Integer kind, bool failed) {
  if (kind == LINK_VALUE) return !failed;
  return kind != LINK_ERROR || failed;
}

/* Calls, in order, the links that are there when their turn comes: one that
** unlinks a later one prevents it, and one that adds another has it called. Argument: the record. */
static int run_links(lua_State *H) {
  LUniverse *u = universe();
  LGreenlet *lg = lua_touserdata(H, 1);
  lgreenlet_push_anchored(H, links_key(lg));
  lg->linking = true;
  lgreenlet_extra(H, 2);
  lua_getfield(H, 3, "links");
  for (int i = 1; lua_rawgeti(H, 4, i) != LUA_TNIL; i += 2) {
    lua_rawgeti(H, 4, i + 1);
    lua_Integer kind = lua_tointeger(H, -1);
    lua_pop(H, 1);
    bool due = lua_toboolean(H, -1) && kind_fits(kind, lg->failed);
    if (due && (kind == LINK_ANY || kind == LINK_ERROR)) lreport_observe(u, lg);
    lua_pushvalue(H, 2);
    if (due)
      lgreenlet_callback(&u->hub, 1, "a link of a greenlet");
    else
      lua_pop(H, 2);
  }
  lua_pushnil(H);
  lua_setfield(H, 3, "links");
  lg->linked = lg->linking = false;
  lgreenlet_unanchor(H, links_key(lg));
  return 0;
}

static void on_links(HubCall *call) {
  LGreenlet *lg = (LGreenlet *)((char *)call - offsetof(LGreenlet, links_call));
  lua_State *H = universe()->H;
  lua_pushcfunction(H, run_links);
  lua_pushlightuserdata(H, lg);
  if (lua_pcall(H, 1, 0, 0) != LUA_OK) lua_pop(H, 1); /* out of memory: the links are lost */
}

/* Pushes the list of links of the greenlet at 1; the first one anchors it, so
** that it lives until they have run. */
static void push_links(lua_State *L, LGreenlet *lg) {
  lgreenlet_extra(L, 1);
  if (lua_getfield(L, -1, "links") == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "links");
  }
  if (lg->linked) return;
  lua_pushvalue(L, 1);
  lgreenlet_anchor(L, links_key(lg));
  lg->linked = true;
  lg->links_call.fn = on_links;
}

static int add_link(lua_State *L, int kind) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  ltask_check_callable(L, 2);
  lua_settop(L, 2);
  push_links(L, lg);
  lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
  lua_pushinteger(L, kind);
  lua_rawseti(L, -2, n + 2);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, n + 1);
  if (lg->task.done && !lg->linking) hub_call_soon(&universe()->hub, &lg->links_call);
  return 0;
}

/*
---Calls `fn(g)` in the hub, where it may not wait, after the greenlet has ended.
---Links run in the order in which they were added.
---@param fn fun(g: greenlet)
*/
static int l_link(lua_State *L) { return add_link(L, LINK_ANY); }

/*
---As `link`, but only when it ends without an error.
---@param fn fun(g: greenlet)
*/
static int l_link_value(lua_State *L) { return add_link(L, LINK_VALUE); }

/*
---As `link`, but only when it ends with an error.
---@param fn fun(g: greenlet)
*/
static int l_link_error(lua_State *L) { return add_link(L, LINK_ERROR); }

/*
---As `link`, for who only waits: a failure does not count as looked at.
---@param fn fun(g: greenlet)
*/
static int l_watch(lua_State *L) { return add_link(L, LINK_QUIET); }

/* The links at 4 are being run: those of the function at 2 become holes, since an
** end would end the run. */
static void punch(lua_State *L) {
  for (int i = 1; lua_rawgeti(L, 4, i) != LUA_TNIL; i += 2) {
    bool same = lua_rawequal(L, 2, -1);
    lua_pop(L, 1);
    if (!same) continue;
    lua_pushboolean(L, 0);
    lua_rawseti(L, 4, i);
  }
}

/* Takes those of the function at 2 out of the links at 4. Returns how many
** entries are left. */
static int compact(lua_State *L) {
  int kept = 0, i;
  for (i = 1; lua_rawgeti(L, 4, i) != LUA_TNIL; i += 2) {
    lua_rawgeti(L, 4, i + 1);
    if (lua_rawequal(L, 2, -2)) {
      lua_pop(L, 2);
      continue;
    }
    lua_rawseti(L, 4, kept + 2);
    lua_rawseti(L, 4, kept + 1);
    kept += 2;
  }
  for (int j = kept + 1; j < i; j++) {
    lua_pushnil(L);
    lua_rawseti(L, 4, j);
  }
  return kept;
}

/*
---Takes a link back: all that were made with this function.
---@param fn fun(g: greenlet)
*/
static int l_unlink(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  ltask_check_callable(L, 2);
  lua_settop(L, 2);
  if (!lg->linked) return 0;
  lgreenlet_extra(L, 1);
  lua_getfield(L, 3, "links");
  if (lg->linking) {
    punch(L);
    return 0;
  }
  if (compact(L) > 0 || lg->task.done) return 0;
  lua_pushnil(L);
  lua_setfield(L, 3, "links");
  lg->linked = false;
  lgreenlet_unanchor(L, links_key(lg));
  return 0;
}

static const luaL_Reg methods[] = {
    {"link", l_link},     {"link_value", l_link_value}, {"link_error", l_link_error},
    {"unlink", l_unlink}, {"watch", l_watch},           {NULL, NULL}};

void llink_open(lua_State *L, int methods_table) {
  lua_pushvalue(L, methods_table);
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
}
