/*
 * What the running greenlet waits for by itself: time, the others, a wake. May
 * use the hub.
 */
#include "lcheck.h"
#include "lrecord.h"

/* ---- sleeping ---- */

/*
---Waits. `sleep(0)` is `yield()`: every other ready greenlet runs once.
---@async
---@param seconds? number  0 if absent
*/
static int l_sleep(lua_State *L) {
  double seconds = lua_isnoneornil(L, 1) ? 0 : lcheck_seconds(L, 1);
  Hub *hub = lcheck_waitable(L, "sleep");
  int code = seconds == 0 ? hub_yield(hub) : hub_sleep(hub, hub_deadline(hub, seconds));
  if (code < 0) lcheck_raise(L, code, "sleep");
  return 0;
}

/*
---Lets every other ready greenlet run once.
---@async
*/
static int l_yield(lua_State *L) {
  int code = hub_yield(lcheck_waitable(L, "yield"));
  if (code < 0) lcheck_raise(L, code, "yield");
  return 0;
}

/* ---- a waiter: one greenlet's rendezvous ---- */

#define WAITER_TYPE "green.waiter"

typedef struct LWaiter {
  Task *task; /* who waits; NULL: nobody */
  bool woken; /* a wake that nobody has waited for yet */
} LWaiter;

/*
---A rendezvous that switches once: `w:wait([timeout])` parks until `w:wake()`;
---a wake before the wait is remembered.
---@return waiter
*/
static int l_waiter(lua_State *L) {
  LWaiter *w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = (LWaiter){NULL, false};
  luaL_setmetatable(L, WAITER_TYPE);
  return 1;
}

/*
---Waits for `wake`.
---@async
---@param timeout? number  seconds
---@return true|nil woken
---@return string? message  "timeout"
---@return string? code  "ETIMEDOUT"
*/
static int l_waiter_wait(lua_State *L) {
  LWaiter *w = luaL_checkudata(L, 1, WAITER_TYPE);
  Hub *hub = lcheck_waitable(L, "wait");
  Deadline deadline = lcheck_timeout(L, hub, 2);
  int code = GREEN_OK;
  if (w->task) return luaL_error(L, "'wait': another greenlet waits for this waiter already");
  if (!w->woken) {
    w->task = hub_running(hub);
    code = hub_park(hub, "wait", deadline);
    w->task = NULL;
  }
  if (code < 0) return lcheck_fail(L, code, "wait");
  w->woken = false;
  lua_pushboolean(L, 1);
  return 1;
}

/*
---Wakes who waits, or who will.
*/
static int l_waiter_wake(lua_State *L) {
  LWaiter *w = luaL_checkudata(L, 1, WAITER_TYPE);
  w->woken = true; /* also when its wait has just timed out: the next one then finds it */
  if (w->task) hub_ready(w->task, GREEN_OK);
  return 0;
}

static const luaL_Reg waiter_methods[] = {{"wait", l_waiter_wait}, {"wake", l_waiter_wake}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"sleep", l_sleep}, {"yield", l_yield}, {"waiter", l_waiter}, {NULL, NULL}};

void lwait_open(lua_State *L, int module) {
  lua_pushvalue(L, module);
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, WAITER_TYPE);
  luaL_newlib(L, waiter_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
}
