/*
 * Ctrl-C: the first cancels the root scope, so that every greenlet unwinds,
 * main included; the second ends the process at once.
 *
 * A signal handler may not touch Lua, except by lua_sethook (lua.c, laction).
 * So the handler does two things: it wakes the loop, whose callback kills all
 * greenlets if none runs; and it sets a hook on the running greenlet's own
 * state, which kills all if that computes and never waits. Whoever comes first
 * does it.
 *
 * What it does not interrupt: a C function that neither returns nor waits, as in
 * lua.c; a coroutine that computes, until it waits, or its greenlet's own code
 * goes on (which coroutine runs cannot be asked in a handler); and lua_close,
 * once the hub has ended. The second Ctrl-C ends those.
 *
 * The mutable globals are owned by interrupt_init; the handler reads them, and
 * writes `displaced`, once.
 */
#include <ev.h>
#include <signal.h>

#include "../hub/hub.h"
#include "../lua/lgreenlet.h"
#include "host.h"

static Hub *volatile hub;             /* main's; NULL: not yet, or not any more */
static HubService service;            /* tells that the hub ends */
static ev_async wakeup;               /* the handler wakes the loop by it */
static volatile sig_atomic_t pending; /* Ctrl-C has been pressed */
static bool delivered;                /* and all greenlets have been killed */

static struct { /* what the script had hooked when the handler came */
  lua_Hook fn;
  int mask, count;
} displaced;

/* The hook: at the next instruction of the state that ran when the signal came.
** A coroutine made before that has inherited it (lstate.c, lua_newthread), and
** gets what it would have inherited. Raises. */
static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, displaced.fn, displaced.mask, displaced.count);
  if (delivered) return;
  delivered = true;
  lgreenlet_interrupt(L);
}

static int l_deliver(lua_State *L) {
  lgreenlet_interrupt(L);
  delivered = true; /* not before: memory may be short, and then the hook is left */
  return 0;
}

static void on_wakeup(struct ev_loop *loop, ev_async *w, int revents) {
  (void)loop, (void)w, (void)revents;
  if (delivered) return;
  lua_pushcfunction(lgreenlet_hub_state(hub), l_deliver);
  lgreenlet_callback(hub, 0, "Ctrl-C");
}

static void on_sigint(int sig) {
  signal(sig, SIG_DFL); /* the second one ends the process */
  pending = 1;
  if (!hub) return;
  ev_async_send(hub->loop, &wakeup);
  if (hub_running(hub) == hub->self) return; /* the loop's callback will come first */
  lua_State *L = lgreenlet_running_state(hub);
  if (!L) return; /* its last switch is to come: then the loop's turn, or another's */
  displaced.fn = lua_gethook(L);
  displaced.mask = lua_gethookmask(L);
  displaced.count = lua_gethookcount(L);
  lua_sethook(L, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* The state closes: what comes now finds neither hub nor greenlets. */
static void forget_hub(HubService *s) {
  (void)s;
  hub = NULL;
}

void interrupt_init(void) {
  static const char key;
  hub = hub_current();
  service.key = &key;
  service.close = forget_hub;
  hub_service_add(hub, &service);
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
