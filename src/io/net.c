/*
 * TCP connections and listeners. May use core, hub, stream and the resolver's
 * addresses.
 */
#define _GNU_SOURCE /* accept4 */
#include "net.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define SHARE_MIN 2.0  /* seconds that a try gets at least, if so many are left (as Go's dialer) */
#define SHARE_MAX 10.0 /* and at most: the kernel alone would give up after two minutes */

/* ---- sockets and addresses ---- */

int net_socket(int family) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
  if (fd < 0) return -errno;
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
  return fd;
}

int net_family(int fd) {
  int family;
  socklen_t len = sizeof family;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0 ? -errno : family;
}

/* Moves list[from] to list[to], to <= from; the order of the others stays. */
static void move_up(Address *list, int from, int to) {
  Address a = list[from];
  memmove(list + to + 1, list + to, (size_t)(from - to) * sizeof *list);
  list[to] = a;
}

void net_interleave(Address *list, int n) {
  for (int i = 1; i < n; i++) {
    int j = i;
    while (j < n && list[j].sa.sa_family == list[i - 1].sa.sa_family) j++;
    if (j == n) return;
    move_up(list, j, i);
  }
}

/* ---- connecting ---- */

/* Does `code` end the call as a whole, whatever addresses are left? */
static bool is_final(int code) { return code < GREEN_TIMEDOUT; }

/* The deadline of a try when `left` are to come, this one included. */
static Deadline share_of(Hub *hub, Deadline deadline, int left) {
  if (left == 1 || deadline == DEADLINE_NOW) return deadline;
  Deadline now = hub_now_update(hub);
  double share = deadline < DEADLINE_NEVER ? (deadline - now) / left : SHARE_MAX;
  if (share < SHARE_MIN) share = SHARE_MIN;
  if (share > SHARE_MAX) share = SHARE_MAX;
  return now + share < deadline ? now + share : deadline;
}

/* Ends an attempt that hangs in the air, keeping the descriptor and its
** options: connect(2), AF_UNSPEC. */
static void dissolve(int fd) {
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  (void)!connect(fd, &none, sizeof none);
}

/* One try. The outcome of a connect that had to wait is asked for by a second
** connect: other than SO_ERROR, that also leaves the socket fit for another try
** after a failure (Linux: af_inet.c, __inet_stream_connect). */
static int connect_to(Stream *s, const Address *to, const Address *local, Deadline deadline) {
  int fd = s->poll.fd;
  if (local && bind(fd, &local->sa, local->len) < 0) return -errno;
  for (bool waited = false;; waited = true) {
    if (connect(fd, &to->sa, to->len) == 0 || (waited && errno == EISCONN)) return 0;
    if (errno != EINPROGRESS && errno != EINTR && !(waited && errno == EALREADY)) return -errno;
    int code = stream_wait(s, EV_WRITE, "connect", deadline);
    /* Woken by news or by its time, and closed before it ran. */
    if (s->poll.fd != fd) return is_final(code) ? code : GREEN_CLOSED;
    if (code == GREEN_BUSY) return code; /* another's attempt */
    if (code < 0 && deadline != DEADLINE_NOW) dissolve(fd);
    if (code < 0) return code;
  }
}

/* One try, on a socket of its own. */
static int connect_fresh(Stream *s, const Address *to, const Address *local, Deadline deadline) {
  int fd = net_socket(to->sa.sa_family);
  if (fd < 0) return fd;
  stream_open(s, fd);
  int code = connect_to(s, to, local, deadline);
  bool goes_on = code == GREEN_TIMEDOUT && deadline == DEADLINE_NOW;
  if (code < 0 && s->poll.fd == fd && !goes_on) stream_close(s);
  return code;
}

int net_connect(Stream *s, const Address *list, int n, const Address *local, Deadline deadline) {
  Hub *hub = s->poll.hub;
  int family = s->poll.fd >= 0 ? net_family(s->poll.fd) : AF_UNSPEC;
  int code = -EAFNOSUPPORT;
  if (family < 0) return family;
  for (int i = 0; i < n; i++) {
    int of = list[i].sa.sa_family;
    if (family != AF_UNSPEC && family != of) continue;
    if (local && local->sa.sa_family != of) continue;
    Deadline until = share_of(hub, deadline, n - i);
    code = family == AF_UNSPEC ? connect_fresh(s, &list[i], local, until)
                               : connect_to(s, &list[i], local, until);
    if (code == 0 || is_final(code) || deadline == DEADLINE_NOW) return code;
    if (code == GREEN_TIMEDOUT && hub_now_update(hub) >= deadline) return code;
  }
  return code;
}

/* ---- listening ---- */

static int bind_to(Stream *s, const Address *to, bool reuse) {
  int yes = 1;
  if (reuse && setsockopt(s->poll.fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0) return -errno;
  return bind(s->poll.fd, &to->sa, to->len) < 0 ? -errno : 0;
}

/* As bind_to, on a socket of its own. */
static int bind_fresh(Stream *s, const Address *to, bool reuse) {
  int fd = net_socket(to->sa.sa_family);
  if (fd < 0) return fd;
  stream_open(s, fd);
  int code = bind_to(s, to, reuse);
  if (code < 0) stream_close(s);
  return code;
}

int net_bind(Stream *s, const Address *list, int n, bool reuse) {
  int family = s->poll.fd >= 0 ? net_family(s->poll.fd) : AF_UNSPEC;
  int code = -EAFNOSUPPORT;
  if (family < 0) return family;
  for (int i = 0; i < n; i++) {
    if (family == AF_UNSPEC)
      code = bind_fresh(s, &list[i], reuse);
    else if (family == list[i].sa.sa_family)
      code = bind_to(s, &list[i], reuse);
    if (code == 0) return 0;
  }
  return code;
}

/* Errors of a connection that failed in the queue, which Linux passes on:
** accept(2), 'Error handling', says to treat them like EAGAIN. */
static bool is_stillborn(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

int net_accept(Stream *s, Deadline deadline) {
  for (;;) {
    int code = stream_fair(s, deadline);
    if (code < 0) return code;
    if (s->poll.fd < 0) return GREEN_CLOSED;
    int fd = accept4(s->poll.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) return fd;
    if (is_stillborn(errno)) continue;
    if (errno != EAGAIN) return -errno;
    code = stream_wait(s, EV_READ, "accept", deadline);
    if (code < 0) return code;
  }
}
