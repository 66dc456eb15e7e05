/*
 * Spawned greenlets: spawn, wait for the end, kill. May use the hub.
 */

#include "lcheck.h"
#include "lrecord.h"

/* ---- the end ---- */

void ltask_check_callable(lua_State *L, int arg) {
  if (lua_isfunction(L, arg)) return;
  if (luaL_getmetafield(L, arg, "__call") == LUA_TNIL) luaL_typeerror(L, arg, "function");
  lua_pop(L, 1);
}

/* Arguments: the record, results. Packs them, nils included, into a table. */
static int pack(lua_State *S) {
  int n = lua_gettop(S) - 1;
  lua_createtable(S, n, 0);
  lua_insert(S, 2);
  for (int i = n; i >= 1; i--) lua_rawseti(S, 2, i);
  lua_remove(S, 1);
  return 1;
}

/* Pushes what is to be kept of T's top, protected: on failure, Lua's own
** memory error. */
static int push_packed(LUniverse *u, LGreenlet *lg, int nresults) {
  lua_State *S = u->S;
  if (nresults == 1) {
    lua_xmove(lg->T, S, 1);
    return LUA_OK;
  }
  if (!lua_checkstack(S, nresults + 4)) {
    lua_pushliteral(S, "not enough memory"); /* anchored by lpatch_open */
    return LUA_ERRMEM;
  }
  lua_pushcfunction(S, pack);
  lua_pushlightuserdata(S, lg);
  lua_xmove(lg->T, S, nresults);
  return lua_pcall(S, nresults + 1, 1, 0);
}

/* Calls only what cannot raise, but for the packing, which is protected. */
void ltask_keep(LUniverse *u, LGreenlet *lg, int status, int nresults) {
  lua_State *S = u->S;
  lgreenlet_push(S, &lg->task);
  int packed = push_packed(u, lg, nresults);
  lg->failed = packed != LUA_OK || (status != LUA_OK && !lgreenlet_is_exit(u, S, -1));
  lg->exited = status != LUA_OK && !lg->failed;
  lg->nresults = lg->failed ? 0 : nresults;
  lua_setiuservalue(S, -2, UV_VALUE);
  lua_pop(S, 1);
}

static void spawned_body(Task *t) {
  LUniverse *u = universe();
  LGreenlet *lg = (LGreenlet *)t;
  int nresults;
  int status = lgreenlet_run(lg, &nresults);
  lg->order = ++u->nended;
  if (lg->killed || lg->hooks || lg->late) lcancel_forget(lg);
  if (lg->scopes) ltimeout_end_all(u, lg);
  if (nresults > 0) ltask_keep(u, lg, status, nresults);
  if (lg->failed)
    lreport_failure(u, lg);
  else if (lg->noted)
    lreport_forget(u, lg); /* a kill came while that error was closing variables */
  if (lg->linked) hub_call_soon(&u->hub, &lg->links_call);
  if (!u->hub.thread.tracer) {
    lgreenlet_release(u, lg, status == LUA_OK);
  } else { /* the tracer is still to see it, as the origin of its last switch */
    lgreenlet_bury(u);
    u->ended = lg;
  }
}

/* Killed before it ran: it never will. The kill object is on L's top. */
void ltask_end_unstarted(lua_State *L, LUniverse *u, LGreenlet *lg) {
  lua_settop(lg->T, 0);
  if (L != lg->T) lua_xmove(L, lg->T, 1);
  lg->order = ++u->nended;
  lg->observed = true; /* by the killer */
  ltask_keep(u, lg, LUA_ERRRUN, 1);
  if (lg->linked) hub_call_soon(&u->hub, &lg->links_call);
  greenlet_discard(&lg->task.g);
  task_end(&lg->task);
  lgreenlet_release(u, lg, true);
}

/* The hub could not get a stack for it. */
static void on_failed_start(Task *t, int code) {
  LUniverse *u = universe();
  LGreenlet *lg = (LGreenlet *)t;
  (void)code;
  lg->order = ++u->nended;
  lua_settop(lg->T, 0);
  lua_pushliteral(lg->T, "not enough memory"); /* Lua's own, anchored: luaM's memerrmsg */
  ltask_keep(u, lg, LUA_ERRMEM, 1);
  lreport_failure(u, lg);
  if (lg->linked) hub_call_soon(&u->hub, &lg->links_call);
  lgreenlet_release(u, lg, false);
}

/* ---- spawning ---- */

/* Remembers who spawns: function and line, for reports. The function goes to
** UV_VALUE, which is free until the end. The greenlet is on L's top. */
static void note_spawner(lua_State *L, LGreenlet *lg) {
  lua_Debug ar;
  if (!lua_getstack(L, 1, &ar)) return;
  lua_getinfo(L, "fl", &ar);
  lg->spawn_line = ar.currentline;
  lua_setiuservalue(L, -2, UV_VALUE);
}

/* Makes a greenlet of the function at `first` and the arguments after it; they
** are moved, and it is left on L's top. The object is made first: its allocation
** may run finalizers, which may spawn. */
static LGreenlet *make_task(lua_State *L, LUniverse *u, int first, int metatable) {
  ltask_check_callable(L, first);
  int n = lua_gettop(L) - first + 1;
  LGreenlet *lg = lgreenlet_new(L, KIND_SPAWNED, lua_upvalueindex(metatable));
  if (u->notes_spawner) note_spawner(L, lg);
  lua_insert(L, first);
  lua_State *T = lgreenlet_reserve(L, u);
  if (n > LUA_MINSTACK - 4 && !lua_checkstack(T, n)) {
    lua_settop(T, 0);
    luaL_error(L, "not enough memory");
  }
  lua_xmove(L, T, n);
  lgreenlet_adopt(u, lg);
  if (lua_gethook(L)) lpatch_inherit_hook(L, T);
  task_init_spawned(&lg->task, &u->hub, spawned_body);
  return lg;
}

/* The same, to be started by the caller at once. */
static LGreenlet *make_started(lua_State *L, LUniverse *u, int first) {
  LGreenlet *lg = make_task(L, u, first, UPVALUE_METATABLE);
  lua_pushvalue(L, -1);
  lgreenlet_anchor_self(L, u, lg);
  return lg;
}

/*
---Starts `fn(...)` in a greenlet of its own. It runs when the caller next waits.
---@param fn function
---@param ... any  its arguments
---@return greenlet
*/
static int l_spawn(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  LGreenlet *lg = make_started(L, u, 1);
  hub_spawn(&lg->task);
  return 1;
}

/*
---Starts `fn(...)` in a greenlet of its own, `seconds` from now.
---@param seconds number
---@param fn function
---@param ... any  its arguments
---@return greenlet
*/
static int l_spawn_later(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  double seconds = lcheck_seconds(L, 1);
  LGreenlet *lg = make_started(L, u, 2);
  hub_spawn_at(&lg->task, hub_deadline(&u->hub, seconds));
  return 1;
}

/*
---A greenlet for `fn(...)` that `g:start()` or `g:start_later(s)` will start.
---@param fn function
---@param ... any  its arguments
---@return greenlet
*/
static int l_greenlet(lua_State *L) {
  make_task(L, (LUniverse *)lcheck_hub(L), 1, UPVALUE_NEW_METATABLE);
  return 1;
}

/* A greenlet at 1 that has not been started yet; from now on it has. */
static bool startable(lua_State *L, LGreenlet *lg) {
  if (lg->kind != KIND_SPAWNED) luaL_error(L, "a raw greenlet is started by switching to it");
  if (lg->task.spawned || lg->task.done) return false;
  lgreenlet_start(L, 1, universe(), lg);
  return true;
}

/*
---Starts a greenlet that `green.greenlet` made; nothing happens the second time.
*/
static int l_start(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  if (startable(L, lg)) hub_spawn(&lg->task);
  return 0;
}

/*
---Starts it `seconds` from now.
---@param seconds number
*/
static int l_start_later(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  double seconds = lcheck_seconds(L, 2);
  if (startable(L, lg)) hub_spawn_at(&lg->task, hub_deadline(lg->task.hub, seconds));
  return 0;
}

/* ---- waiting for the end ---- */

/* Waits for the end of `lg`. Returns 0 or GREEN_TIMEDOUT; raises all else. */
static int wait_end(lua_State *L, LGreenlet *lg, int timeout_arg, const char *fname) {
  LUniverse *u = (LUniverse *)lcheck_waitable(L, fname);
  Deadline deadline = lcheck_timeout(L, &u->hub, timeout_arg);
  if (lg == running(u)) luaL_error(L, "'%s': a greenlet cannot wait for its own end", fname);
  int code = hub_join_task(&u->hub, &lg->task, deadline);
  if (code != GREEN_OK) lcheck_raise(L, code, fname);
  return code;
}

/*
---Waits until the greenlet has ended, however it did.
---@async
---@param timeout? number  seconds
---@return true|nil ended
---@return string? message  "timeout"
---@return string? code  "ETIMEDOUT"
*/
static int l_join(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  int code = wait_end(L, lg, 2, "join");
  if (code < 0) return lcheck_fail(L, code, "join");
  lua_pushboolean(L, 1);
  return 1;
}

/* Pushes the results that are kept; the greenlet is at 1. */
static int push_results(lua_State *L, LGreenlet *lg) {
  int n = lg->nresults;
  if (n == 0) return 0;
  lua_getiuservalue(L, 1, UV_VALUE);
  if (n == 1) return 1;
  luaL_checkstack(L, n, "too many results");
  int packed = lua_gettop(L);
  for (int i = 1; i <= n; i++) lua_rawgeti(L, packed, i);
  lua_remove(L, packed);
  return n;
}

/*
---Waits for the end, and returns the results. Raises the greenlet's error (the
---same value), or a timeout object when `timeout` is over first.
---@async
---@param timeout? number  seconds
---@return any ...
*/
static int l_get(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  if (wait_end(L, lg, 2, "get") < 0) {
    ltimeout_push_expired(L, lua_tonumber(L, 2));
    return lua_error(L);
  }
  if (!lg->failed) return push_results(L, lg);
  lreport_observe(universe(), lg);
  lua_getiuservalue(L, 1, UV_VALUE);
  return lua_error(L);
}

/*
---Waits for the end, and returns as `pcall` does: true and the results, or false
---and the error (a timeout object when `timeout` is over first).
---@async
---@param timeout? number  seconds
---@return boolean ok
---@return any ...
*/
static int l_pget(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  int code = wait_end(L, lg, 2, "pget");
  lua_pushboolean(L, code == GREEN_OK && !lg->failed);
  if (code < 0) {
    ltimeout_push_expired(L, lua_tonumber(L, 2));
    return 2;
  }
  if (!lg->failed) return 1 + push_results(L, lg);
  lreport_observe(universe(), lg);
  lua_getiuservalue(L, 1, UV_VALUE);
  return 2;
}

/*
---Has it ended?
---@return boolean
*/
static int l_ready(lua_State *L) {
  lua_pushboolean(L, lgreenlet_check(L, 1)->task.done);
  return 1;
}

/*
---Has it ended without an error? The exit object counts as success.
---@return boolean
*/
static int l_successful(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  lua_pushboolean(L, lg->task.done && !lg->failed);
  return 1;
}

/*
---Which of all spawned greenlets it was to end: the earlier, the smaller.
---@return integer|nil order  nil: it has not ended
*/
static int l_order(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  if (lg->task.done)
    lua_pushinteger(L, (lua_Integer)lg->order);
  else
    lua_pushnil(L);
  return 1;
}

/* ---- killing ---- */

/* Sets the kill of the greenlet at 1 going; the object is on L's top and is
** popped. */
static void start_kill(lua_State *L, LUniverse *u, LGreenlet *lg) {
  if (lg == u->self) luaL_error(L, "the hub cannot be killed");
  if (lg->task.g.state == GREENLET_NEW) {
    lgreenlet_start(L, 1, u, lg);
    ltask_end_unstarted(L, u, lg);
    return;
  }
  /* its end must return to the hub, not into a parent that waits for it */
  if (lg->kind == KIND_RAW && lg != running(u)) {
    greenlet_set_parent(&lg->task.g, &u->self->task.g);
    lgreenlet_extra(L, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "parent");
    lua_pop(L, 1);
  }
  lcancel_kill(L, lg);
}

/*
---Ends the greenlet: `err` is raised where it waits, and cannot be swallowed; its
---variables to be closed are. One that has not run yet never will.
---@async
---@param err? any  `greenlet.exit` if absent
---@param block? boolean  wait for its end; true if absent
---@param timeout? number  seconds to wait
---@return true|nil ended
---@return string? message  "timeout"
---@return string? code  "ETIMEDOUT"
*/
static int l_kill(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  LGreenlet *lg = lgreenlet_check(L, 1);
  bool block = lua_isnoneornil(L, 3) || lua_toboolean(L, 3);
  lua_settop(L, 4);
  if (!lua_isnil(L, 4)) lcheck_seconds(L, 4);
  if (!lg->task.done) {
    if (block) lcheck_waitable(L, "kill");
    if (lua_isnil(L, 2))
      lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
    else
      lua_pushvalue(L, 2);
    start_kill(L, u, lg);
  }
  if (lg == running(u)) lcancel_raise(L, u, lg);
  int code = block && !lg->task.done ? wait_end(L, lg, 4, "kill") : GREEN_OK;
  if (code < 0) return lcheck_fail(L, code, "kill");
  lua_pushboolean(L, 1);
  return 1;
}

/* Waits for the end of a greenlet whose scope is left. If that wait is cut
** short, by a kill or a timeout, it is killed, so that it does not outlive the
** scope by much. */
static void join_or_kill(lua_State *L, LUniverse *u, LGreenlet *lg) {
  lcheck_waitable(L, "close");
  int code = hub_join_task(&u->hub, &lg->task, DEADLINE_NEVER);
  if (code == GREEN_OK) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
  start_kill(L, u, lg);
  lcheck_raise(L, code, "close");
}

/*
---Leaving the scope of `local g <close>` joins; leaving it by an error kills.
*/
static int l_close(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  LUniverse *u = universe();
  bool by_error = !lua_isnoneornil(L, 2);
  lua_settop(L, 1);
  if (lg->task.done || lg == running(u)) return 0;
  if (by_error) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
    start_kill(L, u, lg);
  } else if (lg->task.g.state == GREENLET_NEW && !lg->task.spawned) {
    return 0; /* nobody has started it */
  }
  if (!lg->task.done) join_or_kill(L, u, lg);
  return 0;
}

/* ---- tables ---- */

static const luaL_Reg functions[] = {
    {"spawn", l_spawn}, {"spawn_later", l_spawn_later}, {"greenlet", l_greenlet}, {NULL, NULL}};

static const luaL_Reg methods[] = {{"start", l_start}, {"start_later", l_start_later},
                                   {"join", l_join},   {"get", l_get},
                                   {"pget", l_pget},   {"ready", l_ready},
                                   {"kill", l_kill},   {"successful", l_successful},
                                   {"order", l_order}, {"__close", l_close},
                                   {NULL, NULL}};

void ltask_open(lua_State *L, int module, int methods_table) {
  universe()->hub.failed = on_failed_start;
  lgreenlet_register(L, module, functions, methods_table, methods);
}
