/*
 * The hub: a greenlet that runs the libev loop, a queue of ready greenlets,
 * and the one way to wait.
 *
 * A Task is a greenlet that the hub can park and make ready. A task that waits
 * switches straight to the next ready one; the hub's own greenlet runs the
 * loop only when nothing is ready, or when the slice is over, so that ready
 * tasks cannot starve I/O or timers (D5). One hub per OS thread (D15).
 *
 * What can wait takes a Deadline, and nothing else does. Everything here is
 * called on the hub's thread, except hub_wake.
 */
#ifndef GREEN_HUB_H
#define GREEN_HUB_H

#include <ev.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "../core/greenlet.h"

typedef struct Hub Hub;
typedef struct Task Task;

/* Absolute time on the hub's clock (CLOCK_MONOTONIC), in seconds. */
typedef double Deadline;
#define DEADLINE_NEVER ((Deadline)1e300)

/* An fd watcher. Always started by hub_io_start, which has the descriptor
** checked before the loop polls: Debian's libev aborts the process on one that
** was closed behind its back (D6). Initialise with ev_io_init(&io->ev, ...). */
typedef struct HubIo {
  ev_io ev;       /* first; its callback gets EV_ERROR when the descriptor is not open */
  unsigned fresh; /* 1 + its place in the hub's list of watchers new in this turn; 0: not there */
} HubIo;

/* A queue of tasks that wait for the same thing, first come first served. */
typedef struct WaitQueue {
  Task *head, *tail;
} WaitQueue;

/* Flags of a task; all are the hub's but `daemon`. */
struct Task {
  Greenlet g; /* first */
  Hub *hub;
  Task *next;                  /* in the run queue, while `queued` */
  Task *all_prev, *all_next;   /* in the hub's list of live tasks, in order of start, while `listed` */
  Task *wait_prev, *wait_next; /* in `waits_in` */
  WaitQueue *waits_in;         /* the queue it waits in, while parked there; NULL: none */
  WaitQueue joiners;           /* who waits for its end */
  void (*body)(Task *t);       /* what a spawned task runs; NULL for a raw greenlet */
  ev_timer timer;              /* its deadline while parked; its start while scheduled */
  HubIo io;                    /* its wait for a descriptor that is nobody's Pollable */
  Deadline shield;             /* while cancelled: waits are allowed until then; 0: none */
  const char *what;            /* while parked: the name of the wait, for reports ("sleep", "receive") */
  const void *holder;          /* while parked: the object waited for, for reports; or NULL */
  int what_fd;                 /* while parked: the descriptor, for reports; -1: none */
  int wake;                    /* why the last park ended: GREEN_OK or a code */
  bool parked : 1;             /* waits; somebody is to call hub_ready */
  bool queued : 1;             /* in the run queue */
  bool cancelled : 1;          /* level-triggered: every unshielded wait returns GREEN_CANCELLED */
  bool spawned : 1;            /* the hub starts it, and its end returns to the hub */
  bool scheduled : 1;          /* spawned, its start timer runs */
  bool done : 1;               /* ended, or will never run */
  bool listed : 1;             /* in the list of live tasks */
  bool daemon : 1;             /* nobody waits for it at the end of the program */
};

/* Something that lives once per hub and ends with it (resolver, fetch). */
typedef struct HubService {
  struct HubService *next;
  const void *key;                     /* the address of something static of its owner's */
  void (*close)(struct HubService *s); /* called by hub_close; frees it */
} HubService;

/* A callback for the loop's next turn; the memory is the caller's. */
typedef struct HubCall HubCall;
struct HubCall {
  HubCall *next;
  void (*fn)(HubCall *call);
  bool pending; /* queued: not yet run, not cancelled */
};

struct Hub {
  GreenletThread thread;
  Task *self; /* the greenlet that runs the loop */
  struct ev_loop *loop;
  Task *main;                  /* the OS thread's own stack */
  Task *run_head, *run_tail;   /* ready tasks */
  HubCall *calls, **calls_end; /* callbacks for the next turn, in order */
  Task *all_head, *all_tail;   /* live tasks, main included, the hub's own not */
  size_t nlive;                /* spawned tasks that have not ended, daemons not counted */
  WaitQueue idlers;            /* who waits in hub_join for the loop to have nothing to do */
  WaitQueue enders;            /* who waits in hub_join_spawned for nlive to be 0 */
  Deadline now;                /* the clock as of the last hub_now_update */
  double slice;                /* seconds that ready tasks may run before the loop polls */
  Deadline slice_end;
  Deadline slice_seen;     /* when the clock was last looked at for the slice */
  unsigned credit, stride; /* switches until the clock is looked at again; see slice_over */
  bool sliced;             /* the slice is over */
  bool changed;            /* fd watchers were started or stopped in this turn */
  int backend_fd;          /* the loop's own descriptor; -1: unknown */
  dev_t backend_dev;       /* what it names */
  ino_t backend_ino;
  void *thrown;  /* the error object of a park that ended with GREEN_THROWN */
  int nowait;    /* > 0: waiting is forbidden (callbacks of C libraries) */
  HubIo **fresh; /* fd watchers started in this turn */
  unsigned nfresh, fresh_size;
  ev_prepare prepare;          /* runs the ready tasks before the loop blocks */
  ev_check check;              /* takes the time after the loop has polled */
  ev_idle spin;                /* keeps the loop from blocking while tasks are ready */
  ev_async async;              /* another thread called hub_wake */
  pthread_mutex_t remote_lock; /* guards remote and each task's place in it */
  Task **remote;               /* tasks to wake, from other threads */
  size_t nremote, remote_size;
  HubService *services;
  bool closing; /* hub_close has begun: nothing waits any more */
  /* A spawned task could not get a stack: `code` is why. The embedder records
  ** the failure; the hub then ends the task. NULL: nothing to record. */
  void (*failed)(Task *t, int code);
};

/* ---- life ---- */

/* Makes the calling thread's hub. `main` becomes the task of the thread's own
** stack, `self` the one that runs the loop. All three are the caller's memory.
** Returns 0 or -errno. */
int hub_init(Hub *hub, Task *self, Task *main);

/* Ends the hub: called on main. Services are closed, watchers forgotten. */
void hub_close(Hub *hub);

/* The calling thread's hub, or NULL. */
Hub *hub_current(void);

/* The task that runs now; the hub's own inside loop callbacks. */
static inline Task *hub_running(Hub *hub) { return (Task *)hub->thread.current; }

/* True where waiting is possible: not in a loop callback, not under `nowait`. */
static inline bool hub_can_wait(Hub *hub) {
  return hub_running(hub) != hub->self && hub->nowait == 0 && !hub->closing;
}

/* ---- time ---- */

/* Reads the clock anew, for the hub and for libev alike. */
Deadline hub_now_update(Hub *hub);

/* The deadline `seconds` from now, read anew; infinity gives DEADLINE_NEVER. */
Deadline hub_deadline(Hub *hub, double seconds);

/* ---- tasks ---- */

/* Makes `t` a NEW task of the calling thread's hub; `parent` is the raw
** greenlet's parent, and `fn` begins with task_begin. The memory is the
** caller's and must live until `done`. */
void task_init(Task *t, Hub *hub, Greenlet *parent, GreenletFn fn);

/* The first act of a raw greenlet's body: it is live from now on. */
void task_begin(Task *t);

/* Makes `t` a NEW task whose end returns to the hub and which runs `body`. */
void task_init_spawned(Task *t, Hub *hub, void (*body)(Task *t));

/* Puts a NEW spawned task into the run queue: now, or at a deadline. */
void hub_spawn(Task *t);
void hub_spawn_at(Task *t, Deadline start);

/* Ends `t` as far as the hub is concerned: it never runs (again), its joiners
** wake. For a NEW task (killed before it ran), or by raw greenlets' bodies as
** their last act; spawned bodies do it by returning. */
void task_end(Task *t);

/* Level-triggered cancellation: from now on each of its unshielded waits
** returns GREEN_CANCELLED, also the present one. The embedder clears
** `cancelled` when the reason is gone. */
void hub_cancel(Task *t);

/* ---- waiting ---- */

/* Parks the running task until hub_ready or the deadline. `what` names the
** wait in reports. Returns hub_ready's code, or GREEN_TIMEDOUT,
** GREEN_CANCELLED (others ran meanwhile), GREEN_DEADLOCK, GREEN_NOWAIT,
** GREEN_BADSWITCH, or GREEN_THROWN with the object in hub->thrown. After any
** of them nothing of the wait is left behind. */
int hub_park(Hub *hub, const char *what, Deadline deadline);

/* As hub_park, in a queue: hub_queue_wake wakes the first. The task leaves the
** queue however its wait ends. `holder` is for reports. */
int hub_park_in(Hub *hub, WaitQueue *q, const char *what, const void *holder, Deadline deadline);

/* Makes the first task in `q` ready. Returns it, or NULL. */
Task *hub_queue_wake(WaitQueue *q, int code);

/* Makes a parked task ready: its park returns `code`. Nothing happens when it
** is not parked, or is ready already: the first waker wins. */
void hub_ready(Task *t, int code);

/* Lets every other ready task run once. Returns 0 or a code as hub_park. */
int hub_yield(Hub *hub);

/* Waits until `until`. Returns 0 or a code as hub_park (never TIMEDOUT). */
int hub_sleep(Hub *hub, Deadline until);

/* Waits until `t` has ended. Returns 0 or a code as hub_park. */
int hub_join_task(Hub *hub, Task *t, Deadline deadline);

/* Waits until the loop has nothing to do and no task is ready. */
int hub_join(Hub *hub, Deadline deadline);

/* Waits until every spawned task that is not a daemon has ended. */
int hub_join_spawned(Hub *hub, Deadline deadline);

/* Makes a parked task ready with GREEN_OK, from any OS thread. While a wait
** depends on another thread, hold the loop open with hub_hold(hub, +1) and -1
** afterwards, or it counts as a deadlock. */
void hub_wake(Hub *hub, Task *t);
void hub_hold(Hub *hub, int delta);

/* Takes back the wakes of `t` that the loop has not seen yet: before the memory
** of a task goes that other threads have woken. */
void hub_wake_cancel(Hub *hub, Task *t);

/* ---- the loop ---- */

/* Runs `call->fn` in the loop's next turn, before any task; at once pending
** again is fine. hub_call_cancel takes it back. */
void hub_call_soon(Hub *hub, HubCall *call);
void hub_call_cancel(Hub *hub, HubCall *call);

/* Starts and stops an fd watcher; the only places that do. */
void hub_io_start(Hub *hub, HubIo *io);
void hub_io_stop(Hub *hub, HubIo *io);

/* ---- services ---- */

/* The service under `key`, or NULL; hub_service_add links a new one. */
HubService *hub_service(Hub *hub, const void *key);
void hub_service_add(Hub *hub, HubService *s);

#endif
