/*
 * Checks of arguments and codes. May use the hub and lrecord.h.
 */
#include "lcheck.h"

#include <math.h>

#include "lrecord.h"

Hub *lcheck_hub(lua_State *L) {
  Hub *hub = hub_current();
  if (!hub) luaL_error(L, "this OS thread has no hub: require 'green' in it first");
  return hub;
}

/* lua_gc answers -1 while a finalizer runs, and while the state closes (from
** 5.4.4; lgc.c, lapi.c). A switch there would stop the collector for everybody
** (D8). */
static void check_finalizer(lua_State *L, const char *fname) {
  if (lua_gc(L, LUA_GCISRUNNING) == -1)
    luaL_error(L, "'%s' cannot wait in a finalizer, or while the state is closing", fname);
}

/* A finalizer is called so that it cannot yield (lgc.c, GCTM), which is cheaper
** to ask than the collector; only a coroutine of its own could. */
static bool may_be_finalizer(lua_State *L, LGreenlet *lg) { return L != lg->T || !lua_isyieldable(L); }

Hub *lcheck_waitable(lua_State *L, const char *fname) {
  Hub *hub = lcheck_hub(L);
  LUniverse *u = (LUniverse *)hub;
  LGreenlet *lg = running(u);
  if (may_be_finalizer(L, lg)) check_finalizer(L, fname);
  if (!hub_can_wait(hub)) lcheck_raise(L, GREEN_NOWAIT, fname);
  lg->at = L;
  if (lg->task.cancelled) lcancel_enter(L, u, lg);
  return hub;
}

double lcheck_seconds(lua_State *L, int arg) {
  double seconds = luaL_checknumber(L, arg);
  if (isnan(seconds)) luaL_argerror(L, arg, "expected a number of seconds, got NaN");
  if (seconds < 0)
    luaL_argerror(L, arg,
                  lua_pushfstring(L, "expected a number of seconds that is not negative, got %f",
                                  (LUAI_UACNUMBER)seconds));
  return seconds;
}

Deadline lcheck_timeout(lua_State *L, Hub *hub, int arg) {
  if (lua_isnoneornil(L, arg)) return DEADLINE_NEVER;
  return hub_deadline(hub, lcheck_seconds(L, arg));
}

lua_Integer lcheck_range(lua_State *L, int arg, lua_Integer low, lua_Integer high) {
  lua_Integer n = luaL_checkinteger(L, arg);
  if (n < low || n > high)
    luaL_argerror(L, arg,
                  lua_pushfstring(L, "expected an integer from %I to %I, got %I", (LUAI_UACINT)low,
                                  (LUAI_UACINT)high, (LUAI_UACINT)n));
  return n;
}

/* The objects and explanations of the codes that are never mere results. */
void lcheck_raise(lua_State *L, int code, const char *fname) {
  LUniverse *u = universe();
  switch (code) {
    case GREEN_CANCELLED:
      lcancel_raise(L, u, running(u));
    case GREEN_DEADLOCK:
      lreport_push_deadlock(L, u);
      lua_error(L);
      break;
    case GREEN_NOWAIT:
      luaL_error(L, "'%s' cannot wait here: this is a %s", fname,
                 u->tracing ? "trace function" : "callback of the hub");
      break;
    case GREEN_BADSWITCH:
      luaL_error(L, "invalid switch: somebody switched into this greenlet while it waited in '%s'", fname);
      break;
    case GREEN_THROWN: /* g:throw into a wait: the object is on the thrower's state */
      luaL_checkstack(L, 1, NULL);
      lua_xmove(u->hub.thrown, L, 1);
      lua_error(L);
      break;
    case GREEN_FOREIGN:
      luaL_error(L, "'%s': the greenlet belongs to another OS thread", fname);
      break;
    default:
      break;
  }
}

int lcheck_fail(lua_State *L, int code, const char *fname) {
  lcheck_raise(L, code, fname);
  lua_pushnil(L);
  lua_pushstring(L, status_text(code));
  lua_pushstring(L, status_name(code));
  return 3;
}
