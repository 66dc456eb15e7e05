/*
 * src/hub/wait.c without Lua: foreign descriptors, Pollables, children, and
 * what happens when descriptors are closed behind the hub's back.
 *
 * With an argument the program is one of the subprocesses that end badly or
 * might: see lost_backend.
 */
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "hub/wait.h"
#include "hub_support.h"

/* libev's calls are counted: it is linked statically, and so finds this one. */
static int nctl;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
  nctl++;
  return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

/* What a task of these tests waits for. */
typedef struct Waiter {
  Job job; /* first */
  Pollable *p;
  int fd, events;
} Waiter;

static void wait_foreign(Task *t) {
  Waiter *w = (Waiter *)t;
  w->job.code = wait_fd(&hub, w->fd, w->events, w->job.at);
  note(w->job.name);
}

static void wait_pollable(Task *t) {
  Waiter *w = (Waiter *)t;
  w->job.code = pollable_wait(w->p, w->events, "test", w->job.at);
  note(w->job.name);
}

static void start_foreign(Waiter *w, const char *name, int fd, int events) {
  make(&w->job, name, wait_foreign);
  w->fd = fd;
  w->events = events;
  hub_spawn(&w->job.task);
}

static void start_pollable(Waiter *w, const char *name, Pollable *p, int event) {
  make(&w->job, name, wait_pollable);
  w->p = p;
  w->events = event;
  hub_spawn(&w->job.task);
}

static void open_pair(int fds[2]) {
  CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void close_pair(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

static void put(int fd) { CHECK(write(fd, "x", 1) == 1); }

static void take(int fd) {
  char c;
  CHECK(read(fd, &c, 1) == 1);
}

static void fill(int fd) {
  static const char trash[4096];
  while (write(fd, trash, sizeof trash) > 0) continue;
}

static void drain(int fd) {
  static char trash[65536];
  while (read(fd, trash, sizeof trash) > 0) continue;
}

/* ---- foreign descriptors ---- */

static void test_events(void) {
  int fds[2];
  Waiter w;
  open_pair(fds);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ | EV_WRITE, DEADLINE_NEVER), EV_WRITE);
  put(fds[1]);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ | EV_WRITE, DEADLINE_NEVER), EV_READ | EV_WRITE);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ, DEADLINE_NEVER), EV_READ);
  take(fds[0]);
  start_foreign(&w, "w", fds[0], EV_READ);
  hub_sleep(&hub, in_ms(1));
  CHECK(w.job.task.parked && w.job.task.what_fd == fds[0]);
  put(fds[1]);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.code, EV_READ);
  CHECK_INT(w.job.task.what_fd, -1);
  close_pair(fds);
}

static void test_two_on_one(void) {
  int fds[2];
  Waiter a, b;
  open_pair(fds);
  start_foreign(&a, "a", fds[0], EV_READ);
  start_foreign(&b, "b", fds[0], EV_READ);
  hub_sleep(&hub, in_ms(1));
  put(fds[1]);
  CHECK(join(&a.job) == GREEN_OK && join(&b.job) == GREEN_OK);
  CHECK(a.job.code == EV_READ && b.job.code == EV_READ);
  close_pair(fds);
}

static void test_no_event(void) {
  int fds[2];
  Waiter w;
  open_pair(fds);
  Deadline until = in_ms(3);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ, until), GREEN_TIMEDOUT);
  CHECK(hub_now_update(&hub) >= until);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ, -1), GREEN_TIMEDOUT);
  start_foreign(&w, "w", fds[0], EV_READ);
  hub_yield(&hub);
  hub_cancel(&w.job.task);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.code, GREEN_CANCELLED);
  hub.nowait++;
  CHECK_INT(wait_fd(&hub, fds[0], EV_WRITE, DEADLINE_NEVER), GREEN_NOWAIT);
  hub.nowait--;
  close_pair(fds);
}

static void test_no_descriptor(void) {
  int fds[2];
  open_pair(fds);
  close_pair(fds);
  CHECK_INT(wait_fd(&hub, -1, EV_READ, DEADLINE_NEVER), -EBADF);
  CHECK_INT(wait_fd(&hub, fds[0], EV_READ, DEADLINE_NEVER), -EBADF);
  CHECK_INT(wait_fd(&hub, 1 << 20, EV_WRITE, DEADLINE_NEVER), -EBADF);
  CHECK_INT(wait_fd(&hub, INT32_MAX, EV_READ, DEADLINE_NEVER), -EBADF); /* libev would abort */
}

/* epoll refuses regular files (EPERM, epoll_ctl(2)); they are always ready. */
static void test_regular_file(void) {
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_INT(wait_fd(&hub, fd, EV_READ, in_ms(5000)), EV_READ);
  close(fd);
}

/* Closed between the start of the watcher and the poll, where libev aborts. */
static void test_closed_before_poll(void) {
  int fds[2];
  Waiter a, b;
  open_pair(fds);
  start_foreign(&a, "a", fds[0], EV_READ);
  start_foreign(&b, "b", fds[1], EV_READ);
  hub_yield(&hub);
  CHECK(a.job.task.parked && b.job.task.parked);
  close_pair(fds);
  CHECK(join(&a.job) == GREEN_OK && join(&b.job) == GREEN_OK);
  CHECK(a.job.code == -EBADF && b.job.code == -EBADF);
}

/* Closed later: no event comes any more. The number's next file is waited for
** as if it were the first. */
static void test_number_reused(void) {
  int fds[2], next[2];
  Waiter w;
  open_pair(fds);
  start_foreign(&w, "w", fds[0], EV_READ);
  w.job.at = in_ms(4);
  hub_sleep(&hub, in_ms(1));
  close(fds[0]);
  open_pair(next);
  CHECK_INT(next[0], fds[0]);
  put(next[1]);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.code, GREEN_TIMEDOUT);
  CHECK_INT(wait_fd(&hub, next[0], EV_READ, in_ms(5000)), EV_READ);
  take(next[0]);
  CHECK_INT(wait_fd(&hub, next[0], EV_READ, in_ms(2)), GREEN_TIMEDOUT);
  close(fds[1]);
  close_pair(next);
}

/* HB4 for descriptors: the wait is void, the next one works. */
static void switch_back(Task *t) {
  Waiter *w = (Waiter *)t;
  w->job.code = wait_fd(&hub, w->fd, EV_READ, DEADLINE_NEVER);
  greenlet_switch(&main_task.g, GREEN_OK, NULL, NULL);
  w->job.n = wait_fd(&hub, w->fd, EV_READ, in_ms(5000));
}

static void test_foreign_switch(void) {
  int fds[2];
  Waiter w;
  open_pair(fds);
  make(&w.job, "w", switch_back);
  w.fd = fds[0];
  hub_spawn(&w.job.task);
  hub_sleep(&hub, in_ms(1));
  CHECK_INT(greenlet_switch(&w.job.task.g, GREEN_OK, NULL, NULL), GREEN_OK);
  CHECK_INT(w.job.code, GREEN_BADSWITCH);
  hub_cancel(&w.job.task); /* out of its raw switch */
  w.job.task.cancelled = false;
  put(fds[1]);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.n, EV_READ);
  close_pair(fds);
}

/* ---- Pollables ---- */

static void test_pollable(void) {
  int fds[2];
  Pollable p;
  Waiter r, w;
  open_pair(fds);
  pollable_init(&p, &hub, fds[0]);
  CHECK_INT(pollable_wait(&p, EV_WRITE, "test", DEADLINE_NEVER), GREEN_OK);
  fill(fds[0]);
  start_pollable(&r, "r", &p, EV_READ);
  start_pollable(&w, "w", &p, EV_WRITE);
  hub_sleep(&hub, in_ms(1));
  CHECK(p.reader == &r.job.task && p.writer == &w.job.task);
  CHECK_INT(pollable_wait(&p, EV_READ, "test", DEADLINE_NEVER), GREEN_BUSY);
  CHECK_INT(pollable_wait(&p, EV_WRITE, "test", -1), GREEN_BUSY);
  put(fds[1]);
  CHECK_INT(join(&r.job), GREEN_OK);
  CHECK(r.job.code == GREEN_OK && w.job.task.parked);
  drain(fds[1]);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.code, GREEN_OK);
  CHECK(p.reader == NULL && p.writer == NULL);
  CHECK_INT(pollable_detach(&p), fds[0]);
  close_pair(fds);
}

static void test_pollable_ends(void) {
  int fds[2];
  Pollable p;
  Waiter w;
  open_pair(fds);
  pollable_init(&p, &hub, fds[0]);
  Deadline until = in_ms(3);
  CHECK_INT(pollable_wait(&p, EV_READ, "test", until), GREEN_TIMEDOUT);
  CHECK(hub_now_update(&hub) >= until);
  start_pollable(&w, "w", &p, EV_READ);
  hub_yield(&hub);
  hub_cancel(&w.job.task);
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK(w.job.code == GREEN_CANCELLED && p.reader == NULL);
  hub.nowait++;
  CHECK_INT(pollable_wait(&p, EV_READ, "test", DEADLINE_NEVER), GREEN_NOWAIT);
  hub.nowait--;
  pollable_detach(&p);
  close_pair(fds);
}

static void test_detach(void) {
  int fds[2];
  Pollable p;
  Waiter r, w;
  open_pair(fds);
  fill(fds[0]);
  pollable_init(&p, &hub, fds[0]);
  start_pollable(&r, "r", &p, EV_READ);
  start_pollable(&w, "w", &p, EV_WRITE);
  hub_sleep(&hub, in_ms(1));
  CHECK_INT(pollable_detach(&p), fds[0]);
  CHECK_INT(pollable_detach(&p), -1);
  CHECK(join(&r.job) == GREEN_OK && join(&w.job) == GREEN_OK);
  CHECK(r.job.code == GREEN_CLOSED && w.job.code == GREEN_CLOSED);
  CHECK_INT(pollable_wait(&p, EV_READ, "test", DEADLINE_NEVER), GREEN_CLOSED);
  close_pair(fds);
}

static void echo_all(Task *t) {
  Waiter *w = (Waiter *)t;
  while (pollable_wait(w->p, EV_READ, "test", DEADLINE_NEVER) == GREEN_OK) {
    take(w->p->fd);
    put(w->p->fd);
    w->job.n++;
  }
}

/* D6: the watchers stay, so after the first round no epoll_ctl is made. */
static void test_standing(void) {
  enum { ROUNDS = 200 };
  int fds[2];
  Pollable here, there;
  Waiter w;
  open_pair(fds);
  pollable_init(&here, &hub, fds[0]);
  pollable_init(&there, &hub, fds[1]);
  make(&w.job, "w", echo_all);
  w.p = &there;
  hub_spawn(&w.job.task);
  for (int i = 0, first = 0; i < ROUNDS; i++) {
    put(here.fd);
    CHECK_INT(pollable_wait(&here, EV_READ, "test", DEADLINE_NEVER), GREEN_OK);
    take(here.fd);
    if (i == 0) first = nctl;
    CHECK(first >= 2);
    CHECK_INT(nctl, first);
    CHECK(i == 0 || hub.nfresh == 0);
  }
  CHECK_INT(w.job.n, ROUNDS);
  pollable_detach(&there);
  join(&w.job);
  /* Idle, it is still registered, and keeps nobody from seeing a deadlock. */
  CHECK(ev_is_active(&here.rio.ev));
  CHECK_INT(hub_join(&hub, in_ms(5000)), GREEN_OK);
  /* An event that nobody waits for: the watcher stops, and the next wait starts it. */
  put(fds[1]);
  hub_sleep(&hub, in_ms(1));
  CHECK(!ev_is_active(&here.rio.ev));
  CHECK_INT(pollable_wait(&here, EV_READ, "test", DEADLINE_NEVER), GREEN_OK);
  pollable_detach(&here);
  close_pair(fds);
}

static void test_pollable_closed_behind(void) {
  int fds[2], next[2];
  Pollable p, q;
  Waiter w;
  open_pair(fds);
  pollable_init(&p, &hub, fds[0]);
  start_pollable(&w, "w", &p, EV_READ);
  hub_yield(&hub);
  close(fds[0]); /* before the poll */
  CHECK_INT(join(&w.job), GREEN_OK);
  CHECK_INT(w.job.code, -EBADF);
  CHECK(p.reader == NULL && !ev_is_active(&p.rio.ev));
  CHECK_INT(pollable_wait(&p, EV_READ, "test", DEADLINE_NEVER), -EBADF);
  close(fds[1]);
  pollable_detach(&p);

  open_pair(fds);
  pollable_init(&p, &hub, fds[0]);
  CHECK_INT(pollable_wait(&p, EV_READ, "test", in_ms(1)), GREEN_TIMEDOUT);
  close_pair(fds); /* while its watcher stands */
  open_pair(next);
  CHECK_INT(next[0], fds[0]);
  pollable_init(&q, &hub, next[0]);
  put(next[1]);
  CHECK_INT(pollable_wait(&q, EV_READ, "test", in_ms(5000)), GREEN_OK);
  pollable_detach(&p);
  take(next[0]);
  CHECK_INT(pollable_wait(&q, EV_READ, "test", in_ms(2)), GREEN_TIMEDOUT);
  put(next[1]);
  CHECK_INT(pollable_wait(&q, EV_READ, "test", in_ms(5000)), GREEN_OK);
  pollable_detach(&q);
  close_pair(next);
}

/* ---- children ---- */

/* A child that waits for a byte's end on `gate` (or -1) and exits with `code`. */
static pid_t child(int gate, int code) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid != 0) return pid;
  char c;
  if (gate >= 0 && read(gate, &c, 1) < 0) _exit(99);
  _exit(code);
}

static void test_one_child(void) {
  int status, gate[2];
  pid_t pid = child(-1, 7);
  CHECK_INT(wait_child(&hub, pid, &status, in_ms(10000)), GREEN_OK);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  CHECK_INT(wait_child(&hub, pid, &status, DEADLINE_NEVER), -ECHILD); /* already reaped */
  CHECK_INT(wait_child(&hub, getpid(), &status, DEADLINE_NEVER), -ECHILD);

  CHECK_INT(pipe(gate), 0);
  pid = child(gate[0], 8);
  CHECK_INT(wait_child(&hub, pid, &status, in_ms(3)), GREEN_TIMEDOUT);
  put(gate[1]);
  CHECK_INT(wait_child(&hub, pid, &status, in_ms(10000)), GREEN_OK);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 8);

  pid = child(gate[0], 0);
  kill(pid, SIGTERM);
  CHECK_INT(wait_child(&hub, pid, &status, in_ms(10000)), GREEN_OK);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  close_pair(gate);
}

static void wait_pid(Task *t) {
  Waiter *w = (Waiter *)t;
  int status = -1;
  w->job.code = wait_child(&hub, w->fd, &status, w->job.at);
  w->job.n = WEXITSTATUS(status);
}

static void test_children(void) {
  enum { CHILDREN = 12 };
  Waiter w[CHILDREN];
  int gate[2];
  CHECK_INT(pipe(gate), 0);
  for (int i = 0; i < CHILDREN; i++) {
    make(&w[i].job, "w", wait_pid)->at = in_ms(20000);
    w[i].fd = child(gate[0], i);
    hub_spawn(&w[i].job.task);
  }
  hub_sleep(&hub, in_ms(1));
  for (int i = 0; i < CHILDREN; i++) put(gate[1]);
  CHECK_INT(hub_join_spawned(&hub, in_ms(20000)), GREEN_OK);
  for (int i = 0; i < CHILDREN; i++) CHECK(w[i].job.code == GREEN_OK && w[i].job.n == i);
  close_pair(gate);
}

/* ---- the loop's own descriptor (HB8) ---- */

/* A subprocess: closes it, with a standing watcher and after some turns. */
static int lost_backend(bool reused) {
  int fds[2];
  Pollable p;
  Waiter w;
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 3;
  open_pair(fds);
  pollable_init(&p, &hub, fds[0]);
  if (pollable_wait(&p, EV_READ, "test", in_ms(1)) != GREEN_TIMEDOUT) return 4;
  if (hub.backend_fd < 0) return 7;
  if (reused)
    dup2(STDERR_FILENO, hub.backend_fd);
  else
    close(hub.backend_fd);
  start_pollable(&w, "w", &p, EV_READ);
  if (wait_fd(&hub, fds[1], EV_WRITE, in_ms(5000)) != EV_WRITE) return 5;
  put(fds[1]);
  if (join(&w.job) != GREEN_OK || w.job.code != GREEN_OK) return 6;
  pollable_detach(&p);
  close_pair(fds);
  hub_close(&hub);
  return 0;
}

static void exec_closed(void) { test_exec_self("closed"); }
static void exec_reused(void) { test_exec_self("reused"); }

static void test_backend_closed(void) {
  char err[512];
  int status = test_child(exec_closed, err, sizeof err);
  CHECK_STR(err, "");
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), 0);
}

static void test_backend_reused(void) {
  char err[512];
  int status = test_child(exec_reused, err, sizeof err);
  CHECK(strstr(err, "greenlua: somebody closed the event loop's epoll descriptor, ") == err);
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), EXIT_FAILURE);
}

int main(int argc, char **argv) {
  if (argc > 1) return lost_backend(strcmp(argv[1], "reused") == 0);
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  run("wait_fd returns the events that came", test_events);
  run("two tasks may wait for one descriptor", test_two_on_one);
  run("wait_fd's other ends", test_no_event);
  run("no descriptor is -EBADF", test_no_descriptor);
  run("a regular file is always ready", test_regular_file);
  run("a descriptor closed between start and poll", test_closed_before_poll);
  run("a descriptor closed while waited for, its number used again", test_number_reused);
  run("HB4 a switch into a task that waits for a descriptor", test_foreign_switch);
  run("a Pollable has a reader and a writer, and refuses a second", test_pollable);
  run("a Pollable's other ends", test_pollable_ends);
  run("detaching wakes both sides", test_detach);
  run("a standing watcher makes no epoll_ctl in a request loop", test_standing);
  run("a Pollable's descriptor closed behind the hub's back", test_pollable_closed_behind);
  if (syscall(SYS_pidfd_open, 0, 0) < 0 && errno == ENOSYS) {
    SKIP("children", "no pidfd_open(2) here, as in valgrind");
  } else {
    run("a child's status, signal, deadline; no child", test_one_child);
    run("many children", test_children);
  }
  RUN("HB8 a closed epoll descriptor is survived", test_backend_closed);
  RUN("HB8 a closed and reused one ends the program with a message", test_backend_reused);
  hub_close(&hub);
  return test_end();
}
