/*
 * Reports: failures that nobody looks at, errors in callbacks, deadlocks. May
 * use the hub.
 */
#include <stdio.h>
#include <string.h>

#include "lcheck.h"
#include "lrecord.h"

#define REPORT_AFTER 1.0 /* seconds for somebody to look at a failure */

/* ---- messages ---- */

/* Pushes the error at `index` as text: what lua.c's message handler makes of it. */
static const char *push_message(lua_State *L, int index) {
  int type = lua_type(L, index);
  bool speaks = type != LUA_TTABLE || luaL_getmetafield(L, index, "__tostring") != LUA_TNIL;
  if (!speaks) return lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, index));
  if (type == LUA_TTABLE) lua_pop(L, 1);
  return luaL_tolstring(L, index, NULL);
}

/* Message handler: adds the traceback. */
int lreport_traceback(lua_State *L) {
  const char *message = push_message(L, 1);
  luaL_traceback(L, L, message, 1);
  return 1;
}

static void print_error(const char *what, const char *text) {
  fprintf(stderr, "greenlua: error in %s: %s\n", what, text);
  fflush(stderr);
}

void lgreenlet_callback(Hub *hub, int nargs, const char *what) {
  lua_State *H = ((LUniverse *)hub)->H;
  int base = lua_gettop(H) - nargs;
  lua_pushcfunction(H, lreport_traceback);
  lua_insert(H, base);
  if (lua_pcall(H, nargs, 0, base) != LUA_OK) print_error(what, lua_tostring(H, -1));
  lua_settop(H, base - 1);
}

/* ---- where a greenlet is ---- */

/* Appends " at file:line" of the innermost Lua function of `S`, a parked
** state: only what neither allocates there nor raises (D11). */
static void add_place(luaL_Buffer *b, lua_State *S) {
  lua_Debug ar;
  char text[LUA_IDSIZE + 32];
  for (int level = 0; S && lua_getstack(S, level, &ar); level++) {
    lua_getinfo(S, "Sl", &ar);
    if (ar.currentline < 0) continue;
    snprintf(text, sizeof text, " at %s:%d", ar.short_src, ar.currentline);
    luaL_addstring(b, text);
    return;
  }
}

static void add_name(luaL_Buffer *b, LGreenlet *lg) {
  char text[48];
  if (lg->task.g.name) {
    luaL_addstring(b, lg->task.g.name);
    return;
  }
  snprintf(text, sizeof text, "greenlet-%u", (unsigned)lg->task.g.id);
  luaL_addstring(b, text);
}

static void add_wait(luaL_Buffer *b, LUniverse *u, Task *t) {
  char text[32];
  luaL_addstring(b, "\n\t");
  add_name(b, (LGreenlet *)t);
  if (t == hub_running(&u->hub)) {
    luaL_addstring(b, ": this one");
  } else if (!t->what) {
    luaL_addstring(b, ": suspended");
  } else {
    luaL_addstring(b, ": waits in ");
    luaL_addstring(b, t->what);
  }
  if (t->what_fd >= 0) {
    snprintf(text, sizeof text, " (fd %d)", t->what_fd);
    luaL_addstring(b, text);
  }
  for (Task *other = u->hub.all_head; t->holder && other; other = other->all_next) {
    if (other != t->holder) continue;
    luaL_addstring(b, " for ");
    add_name(b, (LGreenlet *)other);
  }
  add_place(b, ((LGreenlet *)t)->at);
}

void lreport_push_deadlock(lua_State *L, LUniverse *u) {
  luaL_Buffer b;
  luaL_where(L, 1);
  const char *where = lua_tostring(L, -1);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, where);
  luaL_addstring(&b, "this operation would block forever; the greenlets are:");
  for (Task *t = u->hub.all_head; t; t = t->all_next) add_wait(&b, u, t);
  luaL_pushresult(&b);
  lua_remove(L, -2);
}

/* ---- failures ---- */

static const void *failure_key(LGreenlet *lg) { return (char *)lg + 1; }

/* Argument: the record. Keeps the traceback of the error that has just ended
** its body, and the place of its spawn; anchors it until the report. */
static int note_failure(lua_State *S) {
  LGreenlet *lg = lua_touserdata(S, 1);
  lua_Debug ar;
  lgreenlet_push(S, &lg->task);
  luaL_traceback(S, lg->T, NULL, 1); /* 0 is the message handler */
  if (lg->spawn_line > 0 && lua_getiuservalue(S, 2, UV_VALUE) == LUA_TFUNCTION) {
    lua_getinfo(S, ">S", &ar);
    lua_pushfstring(S, "%s\nspawned at:\n\t%s:%d", lua_tostring(S, 3), ar.short_src, lg->spawn_line);
  }
  lgreenlet_extra(S, 2);
  lua_pushvalue(S, -2);
  lua_setfield(S, -2, "traceback");
  lua_pushvalue(S, 2);
  if (lg->kind == KIND_SPAWNED) lgreenlet_anchor(S, failure_key(lg));
  return 0;
}

static void start_timer(LUniverse *u) {
  if (!u->failures || ev_is_active(&u->failures_timer)) return;
  double wait = u->failures->failed_at + REPORT_AFTER - u->hub.now;
  ev_timer_set(&u->failures_timer, wait > 0 ? wait : 0., 0.);
  ev_timer_start(u->hub.loop, &u->failures_timer);
  ev_unref(u->hub.loop);
}

/* To be called where the stack of the error is still there; again for an error
** in a variable's closing. */
void lreport_note(LUniverse *u, LGreenlet *lg) {
  lua_pushcfunction(u->S, note_failure);
  lua_pushlightuserdata(u->S, lg);
  if (lua_pcall(u->S, 1, 0, 0) == LUA_OK)
    lg->noted = true;
  else
    lua_pop(u->S, 1); /* out of memory: the failure goes without its report */
}

/* A spawned greenlet has ended by an error. */
void lreport_failure(LUniverse *u, LGreenlet *lg) {
  if (!lg->noted) lreport_note(u, lg); /* out of memory calls no message handler */
  if (!lg->noted) return;
  if (lg->killed) lg->observed = true; /* by who killed it */
  lg->failed_at = hub_now_update(&u->hub);
  lg->next_failed = NULL;
  *u->failures_end = lg;
  u->failures_end = &lg->next_failed;
  start_timer(u);
}

void lreport_forget(LUniverse *u, LGreenlet *lg) { lgreenlet_unanchor(u->S, failure_key(lg)); }

void lreport_observe(LUniverse *u, LGreenlet *lg) {
  (void)u;
  lg->observed = true;
}

/* Arguments: an error. Its text. */
static int to_message(lua_State *S) {
  push_message(S, 1);
  return 1;
}

/* Argument: the record. An error whose __tostring fails is reported all the same. */
static int print_failure(lua_State *S) {
  LGreenlet *lg = lua_touserdata(S, 1);
  lgreenlet_push_anchored(S, failure_key(lg));
  lgreenlet_unanchor(S, failure_key(lg));
  if (lg->observed || !lg->failed) return 0;
  universe()->nreported++;
  lgreenlet_push_name(S, lg);
  lua_pushcfunction(S, to_message);
  lua_getiuservalue(S, 2, UV_VALUE);
  if (lua_pcall(S, 1, 1, 0) != LUA_OK) {
    lua_pop(S, 1);
    lua_pushliteral(S, "(error object whose __tostring fails)");
  }
  lgreenlet_extra(S, 2);
  lua_getfield(S, -1, "traceback");
  lua_pushfstring(S, "greenlet '%s'", lua_tostring(S, 3));
  lua_pushfstring(S, "%s\n%s", lua_tostring(S, 4), luaL_optstring(S, 6, ""));
  print_error(lua_tostring(S, 7), lua_tostring(S, 8));
  return 0;
}

/* Reports the failures of before `until` that nobody has looked at. */
static void report_until(LUniverse *u, Deadline until) {
  while (u->failures && u->failures->failed_at <= until) {
    LGreenlet *lg = u->failures;
    u->failures = lg->next_failed;
    if (!u->failures) u->failures_end = &u->failures;
    lua_pushcfunction(u->S, print_failure);
    lua_pushlightuserdata(u->S, lg);
    u->hub.nowait++; /* an error's __tostring may not wait: S is everybody's */
    if (lua_pcall(u->S, 1, 0, 0) != LUA_OK) lua_pop(u->S, 1);
    u->hub.nowait--;
  }
}

static void on_failures(struct ev_loop *loop, ev_timer *w, int events) {
  LUniverse *u = w->data;
  (void)events;
  ev_ref(loop);
  report_until(u, u->hub.now - REPORT_AFTER);
  start_timer(u);
}

void lreport_flush(LUniverse *u) { report_until(u, DEADLINE_NEVER); }

/*
---Reports now every failure of a spawned greenlet that nobody has looked at.
---@return integer count  of all so far
*/
static int l_failures(lua_State *L) {
  LUniverse *u = (LUniverse *)lcheck_hub(L);
  lreport_flush(u);
  lua_pushinteger(L, u->nreported);
  return 1;
}

void lreport_open(lua_State *L, LUniverse *u, int module) {
  u->failures_end = &u->failures;
  ev_timer_init(&u->failures_timer, on_failures, 0., 0.);
  u->failures_timer.data = u;
  lua_pushcfunction(L, l_failures);
  lua_setfield(L, module, "failures");
}
