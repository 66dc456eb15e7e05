/*
 * Cancellation that wins: level-triggered, by the return hook (D7a). May use
 * the hub.
 *
 * A kill, or a timeout whose scope is open, is *pending* until the greenlet has
 * ended or the scope has. What is pending is raised at every wait. Lua's pcall
 * catches everything, so raising is not enough: when it is raised, the
 * innermost catcher on the stack is remembered, and a return hook is set on
 * every state of the greenlet. When that catcher returns, and something is
 * still pending, the hook finds the next catcher outwards and raises again.
 * Catchers deeper than the remembered one belong to cleanup (handlers, __close)
 * and are left alone; a wait there is shielded, for a bounded time.
 *
 * Nothing is replaced, and nothing is paid before a kill. A catcher is known by
 * its C function, so a pcall that was captured early is no way out.
 */
#include <assert.h>
#include <lualib.h>
#include <stdlib.h>

#include "lcheck.h"
#include "lrecord.h"

#define CHAIN_MAX 256 /* states of one greenlet: LUAI_MAXCCALLS is 200 */

/* The catchers, in LUniverse.catchers. */
enum { CATCH_PCALL, CATCH_XPCALL, CATCH_LOAD, CATCH_RESUME, CATCH_CLOSE };

/* The states of a greenlet, from its base to its innermost coroutine. */
typedef struct Chain {
  lua_State *states[CHAIN_MAX];
  int n;
} Chain;

/* ---- what is on a state's stack ---- */

/* The C function at a level, or NULL. */
static lua_CFunction function_at(lua_State *L, lua_Debug *ar) {
  lua_getinfo(L, "f", ar);
  lua_CFunction f = lua_tocfunction(L, -1);
  lua_pop(L, 1);
  return f;
}

static bool is_catcher(LUniverse *u, lua_CFunction f) {
  for (int i = CATCH_PCALL; f && i <= CATCH_CLOSE; i++)
    if (f == u->catchers[i]) return true;
  return false;
}

/* How many levels a state has: by doubling and halving, as luaL_traceback. */
static int count_levels(lua_State *L) {
  lua_Debug ar;
  int low = 0, high = 1;
  while (lua_getstack(L, high, &ar)) {
    low = high;
    high *= 2;
  }
  if (low == 0 && !lua_getstack(L, 0, &ar)) return 0;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (lua_getstack(L, middle, &ar))
      low = middle;
    else
      high = middle;
  }
  return low + 1;
}

/* The coroutine in the first argument of the call at `ar`. */
static lua_State *argument_thread(lua_State *L, lua_Debug *ar) {
  if (!lua_getlocal(L, ar, 1)) return NULL;
  lua_State *co = lua_tothread(L, -1);
  lua_pop(L, 1);
  return co;
}

/* The coroutine that a function made by coroutine.wrap keeps in its upvalue. */
static lua_State *wrapped_thread(lua_State *L, lua_Debug *ar) {
  lua_State *co = NULL;
  lua_getinfo(L, "f", ar);
  if (lua_getupvalue(L, -1, 1)) {
    co = lua_tothread(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return co;
}

/* The coroutine that the innermost function of `L` has resumed, or NULL. */
static lua_State *resumed_by(LUniverse *u, lua_State *L) {
  lua_Debug ar;
  if (!lua_getstack(L, 0, &ar)) return NULL;
  lua_CFunction f = function_at(L, &ar);
  if (f == u->catchers[CATCH_RESUME] || f == u->catchers[CATCH_CLOSE]) return argument_thread(L, &ar);
  if (f && f == u->wrap) return wrapped_thread(L, &ar);
  return NULL;
}

/* The greenlet's chain; `L`, the running state, is its last one. A foreign
** lua_resume hides what lies between. */
static void find_chain(LUniverse *u, LGreenlet *lg, lua_State *L, Chain *chain) {
  lua_State *S = lg->T;
  chain->n = 0;
  while (S && S != L && chain->n < CHAIN_MAX - 1) {
    chain->states[chain->n++] = S;
    S = resumed_by(u, S);
  }
  chain->states[chain->n++] = L;
}

/* ---- the remembered catcher ---- */

/* The innermost catcher of state `S` at or outwards of `level`: sets the
** remembered one. */
static bool remember_in(LUniverse *u, LGreenlet *lg, lua_State *S, int level) {
  lua_Debug ar;
  for (; lua_getstack(S, level, &ar); level++) {
    if (!is_catcher(u, function_at(S, &ar))) continue;
    lg->catcher = S;
    lg->catcher_depth = count_levels(S) - level;
    return true;
  }
  return false;
}

/* Remembers the innermost catcher at or outwards of `level` of the chain's last
** state; none: the greenlet's base. */
static void remember_catcher(LUniverse *u, LGreenlet *lg, const Chain *chain, int level) {
  lg->catcher = NULL;
  for (int i = chain->n - 1; i >= 0; i--, level = 0)
    if (remember_in(u, lg, chain->states[i], level)) return;
}

static int place_in(const Chain *chain, lua_State *S) {
  for (int i = 0; i < chain->n; i++)
    if (chain->states[i] == S) return i;
  return -1;
}

/* Is the remembered catcher still there? If so, what runs now is cleanup. */
static bool catcher_active(LUniverse *u, LGreenlet *lg, const Chain *chain) {
  lua_Debug ar;
  if (!lg->catcher) return true; /* the base */
  if (place_in(chain, lg->catcher) < 0) return false;
  int level = count_levels(lg->catcher) - lg->catcher_depth;
  return level >= 0 && lua_getstack(lg->catcher, level, &ar) && is_catcher(u, function_at(lg->catcher, &ar));
}

/* ---- hooks ---- */

static void on_return(lua_State *L, lua_Debug *ar);

/* Sets the return hook on `S`; what was there is kept, and chained. Without
** memory to keep it in, the script's hook is lost, not the kill. */
static void hook_state(LGreenlet *lg, lua_State *S) {
  LHook old = {S, lua_gethook(S), lua_gethookmask(S), lua_gethookcount(S)};
  if (old.fn == on_return) return;
  LHook *grown = old.fn ? realloc(lg->hooks, (size_t)(lg->nhooks + 1) * sizeof old) : NULL;
  if (grown) {
    lg->hooks = grown;
    lg->hooks[lg->nhooks++] = old;
  }
  lua_sethook(S, on_return, (grown ? old.mask : 0) | LUA_MASKRET, old.count);
}

static const LHook *kept_hook(LGreenlet *lg, lua_State *S) {
  for (int i = lg->nhooks - 1; i >= 0; i--)
    if (lg->hooks[i].L == S) return &lg->hooks[i];
  return NULL;
}

static void unhook_state(LGreenlet *lg, lua_State *S) {
  const LHook *old = kept_hook(lg, S);
  if (lua_gethook(S) != on_return) return;
  if (old)
    lua_sethook(S, old->fn, old->mask, old->count);
  else
    lua_sethook(S, NULL, 0, 0);
}

static void chain_script_hook(LGreenlet *lg, lua_State *L, lua_Debug *ar) {
  const LHook *old = kept_hook(lg, L);
  if (!old) return;
  int event = ar->event == LUA_HOOKTAILCALL ? LUA_HOOKCALL : ar->event;
  if (old->mask & (1 << event)) old->fn(L, ar);
}

/* ---- raising ---- */

/* The outermost scope that has expired, or NULL. */
static LTimeout *outermost_fired(LGreenlet *lg) {
  LTimeout *found = NULL;
  for (LTimeout *t = lg->scopes; t; t = t->outer)
    if (t->fired) found = t;
  return found;
}

/* Pushes the object of what is pending: the kill, else the outermost timeout. */
static void push_pending(lua_State *L, LUniverse *u, LGreenlet *lg) {
  if (!lg->killed) {
    ltimeout_push_pending(L, outermost_fired(lg));
    return;
  }
  lgreenlet_push(L, &lg->task);
  if (lua_getiuservalue(L, -1, UV_EXTRA) == LUA_TTABLE && lua_getfield(L, -1, "kill") != LUA_TNIL) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
}

/* Remembers who would catch a raise on `L`, and hooks every state. A raise inside
** a cleanup keeps the remembered catcher: the cleanup's own pcall would lose the
** kill. Not inlined: the chain may not lie on the stack while a message handler
** runs, which may wait, and be raised at, again and again. */
__attribute__((noinline)) static void take_off(lua_State *L, LUniverse *u, LGreenlet *lg) {
  Chain chain;
  find_chain(u, lg, L, &chain);
  if (!lg->in_flight || !catcher_active(u, lg, &chain)) {
    if (!lg->in_flight) lg->shield_until = 0;
    remember_catcher(u, lg, &chain, 0);
  }
  lg->in_flight = true;
  for (int i = 0; i < chain.n; i++) hook_state(lg, chain.states[i]);
}

static bool is_pending(LGreenlet *lg) { return lg->killed || outermost_fired(lg); }

/* Raises what is pending on `L`, the running state. */
void lcancel_raise(lua_State *L, LUniverse *u, LGreenlet *lg) {
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  if (is_pending(lg)) {
    take_off(L, u, lg);
    push_pending(L, u, lg);
  } else if (lg->late) {
    ltimeout_push_late(L, lg);
  } else { /* the reason is gone, and so is the wait */
    lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
  }
  lua_error(L);
  abort(); /* not reached */
}

/* Closes what is pending to be closed in a coroutine that has failed, which
** would never be: coroutine.resume only reports the error. */
static void close_dead(lua_State *L, lua_State *co) {
  if (!co || lua_status(co) == LUA_OK || lua_status(co) == LUA_YIELD) return;
#if LUA_VERSION_RELEASE_NUM >= 50406
  lua_closethread(co, L);
#else
  (void)L;
  lua_resetthread(co);
#endif
  lua_settop(co, 0); /* else coroutine.status says "suspended" */
}

/* The hook on a state of a greenlet with something in flight. */
static void on_return(lua_State *L, lua_Debug *ar) {
  LUniverse *u = universe();
  LGreenlet *lg = u ? running(u) : NULL;
  if (!lg || !lg->in_flight) { /* settled meanwhile: the hook takes itself off */
    if (lg) chain_script_hook(lg, L, ar);
    if (lg) unhook_state(lg, L);
    return;
  }
  chain_script_hook(lg, L, ar);
  if (ar->event != LUA_HOOKRET) return;
  lua_CFunction f = function_at(L, ar);
  if (!is_catcher(u, f)) return;
  Chain chain;
  find_chain(u, lg, L, &chain);
  if (lg->catcher && place_in(&chain, lg->catcher) >= 0) {
    if (L != lg->catcher) return; /* a coroutine of a cleanup */
    if (count_levels(L) > lg->catcher_depth) return;
  } else if (!lg->catcher) {
    return; /* raised to the base: this is a cleanup's */
  }
  if (f == u->catchers[CATCH_RESUME]) close_dead(L, argument_thread(L, ar));
  if (!lg->in_flight) return; /* the scope ended in there */
  remember_catcher(u, lg, &chain, 1);
  push_pending(L, u, lg);
  lua_error(L);
}

/* ---- coming and going ---- */

/* Before a wait of a greenlet with something pending: is it cleanup? */
void lcancel_enter(lua_State *L, LUniverse *u, LGreenlet *lg) {
  Chain chain;
  lg->task.shield = 0;
  if (!lg->in_flight) return;
  find_chain(u, lg, L, &chain);
  if (!catcher_active(u, lg, &chain)) return;
  if (lg->shield_until == 0) lg->shield_until = hub_deadline(&u->hub, u->shield);
  lg->task.shield = lg->shield_until;
}

/* The first kill wins; a second one is harmless. The object is popped. */
void lcancel_kill(lua_State *L, LGreenlet *lg) {
  LUniverse *u = universe();
  if (lg->killed || lg->task.done) {
    lua_pop(L, 1);
    return;
  }
  if (lgreenlet_is_exit(u, L, -1)) {
    lua_pop(L, 1);
  } else {
    lgreenlet_push(L, &lg->task);
    lgreenlet_extra(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "kill");
    lua_pop(L, 3);
  }
  lg->killed = true;
  hub_cancel(&lg->task);
}

void lcancel_settle(LGreenlet *lg) {
  if (is_pending(lg)) return;
  lg->task.cancelled = false;
  lg->task.shield = 0;
  lg->in_flight = false; /* the hooks take themselves off at the next return */
}

void lcancel_forget(LGreenlet *lg) {
  if (lg->late) {
    lua_State *S = universe()->S;
    ltimeout_push_late(S, lg);
    lua_pop(S, 1);
  }
  if (lg->T) unhook_state(lg, lg->T);
  lg->in_flight = false;
  lg->task.cancelled = false;
  lg->task.shield = 0;
  free(lg->hooks);
  lg->hooks = NULL;
  lg->nhooks = 0;
}

/*
---Is `e` what a kill or a timeout raises, rather than an error?
---@param e any
---@return boolean
*/
static int l_iscancelled(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  LGreenlet *lg = running(u);
  luaL_checkany(L, 1);
  bool cancelled = lgreenlet_is_exit(u, L, 1) || ltimeout_test(L, 1);
  if (!cancelled && lg->task.cancelled) {
    push_pending(L, u, lg);
    cancelled = lua_rawequal(L, 1, -1);
  }
  lua_pushboolean(L, cancelled);
  return 1;
}

/* ---- opening ---- */

static void find_functions(lua_State *L, lua_CFunction *catchers) {
  static const char *const names[] = {"pcall", "xpcall", "load", "resume", "close"};
  luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
  luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 0);
  for (int i = CATCH_PCALL; i <= CATCH_CLOSE; i++) {
    lua_getfield(L, i < CATCH_RESUME ? 1 : 2, names[i]);
    catchers[i] = lua_tocfunction(L, -1);
    lua_pop(L, 1);
  }
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* The C functions are read off a scratch state: the script may have replaced
** the globals before it required us. */
void lcancel_open(lua_State *L, LUniverse *u) {
  lua_State *scratch = luaL_newstate();
  if (!scratch) luaL_error(L, "not enough memory");
  find_functions(scratch, u->catchers);
  lua_getfield(scratch, 2, "wrap");
  lua_pushcfunction(scratch, nothing);
  lua_call(scratch, 1, 1);
  u->wrap = lua_tocfunction(scratch, -1);
  lua_close(scratch);
  lua_pushcfunction(L, l_iscancelled);
  lua_setfield(L, -2, "iscancelled");
}
