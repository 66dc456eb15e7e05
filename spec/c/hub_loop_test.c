/*
 * src/hub/hub.c without Lua: starts and ends of tasks, joins, the loop's turns,
 * other threads, the life of hubs. Waiting itself is in hub_test.c.
 */
#include <errno.h>
#include <semaphore.h>

#include "hub_support.h"

/* ---- ends and joins ---- */

static void test_never_run(void) {
  Job a, b, j;
  start(&a, "a", park_it);
  hub_spawn_at(&make(&b, "b", park_it)->task, in_ms(1));
  start(&j, "1", note_twice);
  greenlet_discard(&a.task.g);
  task_end(&a.task);
  greenlet_discard(&b.task.g);
  task_end(&b.task);
  CHECK(a.task.done && !a.task.queued && !b.task.scheduled);
  CHECK_INT(hub_sleep(&hub, in_ms(3)), GREEN_OK);
  CHECK_STR(trail, "1A 1B ");
  CHECK_INT(join(&a), GREEN_OK);
}

static void note_time(Task *t) {
  JOB(t)->n = hub_now_update(&hub) >= JOB(t)->at;
  note(JOB(t)->name);
}

static void test_spawn_at(void) {
  Job jobs[4];
  static const double ms[] = {6, -1000, 3, 0};
  static const char *names[] = {"6", "<", "3", "0"};
  for (int i = 0; i < 4; i++) {
    make(&jobs[i], names[i], note_time)->at = in_ms(ms[i]);
    hub_spawn_at(&jobs[i].task, jobs[i].at);
  }
  CHECK_INT(hub_join_spawned(&hub, in_ms(5000)), GREEN_OK);
  for (int i = 0; i < 4; i++) CHECK_INT(jobs[i].n, 1);
  CHECK_STR(trail + 2, "36");
}

static void join_other(Task *t) {
  JOB(t)->code = hub_join_task(&hub, JOB(t)->other, JOB(t)->at);
  note(JOB(t)->name);
}

static void test_joiners(void) {
  Job a, joiners[3];
  static const char *names[] = {"0", "1", "2"};
  start(&a, "a", sleep_it)->at = in_ms(8);
  for (int i = 0; i < 3; i++) start(&joiners[i], names[i], join_other)->other = &a.task;
  joiners[1].at = in_ms(2);
  CHECK_INT(join(&a), GREEN_OK);
  hub_yield(&hub);
  CHECK_STR(trail, "102");
  CHECK(joiners[0].code == GREEN_OK && joiners[2].code == GREEN_OK);
  CHECK_INT(joiners[1].code, GREEN_TIMEDOUT);
  CHECK_INT(hub_join_task(&hub, &a.task, -1), GREEN_OK); /* has ended: no wait */
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int events) {
  (void)loop, (void)w, (void)events;
  note("t");
}

static void test_join_loop(void) {
  Job a;
  ev_timer w;
  start(&a, "a", sleep_it)->at = in_ms(8);
  CHECK_INT(hub_join(&hub, in_ms(1)), GREEN_TIMEDOUT);
  CHECK(!a.task.done);
  CHECK_INT(hub_join(&hub, in_ms(5000)), GREEN_OK);
  CHECK(a.task.done);
  ev_timer_init(&w, on_timer, 0.003, 0); /* a watcher of the loop is waited for too */
  ev_timer_start(hub.loop, &w);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), GREEN_OK);
  CHECK_STR(trail, "t");
  double begun = test_seconds();
  for (int i = 0; i < 100; i++) CHECK_INT(hub_join(&hub, in_ms(10000)), GREEN_OK);
  CHECK(test_seconds() < begun + 5); /* its own deadline is nothing to wait for */
}

static void test_daemon(void) {
  Job a, d;
  make(&d, "d", park_it)->task.daemon = true;
  hub_spawn(&d.task);
  CHECK_INT(hub_join_spawned(&hub, -1), GREEN_OK);
  start(&a, "a", sleep_it)->at = in_ms(4);
  CHECK_INT(hub_join_spawned(&hub, in_ms(1)), GREEN_TIMEDOUT);
  CHECK_INT(hub_join_spawned(&hub, in_ms(5000)), GREEN_OK);
  CHECK(a.task.done && !d.task.done);
  hub_cancel(&d.task);
  join(&d);
}

/* ---- calls ---- */

typedef struct Call {
  HubCall call; /* first */
  const char *name;
  HubCall *cancels;
  int again, code;
} Call;

static void on_call(HubCall *call) {
  Call *c = (Call *)call;
  note(c->name);
  c->code = hub_park(&hub, "test", DEADLINE_NEVER);
  if (c->cancels) hub_call_cancel(&hub, c->cancels);
  if (c->again-- > 0) hub_call_soon(&hub, call);
}

static void test_calls(void) {
  Call a = {{.fn = on_call}, "a", NULL, 2, 0}, b = {{.fn = on_call}, "b", NULL, 0, 0}, c = b, d = b;
  c.name = "c", d.name = "d", a.cancels = &c.call;
  Call *all[] = {&a, &b, &c, &d, &a};
  for (int i = 0; i < 5; i++) hub_call_soon(&hub, &all[i]->call); /* the second time is nothing */
  hub_call_cancel(&hub, &d.call);                                 /* the last: the tail moves */
  CHECK(!d.call.pending);
  hub_call_soon(&hub, &d.call);
  hub_sleep(&hub, in_ms(2));
  CHECK_STR(trail, "abdaa"); /* again means in another turn */
  CHECK(!a.call.pending && !b.call.pending && !c.call.pending && !d.call.pending);
  CHECK_INT(a.code, GREEN_NOWAIT);
  hub_call_cancel(&hub, &a.call);
}

static void call_first(HubCall *call) {
  (void)call;
  note("call ");
}

/* ... before any task of that turn, and a waiting main does not miss it. */
static void test_call_before_tasks(void) {
  HubCall call = {.fn = call_first};
  Job a;
  start(&a, "1", note_twice)->at = 0;
  greenlet_discard(&a.task.g);
  task_end(&a.task);
  hub_spawn_at(&make(&a, "1", note_twice)->task, 0);
  hub_call_soon(&hub, &call);
  CHECK_INT(hub_sleep(&hub, in_ms(1)), GREEN_OK);
  CHECK_STR(trail, "call 1A 1B ");
}

static void test_nowait(void) {
  WaitQueue q = {NULL, NULL};
  hub.nowait++;
  CHECK(!hub_can_wait(&hub));
  CHECK_INT(hub_park_in(&hub, &q, "test", NULL, DEADLINE_NEVER), GREEN_NOWAIT);
  CHECK_INT(hub_yield(&hub), GREEN_NOWAIT);
  CHECK_INT(hub_sleep(&hub, 0), GREEN_NOWAIT);
  hub.nowait--;
  CHECK(q.head == NULL);
  CHECK_INT(hub_yield(&hub), GREEN_OK);
}

/* ---- other threads ---- */

enum { THREADS = 4, WAKES = 2500 };

typedef struct Waker {
  Job job; /* first */
  sem_t go;
  pthread_t thread;
} Waker;

static void *wake_each(void *arg) {
  Waker *w = arg;
  for (int i = 0; i < WAKES; i++) {
    while (sem_wait(&w->go) < 0) continue;
    hub_wake(&hub, &w->job.task);
  }
  return NULL;
}

/* The wake-up is handled by the loop, so it cannot come before the park. */
static void be_woken(Task *t) {
  Waker *w = (Waker *)t;
  for (int i = 0; i < WAKES; i++) {
    sem_post(&w->go);
    if (hub_park(&hub, "test", DEADLINE_NEVER) == GREEN_OK) w->job.n++;
  }
}

static void test_wakes(void) {
  Waker wakers[THREADS];
  hub_hold(&hub, 1);
  for (int i = 0; i < THREADS; i++) {
    start(&wakers[i].job, "w", be_woken);
    sem_init(&wakers[i].go, 0, 0);
    CHECK_INT(pthread_create(&wakers[i].thread, NULL, wake_each, &wakers[i]), 0);
  }
  CHECK_INT(hub_join_spawned(&hub, in_ms(60000)), GREEN_OK);
  hub_hold(&hub, -1);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(wakers[i].thread, NULL);
    sem_destroy(&wakers[i].go);
    CHECK_INT(wakers[i].job.n, WAKES);
  }
}

/* ---- the hub's life ---- */

static char closed[8];
static char key_a, key_b;

typedef struct Service {
  HubService service; /* first */
  char name;
  int code;
} Service;

static void close_service(HubService *s) {
  Service *service = (Service *)s;
  closed[strlen(closed)] = service->name;
  service->code = hub_sleep(hub_current(), 0);
}

static void short_sleep(Task *t) { JOB(t)->code = hub_sleep(t->hub, hub_deadline(t->hub, 0.001)); }

/* Each round a hub of its own: tasks, services, an end. Returns what failed. */
static void *hub_rounds(void *arg) {
  enum { ROUNDS = 10, TASKS = 20 };
  bool services = arg != NULL;
  for (int i = 0; i < ROUNDS; i++) {
    Hub mine, second;
    Task self, thread_main, unused;
    Job jobs[TASKS];
    Service a = {{NULL, &key_a, close_service}, 'a', 0};
    Service b = {{NULL, &key_b, close_service}, 'b', 0};
    if (hub_current() || hub_init(&mine, &self, &thread_main) != 0) return "init";
    if (hub_current() != &mine) return "current";
    if (hub_init(&second, &unused, &unused) != -EEXIST) return "second init";
    for (int k = 0; k < TASKS; k++) {
      memset(&jobs[k], 0, sizeof jobs[k]);
      task_init_spawned(&jobs[k].task, &mine, short_sleep);
      hub_spawn(&jobs[k].task);
    }
    if (services) {
      memset(closed, 0, sizeof closed);
      hub_service_add(&mine, &a.service);
      hub_service_add(&mine, &b.service);
      if (hub_service(&mine, &key_a) != &a.service) return "service";
      if (hub_service(&mine, &hub)) return "no such service";
    }
    if (hub_join_spawned(&mine, hub_deadline(&mine, 10)) != GREEN_OK) return "join";
    if (greenlet_switch(&main_task.g, GREEN_OK, NULL, NULL) != GREEN_FOREIGN) return "foreign switch";
    hub_close(&mine);
    if (services && (strcmp(closed, "ba") != 0 || a.code != GREEN_NOWAIT)) return "closing";
  }
  return hub_current() ? "close" : NULL;
}

static void test_hubs(void) {
  pthread_t threads[2];
  char *failed[2];
  for (int i = 0; i < 2; i++) {
    void *services = i ? &hub : NULL;
    CHECK_INT(pthread_create(&threads[i], NULL, hub_rounds, services), 0);
  }
  Job a;
  start(&a, "a", sleep_it)->at = in_ms(5); /* and ours goes on meanwhile */
  CHECK_INT(join(&a), GREEN_OK);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], (void **)&failed[i]);
  for (int i = 0; i < 2; i++)
    if (failed[i]) CHECK_STR(failed[i], "");
}

int main(void) {
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  run("a task killed before its start never runs", test_never_run);
  run("tasks start at their time", test_spawn_at);
  run("an end wakes the joiners", test_joiners);
  run("HB5 joining the loop", test_join_loop);
  run("nobody waits for a daemon", test_daemon);
  run("calls run in order, once, and in another turn when queued again", test_calls);
  run("calls run before tasks", test_call_before_tasks);
  run("T54 nothing waits where it is forbidden", test_nowait);
  run("HB9 10,000 wakes from 4 threads", test_wakes);
  run("HB5 hubs in other threads, made again and again", test_hubs);
  hub_close(&hub);
  return test_end();
}
