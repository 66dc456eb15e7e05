/*
 * Ctrl-C: the first cancels the root scope, so that every greenlet unwinds,
 * main included; the second ends the process at once.
 *
 * A signal handler may not touch Lua, except by lua_sethook (lua.c, laction).
 * So the handler does two things: it wakes the loop, whose callback kills all
 * greenlets if none runs; and it sets a hook on the state that runs, which
 * kills all if one computes and never waits. Whoever comes first does it.
 *
 * The mutable globals are owned by interrupt_init; the handler reads them.
 */
#include <ev.h>
#include <signal.h>

#include "../hub/hub.h"
#include "../lua/lgreenlet.h"
#include "host.h"

static Hub *hub;                      /* main's */
static lua_State *L_main;             /* main's */
static ev_async wakeup;               /* the handler wakes the loop by it */
static volatile sig_atomic_t pending; /* Ctrl-C has been pressed */
static bool delivered;                /* and all greenlets have been killed */

static struct { /* what the script had hooked when the handler came */
  lua_State *L; /* NULL: the handler has set no hook */
  lua_Hook fn;
  int mask, count;
} displaced;

static void deliver(lua_State *L) {
  if (delivered) return;
  delivered = true;
  lgreenlet_interrupt(L);
}

/* The hook: on the state that ran when the signal came, at its next instruction. */
static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(displaced.L, displaced.fn, displaced.mask, displaced.count);
  displaced.L = NULL;
  deliver(L);
}

static void on_wakeup(struct ev_loop *loop, ev_async *w, int revents) {
  (void)loop, (void)w, (void)revents;
  deliver(L_main);
}

static void on_sigint(int sig) {
  signal(sig, SIG_DFL); /* the second one ends the process */
  pending = 1;
  ev_async_send(hub->loop, &wakeup);
  if (hub_running(hub) == hub->self) return; /* the loop's callback will come first */
  lua_State *L = lgreenlet_running_state(hub);
  displaced.fn = lua_gethook(L);
  displaced.mask = lua_gethookmask(L);
  displaced.count = lua_gethookcount(L);
  displaced.L = L;
  lua_sethook(L, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

void interrupt_init(lua_State *L) {
  hub = hub_current();
  L_main = L;
  ev_async_init(&wakeup, on_wakeup);
  ev_async_start(hub->loop, &wakeup);
  ev_unref(hub->loop); /* waiting for Ctrl-C is no reason to go on */
  struct sigaction old;
  /* Started in the background by a shell without job control: stays ignored. */
  if (sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
  struct sigaction action = {.sa_handler = on_sigint, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
}

bool interrupt_pending(void) { return pending; }
