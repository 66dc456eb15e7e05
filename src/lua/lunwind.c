/*
 * The end of everything: Ctrl-C, and the unwinding of all greenlets before the
 * state closes (D12, D17). May use the hub.
 */
#include "lcheck.h"
#include "lrecord.h"

lua_State *lgreenlet_running_state(Hub *hub) { return ((LGreenlet *)hub_running(hub))->T; }

static int interrupt_tostring(lua_State *L) {
  lua_pushliteral(L, "interrupted!");
  return 1;
}

/* The object of Ctrl-C: no string, to which Lua would add positions (D7). */
static void push_interrupt(lua_State *L) {
  lua_newuserdatauv(L, 0, 0);
  if (luaL_newmetatable(L, "interrupt")) {
    lua_pushcfunction(L, interrupt_tostring);
    lua_setfield(L, -2, "__tostring");
  }
  lua_setmetatable(L, -2);
}

/* Kills every live greenlet but `spared` with the object on L's top, and pops
** it. Nobody runs meanwhile; only the unstarted end at once, each by itself. */
static void kill_all(lua_State *L, LUniverse *u, LGreenlet *spared) {
  Task *next;
  for (Task *t = u->hub.all_head; t; t = next) {
    LGreenlet *lg = (LGreenlet *)t;
    next = t->all_next;
    if (lg == spared || lg->killed) continue;
    lua_pushvalue(L, -1);
    if (t->g.state == GREENLET_NEW) {
      ltask_end_unstarted(L, u, lg);
      continue;
    }
    if (lg->kind == KIND_RAW && lg != running(u)) greenlet_set_parent(&t->g, &u->self->task.g);
    lcancel_kill(L, lg);
  }
  lua_pop(L, 1);
}

void lgreenlet_interrupt(lua_State *L) {
  LUniverse *u = universe();
  push_interrupt(L);
  kill_all(L, u, NULL);
  if (running(u) != u->self) lcancel_raise(L, u, running(u));
}

/* The first live greenlet that is not main, or NULL. */
static Task *first_other(LUniverse *u) {
  Task *t = u->hub.all_head;
  return t == &u->main->task ? t->all_next : t;
}

void lgreenlet_absolve(void) {
  LGreenlet *main = universe()->main;
  main->killed = false;
  lcancel_settle(main);
  lcancel_forget(main);
}

void lgreenlet_unwind(lua_State *L) {
  LUniverse *u = universe();
  LGreenlet *main = u->main;
  lgreenlet_absolve();
  main->at = L;
  if (!first_other(u)) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, u->exit);
  kill_all(L, u, main);
  Deadline end = hub_deadline(&u->hub, u->shield + 1);
  for (Task *t = first_other(u); t; t = first_other(u))
    if (hub_join_task(&u->hub, t, end) < 0) break; /* it cannot be ended by a raise */
}
