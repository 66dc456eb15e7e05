/*
 * core.hub: the loop's clock, its turns, and the watchers of lwatcher.c. May
 * use lcallback, lcheck, lgreenlet, lwatcher, hub.
 */
#include "lcallback.h"
#include "lcheck.h"
#include "lgreen.h"
#include "lgreenlet.h"
#include "lwatcher.h"

#define DEFERRED "green.callback" /* the metatable's name in the registry */
#define SLICE_MIN 1e-5            /* seconds; in less, a greenlet might not get its turn at all */

/* A call in the loop's next turn; anchored while it is pending. */
typedef struct Deferred {
  HubCall call; /* first */
  Hub *hub;
} Deferred;

/* ---- deferred calls ---- */

/* Runs under lgreenlet_callback's protection, with the object as its argument. */
static int deliver(lua_State *L) {
  lgreenlet_unanchor(L, lua_touserdata(L, 1));
  int nargs = lcallback_push(L, 1);
  lcallback_drop(L, 1);
  lua_call(L, nargs, 0);
  return 0;
}

static void on_call(HubCall *call) {
  Hub *hub = ((Deferred *)call)->hub;
  lua_State *L = lgreenlet_hub_state(hub);
  lua_pushcfunction(L, deliver);
  lgreenlet_push_anchored(L, call);
  lgreenlet_callback(hub, 1, "a deferred callback");
}

/*
---Calls `fn(...)` in the hub, in the next turn of the loop. It must not wait.
---Calls are made in the order in which they were asked for.
---
---```lua
---local call = loop.run_callback(print, "soon")
---call:stop()                                     -- changed our mind
---```
---@param fn function
---@param ... any
---@return green.callback
*/
static int run_callback(lua_State *L) {
  Hub *hub = lcheck_hub(L);
  lcallback_check(L, 1, "run_callback", 1);
  lcallback_pack(L, 1);
  Deferred *d = lua_newuserdatauv(L, sizeof *d, LCALLBACK_VALUES);
  *d = (Deferred){{.fn = on_call}, hub};
  luaL_setmetatable(L, DEFERRED);
  lua_insert(L, 1);
  lcallback_keep(L, 1);
  lua_pushvalue(L, 1);
  lgreenlet_anchor(L, d);
  hub_call_soon(hub, &d->call);
  return 1;
}

/*
---Takes the call back. Does nothing once it has been made.
*/
static int stop_callback(lua_State *L) {
  Deferred *d = luaL_checkudata(L, 1, DEFERRED);
  if (!d->call.pending || !hub_current()) return 0;
  hub_call_cancel(d->hub, &d->call);
  lgreenlet_unanchor(L, d);
  lcallback_drop(L, 1);
  return 0;
}

/* ---- the loop ---- */

/*
---Waits until the loop has nothing to do: no greenlet is ready or will be, no
---watcher that keeps the loop alive is started.
---@async
---@param timeout? number  seconds
---@return boolean  false: the timeout was over first
*/
static int wait_idle(lua_State *L) {
  Hub *hub = lcheck_waitable(L, "wait");
  int code = hub_join(hub, lcheck_timeout(L, hub, 1));
  if (code != GREEN_OK && code != GREEN_TIMEDOUT) return lcheck_fail(L, code, "wait");
  lua_pushboolean(L, code == GREEN_OK);
  return 1;
}

/*
---The loop's clock, in seconds: monotonic, read once a turn, so cheap and the same
---for all callbacks of a turn.
---@return number
*/
static int get_now(lua_State *L) {
  lua_pushnumber(L, lcheck_hub(L)->now);
  return 1;
}

/*
---Reads the clock anew, as after a long computation, and returns it.
---@return number
*/
static int update_now(lua_State *L) {
  lua_pushnumber(L, hub_now_update(lcheck_hub(L)));
  return 1;
}

/*
---How long ready greenlets may run before the loop looks for events.
---@param seconds? number  the new value
---@return number  the present one
*/
static int slice(lua_State *L) {
  Hub *hub = lcheck_hub(L);
  double seconds = lua_isnoneornil(L, 1) ? hub->slice : lcheck_seconds(L, 1);
  luaL_argcheck(L, seconds >= SLICE_MIN, 1, "expected at least 10 microseconds");
  hub->slice = seconds;
  lua_pushnumber(L, hub->slice);
  return 1;
}

/*
---How many watchers of scripts are started.
---@return integer
*/
static int watchers(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)lwatcher_count(lcheck_hub(L)));
  return 1;
}

static const luaL_Reg callback_methods[] = {{"stop", stop_callback}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"wait", wait_idle}, {"now", get_now},       {"update", update_now},
    {"slice", slice},    {"watchers", watchers}, {"run_callback", run_callback},
    {NULL, NULL}};

int lhub_open(lua_State *L) {
  luaL_newmetatable(L, DEFERRED);
  luaL_newlib(L, callback_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  lwatcher_open(L);
  return 1;
}
