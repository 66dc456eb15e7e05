/*
 * The records behind a greenlet and a universe: shared by the files that make
 * up core.greenlet (lgreenlet, lswitch, ltask, llink, lwait, lconfig, lcancel,
 * ltimeout, lreport, lpatch, lunwind, lcore), and by nobody else.
 *
 *   A[1], the anchors = { [2s+1] = lua_State of slot s, [2s+2] = its greenlet }
 *
 * A thread keeps its slot for life, in the pool or in use; a greenlet is
 * anchored there from its birth to its end. Its thread T holds base,
 * on_error (lgreenlet.c), body and arguments before it starts, and results or
 * the error at its end.
 */
#ifndef GREEN_LRECORD_H
#define GREEN_LRECORD_H

#include <lauxlib.h>
#include <lua.h>

#include "../hub/hub.h"
#include "lgreenlet.h"

typedef struct LGreenlet LGreenlet;
typedef struct LTimeout LTimeout;
typedef struct LUniverse LUniverse;

/* The metatable's name, as users see it in messages. */
#define GREENLET_TYPE "greenlet"
#define TIMEOUT_TYPE "timeout"

/* User values of a greenlet. */
enum {
  UV_VALUE = 1, /* before its end: the function that spawned it; then the one result, or a table of
                   all when there are more, or the error */
  UV_EXTRA = 2  /* nil, or a table: parent=, name=, kill=, traceback=, links= */
};

typedef enum { KIND_RAW, KIND_SPAWNED, KIND_MAIN, KIND_HUB } LKind;

/* A hook that was on a state when the return hook came (D7a). */
typedef struct LHook {
  lua_State *L;
  lua_Hook fn;
  int mask, count;
} LHook;

struct LGreenlet {
  Task task;              /* first */
  lua_State *T;           /* its base state; NULL before it has one and after its end */
  lua_State *at;          /* the state it runs on, or last waited on: the innermost of its coroutines */
  LTimeout *scopes;       /* its open timeouts, innermost first */
  HubCall links_call;     /* runs its links after its end */
  LGreenlet *next_failed; /* in the universe's list of failures not yet looked at */
  Deadline failed_at;
  LHook *hooks; /* what the return hook displaced, while in flight */
  int nhooks;
  lua_State *catcher;    /* in flight: the state of the innermost catcher; NULL: there was none */
  int catcher_depth;     /* in flight: its depth, counted from that state's base */
  Deadline shield_until; /* in flight: until when cleanup may wait; 0: it has not waited yet */
  int slot;              /* its thread's place in the anchors; -1: none */
  int nresults;          /* results kept in UV_VALUE */
  int spawn_line;        /* line of the spawn, in the function in UV_VALUE; -1: unknown */
  uint32_t order;        /* which of all spawned ones it was to end */
  int status;            /* Lua's, of its body at its end */
  uint8_t kind;          /* LKind */
  bool killed : 1;       /* a kill is pending, or ended it */
  bool in_flight : 1;    /* a kill or timeout has been raised and not yet arrived */
  bool failed : 1;       /* ended with an error */
  bool noted : 1;        /* the traceback of its failure is kept, and it is anchored for the report */
  bool observed : 1;     /* somebody has looked at its failure */
  bool handed : 1;       /* a script got hold of T: not to be used again (D3) */
  bool exited : 1;       /* ended by the exit object */
  bool linked : 1;       /* has links that have not run, and is anchored for them */
  bool linking : 1;      /* they are being run */
  bool late : 1; /* a timeout that woke it was cancelled before it ran; that is anchored to be raised */
};

struct LTimeout {
  ev_timer timer;
  LGreenlet *owner;
  LTimeout *outer;  /* the next scope outwards */
  double seconds;   /* negative: no timer */
  bool open : 1;    /* in owner's list */
  bool fired : 1;   /* expired, and still open */
  bool expired : 1; /* fired since its last start */
};

/* A Lua thread of the pool. */
typedef struct LThread {
  lua_State *L; /* NULL: dropped, the slot is free */
  int uses;
  int next; /* in the list of idle threads or of empty slots; -1: last */
} LThread;

struct LUniverse {
  Hub hub; /* first */
  LGreenlet *main, *self;
  lua_State *H; /* the hub's: loop callbacks */
  lua_State *S; /* for what must be protected after a greenlet's last instruction */
  lua_State *A; /* never runs anything: the anchors lie at its index 1 for good */
  int objects;  /* registry reference: light userdata -> object, for lgreenlet_anchor */
  const void *metatable, *new_metatable; /* the greenlets'; of those that are not started yet */
  int exit;                              /* registry reference: the exit object */
  void *exit_pointer;
  LThread *threads;
  int nthreads, idle, empty; /* heads of the two lists in `threads`; -1: none */
  lua_State *from;           /* a raw switch under way: the state with the values on its top */
  int nvalues;               /* and how many */
  bool tracing;              /* a tracer runs: it may not switch */
  LGreenlet *ended;          /* a raw greenlet that has died; its values may not be fetched yet */
  LGreenlet *failures, **failures_end;
  ev_timer failures_timer;
  uint32_t nended;                 /* spawned greenlets that have ended */
  int nreported;                   /* unobserved failures so far */
  double shield;                   /* seconds that a cleanup may wait */
  bool notes_spawner;              /* greenlets remember where they were spawned */
  lua_CFunction catchers[5], wrap; /* see lcancel.c */
};

static inline LUniverse *universe(void) { return (LUniverse *)hub_current(); }
static inline LGreenlet *running(LUniverse *u) { return (LGreenlet *)hub_running(&u->hub); }

/* lgreenlet.c */
LGreenlet *lgreenlet_check(lua_State *L, int arg);
LGreenlet *lgreenlet_test(lua_State *L, int arg);
void lgreenlet_register(lua_State *L, int module, const luaL_Reg *functions, int methods_table,
                        const luaL_Reg *methods);
enum { UPVALUE_METATABLE = 1, UPVALUE_NEW_METATABLE };             /* of the functions that make greenlets */
LGreenlet *lgreenlet_new(lua_State *L, LKind kind, int metatable); /* pushes it; not yet a task */
void lgreenlet_bury(LUniverse *u);                                 /* finishes what u->ended left */
lua_State *lgreenlet_reserve(lua_State *L, LUniverse *u); /* the thread that lgreenlet_adopt will take */
void lgreenlet_adopt(LUniverse *u, LGreenlet *lg);
void lgreenlet_anchor_self(lua_State *L, LUniverse *u, LGreenlet *lg); /* pops it from L's top */
void lgreenlet_start(lua_State *L, int index, LUniverse *u, LGreenlet *lg);
void lgreenlet_release(LUniverse *u, LGreenlet *lg, bool reuse);
int lgreenlet_run(LGreenlet *lg, int *nresults);
bool lgreenlet_is_exit(LUniverse *u, lua_State *L, int index);
void lgreenlet_extra(lua_State *L,
                     int index); /* pushes the table in UV_EXTRA of the greenlet at index, made if need be */
void lgreenlet_push_name(lua_State *L, LGreenlet *lg);
void lgreenlet_push_thread(lua_State *L, LGreenlet *lg);

/* The other files' functions, added to core.greenlet and to the methods */
void lswitch_open(lua_State *L, int module, int methods);
void ltask_open(lua_State *L, int module, int methods);
void ltimeout_open(lua_State *L, int module);
void llink_open(lua_State *L, int methods);
void lwait_open(lua_State *L, int module);
void lconfig_open(lua_State *L, int module);
void ltask_check_callable(lua_State *L, int arg);
void ltask_keep(LUniverse *u, LGreenlet *lg, int status, int nresults); /* T's top into UV_VALUE */
void ltask_end_unstarted(lua_State *L, LUniverse *u, LGreenlet *lg);    /* pops the kill object */

/* ltimeout.c */
void ltimeout_end_all(LUniverse *u, LGreenlet *lg);
void ltimeout_push_pending(lua_State *L, LTimeout *t); /* the object that it raises */
void ltimeout_push_expired(lua_State *L, double seconds);
void ltimeout_push_late(lua_State *L, LGreenlet *lg); /* and forgets it */
bool ltimeout_test(lua_State *L, int arg);

/* lcancel.c */
void lcancel_open(lua_State *L, LUniverse *u);
void lcancel_kill(lua_State *L, LGreenlet *lg); /* pops the kill object */
void lcancel_enter(lua_State *L, LUniverse *u, LGreenlet *lg);
_Noreturn void lcancel_raise(lua_State *L, LUniverse *u, LGreenlet *lg);
void lcancel_settle(LGreenlet *lg); /* after a reason is gone: is anything still pending? */
void lcancel_forget(LGreenlet *lg); /* at the end of a greenlet */

/* lreport.c */
void lreport_open(lua_State *L, LUniverse *u, int module);
void lreport_note(LUniverse *u, LGreenlet *lg);
void lreport_failure(LUniverse *u, LGreenlet *lg);
void lreport_forget(LUniverse *u, LGreenlet *lg);
void lreport_flush(LUniverse *u); /* reports now what nobody has looked at */
void lreport_observe(LUniverse *u, LGreenlet *lg);
int lreport_traceback(lua_State *L); /* message handler and tracer, see there */
void lreport_push_deadlock(lua_State *L, LUniverse *u);

/* lpatch.c */
void lpatch_open(lua_State *L);
void lpatch_inherit_hook(lua_State *from, lua_State *to);

#endif
