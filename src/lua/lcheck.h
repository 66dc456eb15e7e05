/*
 * Checks of arguments and codes, for every binding file: one family of check
 * functions whose messages users know, and the one place that turns a status
 * code into `nil, message, code` or into an error (STYLE).
 */
#ifndef GREEN_LCHECK_H
#define GREEN_LCHECK_H

#include <lauxlib.h>
#include <lua.h>

#include "../hub/hub.h"

/* This thread's hub; made by luaopen_green_core. Never NULL in a binding. */
Hub *lcheck_hub(lua_State *L);

/* To be called first in every function that may wait, on the running state:
** raises where waiting is impossible (a finalizer, a loop callback, a state
** that is closing) with a message that names `fname`, raises what is pending
** against this greenlet (a kill, a timeout), or opens the shield of a cleanup. */
Hub *lcheck_waitable(lua_State *L, const char *fname);

/* A number of seconds at `arg`, finite or infinite, not negative, not NaN. */
double lcheck_seconds(lua_State *L, int arg);

/* An optional timeout at `arg`: nil or none gives DEADLINE_NEVER. */
Deadline lcheck_timeout(lua_State *L, Hub *hub, int arg);

/* An integer at `arg` within [low, high]. */
lua_Integer lcheck_range(lua_State *L, int arg, lua_Integer low, lua_Integer high);

/* Turns a negative code into results or an error: GREEN_CANCELLED raises the
** pending kill or timeout; GREEN_DEADLOCK, GREEN_NOWAIT, GREEN_BADSWITCH raise
** errors that explain; every other code pushes `nil, message, code` and
** returns 3. `fname` names the function in errors. */
int lcheck_fail(lua_State *L, int code, const char *fname);

/* Raises for the codes for which lcheck_fail raises, and returns otherwise.
** For functions with results of their own shape. */
void lcheck_raise(lua_State *L, int code, const char *fname);

#endif
