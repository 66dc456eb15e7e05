/*
 * libev's watchers as objects of a script. May use lcallback, lcheck,
 * lgreenlet, hub.
 *
 * A started watcher is anchored, so it lives and fires though nobody holds it;
 * a stopped one is an ordinary userdata. Its user values are its callback's
 * function and arguments and, for stat, the path, to which libev points.
 */
#include "lwatcher.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "../hub/wait.h"
#include "lcallback.h"
#include "lcheck.h"
#include "lgreenlet.h"

#define WATCHER "green.watcher" /* its metatable's name in the registry */

enum { PATH_VALUE = LCALLBACK_VALUES + 1, USER_VALUES = PATH_VALUE };

typedef struct Watcher Watcher;
typedef struct Watchers Watchers;

/* What differs between the kinds of watchers. */
typedef struct Kind {
  const char *name;          /* as its constructor is called */
  const char *callback;      /* for reports: "a timer's callback" */
  void (*start)(Watcher *w); /* tells libev */
  void (*stop)(Watcher *w);  /* ditto; also right when libev stopped it itself */
} Kind;

struct Watcher {
  union { /* first: libev's pointer is the Watcher's */
    ev_watcher any;
    HubIo io;
    ev_timer timer;
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
    ev_async async;
    ev_stat stat;
  } ev;
  const Kind *kind;
  Watchers *all;        /* its hub's */
  Watcher *prev, *next; /* in `all`, while started */
  double after, repeat; /* a timer's settings, in seconds */
  int revents;          /* what libev said last; 0: nothing since the start */
  int error;            /* an io watcher's descriptor failed: the code; 0: it did not */
  bool started;         /* anchored and known to libev */
  bool closed;          /* for good */
  bool ref;             /* is to keep the loop alive while started */
  bool unreffed;        /* ev_unref was called for it, ev_ref not yet */
};

/* All started watchers of a hub: counted, and forgotten in time when it closes. */
struct Watchers {
  HubService service; /* first */
  Hub *hub;
  Watcher *first;
  size_t count;
};

/* ---- the hub's list ---- */

static const char watchers_key;

static void list_add(Watcher *w) {
  Watchers *all = w->all;
  w->prev = NULL;
  w->next = all->first;
  if (all->first) all->first->prev = w;
  all->first = w;
  all->count++;
}

static void list_remove(Watcher *w) {
  if (w->prev)
    w->prev->next = w->next;
  else
    w->all->first = w->next;
  if (w->next) w->next->prev = w->prev;
  w->all->count--;
}

/* The loop goes: afterwards no watcher may touch it, also none that is
** collected later. */
static void watchers_close(HubService *s) {
  Watchers *all = (Watchers *)s;
  while (all->first) {
    Watcher *w = all->first;
    w->kind->stop(w);
    list_remove(w);
    w->started = w->unreffed = false;
  }
  free(all);
}

static Watchers *watchers_of(lua_State *L) {
  Hub *hub = lcheck_hub(L);
  Watchers *all = (Watchers *)hub_service(hub, &watchers_key);
  if (all) return all;
  all = calloc(1, sizeof *all);
  if (!all) luaL_error(L, "not enough memory");
  all->service.key = &watchers_key;
  all->service.close = watchers_close;
  all->hub = hub;
  hub_service_add(hub, &all->service);
  return all;
}

size_t lwatcher_count(Hub *hub) {
  const Watchers *all = (const Watchers *)hub_service(hub, &watchers_key);
  return all ? all->count : 0;
}

/* ---- start and stop ---- */

/* Makes libev count the watcher, or not. libev counts what is active; each
** ev_unref needs its ev_ref before the stop (ev(3), "ev_unref"). */
static void count(Watcher *w) {
  struct ev_loop *loop = w->all->hub->loop;
  bool unref = w->started && !w->ref;
  if (unref == w->unreffed) return;
  w->unreffed = unref;
  if (unref)
    ev_unref(loop);
  else
    ev_ref(loop);
}

/* Stops `w` if it is started. Never raises. */
static void halt(lua_State *L, Watcher *w) {
  if (!w->started) return;
  w->started = false;
  count(w);
  w->kind->stop(w);
  list_remove(w);
  lgreenlet_unanchor(L, w);
}

/* Starts the watcher at `index`, which is stopped. */
static void begin(lua_State *L, int index, Watcher *w) {
  lua_pushvalue(L, index);
  lgreenlet_anchor(L, w);
  w->revents = 0;
  w->error = 0;
  w->kind->start(w);
  w->started = true;
  list_add(w);
  count(w);
}

static void io_start(Watcher *w) { hub_io_start(w->all->hub, &w->ev.io); }
static void io_stop(Watcher *w) { hub_io_stop(w->all->hub, &w->ev.io); }

/* libev counts from its cached time, which a long computation leaves behind. */
static void timer_start(Watcher *w) {
  hub_now_update(w->all->hub);
  ev_timer_set(&w->ev.timer, w->after, w->repeat);
  ev_timer_start(w->all->hub->loop, &w->ev.timer);
}

static void timer_stop(Watcher *w) { ev_timer_stop(w->all->hub->loop, &w->ev.timer); }
static void prepare_start(Watcher *w) { ev_prepare_start(w->all->hub->loop, &w->ev.prepare); }
static void prepare_stop(Watcher *w) { ev_prepare_stop(w->all->hub->loop, &w->ev.prepare); }
static void check_start(Watcher *w) { ev_check_start(w->all->hub->loop, &w->ev.check); }
static void check_stop(Watcher *w) { ev_check_stop(w->all->hub->loop, &w->ev.check); }
static void idle_start(Watcher *w) { ev_idle_start(w->all->hub->loop, &w->ev.idle); }
static void idle_stop(Watcher *w) { ev_idle_stop(w->all->hub->loop, &w->ev.idle); }
static void async_start(Watcher *w) { ev_async_start(w->all->hub->loop, &w->ev.async); }
static void async_stop(Watcher *w) { ev_async_stop(w->all->hub->loop, &w->ev.async); }
static void stat_start(Watcher *w) { ev_stat_start(w->all->hub->loop, &w->ev.stat); }
static void stat_stop(Watcher *w) { ev_stat_stop(w->all->hub->loop, &w->ev.stat); }

static const Kind io_kind = {"io", "an io watcher's callback", io_start, io_stop};
static const Kind timer_kind = {"timer", "a timer's callback", timer_start, timer_stop};
static const Kind prepare_kind = {"prepare", "a prepare watcher's callback", prepare_start, prepare_stop};
static const Kind check_kind = {"check", "a check watcher's callback", check_start, check_stop};
static const Kind idle_kind = {"idle", "an idle watcher's callback", idle_start, idle_stop};
static const Kind async_kind = {"async", "an async watcher's callback", async_start, async_stop};
static const Kind stat_kind = {"stat", "a stat watcher's callback", stat_start, stat_stop};

/* ---- events ---- */

/* Runs under lgreenlet_callback's protection, with the watcher as its argument:
** what raises here, reporting included, is reported as the callback's. */
static int deliver(lua_State *L) {
  Watcher *w = lua_touserdata(L, 1);
  if (!ev_is_active(&w->ev.any)) halt(L, w); /* a timer that does not repeat, a lost descriptor */
  int nargs = lcallback_push(L, 1);
  lua_call(L, nargs, 0);
  return 0;
}

/* The callback of all kinds, called by libev in the hub. */
static void on_event(struct ev_loop *loop, ev_watcher *ev, int revents) {
  Watcher *w = (Watcher *)ev;
  Hub *hub = w->all->hub;
  lua_State *L = lgreenlet_hub_state(hub);
  (void)loop;
  assert(w->started);
  w->revents = revents;
  if (revents & EV_ERROR) {
    w->error = -EBADF;
    w->kind->stop(w);
  }
  lua_pushcfunction(L, deliver);
  lgreenlet_push_anchored(L, w);
  lgreenlet_callback(hub, 1, w->kind->callback);
}

/* ---- constructors ---- */

/* Pushes a new, stopped watcher, for libev to be set by the caller. */
static Watcher *new_watcher(lua_State *L, const Kind *kind) {
  Watchers *all = watchers_of(L);
  Watcher *w = lua_newuserdatauv(L, sizeof *w, USER_VALUES);
  memset(w, 0, sizeof *w);
  ev_init(&w->ev.any, on_event);
  w->kind = kind;
  w->all = all;
  w->ref = true;
  luaL_setmetatable(L, WATCHER);
  return w;
}

/*
---Watches a descriptor: the callback runs whenever it can be read or written.
---`w.events` then says which; `w.error` is "EBADF" when the descriptor was closed
---meanwhile, and the watcher has stopped. The script may close the descriptor
---only after `w:stop()`.
---
---```lua
---local w = loop.io(sock:getfd(), "r")
---w:start(function() print("something to read") end)
---```
---@param fd integer  an open descriptor
---@param events "r"|"w"|"rw"
---@return green.watcher
*/
static int new_io(lua_State *L) {
  static const char *const names[] = {"r", "w", "rw", NULL};
  static const int events[] = {EV_READ, EV_WRITE, EV_READ | EV_WRITE};
  int fd = (int)lcheck_range(L, 1, 0, INT_MAX);
  int which = luaL_checkoption(L, 2, NULL, names);
  Watcher *w = new_watcher(L, &io_kind);
  ev_io_set(&w->ev.io.ev, fd, events[which]);
  return 1;
}

/*
---Fires `after` seconds from its start, and from then on every `repeat_`
---seconds, if that is not 0.
---
---```lua
---local w = loop.timer(0.5, 1)
---w:start(print, "tick")
---```
---@param after number  seconds
---@param repeat_? number  seconds; default 0: only once
---@return green.watcher
*/
static int new_timer(lua_State *L) {
  double after = lcheck_seconds(L, 1);
  double repeat = lua_isnoneornil(L, 2) ? 0. : lcheck_seconds(L, 2);
  Watcher *w = new_watcher(L, &timer_kind);
  w->after = after;
  w->repeat = repeat;
  return 1;
}

/*
---Fires in each turn of the loop, before it blocks.
---@return green.watcher
*/
static int new_prepare(lua_State *L) { return new_watcher(L, &prepare_kind), 1; }

/*
---Fires in each turn of the loop, after it has blocked and before other callbacks.
---@return green.watcher
*/
static int new_check(lua_State *L) { return new_watcher(L, &check_kind), 1; }

/*
---Fires in each turn in which nothing else does, and keeps the loop from blocking.
---@return green.watcher
*/
static int new_idle(lua_State *L) { return new_watcher(L, &idle_kind), 1; }

/*
---Fires after `w:send()`, once for any number of them. The one watcher that
---another thread (a C module's) may set off.
---@return green.watcher
*/
static int new_async(lua_State *L) { return new_watcher(L, &async_kind), 1; }

/*
---Fires when what a path names appears, changes or goes. `w.attr` is what there is
---now and `w.prev` what there was before, each a table `{size=, mtime=, nlink=,
---mode=}`, or nil when nothing was there.
---
---```lua
---local w = loop.stat("/etc/resolv.conf")
---w:start(function() print("changed", w.attr and w.attr.size) end)
---```
---@param path string
---@param interval? number  seconds between looks; default 0: libev chooses
---@return green.watcher
*/
static int new_stat(lua_State *L) {
  size_t len;
  const char *path = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, strlen(path) == len, 1, "path contains a zero byte");
  double interval = lua_isnoneornil(L, 2) ? 0. : lcheck_seconds(L, 2);
  Watcher *w = new_watcher(L, &stat_kind);
  ev_stat_set(&w->ev.stat, path, interval);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, PATH_VALUE);
  return 1;
}

/* ---- methods ---- */

static Watcher *check_watcher(lua_State *L) { return luaL_checkudata(L, 1, WATCHER); }

static Watcher *check_open(lua_State *L) {
  Watcher *w = check_watcher(L);
  if (w->closed) luaL_error(L, "watcher is closed");
  if (!hub_current()) luaL_error(L, "the loop is closed"); /* in a finalizer at the end of the state */
  return w;
}

static Watcher *check_is(lua_State *L, const Kind *kind, const char *fname) {
  Watcher *w = check_open(L);
  if (w->kind != kind) luaL_error(L, "'%s' is for %s watchers, not for %s", fname, kind->name, w->kind->name);
  return w;
}

static void check_descriptor(lua_State *L, const Watcher *w) {
  int code = w->kind == &io_kind ? wait_check(w->ev.io.ev.fd) : 0;
  if (code < 0) luaL_error(L, "cannot watch descriptor %d: %s", w->ev.io.ev.fd, status_text(code));
}

/*
---Starts the watcher: from now on `fn(...)` is called in the hub at each event. It
---must not wait. A watcher that is started already starts anew, with the new
---callback. While it is started it lives, though nobody holds it.
---@param fn function
---@param ... any
---@return green.watcher self
*/
static int start_watcher(lua_State *L) {
  Watcher *w = check_open(L);
  lcallback_check(L, 2, "start", 1);
  check_descriptor(L, w);
  lcallback_pack(L, 2);
  halt(L, w);
  lcallback_keep(L, 1);
  begin(L, 1, w);
  return 1;
}

/*
---Starts a repeating timer anew: it fires `repeat_` seconds from now. One that does
---not repeat is stopped. (ev(3), "ev_timer_again".)
---@param fn? function  another callback; default: the present one
---@param ... any
---@return green.watcher self
*/
static int again_timer(lua_State *L) {
  Watcher *w = check_is(L, &timer_kind, "again");
  if (!lua_isnoneornil(L, 2) || lua_getiuservalue(L, 1, LCALLBACK_FUNCTION) == LUA_TNIL) {
    lcallback_check(L, 2, "again", 1);
    lcallback_pack(L, 2);
    lcallback_keep(L, 1);
  }
  lua_settop(L, 1);
  halt(L, w);
  if (w->repeat == 0.) return 1;
  begin(L, 1, w);
  ev_timer_again(w->all->hub->loop, &w->ev.timer); /* in place of `after` */
  return 1;
}

/*
---Sets off an async watcher; does nothing unless that is started.
*/
static int send_async(lua_State *L) {
  Watcher *w = check_is(L, &async_kind, "send");
  if (w->started) ev_async_send(w->all->hub->loop, &w->ev.async);
  return 0;
}

/*
---Stops the watcher; an event that is due is dropped. Its callback is kept until
---the next start or the end, for `again`.
*/
static int stop_watcher(lua_State *L) {
  halt(L, check_open(L));
  return 0;
}

/*
---Stops the watcher for good. Closing twice does nothing.
*/
static int close_watcher(lua_State *L) {
  Watcher *w = check_watcher(L);
  halt(L, w);
  lcallback_drop(L, 1);
  w->closed = true;
  return 0;
}

static int watcher_tostring(lua_State *L) {
  const Watcher *w = check_watcher(L);
  const char *state = w->closed ? "closed" : w->started ? "active" : "stopped";
  lua_pushfstring(L, "watcher: %s (%s)", w->kind->name, state);
  return 1;
}

/* ---- properties ---- */

static int get_active(lua_State *L, const Watcher *w) { return lua_pushboolean(L, w->started), 1; }
static int get_ref(lua_State *L, const Watcher *w) { return lua_pushboolean(L, w->ref), 1; }

static int get_pending(lua_State *L, const Watcher *w) {
  lua_pushboolean(L, ev_is_pending(&w->ev.any));
  return 1;
}

static int get_callback(lua_State *L, const Watcher *w) {
  (void)w;
  lua_getiuservalue(L, 1, LCALLBACK_FUNCTION);
  return 1;
}

static int get_events(lua_State *L, const Watcher *w) {
  static const char *const names[] = {NULL, "r", "w", "rw"};
  int which = (w->revents & EV_READ ? 1 : 0) + (w->revents & EV_WRITE ? 2 : 0);
  lua_pushstring(L, w->error ? NULL : names[which]); /* NULL pushes nil */
  return 1;
}

static int get_error(lua_State *L, const Watcher *w) {
  lua_pushstring(L, w->error ? status_name(w->error) : NULL);
  return 1;
}

/* libev says by a link count of 0 that there is nothing (ev(3), "ev_stat"). */
static int push_stat(lua_State *L, const Watcher *w, const ev_statdata *st) {
  if (w->kind != &stat_kind || st->st_nlink == 0) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, st->st_size);
  lua_setfield(L, -2, "size");
  lua_pushnumber(L, (double)st->st_mtim.tv_sec + (double)st->st_mtim.tv_nsec * 1e-9);
  lua_setfield(L, -2, "mtime");
  lua_pushinteger(L, (lua_Integer)st->st_nlink);
  lua_setfield(L, -2, "nlink");
  lua_pushinteger(L, st->st_mode);
  lua_setfield(L, -2, "mode");
  return 1;
}

static int get_attr(lua_State *L, const Watcher *w) { return push_stat(L, w, &w->ev.stat.attr); }
static int get_prev(lua_State *L, const Watcher *w) { return push_stat(L, w, &w->ev.stat.prev); }

static const struct {
  const char *name;
  int (*get)(lua_State *L, const Watcher *w); /* pushes one value */
} properties[] = {
    {"active", get_active}, {"pending", get_pending}, {"ref", get_ref},   {"callback", get_callback},
    {"events", get_events}, {"error", get_error},     {"attr", get_attr}, {"prev", get_prev},
};

/* Upvalue 1: the table of methods. */
static int watcher_index(lua_State *L) {
  const Watcher *w = check_watcher(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
    if (strcmp(name, properties[i].name) == 0) return properties[i].get(L, w);
  return 1;
}

/* `w.ref = false`: does not keep the loop alive. The one property to set. */
static int watcher_newindex(lua_State *L) {
  Watcher *w = check_open(L);
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);
  if (strcmp(name, "ref") != 0) return luaL_error(L, "cannot set '%s' of a watcher", name);
  if (!lua_isboolean(L, 3)) return luaL_error(L, "'ref' of a watcher must be a boolean");
  w->ref = lua_toboolean(L, 3);
  count(w);
  return 0;
}

static const luaL_Reg methods[] = {{"start", start_watcher}, {"stop", stop_watcher}, {"close", close_watcher},
                                   {"again", again_timer},   {"send", send_async},   {NULL, NULL}};

/* __gc finds a started watcher only when the state closes: the anchor is gone. */
static const luaL_Reg metamethods[] = {{"__tostring", watcher_tostring},
                                       {"__newindex", watcher_newindex},
                                       {"__close", close_watcher},
                                       {"__gc", close_watcher},
                                       {NULL, NULL}};

static const luaL_Reg constructors[] = {{"io", new_io},       {"timer", new_timer}, {"prepare", new_prepare},
                                        {"check", new_check}, {"idle", new_idle},   {"async", new_async},
                                        {"stat", new_stat},   {NULL, NULL}};

void lwatcher_open(lua_State *L) {
  luaL_setfuncs(L, constructors, 0);
  luaL_newmetatable(L, WATCHER);
  luaL_setfuncs(L, metamethods, 0);
  luaL_newlib(L, methods);
  lua_pushcclosure(L, watcher_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
