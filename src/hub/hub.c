/*
 * The hub: run queue, direct hand-over, park and ready. The turns of the loop
 * are in loop.c. May use core and libev.
 *
 * The only mutable global is `this_hub`, owned by hub_init and hub_close.
 */
#include "hub.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loop.h"

#define SLICE_DEFAULT 0.002 /* seconds */
#define STRIDE_MAX 256u     /* switches between two looks at the clock, at most */

static _Thread_local Hub *this_hub;

Hub *hub_current(void) { return this_hub; }

/* ---- time ---- */

Deadline hub_clock(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (Deadline)ts.tv_sec + (Deadline)ts.tv_nsec * 1e-9;
}

/* Our clock is read first, so that libev's is never behind it: a timer set
** `deadline - now` after libev's now cannot fire before the deadline. */
Deadline hub_now_update(Hub *hub) {
  hub->now = hub_clock();
  ev_now_update(hub->loop);
  return hub->now;
}

Deadline hub_deadline(Hub *hub, double seconds) {
  if (seconds >= DEADLINE_NEVER) return DEADLINE_NEVER;
  return hub_now_update(hub) + seconds;
}

static void timer_start(Task *t, Deadline deadline) {
  ev_timer_set(&t->timer, deadline > t->hub->now ? deadline - t->hub->now : 0., 0.);
  ev_timer_start(t->hub->loop, &t->timer);
}

/* ---- run queue ---- */

static void run_push(Hub *hub, Task *t) {
  assert(!t->queued && !t->done);
  t->queued = true;
  t->next = NULL;
  if (hub->run_tail)
    hub->run_tail->next = t;
  else
    hub->run_head = t;
  hub->run_tail = t;
}

static Task *run_pop(Hub *hub) {
  Task *t = hub->run_head;
  hub->run_head = t->next;
  if (!hub->run_head) hub->run_tail = NULL;
  t->queued = false;
  return t;
}

/* Takes `t` out of the middle: only after a foreign switch, so it may be slow. */
static void run_remove(Hub *hub, Task *t) {
  Task **link = &hub->run_head, *prev = NULL;
  while (*link != t) {
    prev = *link;
    link = &prev->next;
  }
  *link = t->next;
  if (hub->run_tail == t) hub->run_tail = prev;
  t->queued = false;
}

/* A task that is cancelled in a raw switch is put into the run queue; when
** somebody's switch reaches it first, its place there is void. */
static inline void leave_run_queue(Task *t) {
  if (t->queued) run_remove(t->hub, t);
}

/* Looks at the clock, and chooses how many switches may pass before the next
** look: reading it at every switch would cost as much as the switch itself. */
static bool slice_look(Hub *hub) {
  Deadline now = hub_clock();
  double passed = now - hub->slice_seen;
  if (passed > hub->slice / 4)
    hub->stride = hub->stride > 1 ? hub->stride / 2 : 1;
  else if (passed < hub->slice / 16 && hub->stride < STRIDE_MAX)
    hub->stride *= 2;
  hub->slice_seen = now;
  hub->credit = hub->stride;
  hub->sliced = now >= hub->slice_end;
  return hub->sliced;
}

static inline bool slice_over(Hub *hub) { return --hub->credit == 0 && slice_look(hub); }

/* A spawned task whose stack could not be had never runs. */
static void fail_start(Hub *hub, Task *t, int code) {
  if (hub->failed) hub->failed(t, code);
  greenlet_discard(&t->g);
  task_end(t);
}

/* Chooses who runs next: the one place that does. The first ready task, or
** the hub's own when none is ready or the slice is over. */
Task *hub_next(Hub *hub) {
  while (hub->run_head && !slice_over(hub)) {
    Task *t = run_pop(hub);
    if (t->g.state != GREENLET_NEW) return t;
    int code = greenlet_prepare(&t->g);
    if (code == 0) return t;
    fail_start(hub, t, code);
  }
  return hub->self;
}

/* ---- tasks ---- */

static void all_link(Hub *hub, Task *t) {
  if (t->listed) return;
  t->listed = true;
  t->all_next = NULL;
  t->all_prev = hub->all_tail;
  if (hub->all_tail)
    hub->all_tail->all_next = t;
  else
    hub->all_head = t;
  hub->all_tail = t;
}

static void all_unlink(Hub *hub, Task *t) {
  if (!t->listed) return;
  t->listed = false;
  if (t->all_prev)
    t->all_prev->all_next = t->all_next;
  else
    hub->all_head = t->all_next;
  if (t->all_next)
    t->all_next->all_prev = t->all_prev;
  else
    hub->all_tail = t->all_prev;
}

/* The timer of a parked task is its deadline, that of a scheduled one its start. */
static void on_task_timer(struct ev_loop *loop, ev_timer *w, int events) {
  Task *t = w->data;
  (void)loop, (void)events;
  if (t->scheduled) {
    t->scheduled = false;
    run_push(t->hub, t);
  } else {
    hub_ready(t, GREEN_TIMEDOUT);
  }
}

/* All of a task but its greenlet. No memset: a spawn should touch no more of
** the record than it must. */
static void task_setup(Task *t, Hub *hub) {
  t->hub = hub;
  t->waits_in = NULL;
  t->joiners = (WaitQueue){NULL, NULL};
  t->body = NULL;
  ev_timer_init(&t->timer, on_task_timer, 0., 0.);
  t->timer.data = t;
  t->io.ev.active = 0;
  t->io.fresh = 0;
  t->shield = 0;
  t->what = NULL;
  t->holder = NULL;
  t->what_fd = -1;
  t->wake = GREEN_OK;
  t->parked = t->queued = t->cancelled = t->spawned = t->scheduled = t->done = t->daemon = false;
  t->listed = false;
}

void task_init(Task *t, Hub *hub, Greenlet *parent, GreenletFn fn) {
  greenlet_init(&t->g, parent, fn);
  task_setup(t, hub);
}

void task_begin(Task *t) { all_link(t->hub, t); }

/* Started by a raw switch while it stood in the queue or on its timer? Then
** this is its start, and the other one is void. */
static void claim_start(Task *t) {
  if (t->queued) run_remove(t->hub, t);
  if (t->scheduled) ev_timer_stop(t->hub->loop, &t->timer);
  t->scheduled = false;
}

static int spawned_entry(Greenlet *g, void *value, void **result) {
  Task *t = (Task *)g;
  (void)value, (void)result;
  if (t->queued || t->scheduled) claim_start(t);
  all_link(t->hub, t);
  t->body(t);
  task_end(t);
  t->hub->thread.successor = &hub_next(t->hub)->g;
  return GREEN_OK;
}

void task_init_spawned(Task *t, Hub *hub, void (*body)(Task *t)) {
  greenlet_init(&t->g, &hub->self->g, spawned_entry);
  task_setup(t, hub);
  t->body = body;
}

static void count_live(Task *t) {
  all_link(t->hub, t);
  t->spawned = true;
  if (!t->daemon) t->hub->nlive++;
}

void hub_spawn(Task *t) {
  assert(t->g.state == GREENLET_NEW && t->body && !t->spawned);
  count_live(t);
  run_push(t->hub, t);
}

void hub_spawn_at(Task *t, Deadline start) {
  assert(t->g.state == GREENLET_NEW && t->body && !t->spawned);
  count_live(t);
  t->scheduled = true;
  timer_start(t, start);
}

void task_end(Task *t) {
  Hub *hub = t->hub;
  assert(!t->done && !t->parked);
  if (t->queued || t->scheduled) claim_start(t);
  t->done = true;
  all_unlink(hub, t);
  while (hub_queue_wake(&t->joiners, GREEN_OK)) continue;
  if (t->spawned && !t->daemon && --hub->nlive == 0)
    while (hub_queue_wake(&hub->enders, GREEN_OK)) continue;
}

void hub_cancel(Task *t) {
  t->cancelled = true;
  if (t->parked) {
    if (t->shield == 0) hub_ready(t, GREEN_CANCELLED);
  } else if (t->g.state == GREENLET_SUSPENDED && !t->queued) {
    t->wake = GREEN_CANCELLED;
    run_push(t->hub, t);
  }
}

/* ---- waiting ---- */

static void queue_unlink(Task *t) {
  WaitQueue *q = t->waits_in;
  if (t->wait_prev)
    t->wait_prev->wait_next = t->wait_next;
  else
    q->head = t->wait_next;
  if (t->wait_next)
    t->wait_next->wait_prev = t->wait_prev;
  else
    q->tail = t->wait_prev;
  t->waits_in = NULL;
}

static void queue_link(WaitQueue *q, Task *t) {
  t->waits_in = q;
  t->wait_next = NULL;
  t->wait_prev = q->tail;
  if (q->tail)
    q->tail->wait_next = t;
  else
    q->head = t;
  q->tail = t;
}

/* The first waker wins: later ones find the task no longer parked. */
void hub_ready(Task *t, int code) {
  if (!t->parked) return;
  assert(t->g.state == GREENLET_SUSPENDED || t->hub->thread.tracing); /* a tracer sees it on its way */
  assert(!t->done);
  t->parked = false;
  t->wake = code;
  if (t->waits_in) queue_unlink(t);
  run_push(t->hub, t);
}

Task *hub_queue_wake(WaitQueue *q, int code) {
  Task *t = q->head;
  if (t) hub_ready(t, code);
  return t;
}

/* What came back was not hub_ready but somebody's raw switch or throw (HB4):
** the wait is void, and nothing of it may be left behind. */
static int foreign_switch(Task *t, int status) {
  if (t->waits_in) queue_unlink(t);
  if (t->queued) run_remove(t->hub, t);
  t->parked = false;
  return status == GREEN_OK ? GREEN_BADSWITCH : status;
}

/* Parks `t`, the running task; the checks are done and the queue is linked. */
static int park(Task *t, const char *what, Deadline deadline) {
  Hub *hub = t->hub;
  assert(!t->parked && !ev_is_active(&t->timer));
  leave_run_queue(t);
  if (deadline < DEADLINE_NEVER) timer_start(t, deadline);
  t->what = what;
  t->parked = true;
  int status = greenlet_switch(&hub_next(hub)->g, GREEN_OK, NULL, &hub->thrown);
  if (ev_is_active(&t->timer)) ev_timer_stop(hub->loop, &t->timer);
  t->what = NULL;
  t->holder = NULL;
  if (status == GREEN_OK && !t->parked &&
      t->wake == GREEN_CANCELLED) { /* again, by a tracer, on its way here */
    leave_run_queue(t);
    return GREEN_CANCELLED;
  }
  if (t->parked || t->queued || status != GREEN_OK) return foreign_switch(t, status);
  return t->wake;
}

/* A raise at once would let a loop that swallows it starve everybody: let the
** others run first (D7a). */
static int give_way(Hub *hub) {
  Task *t = hub_running(hub);
  leave_run_queue(t);
  run_push(hub, t);
  Task *next = hub_next(hub);
  if (next == t) return GREEN_OK;
  int status = greenlet_switch(&next->g, GREEN_OK, NULL, &hub->thrown);
  if (t->queued || status != GREEN_OK) return foreign_switch(t, status);
  return GREEN_OK;
}

/* A cancelled task may wait only under a shield, and only as long as that lasts. */
static int park_shielded(Task *t, WaitQueue *q, const char *what, Deadline deadline) {
  Deadline now = hub_now_update(t->hub);
  if (t->shield <= now) {
    t->shield = 0;
    t->holder = NULL;
    t->wake = GREEN_CANCELLED; /* so that a taking back meanwhile comes too late */
    int code = give_way(t->hub);
    return code == GREEN_OK ? GREEN_CANCELLED : code;
  }
  if (q) queue_link(q, t);
  if (deadline <= t->shield) return park(t, what, deadline);
  int code = park(t, what, t->shield);
  return code == GREEN_TIMEDOUT ? GREEN_CANCELLED : code;
}

int hub_park_in(Hub *hub, WaitQueue *q, const char *what, const void *holder, Deadline deadline) {
  Task *t = hub_running(hub);
  if (!hub_can_wait(hub)) return GREEN_NOWAIT;
  t->holder = holder;
  if (t->cancelled) return park_shielded(t, q, what, deadline);
  if (q) queue_link(q, t);
  return park(t, what, deadline);
}

int hub_park(Hub *hub, const char *what, Deadline deadline) {
  return hub_park_in(hub, NULL, what, NULL, deadline);
}

int hub_yield(Hub *hub) {
  if (!hub_can_wait(hub)) return GREEN_NOWAIT;
  Task *t = hub_running(hub);
  t->wake = GREEN_OK;
  int code = give_way(hub);
  return code == GREEN_OK && t->cancelled && t->shield <= hub->now ? GREEN_CANCELLED : code;
}

int hub_sleep(Hub *hub, Deadline until) {
  int code = hub_park(hub, "sleep", until);
  return code == GREEN_TIMEDOUT ? GREEN_OK : code;
}

int hub_join_task(Hub *hub, Task *t, Deadline deadline) {
  if (t->done) return GREEN_OK;
  return hub_park_in(hub, &t->joiners, "join", t, deadline);
}

/* The waiter's own timer is nothing that the loop still has to do. */
int hub_join(Hub *hub, Deadline deadline) {
  bool timed = deadline < DEADLINE_NEVER;
  if (timed) ev_unref(hub->loop);
  int code = hub_park_in(hub, &hub->idlers, "wait", NULL, deadline);
  if (timed) ev_ref(hub->loop);
  return code;
}

int hub_join_spawned(Hub *hub, Deadline deadline) {
  if (hub->nlive == 0) return GREEN_OK;
  return hub_park_in(hub, &hub->enders, "the end of all greenlets", NULL, deadline);
}

/* ---- the loop ---- */

void hub_io_start(Hub *hub, HubIo *io) {
  if (ev_is_active(&io->ev)) return;
  hub->changed = true;
  ev_io_start(hub->loop, &io->ev);
  if (io->fresh) return;
  if (hub->nfresh == hub->fresh_size) {
    unsigned size = hub->fresh_size ? 2 * hub->fresh_size : 64;
    HubIo **grown = realloc(hub->fresh, size * sizeof *grown);
    if (!grown) return; /* unchecked, then: the check is a safeguard, not a duty */
    hub->fresh = grown;
    hub->fresh_size = size;
  }
  hub->fresh[hub->nfresh++] = io;
  io->fresh = hub->nfresh;
}

void hub_io_stop(Hub *hub, HubIo *io) {
  if (io->fresh) hub->fresh[io->fresh - 1] = NULL;
  io->fresh = 0;
  hub->changed = true;
  ev_io_stop(hub->loop, &io->ev);
}

void hub_call_soon(Hub *hub, HubCall *call) {
  if (call->pending) return;
  call->pending = true;
  call->next = NULL;
  *hub->calls_end = call;
  hub->calls_end = &call->next;
}

void hub_call_cancel(Hub *hub, HubCall *call) {
  if (!call->pending) return;
  HubCall **link = &hub->calls;
  while (*link != call) link = &(*link)->next;
  *link = call->next;
  if (hub->calls_end == &call->next) hub->calls_end = link;
  call->pending = false;
}

/* ---- other threads ---- */

void hub_wake(Hub *hub, Task *t) {
  pthread_mutex_lock(&hub->remote_lock);
  if (hub->nremote == hub->remote_size) {
    size_t size = hub->remote_size ? 2 * hub->remote_size : 16;
    Task **grown = realloc(hub->remote, size * sizeof *grown);
    if (!grown) abort(); /* a lost wake-up would hang its waiter for ever */
    hub->remote = grown;
    hub->remote_size = size;
  }
  hub->remote[hub->nremote++] = t;
  pthread_mutex_unlock(&hub->remote_lock);
  ev_async_send(hub->loop, &hub->async);
}

void hub_wake_cancel(Hub *hub, Task *t) {
  size_t kept = 0;
  pthread_mutex_lock(&hub->remote_lock);
  for (size_t i = 0; i < hub->nremote; i++)
    if (hub->remote[i] != t) hub->remote[kept++] = hub->remote[i];
  hub->nremote = kept;
  pthread_mutex_unlock(&hub->remote_lock);
}

void hub_hold(Hub *hub, int delta) {
  if (delta > 0)
    ev_ref(hub->loop);
  else
    ev_unref(hub->loop);
}

/* ---- services ---- */

HubService *hub_service(Hub *hub, const void *key) {
  for (HubService *s = hub->services; s; s = s->next)
    if (s->key == key) return s;
  return NULL;
}

void hub_service_add(Hub *hub, HubService *s) {
  s->next = hub->services;
  hub->services = s;
}

/* ---- life ---- */

int hub_init(Hub *hub, Task *self, Task *main) {
  memset(hub, 0, sizeof *hub);
  int code = greenlet_thread_init(&hub->thread, &main->g);
  if (code < 0) return code;
  if (!loop_open(hub)) {
    greenlet_thread_close(&hub->thread);
    return -ENOMEM;
  }
  stack_overflow_handler_install();
  hub->slice = SLICE_DEFAULT;
  hub->stride = 1;
  hub->credit = 1;
  hub->main = main;
  hub->self = self;
  hub->calls_end = &hub->calls;
  pthread_mutex_init(&hub->remote_lock, NULL);
  greenlet_init(&self->g, &main->g, loop_body);
  task_setup(self, hub);
  task_setup(main, hub);
  all_link(hub, main);
  hub_now_update(hub);
  this_hub = hub;
  return 0;
}

void hub_close(Hub *hub) {
  assert(hub_running(hub) == hub->main);
  hub->closing = true;
  while (hub->services) {
    HubService *s = hub->services;
    hub->services = s->next;
    s->close(s);
  }
  ev_loop_destroy(hub->loop);
  stack_overflow_handler_remove();
  greenlet_thread_close(&hub->thread);
  pthread_mutex_destroy(&hub->remote_lock);
  free(hub->remote);
  free(hub->fresh);
  this_hub = NULL;
}
