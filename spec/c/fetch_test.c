/* Tests of src/io/fetch.c and src/io/curlloop.c, against a forked server. */
#define _GNU_SOURCE
#include "../../src/io/fetch.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "../../src/io/resolver.h"
#include "test.h"

/* ---- the server: a process that answers by the request's path ---- */

static int port;
static int connections; /* in the server: how many it has accepted */

static void say(int fd, const char *text) {
  size_t n = strlen(text);
  while (n > 0) {
    ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
    if (sent <= 0) _exit(0);
    text += sent;
    n -= (size_t)sent;
  }
}

/* The same text until the client goes away. */
static void say_for_ever(int fd, const char *text) {
  for (;;) say(fd, text);
}

static void answer(int fd, const char *path) {
  char text[256];
  static char filler[16 * 1024];
  memset(filler, 'x', sizeof filler - 1);
  if (strcmp(path, "/connection") == 0) {
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%04d", connections);
    say(fd, text);
  } else if (strcmp(path, "/short") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    _exit(0);
  } else if (strcmp(path, "/fields") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\n");
    say_for_ever(fd, "X: y\r\n");
  } else if (strcmp(path, "/line") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nX: ");
    say_for_ever(fd, filler);
  } else if (strcmp(path, "/interim") == 0) {
    say_for_ever(fd, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
  } else if (strcmp(path, "/endless") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\n\r\n");
    say_for_ever(fd, filler);
  } else if (strcmp(path, "/hints") == 0) {
    say(fd, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  } else { /* "/silent" */
    pause();
  }
}

/* One connection in a process of its own: it may block and end as it likes. */
static void serve_connection(int fd) {
  char request[4096], path[64];
  for (;;) {
    size_t n = 0;
    do {
      ssize_t got = recv(fd, request + n, sizeof request - 1 - n, 0);
      if (got <= 0) _exit(0);
      n += (size_t)got;
      request[n] = '\0';
    } while (!strstr(request, "\r\n\r\n"));
    if (sscanf(request, "%*s %63s", path) != 1) _exit(1);
    answer(fd, path);
  }
}

static void serve(int listener) {
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) _exit(0);
    connections++;
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      serve_connection(fd);
    }
    close(fd);
  }
}

static void start_server(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr *)&a, len) < 0 || listen(listener, 64) < 0) _exit(1);
  getsockname(listener, (struct sockaddr *)&a, &len);
  port = ntohs(a.sin_port);
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(listener);
  }
  close(listener);
}

/* ---- helpers ---- */

static Hub hub;
static Task hub_task, main_task;

static FetchRequest to(const char *path, bool stream) {
  static char url[128];
  snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
  return (FetchRequest){.url = url,
                        .method = "GET",
                        .host = "127.0.0.1",
                        .port = port,
                        .stream = stream,
                        .connect_by = hub_deadline(&hub, 5),
                        .max_body = 1 << 20};
}

static Deadline soon(double seconds) { return hub_deadline(&hub, seconds); }

static void begin(Fetch *f, const char *path, bool stream) {
  FetchRequest r = to(path, stream);
  fetch_init(f, &hub);
  CHECK_INT(fetch_start(f, &r, soon(5)), 0);
}

static int tasks_of_process(void) {
  DIR *dir = opendir("/proc/self/task");
  int n = 0;
  while (readdir(dir)) n++;
  closedir(dir);
  return n - 2;
}

/* What a request for `path` ends with; the message goes to `message`. */
static int outcome(const char *path, const char **message) {
  static char copy[256];
  Fetch f;
  const char *text;
  size_t len;
  begin(&f, path, false);
  int code = fetch_head(&f, &text, &len, soon(5));
  if (code == 0) code = fetch_body(&f, FETCH_UNLIMITED, &text, &len, soon(5));
  snprintf(copy, sizeof copy, "%s", fetch_message(&f, code));
  *message = copy;
  fetch_close(&f);
  return code;
}

/* ---- tests ---- */

static void whole(void) {
  Fetch f;
  const char *text;
  size_t len;
  begin(&f, "/connection", false);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
  CHECK(len > 17 && memcmp(text, "HTTP/1.1 200 OK\r\n", 17) == 0);
  CHECK_INT(fetch_body(&f, FETCH_UNLIMITED, &text, &len, soon(5)), 0);
  CHECK_INT(len, 4);
  fetch_close(&f);
  fetch_close(&f);
}

static void reuse(void) {
  char first[5] = "", again[5] = "";
  const char *text;
  size_t len;
  for (int i = 0; i < 10; i++) {
    Fetch f;
    begin(&f, "/connection", i % 2);
    CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
    CHECK_INT(fetch_body(&f, FETCH_UNLIMITED, &text, &len, soon(5)), 0);
    memcpy(i == 0 ? first : again, text, 4);
    fetch_close(&f);
  }
  CHECK_STR(again, first);
}

static void interim_head(void) {
  Fetch f;
  const char *text;
  size_t len;
  begin(&f, "/hints", false);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
  CHECK(memcmp(text, "HTTP/1.1 200", 12) == 0);
  CHECK(!memmem(text, len, "Link", 4));
  fetch_close(&f);
}

static void hostile_heads(void) {
  static const char *const paths[] = {"/fields", "/line", "/interim"};
  const char *message;
  for (int i = 0; i < 3; i++) {
    CHECK_INT(outcome(paths[i], &message), -EMSGSIZE);
    CHECK_STR(message, "response head too large");
  }
}

static void wrong_lengths(void) {
  const char *message;
  CHECK_INT(outcome("/short", &message), GREEN_EOF);
  CHECK_STR(message, "body shorter than announced");
  CHECK_INT(outcome("/endless", &message), -EFBIG);
  CHECK_STR(message, "too large");
}

static void refused(void) {
  Fetch f;
  const char *text;
  size_t len;
  FetchRequest r = to("/", false);
  r.url = "http://127.0.0.1:1/";
  r.port = 1;
  fetch_init(&f, &hub);
  CHECK_INT(fetch_start(&f, &r, soon(5)), 0);
  int code = fetch_head(&f, &text, &len, soon(5));
  CHECK_INT(code, -ECONNREFUSED);
  CHECK_STR(fetch_message(&f, code), "connection refused");
  fetch_close(&f);
}

static void own_resolve(void) {
  Fetch f;
  const char *text;
  size_t len;
  FetchRequest r = to("/connection", false);
  char url[64];
  snprintf(url, sizeof url, "http://forgotten.example:%d/", port);
  r.url = url; /* but `host` says 127.0.0.1 */
  fetch_init(&f, &hub);
  f.numeric = false;
  CHECK_INT(fetch_start(&f, &r, soon(5)), 0);
  f.numeric = false;
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), GREEN_EAI_NONAME);
  fetch_close(&f);
  r.url = url;
  r.host = "localhost";
  snprintf(url, sizeof url, "http://localhost:%d/connection", port);
  CHECK_INT(fetch_start(&f, &r, soon(5)), 0);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
  fetch_close(&f);
}

static void pauses(void) {
  Fetch f;
  const char *text;
  size_t len;
  FetchRequest r = to("/endless", true);
  r.max_body = FETCH_UNLIMITED;
  fetch_init(&f, &hub);
  CHECK_INT(fetch_start(&f, &r, soon(5)), 0);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
  for (int i = 0; i < 20; i++) {
    Deadline limit = soon(5);
    while (!f.paused && hub.now < limit) CHECK_INT(hub_sleep(&hub, soon(0.002)), 0);
    CHECK(f.paused);
    CHECK(f.in.len <= FETCH_PAUSE_AT + 16 * 1024);
    CHECK_INT(fetch_read(&f, &text, &len, soon(5)), 1);
    CHECK(len > 0 && text[0] == 'x');
  }
  while (!f.paused) CHECK_INT(hub_sleep(&hub, soon(0.002)), 0);
  CHECK_INT(hub_park(&hub, "test", DEADLINE_NEVER), GREEN_DEADLOCK);
  fetch_close(&f);
}

static Fetch *victim;

static void closer(Task *t) {
  (void)t;
  fetch_close(victim);
}

static void canceller(Task *t) {
  (void)t;
  hub_cancel(&main_task);
}

static void ended_by_others(void) {
  static Task tasks[2];
  Fetch f;
  const char *text;
  size_t len;
  begin(&f, "/silent", false);
  victim = &f;
  task_init_spawned(&tasks[0], &hub, closer);
  hub_spawn(&tasks[0]);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), GREEN_CLOSED);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), GREEN_CLOSED);
  begin(&f, "/silent", false);
  task_init_spawned(&tasks[1], &hub, canceller);
  hub_spawn(&tasks[1]);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), GREEN_CANCELLED);
  main_task.cancelled = false;
  fetch_close(&f);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), 0);
}

/* ---- an exchange that is over when its waiter runs ---- */

typedef struct Reader {
  Task task; /* first */
  Fetch *fetch;
  FetchRequest request; /* what it starts, if it starts */
  int code;
} Reader;

static void read_head(Task *t) {
  Reader *r = (Reader *)t;
  const char *text;
  size_t len;
  r->code = fetch_head(r->fetch, &text, &len, soon(5));
}

static void start_it(Task *t) {
  Reader *r = (Reader *)t;
  r->code = fetch_start(r->fetch, &r->request, soon(5));
}

static void begin_reader(Reader *r, Fetch *f, void (*body)(Task *)) {
  r->fetch = f;
  r->code = 1;
  task_init_spawned(&r->task, &hub, body);
  hub_spawn(&r->task);
  CHECK_INT(hub_yield(&hub), 0);
}

static void closed_after_news(void) {
  static Reader r;
  Fetch f;
  begin(&f, "/silent", false);
  begin_reader(&r, &f, read_head);
  hub_ready(&r.task, GREEN_OK);
  fetch_close(&f);
  double start = test_seconds();
  CHECK_INT(hub_join_task(&hub, &r.task, DEADLINE_NEVER), 0);
  CHECK_INT(r.code, GREEN_CLOSED);
  CHECK(test_seconds() - start < 3);
}

/* The next exchange of the same Fetch is not the old waiter's to close. */
static void begun_again(void (*body)(Task *), Reader *r) {
  Fetch f;
  const char *text;
  size_t len;
  FetchRequest next = to("/connection", false);
  if (body == start_it)
    fetch_init(&f, &hub);
  else
    begin(&f, "/silent", false);
  begin_reader(r, &f, body);
  CHECK(f.waiter == &r->task);
  fetch_close(&f);
  next = to("/connection", false);
  CHECK_INT(fetch_start(&f, &next, soon(5)), 0);
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), 0);
  CHECK_INT(r->code, GREEN_CLOSED);
  CHECK_INT(fetch_body(&f, FETCH_UNLIMITED, &text, &len, soon(5)), 0);
  CHECK_INT(len, 4);
  fetch_close(&f);
}

static void restarted_meanwhile(void) {
  static Reader reader, starter;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  char servers[32];
  begun_again(read_head, &reader);
  int dns = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* it never answers */
  CHECK_INT(bind(dns, (struct sockaddr *)&a, len), 0);
  getsockname(dns, (struct sockaddr *)&a, &len);
  snprintf(servers, sizeof servers, "127.0.0.1:%d", ntohs(a.sin_port));
  CHECK_INT(resolver_set_servers(&hub, servers), 0);
  starter.request = to("/connection", false);
  starter.request.host = "silence.test";
  starter.request.connect_by = soon(5);
  begun_again(start_it, &starter);
  CHECK_INT(resolver_set_servers(&hub, NULL), 0);
  close(dns);
}

static void deadlines(void) {
  Fetch f;
  const char *text;
  size_t len;
  FetchRequest r = to("/silent", true);
  begin(&f, "/silent", false);
  CHECK_INT(fetch_head(&f, &text, &len, soon(0.02)), GREEN_TIMEDOUT);
  CHECK_INT(fetch_start(&f, &r, soon(5)), GREEN_BUSY);
  fetch_close(&f);
  r.stall = 0.02;
  CHECK_INT(fetch_start(&f, &r, soon(5)), 0);
  double start = test_seconds();
  CHECK_INT(fetch_head(&f, &text, &len, soon(5)), GREEN_TIMEDOUT);
  CHECK(test_seconds() - start < 2);
  fetch_close(&f);
}

static void idle_connections(void) {
  const char *message;
  CHECK_INT(outcome("/connection", &message), 0);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), 0); /* they do not keep the loop alive */
  curlloop_drop_idle(&hub);
  CHECK_INT(outcome("/connection", &message), 0);
}

static void header_checks(void) {
  Fetch f;
  fetch_init(&f, &hub);
  CHECK_INT(fetch_header(&f, "X", "a\r\nY: b"), -EINVAL);
  CHECK_INT(fetch_header(&f, "X\n", "a"), -EINVAL);
  CHECK_INT(fetch_header(&f, "X", ""), 0);
  fetch_close(&f);
}

static void no_threads(void) { CHECK_INT(tasks_of_process(), 1); }

static void hub_ends_first(void) {
  static Fetch f;
  begin(&f, "/silent", false);
  hub_close(&hub);
  fetch_close(&f);
}

int main(void) {
  start_server();
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  RUN("a response comes with head and body", whole);
  RUN("connections are used again", reuse);
  RUN("a 1xx head is not the response's", interim_head);
  RUN("T9 endless heads end with an error", hostile_heads);
  RUN("T10 T14 bodies of wrong length end with an error", wrong_lengths);
  RUN("a refused connection is told as such", refused);
  RUN("HC2 libcurl never resolves; names go through the resolver", own_resolve);
  RUN("HC5 a body waits for its reader, and counts as no event then", pauses);
  RUN("HC1 closing and cancelling end a wait", ended_by_others);
  RUN("a close between the news and its waiter's turn ends the wait", closed_after_news);
  RUN("an exchange that begins meanwhile is let alone", restarted_meanwhile);
  RUN("T12 deadlines and stalls end a wait", deadlines);
  RUN("idle connections do not keep the loop alive", idle_connections);
  RUN("T25 header lines cannot be broken", header_checks);
  RUN("HC2 no thread was made", no_threads);
  RUN("a hub may end before its transfers", hub_ends_first);
  return test_end();
}
