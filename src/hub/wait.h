/*
 * Waiting for descriptors and children.
 *
 * A Pollable is a descriptor that greenlua opened and owns. Its read watcher
 * stays registered across operations, and is stopped only when an event
 * arrives that nobody waits for, so a request-response loop makes no
 * epoll_ctl (D6). A foreign descriptor goes through wait_fd, which sets its
 * watcher anew each time.
 */
#ifndef GREEN_WAIT_H
#define GREEN_WAIT_H

#include "hub.h"

typedef struct Pollable {
  HubIo rio, wio; /* standing watchers, one per direction; not counted by the loop while nobody waits */
  Hub *hub;
  Task *reader; /* who waits to read; NULL: nobody */
  Task *writer; /* who waits to write */
  int fd;       /* -1 once closed */
} Pollable;

/* Wraps an open non-blocking descriptor. */
void pollable_init(Pollable *p, Hub *hub, int fd);

/* Waits until `p` is ready for `event` (EV_READ or EV_WRITE). Returns 0,
** GREEN_BUSY (another greenlet waits in that direction; it is undisturbed),
** GREEN_CLOSED, -EBADF, or a code as hub_park. */
int pollable_wait(Pollable *p, int event, const char *what, Deadline deadline);

/* Forgets the descriptor: stops the watchers and wakes both waiters with
** GREEN_CLOSED. Returns the descriptor, which the caller closes; -1 when there
** was none. Never waits. */
int pollable_detach(Pollable *p);

/* Returns 0 if the descriptor is open, else -EBADF. To be asked before a watcher
** of a foreign one starts: libev sizes a table by the highest descriptor, and
** aborts when that is absurd. */
int wait_check(int fd);

/* Waits for `events` on a descriptor that is not ours. Returns the events that
** came (> 0), -EBADF, or a code as hub_park. */
int wait_fd(Hub *hub, int fd, int events, Deadline deadline);

/* Waits until the child `pid` has ended and reaps it; `*status` as waitpid's.
** Uses a pidfd, so it needs no SIGCHLD and works on every hub. Returns 0,
** -ECHILD, or a code as hub_park (the child is then still there). */
int wait_child(Hub *hub, pid_t pid, int *status, Deadline deadline);

#endif
