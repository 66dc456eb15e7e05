/*
 * io/net without Lua, over loopback: connecting, listening, accepting, and that
 * nothing stays behind when they fail.
 */
#include <errno.h>
#include <netinet/in.h>

#include "io/net.h"
#include "test.h"

static Hub hub;

static Address loopback(int family, uint16_t port) {
  Address a;
  memset(&a, 0, sizeof a);
  a.sa.sa_family = (sa_family_t)family;
  if (family == AF_INET6) {
    a.in6.sin6_addr = in6addr_loopback;
    a.in6.sin6_port = htons(port);
    a.len = sizeof a.in6;
  } else {
    a.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.in4.sin_port = htons(port);
    a.len = sizeof a.in4;
  }
  return a;
}

static Stream *new_stream(void) {
  Stream *s = malloc(sizeof *s);
  if (!s || stream_init(s, &hub) < 0) abort();
  return s;
}

static void drop(Stream *s) {
  stream_free(s);
  free(s);
}

/* A listener on a free port of `family`, which is stored. */
static Stream *listener(int family, int backlog, Address *at) {
  Stream *s = new_stream();
  Address any = loopback(family, 0);
  CHECK_INT(net_bind(s, &any, 1, true), 0);
  CHECK_INT(listen(s->poll.fd, backlog), 0);
  at->len = sizeof at->in6;
  CHECK_INT(getsockname(s->poll.fd, &at->sa, &at->len), 0);
  return s;
}

/* An address where nobody listens. */
static Address refused_address(int family) {
  Address a;
  drop(listener(family, 1, &a));
  return a;
}

/* The lowest free descriptor: the same before and after means none was lost. */
static int next_fd(void) {
  int fd = dup(0);
  close(fd);
  return fd;
}

/* A listener whose queue is full: Linux drops further SYNs, so that connecting
** hangs (listen(2) and tcp_max_syn_backlog; backlog 0 queues one). */
typedef struct Silent {
  Stream *listener;
  Stream *filler[4];
  Address at;
} Silent;

static void silent_open(Silent *x) {
  x->listener = listener(AF_INET, 0, &x->at);
  for (int i = 0; i < 4; i++) {
    x->filler[i] = new_stream();
    net_connect(x->filler[i], &x->at, 1, NULL, DEADLINE_NOW);
  }
  hub_sleep(&hub, hub_deadline(&hub, 0.01));
}

static void silent_close(Silent *x) {
  for (int i = 0; i < 4; i++) drop(x->filler[i]);
  drop(x->listener);
}

/* ---- a second task ---- */

typedef struct Job {
  Task task; /* first */
  Stream *s;
  const Address *list;
  int n, result;
} Job;

static void job_start(Job *job, Stream *s, const Address *list, int n, void (*body)(Task *)) {
  memset(job, 0, sizeof *job);
  job->s = s;
  job->list = list;
  job->n = n;
  job->result = 1;
  task_init_spawned(&job->task, &hub, body);
  hub_spawn(&job->task);
  hub_yield(&hub);
}

static void connect_job(Task *t) {
  Job *job = (Job *)t;
  job->result = net_connect(job->s, job->list, job->n, NULL, DEADLINE_NEVER);
}

static void accept_job(Task *t) {
  Job *job = (Job *)t;
  job->result = net_accept(job->s, DEADLINE_NEVER);
}

/* ---- tests ---- */

static void test_families(int family) {
  Address at;
  Stream *server = listener(family, 5, &at), *client = new_stream(), *session = new_stream();
  Job job;
  job_start(&job, server, NULL, 0, accept_job);
  CHECK_INT(net_connect(client, &at, 1, NULL, DEADLINE_NEVER), 0);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK(job.result >= 0);
  CHECK_INT(fcntl(job.result, F_GETFD), FD_CLOEXEC);
  CHECK(fcntl(job.result, F_GETFL) & O_NONBLOCK);
  CHECK_INT(fcntl(client->poll.fd, F_GETFD), FD_CLOEXEC);
  CHECK_INT(net_family(client->poll.fd), family);
  stream_open(session, job.result);
  size_t sent;
  CHECK_INT(stream_write(session, "hello", 5, &sent, DEADLINE_NEVER), 0);
  CHECK_INT(stream_read_n(client, 5, DEADLINE_NEVER), 5);
  CHECK(memcmp(stream_data(client), "hello", 5) == 0);
  drop(session);
  drop(client);
  drop(server);
}

static void test_inet(void) { test_families(AF_INET); }
static void test_inet6(void) { test_families(AF_INET6); }

static void test_refused(void) {
  Address at = refused_address(AF_INET);
  Stream *s = new_stream();
  int before = next_fd();
  CHECK_INT(net_connect(s, &at, 1, NULL, DEADLINE_NEVER), -ECONNREFUSED);
  CHECK_INT(s->poll.fd, -1);
  CHECK_INT(next_fd(), before);
  drop(s);
}

static void test_in_turn(void) {
  Address at, list[3] = {refused_address(AF_INET6), refused_address(AF_INET)};
  Stream *server = listener(AF_INET, 5, &at), *s = new_stream();
  list[2] = at;
  CHECK_INT(net_connect(s, list, 3, NULL, DEADLINE_NEVER), 0);
  Address peer;
  peer.len = sizeof peer.in6;
  CHECK_INT(getpeername(s->poll.fd, &peer.sa, &peer.len), 0);
  CHECK_INT(peer.in4.sin_port, at.in4.sin_port);
  drop(s);
  drop(server);
}

/* A socket that was made before keeps its descriptor, and its family. */
static void test_given_socket(void) {
  Address at, list[2] = {refused_address(AF_INET6)};
  Stream *server = listener(AF_INET, 5, &at), *s = new_stream();
  stream_open(s, net_socket(AF_INET));
  int fd = s->poll.fd;
  CHECK_INT(net_connect(s, list, 1, NULL, DEADLINE_NEVER), -EAFNOSUPPORT);
  list[1] = refused_address(AF_INET);
  CHECK_INT(net_connect(s, list, 2, NULL, DEADLINE_NEVER), -ECONNREFUSED);
  CHECK_INT(s->poll.fd, fd);
  CHECK_INT(net_connect(s, &at, 1, NULL, DEADLINE_NEVER), 0);
  CHECK_INT(s->poll.fd, fd);
  CHECK_INT(net_connect(s, &at, 1, NULL, DEADLINE_NEVER), -EISCONN);
  drop(s);
  drop(server);
}

static void test_timeout(void) {
  Silent x;
  silent_open(&x);
  Stream *s = new_stream();
  int before = next_fd();
  Deadline start = hub_now_update(&hub);
  CHECK_INT(net_connect(s, &x.at, 1, NULL, start + 0.05), GREEN_TIMEDOUT);
  CHECK(hub_now_update(&hub) >= start + 0.05);
  CHECK_INT(next_fd(), before);
  CHECK_INT(net_connect(s, &x.at, 1, NULL, DEADLINE_NOW), GREEN_TIMEDOUT);
  CHECK_INT(s->poll.fd, before); /* goes on by itself */
  CHECK_INT(net_connect(s, &x.at, 1, NULL, DEADLINE_NOW), -EALREADY);
  drop(s);
  silent_close(&x);
}

/* A given socket whose connecting timed out can connect elsewhere. */
static void test_dissolve(void) {
  Silent x;
  Address at;
  silent_open(&x);
  Stream *server = listener(AF_INET, 5, &at), *s = new_stream();
  stream_open(s, net_socket(AF_INET));
  CHECK_INT(net_connect(s, &x.at, 1, NULL, hub_deadline(&hub, 0.02)), GREEN_TIMEDOUT);
  CHECK_INT(net_connect(s, &at, 1, NULL, DEADLINE_NEVER), 0);
  drop(s);
  drop(server);
  silent_close(&x);
}

static void test_cancel(void) {
  Silent x;
  Job job;
  silent_open(&x);
  Stream *s = new_stream();
  int before = next_fd();
  job_start(&job, s, &x.at, 1, connect_job);
  CHECK(next_fd() != before);
  hub_cancel(&job.task);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK_INT(job.result, GREEN_CANCELLED);
  CHECK_INT(next_fd(), before);
  drop(s);
  silent_close(&x);
}

static void test_close_ends_all_tries(void) {
  Silent x;
  Job job;
  silent_open(&x);
  Address list[2] = {x.at, x.at};
  Stream *s = new_stream();
  job_start(&job, s, list, 2, connect_job);
  stream_close(s);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK_INT(job.result, GREEN_CLOSED);
  CHECK_INT(s->poll.fd, -1);
  drop(s);
  silent_close(&x);
}

/* Its share of the time is over, and before it runs it is closed: that ends the
** whole call. */
static void test_close_after_the_wake(void) {
  Silent x;
  Job job;
  Address other;
  silent_open(&x);
  Stream *server = listener(AF_INET, 5, &other), *s = new_stream();
  Address list[2] = {x.at, other};
  job_start(&job, s, list, 2, connect_job);
  hub_ready(&job.task, GREEN_TIMEDOUT);
  stream_close(s);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK_INT(job.result, GREEN_CLOSED);
  CHECK_INT(s->poll.fd, -1);
  drop(s);
  drop(server);
  silent_close(&x);
}

static void test_bind(void) {
  Address at;
  Stream *server = listener(AF_INET, 5, &at), *s = new_stream();
  int before = next_fd();
  CHECK_INT(net_bind(s, &at, 1, true), -EADDRINUSE);
  CHECK_INT(next_fd(), before);
  Address list[2] = {at, loopback(AF_INET, 0)};
  CHECK_INT(net_bind(s, list, 2, false), 0);
  drop(s);
  drop(server);
}

static void test_local_address(void) {
  Address at, local = loopback(AF_INET, 0), name;
  local.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1); /* 127.0.0.2 */
  Stream *server = listener(AF_INET, 5, &at), *s = new_stream();
  CHECK_INT(net_connect(s, &at, 1, &local, DEADLINE_NEVER), 0);
  name.len = sizeof name.in6;
  CHECK_INT(getsockname(s->poll.fd, &name.sa, &name.len), 0);
  CHECK_INT(name.in4.sin_addr.s_addr, local.in4.sin_addr.s_addr);
  drop(s);
  drop(server);
}

static void test_accept_ends(void) {
  Address at;
  Job job;
  Stream *server = listener(AF_INET, 5, &at);
  CHECK_INT(net_accept(server, DEADLINE_NOW), GREEN_TIMEDOUT);
  CHECK_INT(net_accept(server, hub_deadline(&hub, 0.02)), GREEN_TIMEDOUT);
  job_start(&job, server, NULL, 0, accept_job);
  CHECK_INT(net_accept(server, DEADLINE_NEVER), GREEN_BUSY);
  stream_close(server);
  hub_join_task(&hub, &job.task, DEADLINE_NEVER);
  CHECK_INT(job.result, GREEN_CLOSED);
  drop(server);
}

static void test_interleave(void) {
  Address list[6];
  int families[6] = {AF_INET6, AF_INET6, AF_INET6, AF_INET, AF_INET, AF_INET6};
  for (int i = 0; i < 6; i++) list[i] = loopback(families[i], (uint16_t)i);
  net_interleave(list, 6);
  int ports[6] = {0, 3, 1, 4, 2, 5};
  for (int i = 0; i < 6; i++) CHECK_INT(ntohs(list[i].in4.sin_port), ports[i]);
}

int main(void) {
  static Task hub_task, main_task;
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  RUN("T46 IPv4 sockets connect, close-on-exec from birth", test_inet);
  RUN("T46 IPv6 sockets connect, close-on-exec from birth", test_inet6);
  RUN("SO7 refused at once, nothing left open", test_refused);
  RUN("addresses are tried in turn", test_in_turn);
  RUN("a given socket is used, for its family", test_given_socket);
  RUN("connecting keeps its deadline", test_timeout);
  RUN("a timed out connect leaves a given socket fit for the next", test_dissolve);
  RUN("SO7 cancel closes the half-open socket", test_cancel);
  RUN("SO1 close ends a connect and its further tries", test_close_ends_all_tries);
  RUN("SO1 a close between wake and run ends a connect, too", test_close_after_the_wake);
  RUN("bind takes the first address it is granted", test_bind);
  RUN("connect from a given local address", test_local_address);
  RUN("accept ends by deadline, busy, close", test_accept_ends);
  RUN("families take turns", test_interleave);
  hub_close(&hub);
  return test_end();
}
