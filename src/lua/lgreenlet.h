/*
 * What the other binding files may ask of greenlets: who runs, the hub's own
 * lua_State, and how a callback is run there.
 */
#ifndef GREEN_LGREENLET_H
#define GREEN_LGREENLET_H

#include <lua.h>

#include "../hub/hub.h"

/* The state on which loop callbacks run (D11). Only for code that runs on the
** hub's greenlet, and only inside lgreenlet_callback's discipline. */
lua_State *lgreenlet_hub_state(Hub *hub);

/* Calls, on the hub's state, the function and `nargs` arguments on its top,
** protected. An error is reported on stderr as "error in WHAT" with its
** traceback and goes no further (HB3). Leaves nothing on the stack. */
void lgreenlet_callback(Hub *hub, int nargs, const char *what);

/* Keeps the value on L's top alive under `key` until lgreenlet_unanchor (pops
** it), and pushes it again on any state. Keys are addresses of C objects. */
void lgreenlet_anchor(lua_State *L, const void *key);
void lgreenlet_unanchor(lua_State *L, const void *key);
void lgreenlet_push_anchored(lua_State *L, const void *key);

/* Pushes the greenlet object of `t`. */
void lgreenlet_push(lua_State *L, Task *t);

/* ---- for the host ---- */

/* The base state of the greenlet that runs. Async-signal-safe. */
lua_State *lgreenlet_running_state(Hub *hub);

/* Ctrl-C: kills every greenlet, main included, with an object whose text is
** "interrupted!". Raises it at once if a greenlet runs (`L` is its state). */
void lgreenlet_interrupt(lua_State *L);

/* On main, outside of its script: takes a kill of main back, so that it may wait. */
void lgreenlet_absolve(void);

/* On main: takes a kill of main back, then kills every other greenlet and runs
** them until they have ended, at most for the shield's time. To be called
** before lua_close, and after an interrupt before main may wait again. */
void lgreenlet_unwind(lua_State *L);

#endif
