/*
 * What the tests of the hub share: a hub, tasks with a record of what happened
 * to them, and the wrapper of each test: afterwards the hub must be as before,
 * with no task, stack, descriptor, watcher or reference to the loop left.
 */
#ifndef GREEN_TEST_HUB_H
#define GREEN_TEST_HUB_H

#include <dirent.h>

#include "hub/hub.h"
#include "test.h"

static Hub hub;
static Task hub_task, main_task;
static char trail[512]; /* what ran, in order */

static inline void note(const char *s) { strncat(trail, s, sizeof trail - strlen(trail) - 1); }

static inline Deadline in_ms(double ms) { return hub_deadline(&hub, ms / 1000); }

/* A task of these tests, with what its body needs. */
typedef struct Job {
  Task task; /* first */
  const char *name;
  WaitQueue *q;
  Task *other;
  Deadline at;
  int code, n;
  bool stop;
} Job;

#define JOB(t) ((Job *)(t))

static inline Job *make(Job *job, const char *name, void (*body)(Task *)) {
  memset(job, 0, sizeof *job);
  job->name = name;
  job->at = DEADLINE_NEVER;
  job->code = 12345;
  task_init_spawned(&job->task, &hub, body);
  return job;
}

static inline Job *start(Job *job, const char *name, void (*body)(Task *)) {
  make(job, name, body);
  hub_spawn(&job->task);
  return job;
}

static inline int join(Job *job) { return hub_join_task(&hub, &job->task, in_ms(10000)); }

static inline int open_fds(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

/* With a reference of our own the loop is not empty, without it it is: so the
** references are balanced, and no watcher is left. */
static inline void nothing_left(void) {
  CHECK(hub.run_head == NULL && hub.run_tail == NULL);
  CHECK(hub.all_head == &main_task && hub.all_tail == &main_task);
  CHECK_INT(hub.nlive, 0);
  CHECK(hub.calls == NULL && hub.idlers.head == NULL && hub.enders.head == NULL);
  CHECK(!main_task.cancelled && !main_task.parked && !main_task.queued);
  CHECK_INT(hub_join(&hub, in_ms(5000)), GREEN_OK);
  hub_hold(&hub, 1);
  CHECK_INT(hub_join(&hub, in_ms(1)), GREEN_TIMEDOUT);
  hub_hold(&hub, -1);
  CHECK(hub.thread.stacks.nlive <= 1); /* the hub's own */
}

static void (*test_body)(void);

static inline void wrapped(void) {
  trail[0] = '\0';
  int fds = open_fds();
  test_body();
  nothing_left();
  CHECK_INT(open_fds(), fds);
}

static inline void run(const char *name, void (*fn)(void)) {
  test_body = fn;
  RUN(name, wrapped);
}

/* ---- what tasks do ---- */

static inline void note_twice(Task *t) {
  note(JOB(t)->name);
  note("A ");
  hub_yield(&hub);
  note(JOB(t)->name);
  note("B ");
}

static inline void park_it(Task *t) {
  Job *job = JOB(t);
  job->code = hub_park_in(&hub, job->q, "test", job, job->at);
  job->at = hub_now_update(&hub);
  note(job->name);
}

static inline void sleep_it(Task *t) {
  Job *job = JOB(t);
  job->code = hub_sleep(&hub, job->at);
  job->n = hub_now_update(&hub) >= job->at;
}

#endif
