/*
 * The greenlet object: its record, its Lua thread, its properties. What it
 * does is in lswitch.c (raw) and ltask.c (spawned). May use the hub.
 */
#include "lgreenlet.h"

#include <stdlib.h>
#include <string.h>

#include "lcheck.h"
#include "lrecord.h"

#define THREAD_USES 100 /* a thread is used again at most so often (D3) */

/* ---- anchors ---- */

void lgreenlet_anchor(lua_State *L, const void *key) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, universe()->objects);
  lua_insert(L, -2);
  lua_rawsetp(L, -2, key);
  lua_pop(L, 1);
}

void lgreenlet_unanchor(lua_State *L, const void *key) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, universe()->objects);
  lua_pushnil(L);
  lua_rawsetp(L, -2, key);
  lua_pop(L, 1);
}

void lgreenlet_push_anchored(lua_State *L, const void *key) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, universe()->objects);
  lua_rawgetp(L, -1, key);
  lua_remove(L, -2);
}

/* Sets anchors[index] to what is on A's top, and pops it. Allocates nothing:
** the place exists since the slot does. */
static void set_anchor(LUniverse *u, int index) { lua_rawseti(u->A, 1, index); }

static void clear_anchor(LUniverse *u, int index) {
  lua_pushboolean(u->A, 0);
  set_anchor(u, index);
}

void lgreenlet_anchor_self(lua_State *L, LUniverse *u, LGreenlet *lg) {
  lua_xmove(L, u->A, 1);
  set_anchor(u, 2 * lg->slot + 2);
}

/* Pushes the greenlet's object. Main and the hub, which have no slot, are in
** `objects` under their records' addresses; for a dead one nil is pushed. */
void lgreenlet_push(lua_State *L, Task *t) {
  LUniverse *u = universe();
  LGreenlet *lg = (LGreenlet *)t;
  if (lg->slot < 0) {
    lgreenlet_push_anchored(L, lg);
    return;
  }
  lua_rawgeti(u->A, 1, 2 * lg->slot + 2);
  lua_xmove(u->A, L, 1);
}

lua_State *lgreenlet_hub_state(Hub *hub) { return ((LUniverse *)hub)->H; }

/* ---- checks ---- */

LGreenlet *lgreenlet_test(lua_State *L, int arg) {
  void *p = lua_touserdata(L, arg);
  if (!p || !lua_getmetatable(L, arg)) return NULL;
  LUniverse *u = universe();
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  return metatable == u->metatable || metatable == u->new_metatable ? p : NULL;
}

LGreenlet *lgreenlet_check(lua_State *L, int arg) {
  LGreenlet *lg = hub_current() ? lgreenlet_test(L, arg) : NULL;
  if (!lg) luaL_typeerror(L, arg, GREENLET_TYPE);
  return lg;
}

bool lgreenlet_is_exit(LUniverse *u, lua_State *L, int index) {
  return lua_touserdata(L, index) == u->exit_pointer;
}

/* ---- the body ---- */

/* Message handler of every body: the stack of the error is still there. The
** object stays what it is. */
static int on_error(lua_State *T) {
  LUniverse *u = universe();
  if (!lgreenlet_is_exit(u, T, 1)) lreport_note(u, running(u));
  return 1;
}

/* The end of a body: its results, above the handler, or the error. */
static int finish_base(lua_State *T, int status, lua_KContext ctx) {
  (void)ctx;
  bool failed = status != LUA_OK && status != LUA_YIELD;
  running(universe())->status = failed ? status : LUA_OK;
  return failed ? 1 : lua_gettop(T) - 1;
}

/* What every thread of a greenlet runs: on_error, the body, and its arguments.
** A call protected here, rather than lua_resume's own protection, since only
** lua_pcallk and its kin give a state its hooks back after an error that was
** raised in one (ldo.c, finishpcallk): the return hook's (D7a, LU9). */
static int base(lua_State *T) {
  int status = lua_pcallk(T, lua_gettop(T) - 2, LUA_MULTRET, 1, 0, finish_base);
  return finish_base(T, status, 0);
}

/* A coroutine.yield that was captured before lpatch.c replaced it came back to
** the trampoline: there is nobody to yield to. lua_closethread is new in 5.4.6;
** before, lua_resetthread does the same but for the count of C calls. */
static int end_yielded(lua_State *T) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  lua_closethread(T, NULL);
#else
  lua_resetthread(T);
#endif
  lua_settop(T, 0);
  lua_pushliteral(T, "attempt to yield from outside a coroutine"); /* anchored by lpatch_open */
  return LUA_ERRRUN;
}

/* Runs T's body to its end. Returns LUA_OK with the results on T's top, or an
** error status with the error there, after the variables to be closed have
** been (they may wait). */
int lgreenlet_run(LGreenlet *lg, int *nresults) {
  int status = lua_resume(lg->T, NULL, lua_gettop(lg->T) - 1, nresults);
  if (status == LUA_OK) return lg->status;
  *nresults = 1;
  if (status == LUA_YIELD) return end_yielded(lg->T);
  return status; /* out of memory outside of the protected call */
}

/* ---- threads ---- */

static void grow_threads(lua_State *L, LUniverse *u) {
  int size = u->nthreads ? 2 * u->nthreads : 16;
  LThread *grown = realloc(u->threads, (size_t)size * sizeof *grown);
  if (!grown) luaL_error(L, "not enough memory");
  for (int i = u->nthreads; i < size; i++) grown[i] = (LThread){NULL, 0, i + 1 < size ? i + 1 : -1};
  u->empty = u->nthreads;
  u->threads = grown;
  u->nthreads = size;
}

/* A new Lua thread in an empty slot, idle. Both places of the slot exist
** afterwards, so that later changes of them allocate nothing. What may run a
** finalizer, which may spawn, comes before the slot is chosen. */
static void new_thread(lua_State *L, LUniverse *u) {
  lua_State *T = lua_newthread(L);
  lua_sethook(T, NULL, 0, 0); /* lua_newthread inherits L's */
  if (u->empty < 0) grow_threads(L, u);
  int slot = u->empty;
  lua_pushvalue(u->A, 1);
  lua_xmove(u->A, L, 1);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, 2 * slot + 2); /* no step of the collector: lua_rawseti takes none (lapi.c) */
  lua_insert(L, -2);
  lua_rawseti(L, -2, 2 * slot + 1);
  lua_pop(L, 1);
  u->empty = u->threads[slot].next;
  u->threads[slot] = (LThread){T, 0, u->idle};
  u->idle = slot;
}

/* The thread that lgreenlet_adopt will take, with what every body runs under:
** the function and its arguments are to be moved there. Nothing may run Lua,
** not even a finalizer, between this and the adoption. */
lua_State *lgreenlet_reserve(lua_State *L, LUniverse *u) {
  if (u->idle < 0) new_thread(L, u);
  lua_State *T = u->threads[u->idle].L;
  lua_pushcfunction(T, base);
  lua_pushcfunction(T, on_error);
  return T;
}

void lgreenlet_adopt(LUniverse *u, LGreenlet *lg) {
  lg->slot = u->idle;
  u->idle = u->threads[lg->slot].next;
  lg->T = lg->at = u->threads[lg->slot].L;
}

/* May T serve another greenlet? Only if no script can tell (D3). */
static bool reusable(LUniverse *u, LGreenlet *lg) {
  return !lg->handed && !lua_gethook(lg->T) && ++u->threads[lg->slot].uses < THREAD_USES;
}

/* Gives the thread back, and lets go of the greenlet. Calls only what cannot
** raise: this is code after a greenlet's base (D11). */
void lgreenlet_release(LUniverse *u, LGreenlet *lg, bool reuse) {
  int slot = lg->slot;
  LThread *thread = &u->threads[slot];
  clear_anchor(u, 2 * slot + 2);
  lua_settop(lg->T, 0);
  if (reuse && reusable(u, lg)) {
    thread->next = u->idle;
    u->idle = slot;
  } else {
    clear_anchor(u, 2 * slot + 1);
    thread->L = NULL;
    thread->next = u->empty;
    u->empty = slot;
  }
  lg->slot = -1;
  lg->T = lg->at = NULL;
}

/* ---- the record ---- */

LGreenlet *lgreenlet_new(lua_State *L, LKind kind, int metatable) {
  LGreenlet *lg = lua_newuserdatauv(L, sizeof *lg, 2);
  lg->T = lg->at = NULL;
  lg->scopes = NULL;
  lg->links_call.pending = false;
  lg->hooks = NULL;
  lg->nhooks = 0;
  lg->catcher = NULL;
  lg->shield_until = 0;
  lg->slot = -1;
  lg->nresults = 0;
  lg->spawn_line = -1;
  lg->order = 0;
  lg->kind = (uint8_t)kind;
  lg->killed = lg->in_flight = lg->late = lg->failed = lg->noted = lg->observed = false;
  lg->handed = lg->exited = lg->linked = lg->linking = false;
  lg->task.done = false;
  lg->task.g.state = GREENLET_NEW;
  lua_pushvalue(L, metatable);
  lua_setmetatable(L, -2);
  return lg;
}

/* A greenlet that is not started is collectable: its finalizer gives its thread
** back. From its start on it is anchored, and has no finalizer (D8). */
void lgreenlet_start(lua_State *L, int index, LUniverse *u, LGreenlet *lg) {
  index = lua_absindex(L, index);
  lua_getmetatable(L, index);
  if (lua_topointer(L, -1) == u->new_metatable) {
    lua_getfield(L, -1, "started");
    lua_setmetatable(L, index);
    lua_pushvalue(L, index);
    lgreenlet_anchor_self(L, u, lg);
  }
  lua_pop(L, 1);
}

void lgreenlet_extra(lua_State *L, int index) {
  index = lua_absindex(L, index);
  if (lua_getiuservalue(L, index, UV_EXTRA) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, index, UV_EXTRA);
}

/* What a raw greenlet left when it died: its values have been fetched by now. */
void lgreenlet_bury(LUniverse *u) {
  LGreenlet *lg = u->ended;
  if (!lg) return;
  u->ended = NULL;
  lgreenlet_release(u, lg, !lg->failed && !lg->exited);
}

void lgreenlet_push_name(lua_State *L, LGreenlet *lg) {
  if (lg->task.g.name)
    lua_pushstring(L, lg->task.g.name);
  else
    lua_pushfstring(L, "greenlet-%d", (int)lg->task.g.id);
}

/* The thread to look at from outside: the one it waits on. It is in the
** script's hands then. */
void lgreenlet_push_thread(lua_State *L, LGreenlet *lg) {
  if (!lg->at || lg->task.g.state == GREENLET_NEW) { /* an unstarted one could be resumed by a script */
    lua_pushnil(L);
    return;
  }
  if (lg == running(universe())) lg->at = L; /* what it last waited on may be gone */
  lg->handed = true;
  lua_pushthread(lg->at);
  if (lg->at != L) lua_xmove(lg->at, L, 1);
}

/* The finalizer of a greenlet that was never started. */
static int l_gc(lua_State *L) {
  LGreenlet *lg = lua_touserdata(L, 1);
  LUniverse *u = universe();
  if (!u || lg->slot < 0 || lg->task.done || lg->task.spawned || lg->task.g.state != GREENLET_NEW) return 0;
  greenlet_discard(&lg->task.g);
  lg->task.done = true;
  lgreenlet_release(u, lg, true);
  return 0;
}

/* ---- properties ---- */

static const char *state_name(LGreenlet *lg) {
  static const char *const names[] = {"new", "current", "suspended", "dead"};
  return lg->task.done ? "dead" : names[lg->task.g.state];
}

/*
---The name and the state: `greenlet: NAME (new|current|suspended|dead)`.
---@return string
*/
static int l_tostring(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  lgreenlet_push_name(L, lg);
  lua_pushfstring(L, "greenlet: %s (%s)", lua_tostring(L, -1), state_name(lg));
  return 1;
}

static int get_parent(lua_State *L, LGreenlet *lg) {
  Greenlet *parent = lg->task.g.parent;
  if (!parent)
    lua_pushnil(L);
  else if (lua_getiuservalue(L, 1, UV_EXTRA) == LUA_TTABLE && lua_getfield(L, -1, "parent") != LUA_TNIL)
    return 1;
  else
    lgreenlet_push(L, (Task *)parent);
  return 1;
}

static int get_dead(lua_State *L, LGreenlet *lg) {
  lua_pushboolean(L, lg->task.done);
  return 1;
}

static int get_started(lua_State *L, LGreenlet *lg) {
  lua_pushboolean(L, lg->task.g.state != GREENLET_NEW || lg->task.spawned);
  return 1;
}

static int get_name(lua_State *L, LGreenlet *lg) {
  lgreenlet_push_name(L, lg);
  return 1;
}

static int get_value(lua_State *L, LGreenlet *lg) {
  if (lg->failed || lg->nresults == 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_getiuservalue(L, 1, UV_VALUE);
  if (lg->nresults > 1) lua_rawgeti(L, -1, 1);
  return 1;
}

static int get_error(lua_State *L, LGreenlet *lg) {
  if (!lg->failed) {
    lua_pushnil(L);
    return 1;
  }
  lreport_observe(universe(), lg);
  lua_getiuservalue(L, 1, UV_VALUE);
  return 1;
}

static int get_traceback(lua_State *L, LGreenlet *lg) {
  if (lg->failed) lreport_observe(universe(), lg);
  if (lua_getiuservalue(L, 1, UV_EXTRA) == LUA_TTABLE) lua_getfield(L, -1, "traceback");
  return 1;
}

static int get_thread(lua_State *L, LGreenlet *lg) {
  lgreenlet_push_thread(L, lg);
  return 1;
}

static const struct {
  const char *name;
  int (*get)(lua_State *L, LGreenlet *lg);
} properties[] = {{"parent", get_parent}, {"dead", get_dead},           {"started", get_started},
                  {"name", get_name},     {"value", get_value},         {"error", get_error},
                  {"thread", get_thread}, {"traceback", get_traceback}, {NULL, NULL}};

/* Upvalue 1: the methods. They come first, since calls are what must be fast. */
static int l_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  LGreenlet *lg = lgreenlet_check(L, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  for (int i = 0; properties[i].name; i++)
    if (strcmp(key, properties[i].name) == 0) return properties[i].get(L, lg);
  return 1;
}

/* A parent's record must outlive its children's: it is held before the pointer
** is set, since holding it may raise. */
static void set_parent(lua_State *L, LGreenlet *lg) {
  LGreenlet *parent = lgreenlet_check(L, 3);
  lgreenlet_extra(L, 1);
  lua_getfield(L, -1, "parent"); /* the old one, which stays if the new one is refused */
  lua_pushvalue(L, 3);
  lua_setfield(L, -3, "parent");
  int code = greenlet_set_parent(&lg->task.g, &parent->task.g);
  if (code == GREEN_OK) {
    lgreenlet_start(L, 3, universe(), parent); /* a child's end may start it */
    return;
  }
  lua_setfield(L, -2, "parent");
  luaL_error(L, code == GREEN_CYCLE     ? "cyclic parent chain"
                : code == GREEN_FOREIGN ? "the parent belongs to another OS thread"
                                        : "the main greenlet has no parent");
}

static void set_name(lua_State *L, LGreenlet *lg) {
  if (lua_type(L, 3) != LUA_TSTRING) luaL_typeerror(L, 3, "string");
  lgreenlet_extra(L, 1);
  lua_pushvalue(L, 3);
  lua_setfield(L, -2, "name");
  lg->task.g.name = lua_tostring(L, 3);
}

static int l_newindex(lua_State *L) {
  LGreenlet *lg = lgreenlet_check(L, 1);
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "parent") == 0)
    set_parent(L, lg);
  else if (strcmp(key, "name") == 0)
    set_name(L, lg);
  else
    luaL_error(L, "a greenlet has no field '%s' that can be set", key);
  return 0;
}

/* ---- the current one ---- */

/*
---The greenlet that runs.
---@return greenlet
*/
static int l_current(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  lgreenlet_push(L, &running(u)->task);
  return 1;
}

/*
---The main greenlet: the OS thread's own stack.
---@return greenlet
*/
static int l_main(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  lgreenlet_push(L, &u->main->task);
  return 1;
}

/*
---The greenlet that runs the loop, parent of every spawned one.
---@return greenlet
*/
static int l_hub(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  lgreenlet_push(L, &u->self->task);
  return 1;
}

/*
---All live greenlets, in order of birth; the hub's is not among them.
---@return greenlet[]
*/
static int l_list(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  int n = 0;
  lua_newtable(L);
  for (Task *t = u->hub.all_head; t; t = t->all_next) {
    lgreenlet_push(L, t);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/*
---Counts, for tests and reports: live greenlets, stacks in use and free.
---@return {greenlets: integer, stacks: integer, free_stacks: integer}
*/
static int l_stats(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  int n = 0;
  for (Task *t = u->hub.all_head; t; t = t->all_next) n++;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "greenlets");
  lua_pushinteger(L, (lua_Integer)u->hub.thread.stacks.nlive);
  lua_setfield(L, -2, "stacks");
  lua_pushinteger(L, (lua_Integer)u->hub.thread.stacks.nfree);
  lua_setfield(L, -2, "free_stacks");
  return 1;
}

static const luaL_Reg functions[] = {{"current", l_current}, {"main", l_main},   {"hub", l_hub},
                                     {"list", l_list},       {"stats", l_stats}, {NULL, NULL}};

/* ---- opening ---- */

static int exit_tostring(lua_State *L) {
  lua_pushliteral(L, "GreenletExit");
  return 1;
}

/* The exit object: one userdata, known by its address. Pushes it. */
static void make_exit(lua_State *L, LUniverse *u) {
  u->exit_pointer = lua_newuserdatauv(L, 0, 0);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, exit_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "GreenletExit");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  u->exit = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Fills the metatable at `meta`; the methods are at `methods`. */
static void fill_metatable(lua_State *L, int meta, int methods) {
  lua_pushliteral(L, GREENLET_TYPE);
  lua_setfield(L, meta, "__name");
  lua_pushcfunction(L, l_tostring);
  lua_setfield(L, meta, "__tostring");
  lua_pushcfunction(L, l_newindex);
  lua_setfield(L, meta, "__newindex");
  lua_pushvalue(L, methods);
  lua_pushcclosure(L, l_index, 1);
  lua_setfield(L, meta, "__index");
  lua_getfield(L, methods, "__close"); /* ltask.c's */
  lua_setfield(L, meta, "__close");
}

/* The functions that make greenlets have both metatables as upvalues. */
static void make_metatables(lua_State *L, LUniverse *u) {
  luaL_newmetatable(L, GREENLET_TYPE);
  u->metatable = lua_topointer(L, -1);
  luaL_newmetatable(L, GREENLET_TYPE " (new)");
  u->new_metatable = lua_topointer(L, -1);
  lua_pushcfunction(L, l_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "started"); /* what it becomes */
}

/* Adds functions to the module, over the metatables that lie above it, and
** methods to the table of methods. */
void lgreenlet_register(lua_State *L, int module, const luaL_Reg *list, int methods_table,
                        const luaL_Reg *methods) {
  lua_pushvalue(L, module);
  lua_pushvalue(L, module + UPVALUE_METATABLE);
  lua_pushvalue(L, module + UPVALUE_NEW_METATABLE);
  luaL_setfuncs(L, list, 2);
  lua_pushvalue(L, methods_table);
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 2);
}

int lgreenlet_open(lua_State *L) {
  LUniverse *u = universe();
  luaL_newlib(L, functions);
  int module = lua_gettop(L);
  make_metatables(L, u);
  lua_newtable(L);
  int methods = lua_gettop(L);
  lswitch_open(L, module, methods);
  ltask_open(L, module, methods);
  llink_open(L, methods);
  lwait_open(L, module);
  lconfig_open(L, module);
  fill_metatable(L, module + 1, methods);
  fill_metatable(L, module + 2, methods);
  lua_pushnil(L);
  lua_setfield(L, methods, "__close");
  lua_settop(L, module);
  ltimeout_open(L, module);
  make_exit(L, u);
  lua_setfield(L, module, "exit");
  lcancel_open(L, u);
  lreport_open(L, u, module);
  lpatch_open(L);
  return 1;
}
