/*
 * src/hub/hub.c without Lua: who runs when, waiting and its ends, cancellation,
 * foreign switches, deadlocks. The rest is in hub_loop_test.c.
 */
#include <math.h>

#include "hub_support.h"

/* ---- who runs when ---- */

static void test_interleave(void) {
  Job one, two;
  start(&one, "1", note_twice);
  start(&two, "2", note_twice);
  CHECK_STR(trail, "");
  join(&one);
  join(&two);
  CHECK_STR(trail, "1A 2A 1B 2B ");
}

static void test_yield_once(void) {
  Job one, two;
  start(&one, "1", note_twice);
  start(&two, "2", note_twice);
  CHECK_INT(hub_yield(&hub), GREEN_OK);
  CHECK_STR(trail, "1A 2A ");
  CHECK_INT(hub_yield(&hub), GREEN_OK);
  CHECK_STR(trail, "1A 2A 1B 2B ");
  CHECK_INT(hub_yield(&hub), GREEN_OK);
}

static void spin(Task *t) {
  while (!JOB(t)->stop) {
    hub_yield(&hub);
    JOB(t)->n++;
  }
}

static void count_turn(struct ev_loop *loop, ev_check *w, int events) {
  (void)loop, (void)events;
  ++*(int *)w->data;
}

/* The loop polls once in each slice, not once in each switch, and not never. */
static void test_slice(void) {
  Job a, b;
  int turns = 0;
  ev_check check;
  ev_check_init(&check, count_turn);
  check.data = &turns;
  ev_check_start(hub.loop, &check);
  start(&a, "a", spin);
  start(&b, "b", spin);
  Deadline begun = hub_now_update(&hub), until = begun + 0.05;
  CHECK_INT(hub_sleep(&hub, until), GREEN_OK);
  CHECK(hub_now_update(&hub) < begun + 3);
  a.stop = b.stop = true;
  join(&a);
  join(&b);
  ev_check_stop(hub.loop, &check);
  CHECK(turns >= 2);
  CHECK(a.n > 2 * turns && b.n > 2 * turns);
  CHECK(a.n - b.n <= 1 && b.n - a.n <= 1);
}

/* ---- park and ready ---- */

static void test_first_waker(void) {
  Job a;
  start(&a, "a", park_it);
  hub_ready(&a.task, 3); /* not parked: nothing */
  hub_yield(&hub);
  CHECK(a.task.parked);
  CHECK_STR(a.task.what, "test");
  CHECK(a.task.holder == &a);
  hub_ready(&a.task, 5);
  hub_ready(&a.task, 6);
  hub_cancel(&a.task);
  join(&a);
  CHECK_INT(a.code, 5);
  hub_ready(&a.task, 7);    /* has ended */
  hub_ready(&main_task, 8); /* runs */
  CHECK(!a.task.queued && !main_task.queued);
  CHECK(a.task.what == NULL && a.task.holder == NULL);
}

static void test_queue(void) {
  WaitQueue q = {NULL, NULL};
  Job jobs[4];
  static const char *names[] = {"0", "1", "2", "3"};
  for (int i = 0; i < 4; i++) start(&jobs[i], names[i], park_it)->q = &q;
  jobs[1].at = in_ms(1);
  hub_sleep(&hub, in_ms(3)); /* 1 leaves from the middle */
  CHECK_STR(trail, "1");
  CHECK_INT(jobs[1].code, GREEN_TIMEDOUT);
  CHECK(hub_queue_wake(&q, 7) == &jobs[0].task);
  CHECK(hub_queue_wake(&q, 8) == &jobs[2].task);
  hub_ready(&jobs[3].task, 9); /* past the queue */
  CHECK(q.head == NULL && q.tail == NULL);
  CHECK(hub_queue_wake(&q, 1) == NULL);
  for (int i = 0; i < 4; i++) join(&jobs[i]);
  CHECK_STR(trail, "1023");
  CHECK(jobs[0].code == 7 && jobs[2].code == 8 && jobs[3].code == 9);
}

/* ---- deadlines ---- */

static void test_never_early(void) {
  for (int i = 0; i < 60; i++) {
    Deadline until = in_ms(0.05 + i % 7 * 0.3);
    if (i % 2)
      CHECK_INT(hub_sleep(&hub, until), GREEN_OK);
    else
      CHECK_INT(hub_park(&hub, "test", until), GREEN_TIMEDOUT);
    Deadline now = hub_now_update(&hub);
    CHECK(now >= until);
    CHECK(now < until + 5);
  }
}

static void test_deadline_order(void) {
  Job a, b, c;
  start(&a, "a", park_it)->at = in_ms(9);
  start(&b, "b", park_it)->at = in_ms(3);
  start(&c, "c", park_it)->at = in_ms(6);
  join(&a);
  CHECK_STR(trail, "bca");
}

static void test_past(void) {
  static const Deadline past[] = {0, -1, -1e9, -INFINITY, 1e-9};
  for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
    Job a;
    trail[0] = '\0';
    start(&a, "1", note_twice);
    CHECK_INT(hub_park(&hub, "test", past[i]), GREEN_TIMEDOUT);
    CHECK_STR(trail, "1A 1B "); /* what is ready comes first */
    CHECK_INT(hub_sleep(&hub, past[i]), GREEN_OK);
  }
  CHECK(hub_deadline(&hub, -INFINITY) < hub_now_update(&hub));
}

static void test_far(void) {
  static const double seconds[] = {INFINITY, 1e300, 1e200, 1e18, 1e10};
  for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
    Job a;
    Deadline at = hub_deadline(&hub, seconds[i]);
    CHECK((at >= DEADLINE_NEVER) == (i < 2));
    start(&a, "a", park_it)->at = at;
    CHECK_INT(hub_sleep(&hub, in_ms(1)), GREEN_OK);
    CHECK(a.task.parked);
    hub_ready(&a.task, 4);
    join(&a);
    CHECK_INT(a.code, 4);
  }
}

enum { MANY = 10000 };
static Job *crowd;

static void test_crowd(void) {
  crowd = calloc(MANY, sizeof *crowd);
  CHECK(crowd != NULL);
  for (int i = 0; i < MANY; i++) start(&crowd[i], "x", sleep_it)->at = in_ms((i * 7919 % 101));
  CHECK_INT(hub_join_spawned(&hub, in_ms(60000)), GREEN_OK);
  for (int i = 0; i < MANY; i++) CHECK(crowd[i].code == GREEN_OK && crowd[i].n == 1);
  free(crowd);
}

/* ---- cancellation ---- */

static void wait_thrice(Task *t) {
  Job *job = JOB(t);
  static WaitQueue q;
  job->code = hub_park(&hub, "test", DEADLINE_NEVER);
  CHECK_INT(hub_sleep(&hub, in_ms(5000)), GREEN_CANCELLED);
  CHECK_INT(hub_park_in(&hub, &q, "test", NULL, DEADLINE_NEVER), GREEN_CANCELLED);
  CHECK(q.head == NULL);
  CHECK_INT(hub_yield(&hub), GREEN_CANCELLED);
  t->cancelled = false;
  CHECK_INT(hub_sleep(&hub, in_ms(1)), GREEN_OK);
}

static void test_level(void) {
  Job a, b, c;
  start(&a, "a", wait_thrice);
  start(&b, "b", wait_thrice);
  hub_cancel(&b.task); /* not started yet: its first wait says so */
  hub_yield(&hub);
  hub_cancel(&a.task);
  CHECK(join(&a) == GREEN_OK && join(&b) == GREEN_OK);
  CHECK(a.code == GREEN_CANCELLED && b.code == GREEN_CANCELLED);
  start(&c, "c", wait_thrice);
  hub_yield(&hub);
  hub_ready(&c.task, 1); /* woken first, cancelled then: the wake is not lost */
  hub_cancel(&c.task);
  join(&c);
  CHECK_INT(c.code, 1);
}

static void swallow(Task *t) {
  Job *job = JOB(t);
  while (!job->stop)
    if (hub_sleep(&hub, DEADLINE_NEVER) == GREEN_CANCELLED) job->n++;
}

/* A loop that swallows its cancellation starves nobody, nor the timers. */
static void test_gives_way(void) {
  Job a, b;
  start(&a, "a", swallow);
  hub_cancel(&a.task);
  start(&b, "1", note_twice);
  CHECK_INT(hub_sleep(&hub, in_ms(5)), GREEN_OK);
  CHECK_STR(trail, "1A 1B ");
  CHECK(a.n > 2);
  a.stop = true;
  join(&a);
}

static void cleanup(Task *t) {
  Job *job = JOB(t);
  CHECK_INT(hub_park(&hub, "test", DEADLINE_NEVER), GREEN_CANCELLED);
  t->shield = in_ms(20);
  Deadline end = t->shield;
  CHECK_INT(hub_sleep(&hub, in_ms(1)), GREEN_OK);
  CHECK_INT(hub_yield(&hub), GREEN_OK);
  note("s");
  CHECK_INT(hub_park_in(&hub, job->q, "test", NULL, DEADLINE_NEVER), 3);
  CHECK_INT(hub_park_in(&hub, job->q, "test", NULL, in_ms(1)), GREEN_TIMEDOUT);
  CHECK_INT(hub_park_in(&hub, job->q, "test", NULL, DEADLINE_NEVER), GREEN_CANCELLED);
  CHECK(hub_now_update(&hub) >= end);
  CHECK_INT(hub_sleep(&hub, in_ms(5000)), GREEN_CANCELLED);
  CHECK(job->q->head == NULL && t->shield == 0);
  CHECK(hub_now_update(&hub) < end + 3);
}

static void test_shield(void) {
  Job a;
  WaitQueue q = {NULL, NULL};
  start(&a, "a", cleanup)->q = &q;
  hub_yield(&hub);
  hub_cancel(&a.task);
  while (!trail[0]) hub_yield(&hub);
  hub_cancel(&a.task); /* the shield keeps it off */
  CHECK(a.task.parked);
  hub_queue_wake(&q, 3);
  CHECK_INT(join(&a), GREEN_OK);
}

/* ---- foreign switches (HB4) ---- */

static int in_sleep(void) { return hub_sleep(&hub, in_ms(2000)); }
static int in_park(void) { return hub_park(&hub, "test", DEADLINE_NEVER); }
static int in_yield(void) { return hub_yield(&hub); }
static WaitQueue common;
static int in_queue(void) { return hub_park_in(&hub, &common, "test", NULL, in_ms(2000)); }
static int in_join(void) { return hub_join_task(&hub, &main_task, DEADLINE_NEVER); }
static int in_idle(void) { return hub_join(&hub, in_ms(2000)); }

static int (*const waits[])(void) = {in_sleep, in_park, in_yield, in_queue, in_join, in_idle};

static void disturbed(Task *t) {
  Job *job = JOB(t);
  job->code = waits[job->n]();
  CHECK(!t->parked && !t->queued && !t->waits_in && !ev_is_active(&t->timer));
  if (job->code == GREEN_THROWN) CHECK(hub.thrown == job);
  greenlet_switch(&main_task.g, GREEN_OK, NULL, NULL);
  Deadline until = in_ms(2);
  CHECK_INT(hub_sleep(&hub, until), GREEN_OK);
  CHECK(hub_now_update(&hub) >= until);
}

/* `woken`: it is ready already when the switch comes. */
static void disturb(int wait, int status, bool woken) {
  Job a;
  start(&a, "a", disturbed)->n = wait;
  hub_yield(&hub);
  if (waits[wait] == in_yield) { /* ready at once: it runs again unless we are quick */
    CHECK(a.task.queued);
  } else {
    CHECK(a.task.parked);
    if (woken) hub_ready(&a.task, GREEN_OK);
  }
  CHECK_INT(greenlet_switch(&a.task.g, status, &a, NULL), GREEN_OK);
  CHECK_INT(a.code, status == GREEN_OK ? GREEN_BADSWITCH : GREEN_THROWN);
  CHECK(common.head == NULL && main_task.joiners.head == NULL && hub.idlers.head == NULL);
  hub_cancel(&a.task); /* out of its raw switch */
  a.task.cancelled = false;
  CHECK_INT(join(&a), GREEN_OK);
}

static void test_foreign(void) {
  for (int i = 0; i < (int)(sizeof waits / sizeof *waits); i++)
    for (int woken = 0; woken < 2; woken++) disturb(i, GREEN_OK, woken);
}

static void test_thrown(void) {
  for (int i = 0; i < (int)(sizeof waits / sizeof *waits); i++)
    for (int woken = 0; woken < 2; woken++) disturb(i, GREEN_THROWN, woken);
}

static void back_and_forth(Task *t) {
  note("<");
  greenlet_switch(&main_task.g, GREEN_OK, NULL, NULL);
  note(">");
  JOB(t)->code = hub_sleep(&hub, in_ms(1));
}

/* A raw switch into a spawned task that has not started is its start. */
static void test_early_start(void) {
  for (int scheduled = 0; scheduled < 2; scheduled++) {
    Job a, b;
    trail[0] = '\0';
    make(&a, "a", back_and_forth);
    if (scheduled)
      hub_spawn_at(&a.task, in_ms(1));
    else
      hub_spawn(&a.task);
    start(&b, "1", note_twice);
    CHECK_INT(greenlet_switch(&a.task.g, GREEN_OK, NULL, NULL), GREEN_OK);
    CHECK(!a.task.queued && !a.task.scheduled);
    CHECK_INT(hub_sleep(&hub, in_ms(3)), GREEN_OK);
    CHECK_STR(trail, "<1A 1B ");
    hub_cancel(&a.task);
    a.task.cancelled = false;
    CHECK_INT(join(&a), GREEN_OK);
    CHECK_INT(a.code, GREEN_OK);
  }
}

/* Cancelled in a raw switch, it stands in the run queue; then somebody's
** switch comes first, and its next wait must not find it there. */
static void test_raw_switch_first(void) {
  Job a;
  start(&a, "a", back_and_forth);
  CHECK_INT(greenlet_switch(&a.task.g, GREEN_OK, NULL, NULL), GREEN_OK);
  hub_cancel(&a.task);
  a.task.cancelled = false;
  CHECK(a.task.queued);
  /* Nobody switches back to us: the loop does, when it has nothing else. */
  CHECK_INT(greenlet_switch(&a.task.g, GREEN_OK, NULL, NULL), GREEN_DEADLOCK);
  CHECK(a.task.done);
  CHECK_INT(a.code, GREEN_OK);
}

/* ---- deadlocks ---- */

static void test_deadlock_main(void) {
  Job a;
  start(&a, "a", park_it);
  CHECK_INT(hub_park(&hub, "test", DEADLINE_NEVER), GREEN_DEADLOCK);
  CHECK(a.task.parked);
  CHECK_INT(hub_sleep(&hub, DEADLINE_NEVER), GREEN_DEADLOCK);
  CHECK_INT(hub_join_task(&hub, &a.task, DEADLINE_NEVER), GREEN_DEADLOCK);
  CHECK(a.task.joiners.head == NULL);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), GREEN_OK); /* that one waits for just this */
  hub_ready(&a.task, 1);
  join(&a);
}

static int raw_parks(Greenlet *g, void *value, void **result) {
  (void)value, (void)result;
  task_begin((Task *)g);
  CHECK_INT(hub_park(&hub, "test", DEADLINE_NEVER), GREEN_DEADLOCK);
  note("r");
  task_end((Task *)g);
  return GREEN_OK;
}

/* Main is in a raw switch: the one that has lived longest is told first. */
static void test_deadlock_oldest(void) {
  Job a, b;
  Task raw;
  start(&a, "a", park_it);
  start(&b, "b", park_it);
  task_init(&raw, &hub, &main_task.g, raw_parks);
  CHECK_INT(greenlet_switch(&raw.g, GREEN_OK, NULL, NULL), GREEN_OK);
  CHECK_STR(trail, "abr");
  CHECK(a.code == GREEN_DEADLOCK && b.code == GREEN_DEADLOCK);
  CHECK_INT(greenlet_switch(&hub_task.g, GREEN_OK, NULL, NULL), GREEN_DEADLOCK);
}

int main(void) {
  if (hub_init(&hub, &hub_task, &main_task) != 0) return 1;
  run("HB2 two tasks that yield interleave", test_interleave);
  run("HB2 a yield lets each other task run once", test_yield_once);
  run("HB1 ready tasks run for a slice between two polls, and starve no timer", test_slice);
  run("the first waker wins", test_first_waker);
  run("a wait queue is first come first served", test_queue);
  run("no wait ends early", test_never_early);
  run("deadlines end in their order", test_deadline_order);
  run("T55 a deadline in the past ends the wait after the ready tasks", test_past);
  run("far deadlines", test_far);
  run("10,000 tasks sleep", test_crowd);
  run("cancellation is level-triggered", test_level);
  run("a swallowed cancellation lets the others run", test_gives_way);
  run("a shield allows waits until its end", test_shield);
  run("HB4 a switch into a waiting task voids the wait", test_foreign);
  run("HB4 so does a throw", test_thrown);
  run("a raw switch into an unstarted spawned task is its start", test_early_start);
  run("a raw switch that comes before the run queue's", test_raw_switch_first);
  run("a deadlock is told to main", test_deadlock_main);
  run("a deadlock is told to the oldest when main cannot hear", test_deadlock_oldest);
  hub_close(&hub);
  return test_end();
}
