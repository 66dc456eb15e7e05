/*
 * io/stream without Lua: reads, the loan of the scratch, writes, closing, with
 * one end of a socket pair as the stream and the other as a bare descriptor.
 */
#include <errno.h>
#include <sys/socket.h>

#include "io/stream.h"
#include "test.h"

static Hub hub;

/* A stream and the descriptor of its peer. */
typedef struct Pair {
  Stream *s;
  int peer;
} Pair;

static Pair open_pair(void) {
  int fds[2];
  Pair p = {malloc(sizeof(Stream)), -1};
  if (!p.s || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) abort();
  CHECK(stream_init(p.s, &hub) == 0);
  stream_open(p.s, fds[0]);
  p.peer = fds[1];
  return p;
}

static void close_pair(Pair *p) {
  stream_free(p->s);
  free(p->s);
  if (p->peer >= 0) close(p->peer);
}

static void feed(Pair *p, const char *text) {
  CHECK(write(p->peer, text, strlen(text)) == (ssize_t)strlen(text));
}

static bool front_is(const Stream *s, const char *text) {
  return stream_buffered(s) >= strlen(text) && memcmp(stream_data(s), text, strlen(text)) == 0;
}

/* ---- what a second task does meanwhile ---- */

typedef struct Job {
  Task task; /* first */
  Pair *pair;
  ssize_t result;
  size_t sent;
  Deadline deadline;
  int steps;
} Job;

static void job_start(Job *job, Pair *pair, Deadline deadline, void (*body)(Task *)) {
  memset(job, 0, sizeof *job);
  job->pair = pair;
  job->deadline = deadline;
  job->result = 1;
  task_init_spawned(&job->task, &hub, body);
  hub_spawn(&job->task);
}

static void read_five(Task *t) {
  Job *job = (Job *)t;
  job->result = stream_read_n(job->pair->s, 5, job->deadline);
}

static void feed_slowly(Task *t) {
  Job *job = (Job *)t;
  const char *text = "one\ntwo\nthree";
  for (; *text; text++) {
    if (write(job->pair->peer, text, 1) != 1) abort();
    hub_yield(&hub);
    hub_sleep(&hub, hub_deadline(&hub, 0.0005));
  }
  close(job->pair->peer);
  job->pair->peer = -1;
}

static void close_it(Task *t) { stream_close(((Job *)t)->pair->s); }

static void count_turns(Task *t) {
  Job *job = (Job *)t;
  while (job->steps < 1000000 && job->result) {
    job->steps++;
    hub_yield(&hub);
  }
}

/* ---- reading ---- */

static void test_pieces(void) {
  Pair p = open_pair();
  Job job;
  job_start(&job, &p, DEADLINE_NEVER, feed_slowly);
  CHECK(stream_read_n(p.s, 2, DEADLINE_NEVER) == 2 && front_is(p.s, "on"));
  stream_consume(p.s, 2);
  CHECK(stream_read_line(p.s, DEADLINE_NEVER) == 2 && front_is(p.s, "e\n"));
  stream_consume(p.s, 2);
  CHECK(stream_read_line(p.s, DEADLINE_NEVER) == 4 && front_is(p.s, "two\n"));
  stream_consume(p.s, 4);
  CHECK(stream_read_all(p.s, DEADLINE_NEVER) == 5 && front_is(p.s, "three"));
  stream_consume(p.s, 5);
  CHECK(stream_read_all(p.s, DEADLINE_NEVER) == GREEN_EOF);
  CHECK(stream_read_n(p.s, 0, DEADLINE_NEVER) == GREEN_EOF);
  CHECK(p.s->received == 13);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  close_pair(&p);
}

static void test_eof_keeps_the_rest(void) {
  Pair p = open_pair();
  feed(&p, "half");
  close(p.peer);
  p.peer = -1;
  CHECK(stream_read_line(p.s, DEADLINE_NEVER) == GREEN_EOF);
  CHECK(stream_buffered(p.s) == 4 && front_is(p.s, "half"));
  CHECK(stream_read_some(p.s, 3, DEADLINE_NEVER) == 3);
  close_pair(&p);
}

static void test_timeout_keeps_the_bytes(void) {
  Pair p = open_pair();
  feed(&p, "abc");
  Deadline start = hub_now_update(&hub);
  CHECK(stream_read_n(p.s, 5, start + 0.05) == GREEN_TIMEDOUT);
  CHECK(hub_now_update(&hub) >= start + 0.05);
  CHECK(stream_buffered(p.s) == 3);
  feed(&p, "de");
  CHECK(stream_read_n(p.s, 5, DEADLINE_NEVER) == 5 && front_is(p.s, "abcde"));
  close_pair(&p);
}

static void test_now_never_waits(void) {
  Pair p = open_pair();
  Job job;
  job_start(&job, &p, DEADLINE_NEVER, count_turns);
  CHECK(stream_read_n(p.s, 1, DEADLINE_NOW) == GREEN_TIMEDOUT);
  feed(&p, "x");
  CHECK(stream_read_n(p.s, 1, DEADLINE_NOW) == 1);
  CHECK(job.steps == 0);
  job.result = 0;
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  close_pair(&p);
}

static void test_long_line(void) {
  enum { LONG = 300 * 1024 };
  Pair p = open_pair();
  char *text = malloc(LONG);
  size_t fed = 0;
  ssize_t got;
  memset(text, 'x', LONG);
  text[LONG - 1] = '\n';
  do {
    ssize_t n = write(p.peer, text + fed, LONG - fed);
    if (n > 0) fed += (size_t)n;
    got = stream_read_line(p.s, DEADLINE_NOW);
  } while (got == GREEN_TIMEDOUT);
  CHECK(got == LONG);
  CHECK(memcmp(stream_data(p.s), text, LONG) == 0);
  CHECK(p.s->size > LONG); /* it has doubled, not grown byte by byte */
  free(text);
  close_pair(&p);
}

static void test_drop(void) {
  Pair p = open_pair();
  feed(&p, "\ra\r\rb\r\nc\rd");
  CHECK(stream_read_line(p.s, DEADLINE_NEVER) == 7);
  CHECK(stream_drop(p.s, 7, '\r') == 3 && front_is(p.s, "ab\nc\rd"));
  CHECK(stream_drop(p.s, 3, '\r') == 3 && front_is(p.s, "ab\nc\rd"));
  stream_consume(p.s, 4);
  CHECK(stream_buffered(p.s) == 2 && stream_drop(p.s, 1, '\r') == 0 && front_is(p.s, "d"));
  stream_consume(p.s, 5);
  CHECK(stream_buffered(p.s) == 0 && stream_drop(p.s, 0, '\r') == 0);
  close_pair(&p);
}

/* ---- the scratch ---- */

static void test_idle_has_no_buffer(void) {
  Pair p = open_pair();
  feed(&p, "abc");
  CHECK(stream_read_n(p.s, 3, DEADLINE_NEVER) == 3);
  stream_consume(p.s, 3);
  CHECK(stream_read_n(p.s, 1, DEADLINE_NOW) == GREEN_TIMEDOUT);
  CHECK(p.s->base == NULL);
  close_pair(&p);
}

static void test_loan_moves(void) {
  enum { MANY = 20 };
  Pair pairs[MANY];
  char text[64];
  for (int i = 0; i < MANY; i++) {
    pairs[i] = open_pair();
    snprintf(text, sizeof text, "line %d\nrest %d", i, i);
    feed(&pairs[i], text);
    CHECK(stream_read_line(pairs[i].s, DEADLINE_NEVER) > 0);
  }
  for (int i = MANY - 1; i >= 0; i--) {
    snprintf(text, sizeof text, "line %d\nrest %d", i, i);
    CHECK(stream_buffered(pairs[i].s) == strlen(text) && front_is(pairs[i].s, text));
    close_pair(&pairs[i]);
  }
}

/* ---- two greenlets on one stream ---- */

static void test_close_wakes(void) {
  Pair p = open_pair();
  Job job;
  job_start(&job, &p, DEADLINE_NEVER, close_it);
  CHECK(stream_read_n(p.s, 5, DEADLINE_NEVER) == GREEN_CLOSED);
  CHECK(stream_read_n(p.s, 5, DEADLINE_NEVER) == GREEN_CLOSED);
  CHECK(stream_write(p.s, "x", 1, &job.sent, DEADLINE_NEVER) == GREEN_CLOSED);
  close_pair(&p);
}

static void test_close_leaves_the_partial(void) {
  Pair p = open_pair();
  Job job;
  feed(&p, "abc");
  job_start(&job, &p, DEADLINE_NEVER, close_it);
  CHECK(stream_read_n(p.s, 5, DEADLINE_NEVER) == GREEN_CLOSED);
  CHECK(stream_buffered(p.s) == 3 && front_is(p.s, "abc"));
  stream_consume(p.s, 3);
  CHECK(p.s->base == NULL);
  close_pair(&p);
}

static void test_second_reader(void) {
  Pair p = open_pair();
  Job job;
  job_start(&job, &p, DEADLINE_NEVER, read_five);
  hub_yield(&hub);
  feed(&p, "abc");
  CHECK(stream_read_n(p.s, 1, DEADLINE_NEVER) == GREEN_BUSY);
  feed(&p, "de");
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK(job.result == 5 && front_is(p.s, "abcde"));
  close_pair(&p);
}

static void test_cancel_loses_nothing(void) {
  Pair p = open_pair();
  Job job;
  feed(&p, "abc");
  job_start(&job, &p, DEADLINE_NEVER, read_five);
  hub_yield(&hub);
  hub_cancel(&job.task);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK(job.result == GREEN_CANCELLED);
  feed(&p, "de");
  CHECK(stream_read_n(p.s, 5, DEADLINE_NEVER) == 5 && front_is(p.s, "abcde"));
  close_pair(&p);
}

/* ---- writing ---- */

static void drain(Task *t) {
  Job *job = (Job *)t;
  static char trash[64 * 1024];
  for (;;) {
    ssize_t n = read(job->pair->peer, trash, sizeof trash);
    if (n > 0)
      job->sent += (size_t)n;
    else if (n == 0)
      return;
    else if (wait_fd(&hub, job->pair->peer, EV_READ, DEADLINE_NEVER) < 0)
      return;
  }
}

static void test_long_write(void) {
  enum { LONG = 8 * 1024 * 1024 };
  Pair p = open_pair();
  Job job;
  size_t sent;
  char *text = calloc(1, LONG);
  job_start(&job, &p, DEADLINE_NEVER, drain);
  CHECK(stream_write(p.s, text, LONG, &sent, DEADLINE_NEVER) == 0 && sent == LONG);
  stream_close(p.s);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK(job.sent == LONG);
  free(text);
  close_pair(&p);
}

static void test_write_deadline(void) {
  enum { LONG = 8 * 1024 * 1024 };
  Pair p = open_pair();
  size_t sent;
  char *text = calloc(1, LONG);
  Deadline start = hub_now_update(&hub);
  CHECK(stream_write(p.s, text, LONG, &sent, start + 0.05) == GREEN_TIMEDOUT);
  CHECK(hub_now_update(&hub) >= start + 0.05);
  CHECK(sent > 0 && sent < LONG && p.s->sent == sent);
  CHECK(stream_write(p.s, text, LONG, &sent, DEADLINE_NOW) == GREEN_TIMEDOUT && sent == 0);
  CHECK(stream_write(p.s, "", 0, &sent, DEADLINE_NOW) == 0 && sent == 0);
  free(text);
  close_pair(&p);
}

static void test_broken_pipe(void) {
  Pair p = open_pair();
  size_t sent;
  close(p.peer);
  p.peer = -1;
  CHECK(stream_write(p.s, "x", 1, &sent, DEADLINE_NEVER) == -EPIPE && sent == 0);
  close_pair(&p);
}

/* A peer that is always ready must not keep the others from running. */
static void test_fairness(void) {
  Pair p = open_pair();
  Job job;
  char byte;
  size_t sent;
  job_start(&job, &p, DEADLINE_NEVER, count_turns);
  for (int i = 0; i < 200; i++) {
    CHECK(stream_write(p.s, "x", 1, &sent, DEADLINE_NEVER) == 0);
    CHECK(read(p.peer, &byte, 1) == 1);
  }
  CHECK(job.steps >= 10);
  job.result = 0;
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  close_pair(&p);
}

int main(void) {
  static Task hub_task, main_task;
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  RUN("reads answer from what comes in pieces", test_pieces);
  RUN("the peer's close leaves an unfinished line", test_eof_keeps_the_rest);
  RUN("SO9 a timeout loses nothing", test_timeout_keeps_the_bytes);
  RUN("DEADLINE_NOW never waits", test_now_never_waits);
  RUN("a line may be longer than the scratch", test_long_line);
  RUN("bytes are dropped out of the middle; too many are consumed harmlessly", test_drop);
  RUN("an idle stream holds no buffer", test_idle_has_no_buffer);
  RUN("a loan is called in with its bytes kept", test_loan_moves);
  RUN("SO1 close wakes the reader", test_close_wakes);
  RUN("a close leaves a waiting reader what has come", test_close_leaves_the_partial);
  RUN("SO2 a second reader is refused, the first undisturbed", test_second_reader);
  RUN("SO9 a cancelled read loses nothing", test_cancel_loses_nothing);
  RUN("a long write arrives whole", test_long_write);
  RUN("SO4 one deadline covers a whole write", test_write_deadline);
  RUN("T45 writing to a closed peer is -EPIPE", test_broken_pipe);
  RUN("a ready peer does not starve the others", test_fairness);
  hub_close(&hub);
  return test_end();
}
