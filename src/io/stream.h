/*
 * Streams: a connected socket with a read buffer.
 *
 * A read leaves what it was asked for at the front of the buffer, where the
 * caller looks at it (stream_data) and takes it (stream_consume), so a failed,
 * timed out or cancelled read loses nothing. A write copies nothing. Each
 * operation tries the system call first and waits only when that would block
 * (D6), or when the last receive has shown that it would; one deadline covers
 * all system calls of an operation.
 *
 * All streams of a hub share one large buffer, the scratch. A stream that has
 * nothing buffered borrows it for a system call, and keeps the loan while bytes
 * lie in it; when another stream needs it, they move to a buffer of the
 * first's own. So an idle connection holds no buffer, a busy one makes few
 * system calls, and thousands of them use the same warm memory:
 *
 *      base        start            end          size
 *      | consumed  | to be consumed | free        |     base: scratch, or own
 *                  ^ stream_data    ^ recv goes here
 */
#ifndef GREEN_STREAM_H
#define GREEN_STREAM_H

#include <stdint.h>

#include "../hub/wait.h"

/* A deadline long past: try, and never wait. */
#define DEADLINE_NOW ((Deadline)0)

typedef struct StreamScratch StreamScratch;

typedef struct Stream {
  Pollable poll;          /* first; its fd is -1 before stream_open and after stream_close */
  StreamScratch *scratch; /* the hub's; set by stream_init */
  char *base;             /* the buffer: the scratch's memory while on loan, or malloc's; NULL: none */
  size_t start, end;      /* the bytes received and not yet consumed: [start, end) of base */
  size_t size;            /* of base */
  uint64_t received;      /* bytes that came from the system, ever */
  uint64_t sent;          /* bytes that the system took, ever */
  uint8_t streak;         /* system calls since one had to wait; see stream_fair */
  bool drained;           /* the last receive got all there was: the next one would block */
  bool reading;           /* a read is under way: its greenlet may be parked in it */
  bool writing;           /* ditto for writes */
} Stream;

/* Makes `s` a stream without a descriptor; the memory is the caller's, must
** not be on a greenlet's stack (D4), and must live until stream_close. Returns
** 0 or -ENOMEM. Streams are to be closed before their hub is. */
int stream_init(Stream *s, Hub *hub);

/* Gives `s`, which has none, the open non-blocking descriptor `fd`. */
void stream_open(Stream *s, int fd);

/* Takes the descriptor away, unclosed: who waits gets GREEN_CLOSED. What is
** buffered stays. Returns it, or -1. */
int stream_detach(Stream *s);

/* Closes the descriptor and drops what is buffered; who waits gets
** GREEN_CLOSED. Idempotent, never waits. */
void stream_close(Stream *s);

/* As stream_close, for memory that is about to go: a greenlet that is still
** parked in a read or write will never return to it. */
void stream_free(Stream *s);

/* ---- reading ----
** Each returns the number of bytes that now lie at stream_data and answer the
** request, or a code: GREEN_EOF, GREEN_TIMEDOUT, GREEN_CLOSED, GREEN_BUSY
** (another greenlet reads; the buffer is that one's), -ENOMEM, -errno, or a
** code as hub_park. After any but GREEN_BUSY, stream_buffered tells how much
** has come nevertheless. */

/* `n` bytes. With n = 0, waits until something can be read, and returns 0. */
ssize_t stream_read_n(Stream *s, size_t n, Deadline deadline);

/* A line; its LF is counted. */
ssize_t stream_read_line(Stream *s, Deadline deadline);

/* Everything until the peer closes; GREEN_EOF only when that is nothing. */
ssize_t stream_read_all(Stream *s, Deadline deadline);

/* What is there, 1 to `max` bytes; waits only when that is nothing. */
ssize_t stream_read_some(Stream *s, size_t max, Deadline deadline);

static inline const char *stream_data(const Stream *s) { return s->base ? s->base + s->start : ""; }
static inline size_t stream_buffered(const Stream *s) { return s->end - s->start; }

/* Takes every `c` out of the first `n` buffered bytes. Returns how many of them
** are left, at stream_data. */
size_t stream_drop(Stream *s, size_t n, char c);

/* Takes `n` buffered bytes away, or all if there are fewer: who copied them may
** have run a collector, and with it a finalizer that closed the stream.
** stream_data's memory stays valid until the next call on any stream of the hub. */
void stream_consume(Stream *s, size_t n);

/* ---- writing ---- */

/* Writes `len` bytes straight from `data`, which must stay where it is until
** this returns. `*sent` says how many the system took, also on failure.
** Returns 0, GREEN_TIMEDOUT, GREEN_CLOSED, GREEN_BUSY, -errno (-EPIPE without
** a SIGPIPE, T45), or a code as hub_park. An empty write does nothing. */
int stream_write(Stream *s, const char *data, size_t len, size_t *sent, Deadline deadline);

/* ---- for what else makes system calls on a stream's descriptor ---- */

/* To be called before such a call: when the last few did not have to wait,
** lets the other ready tasks run and looks at the deadline, so that a fast
** peer can neither starve them nor outlast it. Returns 0, GREEN_TIMEDOUT, or a
** code as hub_yield. With DEADLINE_NOW it does nothing. */
int stream_fair(Stream *s, Deadline deadline);

/* Waits until the descriptor is ready for `event`, as pollable_wait; with
** DEADLINE_NOW, GREEN_TIMEDOUT at once. */
int stream_wait(Stream *s, int event, const char *what, Deadline deadline);

#endif
