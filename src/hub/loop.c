/*
 * The turns of the loop: what happens before it blocks and after it has, and
 * when it has nothing left to do. May use core, hub.h and libev.
 */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- checks before the poll ---- */

/* Debian's libev aborts the process when epoll_ctl says EBADF, and a foreign
** fclose between start and poll suffices (D6): such watchers get EV_ERROR. */
static void check_fresh(Hub *hub) {
  for (unsigned i = 0; i < hub->nfresh; i++) {
    HubIo *io = hub->fresh[i];
    if (!io) continue;
    io->fresh = 0;
    if (fcntl(io->ev.fd, F_GETFD) >= 0) continue;
    ev_io_stop(hub->loop, &io->ev);
    ev_invoke(hub->loop, &io->ev, EV_ERROR);
  }
  hub->nfresh = 0;
}

/* Somebody closed the loop's own descriptor (HB8)? libev would abort at its
** next epoll_ctl, so it is asked in turns with changes; epoll_wait's EBADF goes
** to on_syserr. The loop makes a new one, as after a fork. If the number names
** another file by now, that would be closed with it: then nothing can help. */
static void check_backend(Hub *hub) {
  struct stat st;
  if (!hub->changed || hub->backend_fd < 0) return;
  hub->changed = false;
  if (fstat(hub->backend_fd, &st) < 0) {
    hub->backend_fd = -1; /* the new one's number is not known */
    ev_loop_fork(hub->loop);
  } else if (st.st_dev != hub->backend_dev || st.st_ino != hub->backend_ino) {
    fprintf(stderr, "greenlua: somebody closed the event loop's epoll descriptor, %d\n", hub->backend_fd);
    _exit(EXIT_FAILURE);
  }
}

/* ---- a turn ---- */

/* Runs the ready tasks until none is left or the slice is over. A task that
** blocks switches to the next one itself; the hub gets control back only then,
** and may be told by `sliced` that a task has found the slice to be over. */
static void run_ready(Hub *hub) {
  hub->slice_seen = hub_clock();
  hub->slice_end = hub->slice_seen + hub->slice;
  hub->credit = hub->stride;
  hub->sliced = false;
  while (hub->run_head && !hub->sliced) {
    Task *t = hub_next(hub);
    if (t == hub->self) break;
    greenlet_switch(&t->g, GREEN_OK, NULL, NULL);
  }
}

/* Runs the calls that stand in the queue now: one that queues itself again
** has its turn after the loop has polled. */
static void run_calls(Hub *hub) {
  HubCall last = {NULL, NULL, false};
  if (!hub->calls) return;
  hub_call_soon(hub, &last);
  while (hub->calls != &last) {
    HubCall *call = hub->calls;
    hub_call_cancel(hub, call);
    call->fn(call);
  }
  hub_call_cancel(hub, &last);
}

/* Before the loop blocks. Lowest priority, so the scripts' own pre-block
** watchers have run. `spin` keeps the poll from blocking over ready tasks. */
static void on_prepare(struct ev_loop *loop, ev_prepare *w, int events) {
  Hub *hub = w->data;
  (void)events;
  run_calls(hub);
  run_ready(hub);
  check_fresh(hub);
  check_backend(hub);
  if (hub->run_head || hub->calls)
    ev_idle_start(loop, &hub->spin);
  else
    ev_idle_stop(loop, &hub->spin);
}

static void on_check(struct ev_loop *loop, ev_check *w, int events) {
  (void)loop, (void)events;
  hub_now_update(w->data);
}

static void on_spin(struct ev_loop *loop, ev_idle *w, int events) { (void)loop, (void)w, (void)events; }

/* Who is told that nothing can ever happen any more: main, as gevent does,
** else the task that has lived longest. At the end of the program main waits
** for the others, and it is they who cannot go on. */
static Task *deadlocked(Hub *hub) {
  bool ending = hub->main->waits_in == &hub->enders;
  if (hub->main->parked && !ending) return hub->main;
  for (Task *t = hub->all_head; t; t = t->all_next)
    if (t->parked && t != hub->main) return t;
  return hub->main->parked ? hub->main : NULL;
}

/* The loop ran out of watchers, and no task is ready. */
static void on_empty(Hub *hub) {
  if (hub->idlers.head) {
    while (hub_queue_wake(&hub->idlers, GREEN_OK)) continue;
    return;
  }
  Task *t = deadlocked(hub);
  if (t)
    hub_ready(t, GREEN_DEADLOCK);
  else /* main is suspended in a raw switch that nobody can answer */
    greenlet_switch(&hub->main->g, GREEN_DEADLOCK, NULL, NULL);
}

int loop_body(Greenlet *g, void *value, void **result) {
  Hub *hub = ((Task *)g)->hub;
  (void)value, (void)result;
  while (!hub->closing) {
    ev_run(hub->loop, 0);
    if (!hub->run_head && !hub->calls) on_empty(hub);
  }
  return GREEN_OK; /* not reached: a closing hub is not switched to */
}

/* ---- life ---- */

static void on_async(struct ev_loop *loop, ev_async *w, int events) {
  Hub *hub = w->data;
  (void)loop, (void)events;
  pthread_mutex_lock(&hub->remote_lock);
  for (size_t i = 0; i < hub->nremote; i++) hub_ready(hub->remote[i], GREEN_OK);
  hub->nremote = 0;
  pthread_mutex_unlock(&hub->remote_lock);
}

/* libev's default is to print and abort. A lost epoll descriptor (somebody
** closed all descriptors) is survived: the loop makes a new one and registers
** every watcher again, as after a fork (HB8). */
static void on_syserr(const char *what) {
  Hub *hub = hub_current();
  if (errno == EBADF && hub) {
    ev_loop_fork(hub->loop);
    return;
  }
  fprintf(stderr, "greenlua: the event loop failed: %s: %s\n", what, strerror(errno));
  abort();
}

static void start_watchers(Hub *hub) {
  ev_prepare_init(&hub->prepare, on_prepare);
  ev_set_priority(&hub->prepare, EV_MINPRI);
  hub->prepare.data = hub;
  ev_check_init(&hub->check, on_check);
  ev_set_priority(&hub->check, EV_MAXPRI);
  hub->check.data = hub;
  ev_async_init(&hub->async, on_async);
  hub->async.data = hub;
  ev_idle_init(&hub->spin, on_spin);
  ev_prepare_start(hub->loop, &hub->prepare);
  ev_check_start(hub->loop, &hub->check);
  ev_async_start(hub->loop, &hub->async);
  for (int i = 0; i < 3; i++) ev_unref(hub->loop); /* they never keep it alive */
}

/* libev does not tell its epoll descriptor: it is the first that it opens, and
** so the lowest that is free. */
static bool make_loop(Hub *hub) {
  struct stat st;
  int lowest = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
  if (lowest >= 0) close(lowest);
  hub->loop = ev_loop_new(EVFLAG_AUTO);
  hub->backend_fd = lowest >= 0 && fstat(lowest, &st) == 0 ? lowest : -1;
  hub->backend_dev = hub->backend_fd >= 0 ? st.st_dev : 0;
  hub->backend_ino = hub->backend_fd >= 0 ? st.st_ino : 0;
  return hub->loop != NULL;
}

bool loop_open(Hub *hub) {
  ev_set_syserr_cb(on_syserr);
  if (!make_loop(hub)) return false;
  hub->changed = true; /* libev has watchers of its own to register */
  start_watchers(hub);
  return true;
}
