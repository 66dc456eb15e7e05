/*
 * Waiting for descriptors and children. May use core, hub.h and libev.
 */
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- descriptors of our own ---- */

static Task **waiter_of(Pollable *p, HubIo *io) { return io == &p->rio ? &p->reader : &p->writer; }

/* A standing watcher is not counted by the loop: only a waiter is, else an
** idle connection would keep a deadlock from being seen. */
static void stand(Pollable *p, HubIo *io) {
  if (ev_is_active(&io->ev)) return;
  hub_io_start(p->hub, io);
  ev_unref(p->hub->loop);
}

static void stand_down(Pollable *p, HubIo *io) {
  if (!ev_is_active(&io->ev)) return;
  ev_ref(p->hub->loop);
  hub_io_stop(p->hub, io);
}

static void on_pollable(struct ev_loop *loop, ev_io *w, int events) {
  Pollable *p = w->data;
  HubIo *io = (HubIo *)w;
  Task *t = *waiter_of(p, io);
  if (events & EV_ERROR) { /* the hub has stopped the watcher; balance stand() */
    ev_ref(loop);
    if (t) hub_ready(t, -EBADF);
  } else if (t) {
    hub_ready(t, GREEN_OK);
  } else {
    stand_down(p, io); /* level-triggered: it would fire at every turn */
  }
}

void pollable_init(Pollable *p, Hub *hub, int fd) {
  p->hub = hub;
  p->reader = p->writer = NULL;
  p->fd = fd;
  ev_io_init(&p->rio.ev, on_pollable, fd, EV_READ);
  ev_io_init(&p->wio.ev, on_pollable, fd, EV_WRITE);
  p->rio.ev.data = p->wio.ev.data = p;
  p->rio.fresh = p->wio.fresh = 0;
}

int pollable_wait(Pollable *p, int event, const char *what, Deadline deadline) {
  Hub *hub = p->hub;
  HubIo *io = event == EV_READ ? &p->rio : &p->wio;
  Task **waiter = waiter_of(p, io), *self = hub_running(hub);
  if (p->fd < 0) return GREEN_CLOSED;
  if (*waiter) return GREEN_BUSY;
  if (!hub_can_wait(hub)) return GREEN_NOWAIT;
  *waiter = self;
  self->what_fd = p->fd;
  stand(p, io);
  ev_ref(hub->loop);
  int code = hub_park(hub, what, deadline);
  ev_unref(hub->loop);
  self->what_fd = -1;
  if (*waiter == self) *waiter = NULL; /* pollable_detach has cleared it, and another may wait by now */
  return code;
}

static void release_waiter(Task **waiter) {
  Task *t = *waiter;
  *waiter = NULL;
  if (t) hub_ready(t, GREEN_CLOSED);
}

int pollable_detach(Pollable *p) {
  int fd = p->fd;
  if (fd < 0) return -1;
  p->fd = -1;
  stand_down(p, &p->rio);
  stand_down(p, &p->wio);
  release_waiter(&p->reader);
  release_waiter(&p->writer);
  return fd;
}

/* ---- foreign descriptors ---- */

static void on_foreign(struct ev_loop *loop, ev_io *w, int events) {
  Task *t = w->data;
  (void)loop;
  hub_ready(t, events & EV_ERROR ? -EBADF : events);
}

int wait_check(int fd) { return fcntl(fd, F_GETFD) < 0 ? -errno : 0; }

int wait_fd(Hub *hub, int fd, int events, Deadline deadline) {
  Task *self = hub_running(hub);
  int bad = wait_check(fd);
  if (bad) return bad;
  if (!hub_can_wait(hub)) return GREEN_NOWAIT;
  ev_io_init(&self->io.ev, on_foreign, fd, events);
  self->io.ev.data = self;
  self->what_fd = fd;
  hub_io_start(hub, &self->io);
  int code = hub_park(hub, "descriptor", deadline);
  hub_io_stop(hub, &self->io);
  self->what_fd = -1;
  return code;
}

/* ---- children ---- */

/* pidfd_open(2): readable when the process has ended; close-on-exec. glibc
** has a wrapper from 2.36 only. */
static int open_pidfd(pid_t pid) {
  int fd = (int)syscall(SYS_pidfd_open, pid, 0);
  return fd < 0 ? -errno : fd;
}

int wait_child(Hub *hub, pid_t pid, int *status, Deadline deadline) {
  int fd = open_pidfd(pid), code = GREEN_OK;
  if (fd < 0) return fd == -ESRCH ? -ECHILD : fd;
  for (;;) {
    pid_t got = waitpid(pid, status, WNOHANG);
    if (got == pid) break;
    if (got < 0 && errno != EINTR) {
      code = -errno;
      break;
    }
    code = wait_fd(hub, fd, EV_READ, deadline);
    if (code < 0) break;
    code = GREEN_OK;
  }
  close(fd);
  return code;
}
