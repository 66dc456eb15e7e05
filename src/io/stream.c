/*
 * Buffered reads and unbuffered writes on sockets. May use core and hub.
 */
#include "stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRATCH_SIZE (64 * 1024)
#define OWN_MIN 1024        /* the smallest buffer of a stream's own */
#define TRUST (1024 * 1024) /* a buffer up to this size is made on the word of the request */
#define STREAK_MAX 8        /* system calls without a wait before others get their turn */

struct StreamScratch {
  HubService service; /* first */
  Stream *owner;      /* whose bytes lie in `memory`; NULL: nobody's */
  char memory[SCRATCH_SIZE];
};

/* ---- the scratch and its loans ---- */

static void scratch_close(HubService *service) { free(service); }

static StreamScratch *scratch_of(Hub *hub) {
  static const char key;
  StreamScratch *scratch = (StreamScratch *)hub_service(hub, &key);
  if (scratch) return scratch;
  scratch = malloc(sizeof *scratch);
  if (!scratch) return NULL;
  scratch->owner = NULL;
  scratch->service.key = &key;
  scratch->service.close = scratch_close;
  hub_service_add(hub, &scratch->service);
  return scratch;
}

static bool on_loan(const Stream *s) { return s->scratch->owner == s; }

/* Gives the buffer back, with whatever is in it. */
static void drop_buffer(Stream *s) {
  if (on_loan(s))
    s->scratch->owner = NULL;
  else
    free(s->base);
  s->base = NULL;
  s->start = s->end = s->size = 0;
}

/* Moves what is buffered into a buffer of the stream's own of `size` bytes.
** Returns 0, or -ENOMEM and nothing has changed. */
static int move_out(Stream *s, size_t size) {
  size_t have = stream_buffered(s);
  char *own = malloc(size);
  if (!own) return -ENOMEM;
  if (have) memcpy(own, stream_data(s), have);
  drop_buffer(s);
  s->base = own;
  s->end = have;
  s->size = size;
  return 0;
}

/* Ends another stream's loan. Returns 0 or -ENOMEM. */
static int call_in(StreamScratch *scratch) {
  Stream *owner = scratch->owner;
  size_t have = owner ? stream_buffered(owner) : 0;
  if (have) return move_out(owner, have < OWN_MIN ? OWN_MIN : have);
  if (owner) drop_buffer(owner);
  return 0;
}

static int borrow(Stream *s) {
  int code = call_in(s->scratch);
  if (code < 0) return code;
  s->scratch->owner = s;
  s->base = s->scratch->memory;
  s->start = s->end = 0;
  s->size = SCRATCH_SIZE;
  return 0;
}

/* Sees to it that at least one byte can be received. `want` is how many are
** asked for in all. It often is a number that the peer sent, so that beyond
** TRUST the buffer only doubles what has really come. */
static int make_room(Stream *s, size_t want) {
  size_t have = stream_buffered(s);
  if (!s->base) return borrow(s);
  if (have == 0) s->start = s->end = 0;
  if (s->end < s->size) return 0;
  if (s->start >= s->size / 2) { /* then the move costs less than what was consumed */
    memmove(s->base, stream_data(s), have);
    s->start = 0;
    s->end = have;
    return 0;
  }
  if (have > SIZE_MAX / 4) return -ENOMEM;
  size_t size = 2 * have;
  if (want > have && (want < size || want <= TRUST)) size = want;
  return move_out(s, size);
}

/* ---- life ---- */

int stream_init(Stream *s, Hub *hub) {
  memset(s, 0, sizeof *s);
  pollable_init(&s->poll, hub, -1);
  s->scratch = scratch_of(hub);
  return s->scratch ? 0 : -ENOMEM;
}

void stream_open(Stream *s, int fd) {
  assert(s->poll.fd < 0);
  pollable_init(&s->poll, s->poll.hub, fd);
  s->drained = false;
}

int stream_detach(Stream *s) { return pollable_detach(&s->poll); }

/* A greenlet that still reads gets what it has before the buffer goes: its
** stream_consume drops it. */
void stream_close(Stream *s) {
  int fd = stream_detach(s);
  if (fd >= 0) close(fd); /* EINTR or not, Linux has closed it: close(2), NOTES */
  if (!s->reading) drop_buffer(s);
}

void stream_free(Stream *s) {
  stream_close(s);
  drop_buffer(s);
}

/* ---- waiting ---- */

int stream_fair(Stream *s, Deadline deadline) {
  if (++s->streak <= STREAK_MAX || deadline == DEADLINE_NOW) return 0;
  Hub *hub = s->poll.hub;
  s->streak = 0;
  if (deadline < DEADLINE_NEVER && hub_now_update(hub) >= deadline) return GREEN_TIMEDOUT;
  return hub_yield(hub);
}

int stream_wait(Stream *s, int event, const char *what, Deadline deadline) {
  if (deadline == DEADLINE_NOW) return GREEN_TIMEDOUT;
  s->streak = 0;
  return pollable_wait(&s->poll, event, what, deadline);
}

/* ---- reading ---- */

/* Waits for something to receive. An idle stream, which may be so for hours,
** gives its buffer back first. */
static int await_bytes(Stream *s, Deadline deadline) {
  if (stream_buffered(s) == 0) drop_buffer(s);
  s->drained = false;
  return stream_wait(s, EV_READ, "receive", deadline);
}

/* Receives what one system call gives, waiting first if that is nothing.
** Returns 0, or a code as the reads do. The try before the wait (D6) is left
** out when the last call has shown that nothing more was there: in a
** request-response loop it always fails, and costs an eighth of the server's
** time (bench/echo). */
static int fill(Stream *s, size_t want, Deadline deadline) {
  for (;;) {
    int code = stream_fair(s, deadline);
    if (code == 0 && s->drained && deadline != DEADLINE_NOW) code = await_bytes(s, deadline);
    if (code < 0) return code;
    if (s->poll.fd < 0) return GREEN_CLOSED;
    code = make_room(s, want);
    if (code < 0) return code;
    size_t room = s->size - s->end;
    ssize_t n = recv(s->poll.fd, s->base + s->end, room, 0);
    if (n > 0) {
      s->drained = (size_t)n < room;
      s->end += (size_t)n;
      s->received += (uint64_t)n;
      return 0;
    }
    if (n == 0) return GREEN_EOF;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    code = await_bytes(s, deadline);
    if (code < 0) return code;
  }
}

static int fill_to(Stream *s, size_t n, Deadline deadline) {
  int code = 0;
  while (code == 0 && stream_buffered(s) < n) code = fill(s, n, deadline);
  return code;
}

static int fill_line(Stream *s, ssize_t *length, Deadline deadline) {
  size_t seen = 0; /* searched already */
  for (;;) {
    const char *data = stream_data(s);
    size_t have = stream_buffered(s);
    const char *lf = have > seen ? memchr(data + seen, '\n', have - seen) : NULL;
    if (lf) {
      *length = lf - data + 1;
      return 0;
    }
    seen = have;
    int code = fill(s, 0, deadline); /* how long it will be is not known: the buffer doubles */
    if (code < 0) return code;
  }
}

static int fill_all(Stream *s, Deadline deadline) {
  int code;
  do code = fill(s, 0, deadline);
  while (code == 0);
  return code == GREEN_EOF && stream_buffered(s) > 0 ? 0 : code;
}

static bool begin_read(Stream *s) {
  if (s->reading) return false;
  s->reading = true;
  return true;
}

/* What a read returns: `n`, or a code. */
static ssize_t end_read(Stream *s, int code, size_t n) {
  s->reading = false;
  return code < 0 ? code : (ssize_t)n;
}

ssize_t stream_read_n(Stream *s, size_t n, Deadline deadline) {
  if (!begin_read(s)) return GREEN_BUSY;
  return end_read(s, fill_to(s, n ? n : 1, deadline), n);
}

ssize_t stream_read_line(Stream *s, Deadline deadline) {
  ssize_t length = 0;
  if (!begin_read(s)) return GREEN_BUSY;
  int code = fill_line(s, &length, deadline);
  return end_read(s, code, (size_t)length);
}

ssize_t stream_read_all(Stream *s, Deadline deadline) {
  if (!begin_read(s)) return GREEN_BUSY;
  int code = fill_all(s, deadline);
  return end_read(s, code, stream_buffered(s));
}

ssize_t stream_read_some(Stream *s, size_t max, Deadline deadline) {
  if (!begin_read(s)) return GREEN_BUSY;
  int code = fill_to(s, 1, deadline);
  size_t have = stream_buffered(s);
  return end_read(s, code, have < max ? have : max);
}

size_t stream_drop(Stream *s, size_t n, char c) {
  if (n == 0 || !memchr(stream_data(s), c, n)) return n; /* nearly always */
  char *from = s->base + s->start + n, *to = from;       /* backwards: the rest stays where it is */
  for (size_t i = 0; i < n; i++)
    if (*--from != c) *--to = *from;
  n -= (size_t)(to - from);
  s->start += (size_t)(to - from);
  return n;
}

void stream_consume(Stream *s, size_t n) {
  size_t have = stream_buffered(s);
  s->start += n < have ? n : have;
  if (s->poll.fd < 0 && s->start == s->end) drop_buffer(s);
}

/* ---- writing ---- */

static int write_out(Stream *s, const char *data, size_t len, size_t *sent, Deadline deadline) {
  while (*sent < len) {
    int code = stream_fair(s, deadline);
    if (code < 0) return code;
    if (s->poll.fd < 0) return GREEN_CLOSED;
    ssize_t n = send(s->poll.fd, data + *sent, len - *sent, MSG_NOSIGNAL);
    if (n >= 0) {
      *sent += (size_t)n;
      s->sent += (uint64_t)n;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    code = stream_wait(s, EV_WRITE, "send", deadline);
    if (code < 0) return code;
  }
  return 0;
}

int stream_write(Stream *s, const char *data, size_t len, size_t *sent, Deadline deadline) {
  *sent = 0;
  if (len == 0) return 0;
  if (s->writing) return GREEN_BUSY;
  s->writing = true;
  int code = write_out(s, data, len, sent, deadline);
  s->writing = false;
  return code;
}
