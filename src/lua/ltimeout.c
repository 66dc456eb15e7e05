/*
 * green.timeout: a deadline over a scope. It is raised, as an object, at the
 * waits of the greenlet that made it, until the scope is left. May use the hub.
 */
#include <stdio.h>
#include <string.h>

#include "lcheck.h"
#include "lrecord.h"

#define NO_DEADLINE -1. /* as seconds: a scope without a timer */

/* User value 1: what it raises instead of itself, or the text that it shows. */

bool ltimeout_test(lua_State *L, int arg) { return luaL_testudata(L, arg, TIMEOUT_TYPE) != NULL; }

static LTimeout *check_timeout(lua_State *L) { return luaL_checkudata(L, 1, TIMEOUT_TYPE); }

static void on_expiry(struct ev_loop *loop, ev_timer *w, int events) {
  LTimeout *t = w->data;
  (void)loop, (void)events;
  t->fired = t->expired = true;
  hub_cancel(&t->owner->task);
}

static LTimeout *new_timeout(lua_State *L, double seconds) {
  LTimeout *t = lua_newuserdatauv(L, sizeof *t, 1);
  *t = (LTimeout){.seconds = seconds};
  ev_timer_init(&t->timer, on_expiry, 0., 0.);
  t->timer.data = t;
  luaL_setmetatable(L, TIMEOUT_TYPE);
  return t;
}

/* Opens the scope in the running greenlet; the object is on L's top. While it
** is open it is anchored, and so is its greenlet, whose scope it is. */
static void open_scope(lua_State *L, LUniverse *u, LTimeout *t) {
  lua_pushvalue(L, -1);
  lgreenlet_anchor(L, t);
  t->owner = running(u);
  t->outer = t->owner->scopes;
  t->owner->scopes = t;
  t->open = true;
  t->fired = t->expired = false;
  if (t->seconds < 0) return;
  Deadline deadline = hub_deadline(&u->hub, t->seconds);
  if (deadline >= DEADLINE_NEVER) return;
  ev_timer_set(&t->timer, deadline - u->hub.now, 0.);
  ev_timer_start(u->hub.loop, &t->timer);
}

static const void *late_key(LGreenlet *lg) { return (char *)lg + 3; }

/* The timeout has woken its greenlet, and somebody else cancels it before that
** has run: too late, its wait is over. It is raised, but as an ordinary error. */
static void keep_late(lua_State *L, LTimeout *t) {
  LGreenlet *lg = t->owner;
  if (!t->fired || !lg->task.queued || lg->task.wake != GREEN_CANCELLED) return;
  ltimeout_push_pending(L, t);
  lgreenlet_anchor(L, late_key(lg));
  lg->late = true;
}

void ltimeout_push_late(lua_State *L, LGreenlet *lg) {
  lgreenlet_push_anchored(L, late_key(lg));
  lgreenlet_unanchor(L, late_key(lg));
  lg->late = false;
}

/* Calls only what cannot raise: setting an existing field to nil allocates
** nothing. */
static void end_scope(lua_State *L, LUniverse *u, LTimeout *t) {
  if (!t->open) return;
  LTimeout **link = &t->owner->scopes;
  while (*link != t) link = &(*link)->outer;
  *link = t->outer;
  t->open = t->fired = false;
  ev_timer_stop(u->hub.loop, &t->timer);
  lgreenlet_unanchor(L, t);
  lcancel_settle(t->owner);
}

void ltimeout_end_all(LUniverse *u, LGreenlet *lg) {
  while (lg->scopes) end_scope(u->S, u, lg->scopes);
}

void ltimeout_push_pending(lua_State *L, LTimeout *t) {
  lgreenlet_push_anchored(L, t);
  int type = lua_getiuservalue(L, -1, 1);
  if (type == LUA_TNIL || type == LUA_TSTRING || type == LUA_TBOOLEAN) lua_pop(L, 1);
}

void ltimeout_push_expired(lua_State *L, double seconds) { new_timeout(L, seconds)->expired = true; }

/*
---A deadline over the rest of a scope: `local t <close> = green.timeout(1)`. When
---it passes, the timeout is raised at this greenlet's waits until the scope ends.
---@param seconds? number  nil: no deadline
---@param err? any  raised instead of the timeout itself; a string becomes its text
---@return timeout
*/
static int l_timeout(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  double seconds = lua_isnoneornil(L, 1) ? NO_DEADLINE : lcheck_seconds(L, 1);
  if (running(u) == u->self) lcheck_raise(L, GREEN_NOWAIT, "timeout");
  lua_settop(L, 2);
  LTimeout *t = new_timeout(L, seconds);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, 1);
  open_scope(L, u, t);
  return 1;
}

/*
---Ends the scope: it will not be raised any more. What `<close>` does.
*/
static int l_cancel(lua_State *L) {
  LTimeout *t = check_timeout(L);
  if (t->open) keep_late(L, t);
  end_scope(L, (LUniverse *)lcheck_hub(L), t);
  return 0;
}

/*
---Starts it again, with its full time, as a scope of the running greenlet.
*/
static int l_start(lua_State *L) {
  LTimeout *t = check_timeout(L);
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  if (running(u) == u->self) lcheck_raise(L, GREEN_NOWAIT, "start");
  if (t->open) keep_late(L, t);
  end_scope(L, u, t);
  lua_settop(L, 1);
  open_scope(L, u, t);
  return 0;
}

/*
---Is `e` a timeout object?
---@param e any
---@return boolean
*/
static int l_istimeout(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, ltimeout_test(L, 1));
  return 1;
}

/* "timeout: 1 s": as %g, since lua_pushfstring would write 1.0. */
static void push_seconds(lua_State *L, double seconds) {
  char text[48];
  snprintf(text, sizeof text, "timeout: %g s", seconds);
  lua_pushstring(L, text);
}

static int l_tostring(lua_State *L) {
  LTimeout *t = check_timeout(L);
  if (lua_getiuservalue(L, 1, 1) == LUA_TSTRING) return 1;
  if (t->seconds < 0)
    lua_pushliteral(L, "timeout: never");
  else
    push_seconds(L, t->seconds);
  return 1;
}

/* Upvalue 1: the methods. */
static int l_index(lua_State *L) {
  LTimeout *t = check_timeout(L);
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (strcmp(key, "pending") == 0)
    lua_pushboolean(L, t->open && !t->fired && t->seconds >= 0);
  else if (strcmp(key, "expired") == 0)
    lua_pushboolean(L, t->expired);
  else if (strcmp(key, "seconds") == 0 && t->seconds >= 0)
    lua_pushnumber(L, t->seconds);
  return 1;
}

static const luaL_Reg functions[] = {{"timeout", l_timeout}, {"istimeout", l_istimeout}, {NULL, NULL}};
static const luaL_Reg methods[] = {
    {"cancel", l_cancel}, {"close", l_cancel}, {"start", l_start}, {NULL, NULL}};

void ltimeout_open(lua_State *L, int module) {
  luaL_newmetatable(L, TIMEOUT_TYPE);
  luaL_newlib(L, methods);
  lua_pushcclosure(L, l_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, l_cancel);
  lua_setfield(L, -2, "__close");
  lua_pushcfunction(L, l_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
  lua_pushvalue(L, module);
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}
