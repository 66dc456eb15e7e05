/*
 * Raw greenlets: new, switch, throw, settrace. May use the hub.
 *
 * Values travel on the Lua stacks: who switches leaves them on the top of its
 * own state, and who arrives takes them from there. So the receiver, which is
 * the running state, is the only one that can fail (D11).
 */
#include <errno.h>

#include "lcheck.h"
#include "lrecord.h"

/* ---- arriving ---- */

/* What a switch came back with. Returns the number of values now on L's top,
** or raises what was thrown. */
static int arrive(lua_State *L, LUniverse *u, int status, lua_State *from, const char *fname) {
  LGreenlet *me = running(u);
  int n = u->nvalues;
  me->at = L;
  if ((me->task.cancelled && me->task.shield == 0) || me->late) lcancel_raise(L, u, me);
  if (status == -ENOMEM) return luaL_error(L, "'%s': %s", fname, stack_last_error());
  if (status != GREEN_OK && status != GREEN_THROWN) lcheck_raise(L, status, fname);
  if (!from) return 0;
  luaL_checkstack(L, n, "too many values in a switch");
  if (from != L) lua_xmove(from, L, n);
  lgreenlet_bury(u);
  return status == GREEN_THROWN ? lua_error(L) : n;
}

/* The nearest living ancestor of a dead greenlet. */
static LGreenlet *living_heir(LGreenlet *lg) {
  while (lg->task.done) lg = (LGreenlet *)lg->task.g.parent;
  return lg;
}

/* Switches to `lg` with the `n` values on L's top. A dead one whose heir is the
** hub has nobody to take them: they come back at once. */
static int depart(lua_State *L, LUniverse *u, LGreenlet *lg, int status, int n, const char *fname) {
  void *from = NULL;
  lcheck_waitable(L, fname);
  lgreenlet_start(L, 1, u, lg);
  if (lg->task.done && living_heir(lg) == u->self) lg = running(u);
  u->nvalues = n;
  status = greenlet_switch(&lg->task.g, status, L, &from);
  return arrive(L, u, status, from, fname);
}

/* ---- the end of the unstarted ---- */

static bool is_unstarted(LGreenlet *lg) { return lg->task.g.state == GREENLET_NEW; }

/* An error passes through every unstarted ancestor, and they die of it. The
** hub is an ancestor that nothing is thrown into. */
static LGreenlet *first_started(lua_State *S, LUniverse *u, LGreenlet *lg) {
  while (is_unstarted(lg) && lg != u->self) {
    LGreenlet *parent = (LGreenlet *)lg->task.g.parent;
    lua_rawgeti(S, LUA_REGISTRYINDEX, u->exit);
    ltask_end_unstarted(S, u, lg);
    lg = parent;
  }
  return lg;
}

/* ---- the body ---- */

/* Ends `lg`, whose body came to its end with `status`. What the parent's
** switch returns stays on T until it has been fetched: lgreenlet_bury. */
static int end_raw(LUniverse *u, LGreenlet *lg, int status, int nresults, void **result) {
  bool thrown = status != LUA_OK && !lgreenlet_is_exit(u, lg->T, -1);
  lcancel_forget(lg);
  ltimeout_end_all(u, lg);
  lg->exited = status != LUA_OK && !thrown;
  if (thrown) {
    lua_pushvalue(lg->T, -1); /* the close of T has left room */
    ltask_keep(u, lg, status, 1);
    LGreenlet *parent = (LGreenlet *)lg->task.g.parent;
    if (is_unstarted(parent)) lg->task.g.parent = &first_started(u->S, u, parent)->task.g;
  }
  lgreenlet_bury(u); /* one whose values nobody fetched, since a kill came instead */
  u->nvalues = nresults;
  u->ended = lg;
  *result = lg->T;
  task_end(&lg->task);
  return thrown ? GREEN_THROWN : GREEN_OK;
}

/* Its arguments do not fit: it ends with Lua's own error. */
static int out_of_memory(lua_State *T, int *nresults) {
  lua_settop(T, 0);
  lua_pushliteral(T, "not enough memory"); /* anchored by lpatch_open */
  *nresults = 1;
  return LUA_ERRMEM;
}

static int raw_entry(Greenlet *g, void *value, void **result) {
  LUniverse *u = universe();
  LGreenlet *lg = (LGreenlet *)g;
  lua_State *from = value;
  int n = from ? u->nvalues : 0, nresults;
  task_begin(&lg->task);
  bool fits = lua_checkstack(lg->T, n + LUA_MINSTACK);
  if (fits && n > 0) lua_xmove(from, lg->T, n);
  lgreenlet_bury(u); /* the one whose end started us */
  int status = fits ? lgreenlet_run(lg, &nresults) : out_of_memory(lg->T, &nresults);
  return end_raw(u, lg, status, nresults, result);
}

/* ---- functions ---- */

/* A parent's record must outlive its children's, whose end may start it. The
** child is on L's top; the parent is at 2, or is the current one. */
static void hold_parent(lua_State *L, LUniverse *u, LGreenlet *parent) {
  if (parent->kind == KIND_MAIN || parent->kind == KIND_HUB) return;
  lgreenlet_extra(L, -1);
  if (lua_isnil(L, 2))
    lgreenlet_push(L, &parent->task);
  else
    lua_pushvalue(L, 2);
  lgreenlet_start(L, -1, u, parent);
  lua_setfield(L, -2, "parent");
  lua_pop(L, 1);
}

/*
---A new raw greenlet, not started: the first `g:switch(...)` starts `fn(...)`.
---Its results go to the switch of its parent, an error is raised there.
---@param fn function
---@param parent? greenlet  the current one if absent
---@return greenlet
*/
static int l_new(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  ltask_check_callable(L, 1);
  LGreenlet *parent = lua_isnoneornil(L, 2) ? running(u) : lgreenlet_check(L, 2);
  if (parent->task.g.thread != &u->hub.thread) lcheck_raise(L, GREEN_FOREIGN, "new");
  lua_settop(L, 2);
  LGreenlet *lg = lgreenlet_new(L, KIND_RAW, lua_upvalueindex(UPVALUE_NEW_METATABLE));
  hold_parent(L, u, parent);
  lua_State *T = lgreenlet_reserve(L, u);
  lua_pushvalue(L, 1);
  lua_xmove(L, T, 1);
  lgreenlet_adopt(u, lg);
  task_init(&lg->task, &u->hub, &parent->task.g, raw_entry);
  return 1;
}

/*
---Switches to `g`. An unstarted greenlet gets the arguments, a suspended one
---gets them as the results of the switch it sleeps in; a dead one stands for its
---nearest living ancestor. Returns when somebody switches back.
---@async
---@return any ...  what was switched back with
*/
static int l_switch(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  LGreenlet *lg = lgreenlet_check(L, 1);
  return depart(L, u, lg, GREEN_OK, lua_gettop(L) - 1, "switch");
}

/*
---Raises `err` where `g` is suspended. An unstarted greenlet dies without having
---run, and the error goes on to its parent; the exit object arrives there as a
---value, and so does one thrown at a dead greenlet.
---@async
---@param err? any  `greenlet.exit` if absent
---@return any ...  what was switched back with
*/
static int l_throw(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  LGreenlet *lg = lgreenlet_check(L, 1);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
    lua_replace(L, 2);
  }
  bool exits = lgreenlet_is_exit(u, L, 2);
  lgreenlet_start(L, 1, u, lg);
  if (is_unstarted(lg) && lg->kind == KIND_SPAWNED) { /* its parent is the hub: nobody to tell */
    ltask_end_unstarted(L, u, lg);
    return 0;
  }
  if (is_unstarted(lg) && exits) {
    lua_pushvalue(L, 2);
    ltask_end_unstarted(L, u, lg);
  } else if (is_unstarted(lg)) {
    lg = first_started(L, u, lg);
  }
  int status = exits && lg->task.done ? GREEN_OK : GREEN_THROWN;
  return depart(L, u, lg, status, 1, "throw");
}

/* ---- tracing ---- */

static int call_tracer(lua_State *S) {
  LGreenlet *origin = lua_touserdata(S, 1), *target = lua_touserdata(S, 2);
  lgreenlet_push_anchored(S, universe());
  lua_pushstring(S, lua_toboolean(S, 3) ? "throw" : "switch");
  lgreenlet_push(S, &origin->task);
  lgreenlet_push(S, &target->task);
  lua_call(S, 3, 0);
  return 0;
}

/* A tracer that raises turns itself off. It runs on S, not on the state that is
** about to switch, and may not switch itself. */
static void trace(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  LUniverse *u = arg;
  lua_State *S = u->S;
  int nvalues = u->nvalues;
  u->tracing = true;
  u->hub.nowait++;
  lua_pushcfunction(S, call_tracer);
  lua_pushlightuserdata(S, origin);
  lua_pushlightuserdata(S, target);
  lua_pushboolean(S, thrown);
  if (lua_pcall(S, 3, 0, 0) != LUA_OK) {
    lua_pop(S, 1);
    u->hub.thread.tracer = NULL;
  }
  u->hub.nowait--;
  u->tracing = false;
  u->nvalues = nvalues;
}

/*
---Calls `fn(event, origin, target)` before each switch, event being "switch" or
---"throw". The function may not switch; one that raises turns itself off.
---@param fn function|nil  nil: no tracing
---@return function|nil previous
*/
static int l_settrace(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  bool on = !lua_isnoneornil(L, 1);
  if (on) ltask_check_callable(L, 1);
  lua_settop(L, 1);
  if (u->hub.thread.tracer)
    lgreenlet_push_anchored(L, u);
  else
    lua_pushnil(L);
  lua_pushvalue(L, 1);
  lgreenlet_anchor(L, u); /* keyed by the universe: there is one tracer */
  u->hub.thread.tracer = on ? trace : NULL;
  u->hub.thread.tracer_arg = u;
  return 1;
}

static const luaL_Reg functions[] = {{"new", l_new}, {"settrace", l_settrace}, {NULL, NULL}};
static const luaL_Reg methods[] = {{"switch", l_switch}, {"throw", l_throw}, {NULL, NULL}};

void lswitch_open(lua_State *L, int module, int methods_table) {
  lgreenlet_register(L, module, functions, methods_table, methods);
}
