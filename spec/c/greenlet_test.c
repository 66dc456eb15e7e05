/* Tests of src/core/greenlet.c and stack_overflow.c, without Lua. */
#define _GNU_SOURCE
#include "../../src/core/greenlet.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "../../src/core/sanitize.h"
#include "test.h"

#define MANY 10000

static GreenletThread thread;
static Greenlet main_greenlet, a, b, c;
static char trail[256]; /* what ran, in order */
static void *result;

static void note(const char *s) { strncat(trail, s, sizeof trail - strlen(trail) - 1); }

/* Values are small numbers. */
static void *num(intptr_t n) { return (void *)n; }
static intptr_t to_num(void *p) { return (intptr_t)p; }

static int send(Greenlet *to, intptr_t n) { return greenlet_switch(to, GREEN_OK, num(n), &result); }

/* Before each test: a thread without greenlets. */
static void begin(void) {
  if (greenlet_thread() != NULL) greenlet_thread_close(&thread);
  CHECK_INT(greenlet_thread_init(&thread, &main_greenlet), 0);
  trail[0] = '\0';
  result = NULL;
}

/* ---- GC1: switching ---- */

static int pong(Greenlet *self, void *value, void **res) {
  for (int i = 0; i < 3; i++) {
    note(to_num(value) == 1 ? "1" : "?");
    void *got = NULL;
    CHECK_INT(greenlet_switch(self->parent, GREEN_OK, num(2), &got), GREEN_OK);
    value = got;
  }
  *res = num(9);
  return GREEN_OK;
}

static void ping_pong(void) {
  begin();
  greenlet_init(&a, &main_greenlet, pong);
  CHECK_INT(a.state, GREENLET_NEW);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(send(&a, 1), GREEN_OK);
    CHECK_INT(to_num(result), 2);
    CHECK_INT(a.state, GREENLET_SUSPENDED);
    note("m");
  }
  CHECK_INT(send(&a, 1), GREEN_OK);
  CHECK_INT(to_num(result), 9);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK(a.stack == NULL);
  CHECK(thread.current == &main_greenlet);
  CHECK_STR(trail, "1m1m1m");
  CHECK_INT(thread.stacks.nlive, 0);
}

static int give_seven(Greenlet *self, void *value, void **res) {
  (void)self;
  *res = num(to_num(value) + 7);
  return GREEN_OK;
}

static int with_grandchild(Greenlet *self, void *value, void **res) {
  note("c");
  greenlet_init(&b, self, give_seven);
  CHECK_INT(greenlet_switch(&b, GREEN_OK, value, res), GREEN_OK);
  note("c");
  return GREEN_OK;
}

static void grandchild(void) {
  begin();
  greenlet_init(&a, &main_greenlet, with_grandchild);
  CHECK_INT(send(&a, 10), GREEN_OK);
  CHECK_INT(to_num(result), 17);
  CHECK_STR(trail, "cc");
  CHECK_INT(b.state, GREENLET_DEAD);
}

static void to_itself(void) {
  begin();
  CHECK_INT(send(&main_greenlet, 5), GREEN_OK);
  CHECK_INT(to_num(result), 5);
  CHECK_INT(greenlet_switch(&main_greenlet, GREEN_THROWN, num(6), &result), GREEN_THROWN);
  CHECK_INT(to_num(result), 6);
  CHECK_INT(greenlet_switch(&main_greenlet, GREEN_OK, NULL, NULL), GREEN_OK);
}

/* ---- GC2: errors ---- */

static int fails(Greenlet *self, void *value, void **res) {
  (void)self;
  *res = value;
  return GREEN_THROWN;
}

static void error_reaches_parent(void) {
  begin();
  greenlet_init(&a, &main_greenlet, fails);
  CHECK_INT(send(&a, 3), GREEN_THROWN);
  CHECK_INT(to_num(result), 3);
  CHECK_INT(a.state, GREENLET_DEAD);
}

static int waits_for_parent(Greenlet *self, void *value, void **res) {
  (void)value;
  int status = greenlet_switch(self->parent, GREEN_OK, NULL, res);
  note(status == GREEN_THROWN ? "thrown" : status == -ENOMEM ? "nomem" : "ok");
  return status;
}

static int catches(Greenlet *self, void *value, void **res) {
  (void)value;
  int status = greenlet_switch(self->parent, GREEN_OK, NULL, res);
  note(status == GREEN_THROWN ? "caught" : "not");
  *res = num(to_num(*res) * 2);
  return GREEN_OK;
}

static void error_reaches_new_parent(void) {
  begin();
  greenlet_init(&a, &main_greenlet, catches);
  greenlet_init(&b, &main_greenlet, fails);
  CHECK_INT(send(&a, 0), GREEN_OK);
  CHECK_INT(greenlet_set_parent(&b, &a), 0);
  CHECK_INT(send(&b, 21), GREEN_OK);
  CHECK_INT(to_num(result), 42);
  CHECK_STR(trail, "caught");
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(b.state, GREENLET_DEAD);
}

static void codes_without_value(void) {
  begin();
  greenlet_init(&a, &main_greenlet, waits_for_parent);
  CHECK_INT(send(&a, 0), GREEN_OK);
  CHECK_INT(greenlet_switch(&a, GREEN_CANCELLED, NULL, &result), GREEN_CANCELLED);
  CHECK(result == NULL);
  CHECK_INT(a.state, GREENLET_DEAD);
}

/* ---- GC3, GC4, GC5: the dead and the new ---- */

static void dead_stand_for_ancestors(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &a, give_seven);
  CHECK_INT(send(&a, 0), GREEN_OK);
  greenlet_discard(&b);
  CHECK_INT(b.state, GREENLET_DEAD);
  result = num(99);
  CHECK_INT(greenlet_switch(&b, GREEN_OK, NULL, &result), GREEN_OK);
  CHECK(result == NULL);
  CHECK_INT(greenlet_switch(&b, GREEN_THROWN, num(4), &result), GREEN_THROWN);
  CHECK_INT(to_num(result), 4);
}

static void dead_with_new_parent(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &main_greenlet, give_seven);
  greenlet_discard(&a);
  CHECK_INT(greenlet_set_parent(&a, &b), 0);
  CHECK_INT(send(&a, 1), GREEN_OK);
  CHECK_INT(to_num(result), 8);
  CHECK_INT(b.state, GREENLET_DEAD);
}

static void end_starts_new_parent(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &a, give_seven);
  CHECK_INT(send(&b, 1), GREEN_OK);
  CHECK_INT(to_num(result), 15);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(thread.stacks.nlive, 0);
}

static void error_kills_new_ancestors(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &a, give_seven);
  greenlet_init(&c, &b, fails);
  CHECK_INT(send(&c, 8), GREEN_THROWN);
  CHECK_INT(to_num(result), 8);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(b.state, GREENLET_DEAD);
}

static void throw_into_new(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  CHECK_INT(greenlet_prepare(&a), 0);
  CHECK_INT(greenlet_prepare(&a), 0);
  CHECK_INT(thread.stacks.nlive, 1);
  CHECK_INT(greenlet_switch(&a, GREEN_THROWN, num(5), &result), GREEN_THROWN);
  CHECK_INT(to_num(result), 5);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(thread.stacks.nlive, 0);
  CHECK_INT(greenlet_switch(&a, GREEN_THROWN, num(6), &result), GREEN_THROWN);
  CHECK_INT(to_num(result), 6);
}

static int exits_to_c(Greenlet *self, void *value, void **res) {
  (void)self, (void)res;
  greenlet_exit(&c, GREEN_OK, value);
}

static void exit_with_successor(void) {
  begin();
  greenlet_init(&a, &main_greenlet, exits_to_c);
  greenlet_init(&c, &main_greenlet, give_seven);
  CHECK_INT(send(&a, 2), GREEN_OK);
  CHECK_INT(to_num(result), 9);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(c.state, GREENLET_DEAD);
  greenlet_init(&c, &main_greenlet, give_seven);
  greenlet_discard(&c); /* a dead successor: its parent goes on */
  greenlet_init(&a, &main_greenlet, exits_to_c);
  CHECK_INT(send(&a, 2), GREEN_OK);
  CHECK_INT(to_num(result), 2);
}

/* ---- GC7: parents ---- */

static void parents_are_checked(void) {
  begin();
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &a, give_seven);
  greenlet_init(&c, &b, give_seven);
  CHECK_INT(greenlet_set_parent(&a, &c), GREEN_CYCLE);
  CHECK_INT(greenlet_set_parent(&a, &a), GREEN_CYCLE);
  CHECK(a.parent == &main_greenlet);
  CHECK_INT(greenlet_set_parent(&main_greenlet, &a), -EINVAL);
  CHECK(main_greenlet.parent == NULL);
  CHECK_INT(greenlet_set_parent(&c, &main_greenlet), 0);
  CHECK(c.parent == &main_greenlet);
}

static Greenlet victim;

static void *intrude(void *arg) {
  GreenletThread t;
  Greenlet main, own;
  intptr_t bad = 0;
  (void)arg;
  bad += greenlet_switch(&victim, GREEN_OK, NULL, NULL) != GREEN_FOREIGN; /* no thread of its own */
  bad += greenlet_thread_init(&t, &main) != 0;
  bad += greenlet_thread_init(&t, &main) != -EEXIST;
  bad += greenlet_thread() != &t;
  for (int i = 0; i < 100; i++) {
    bad += greenlet_switch(&victim, GREEN_OK, NULL, NULL) != GREEN_FOREIGN;
    bad += greenlet_switch(&victim, GREEN_THROWN, NULL, NULL) != GREEN_FOREIGN;
    greenlet_init(&own, &main, give_seven);
    bad += greenlet_set_parent(&own, &victim) != GREEN_FOREIGN || own.parent != &main;
    bad += greenlet_set_parent(&victim, &own) != GREEN_FOREIGN;
    void *r = NULL;
    bad += greenlet_switch(&own, GREEN_OK, num(i), &r) != GREEN_OK || to_num(r) != i + 7;
  }
  greenlet_thread_close(&t);
  return num(bad);
}

static void foreign_threads(void) {
  pthread_t threads[16];
  begin();
  greenlet_init(&victim, &main_greenlet, waits_for_parent);
  CHECK_INT(send(&victim, 0), GREEN_OK);
  for (int i = 0; i < 16; i++) CHECK_INT(pthread_create(&threads[i], NULL, intrude, NULL), 0);
  for (int i = 0; i < 16; i++) {
    void *bad;
    pthread_join(threads[i], &bad);
    CHECK_INT(to_num(bad), 0);
  }
  CHECK(victim.parent == &main_greenlet);
  CHECK_INT(send(&victim, 1), GREEN_OK);
  CHECK_STR(trail, "ok");
}

/* ---- GC14, GC11: tracing ---- */

static const char *name_of(Greenlet *g) {
  return g == &main_greenlet ? "m" : g == &a ? "a" : g == &b ? "b" : "c";
}

static void record(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  CHECK(arg == &trail);
  note(thrown ? "!" : " ");
  note(name_of(origin));
  note(name_of(target));
}

static void traced(GreenletTracer tracer) {
  begin();
  thread.tracer = tracer;
  thread.tracer_arg = &trail;
}

static void trace_is_exact(void) {
  traced(record);
  greenlet_init(&a, &main_greenlet, catches);
  greenlet_init(&b, &main_greenlet, fails);
  send(&a, 0);
  greenlet_switch(&a, GREEN_THROWN, num(1), NULL);
  send(&b, 0);
  CHECK_STR(trail, " ma am!macaught am mb!bm");
  send(&a, 0); /* dead, stands for the current one: no switch */
  CHECK_STR(trail, " ma am!macaught am mb!bm");
}

static void record_and_stop(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  record(arg, thrown, origin, target);
  thread.tracer = NULL;
}

static void tracer_turns_itself_off(void) {
  traced(record_and_stop);
  greenlet_init(&a, &main_greenlet, give_seven);
  CHECK_INT(send(&a, 0), GREEN_OK);
  CHECK_STR(trail, " ma");
  CHECK(thread.tracer == NULL);
}

/* A tracer that itself switches: to b, and back, in the middle of a switch. */
static void switching_tracer(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  record(arg, thrown, origin, target);
  if (origin == &main_greenlet && b.state == GREENLET_NEW)
    CHECK_INT(greenlet_switch(&b, GREEN_OK, num(1), NULL), GREEN_OK);
}

static void tracer_may_switch(void) {
  traced(switching_tracer);
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &main_greenlet, give_seven);
  CHECK_INT(send(&a, 5), GREEN_OK);
  CHECK_INT(to_num(result), 12);
  CHECK_INT(b.state, GREENLET_DEAD);
  CHECK_STR(trail, " ma am");
}

/* A tracer that takes the target away: the switch goes to its parent. */
static void killing_tracer(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  record(arg, thrown, origin, target);
  if (target->state == GREENLET_NEW) greenlet_discard(target);
}

static void tracer_may_kill_the_target(void) {
  traced(killing_tracer);
  greenlet_init(&a, &main_greenlet, give_seven);
  CHECK_INT(send(&a, 5), GREEN_OK);
  CHECK_INT(to_num(result), 5);
  CHECK_INT(thread.stacks.nlive, 0);
}

/* A tracer that switches in a greenlet's last switch decides where that goes. */
static void last_word_tracer(void *arg, int thrown, Greenlet *origin, Greenlet *target) {
  record(arg, thrown, origin, target);
  if (origin == &a) greenlet_switch(&b, GREEN_OK, num(20), NULL);
}

static void tracer_switches_when_dying(void) {
  traced(last_word_tracer);
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &main_greenlet, give_seven);
  CHECK_INT(send(&a, 5), GREEN_OK);
  CHECK_INT(to_num(result), 27);
  CHECK_INT(a.state, GREENLET_DEAD);
  CHECK_INT(b.state, GREENLET_DEAD);
  CHECK_INT(thread.stacks.nlive, 0);
}

/* ---- D10: what belongs to the greenlet ---- */

static int sets_errno(Greenlet *self, void *value, void **res) {
  (void)value, (void)res;
  errno = EXDEV;
  fesetround(FE_UPWARD);
  greenlet_switch(self->parent, GREEN_OK, NULL, NULL);
  note(errno == EXDEV && fegetround() == FE_UPWARD ? "kept" : "lost");
  errno = EDOM;
  return GREEN_OK;
}

static void errno_and_rounding(void) {
  begin();
  greenlet_init(&a, &main_greenlet, sets_errno);
  errno = ENOENT;
  send(&a, 0);
  CHECK_INT(errno, ENOENT);
  CHECK_INT(fegetround(), FE_TONEAREST);
  errno = ENOTDIR;
  send(&a, 0);
  CHECK_INT(errno, ENOTDIR);
  CHECK_INT(fegetround(), FE_TONEAREST);
  CHECK_STR(trail, "kept");
}

/* ---- many, and memory ---- */

static int counts(Greenlet *self, void *value, void **res) {
  intptr_t sum = to_num(value);
  for (;;) {
    void *got = NULL;
    int status = greenlet_switch(self->parent, GREEN_OK, num(sum), &got);
    if (status != GREEN_OK) return *res = num(sum), GREEN_OK;
    sum += to_num(got);
  }
}

static Greenlet many[MANY];

static void ten_thousand(void) {
  begin();
  for (int i = 0; i < MANY; i++) {
    greenlet_init(&many[i], &main_greenlet, counts);
    CHECK_INT(send(&many[i], i), GREEN_OK);
  }
  CHECK_INT(thread.stacks.nlive, MANY);
  for (int round = 0; round < 5; round++) {
    for (int i = 0; i < MANY; i++) {
      CHECK_INT(send(&many[i], 1), GREEN_OK);
      CHECK_INT(to_num(result), i + round + 1);
    }
  }
  for (int i = 0; i < MANY; i++) {
    CHECK_INT(greenlet_switch(&many[i], GREEN_CANCELLED, NULL, &result), GREEN_OK);
    CHECK_INT(to_num(result), i + 5);
    CHECK_INT(many[i].state, GREENLET_DEAD);
  }
  CHECK_INT(thread.stacks.nlive, 0);
}

static void stacks_are_reused(void) {
  begin();
  for (int i = 0; i < 100000; i++) {
    greenlet_init(&a, &main_greenlet, give_seven);
    CHECK_INT(send(&a, 0), GREEN_OK);
  }
  CHECK_INT(thread.stacks.nfree, 1);
  CHECK_INT(thread.stacks.nlive, 0);
}

static int holds_memory(Greenlet *self, void *value, void **res) {
  (void)value;
  void *volatile p = malloc(1000);
  int status = greenlet_switch(self->parent, GREEN_OK, NULL, res);
  free(p);
  return status;
}

/* LeakSanitizer looks at the end of the program; it must find p on the parked stacks. */
static void parked_stacks_are_roots(void) {
  begin();
  for (int i = 0; i < 100; i++) {
    greenlet_init(&many[i], &main_greenlet, holds_memory);
    CHECK_INT(send(&many[i], 0), GREEN_OK);
  }
  greenlet_lsan_roots(&thread);
}

/* ---- no memory ---- */

#ifndef SANITIZE_ADDRESS /* whose own runtime ends the process when it gets no memory */

static void die_without_stacks(void) {
  struct rlimit limit = {1 << 20, 1 << 20};
  greenlet_init(&a, &main_greenlet, give_seven);
  setrlimit(RLIMIT_AS, &limit);
  int rc = greenlet_switch(&a, GREEN_OK, NULL, NULL);
  _exit(rc == -ENOMEM && a.state == GREENLET_NEW && thread.current == &main_greenlet ? 0 : 5);
}

static int takes_all_stacks(Greenlet *self, void *value, void **res) {
  (void)self, (void)value, (void)res;
  struct rlimit limit = {1 << 20, 1 << 20};
  setrlimit(RLIMIT_AS, &limit);
  while (stack_get(&thread.stacks) != NULL)
    ;
  return GREEN_OK;
}

/* c's parent b, and b's parent a, are NEW and can get no stack: main hears of it. */
static void die_without_stack_for_parent(void) {
  greenlet_init(&a, &main_greenlet, give_seven);
  greenlet_init(&b, &a, give_seven);
  greenlet_init(&c, &b, takes_all_stacks);
  int rc = greenlet_switch(&c, GREEN_OK, NULL, NULL);
  _exit(rc == -ENOMEM && a.state == GREENLET_DEAD && b.state == GREENLET_DEAD ? 0 : 5);
}

static void no_stack_no_switch(void) {
  char err[256];
  begin();
  CHECK_INT(test_child(die_without_stacks, err, sizeof err), 0);
  CHECK_INT(test_child(die_without_stack_for_parent, err, sizeof err), 0);
}

#endif

/* ---- T53: overflow ---- */

static __attribute__((noinline)) int recurse(volatile char *outer, int depth) {
  volatile char frame[2000];
  frame[0] = outer[0];
  if (depth == 1 << 30) return 0;
  return recurse(frame, depth + 1) + frame[0];
}

static int overflows(Greenlet *self, void *value, void **res) {
  (void)self, (void)res;
  char start = 1;
  if (to_num(value) == 1) /* a wild write into somebody else's guard */
    *(volatile char *)b.stack = 1;
  return recurse(&start, 0);
}

static intptr_t kind_of_fault;

/* Runs anew, as guards are chosen once for a process; see main. */
static int overflow_part(const char *part) {
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(SIGSEGV, SIG_DFL); /* AddressSanitizer's handler would be kept otherwise */
  signal(SIGBUS, SIG_DFL);
  begin();
  stack_overflow_handler_install();
  if (strcmp(part, "sent") == 0) {
    raise(SIGSEGV);
    return 6;
  }
  kind_of_fault = strcmp(part, "wild") == 0;
  greenlet_init(&b, &main_greenlet, give_seven);
  greenlet_prepare(&b);
  greenlet_init(&a, &main_greenlet, overflows);
  a.name = "diver";
  greenlet_switch(&a, GREEN_OK, num(kind_of_fault), NULL);
  return 6;
}

static void exec_overflow(void) { test_exec_self("overflow"); }
static void exec_wild(void) { test_exec_self("wild"); }
static void exec_sent(void) { test_exec_self("sent"); }

/* The last line only: AddressSanitizer warns of swapcontext in front of it. */
static const char *last_line(const char *err) {
  const char *line = strstr(err, "greenlua: ");
  return line != NULL ? line : err;
}

static void overflow_is_named(void) {
  char err[1024];
  int status = test_child(exec_overflow, err, sizeof err);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK_STR(last_line(err), "greenlua: stack overflow in greenlet 'diver' (id 3)\n");
  status = test_child(exec_wild, err, sizeof err);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK_STR(last_line(err),
            "greenlua: access to another greenlet's stack guard in greenlet 'diver' (id 3)\n");
  status = test_child(exec_sent, err, sizeof err);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  CHECK_STR(err, "");
}

static void overflow_is_named_by_fallback(void) {
  setenv("GREENLUA_GUARD", "mprotect", 1);
  overflow_is_named();
  unsetenv("GREENLUA_GUARD");
}

static void nothing_to_do(int sig) { (void)sig; }

static void handlers_of_others_stay(void) {
  struct sigaction old;
  signal(SIGSEGV, nothing_to_do);
  stack_overflow_handler_install();
  sigaction(SIGSEGV, NULL, &old);
  signal(SIGSEGV, SIG_DFL);
  stack_overflow_handler_remove();
  CHECK(old.sa_handler == nothing_to_do);
}

/* ---- figures ---- */

static int bounces(Greenlet *self, void *value, void **res) {
  (void)value, (void)res;
  while (greenlet_switch(self->parent, GREEN_OK, NULL, NULL) == GREEN_OK)
    ;
  return GREEN_OK;
}

static void run_forever(const char *count) {
  begin();
  greenlet_init(&a, &main_greenlet, bounces);
  long n = atol(count);
  double start = test_seconds();
  for (long i = 0; i < n; i++) greenlet_switch(&a, GREEN_OK, NULL, NULL);
  printf("%.2f ns a switch\n", (test_seconds() - start) / (double)n / 2 * 1e9);
}

static void run_all(void) {
  RUN("GC1 ping-pong alternates strictly", ping_pong);
  RUN("GC1 a child can start grandchildren", grandchild);
  RUN("a switch to the current greenlet returns what it carries", to_itself);
  RUN("GC2 an uncaught error surfaces at the parent's switch", error_reaches_parent);
  RUN("GC2 after reparenting it surfaces at the new parent", error_reaches_new_parent);
  RUN("a code without a value passes as it is", codes_without_value);
  RUN("GC3 the dead stand for their nearest living ancestor", dead_stand_for_ancestors);
  RUN("GC3 a dead one under an unstarted parent starts that", dead_with_new_parent);
  RUN("GC4 an end under an unstarted parent starts it with the value", end_starts_new_parent);
#ifdef SANITIZE_ADDRESS
  SKIP("GC4 no stack: an error, and nothing has changed", "AddressSanitizer needs memory");
#else
  RUN("GC4 no stack: an error, and nothing has changed", no_stack_no_switch);
#endif
  RUN("GC5 an error passes through unstarted ancestors, who die", error_kills_new_ancestors);
  RUN("GC5 a throw into a new one kills it; again when dead", throw_into_new);
  RUN("greenlet_exit goes on with its successor", exit_with_successor);
  RUN("GC7 cycles and main's parent are refused, nothing changes", parents_are_checked);
  RUN("GC9 16 threads that reach for another's greenlet get an error", foreign_threads);
  RUN("GC14 tracing is exact", trace_is_exact);
  RUN("GC14 a tracer turns itself off", tracer_turns_itself_off);
  RUN("GC11 a tracer may switch in the middle of a switch", tracer_may_switch);
  RUN("GC11 a tracer may kill the target", tracer_may_kill_the_target);
  RUN("GC11 a tracer may switch in a last switch", tracer_switches_when_dying);
  RUN("D10 errno and rounding belong to the greenlet", errno_and_rounding);
  RUN("10,000 greenlets", ten_thousand);
  RUN("GC12 a stack serves one greenlet after the other", stacks_are_reused);
  RUN("T53 an overflow is named, and kills by SIGSEGV", overflow_is_named);
  RUN("T53 with guards by mprotect too", overflow_is_named_by_fallback);
  RUN("T53 a handler that somebody installed stays", handlers_of_others_stay);
  RUN("GC12 parked stacks are no leaks", parked_stacks_are_roots);
}

/* Without an argument all tests; "switch N" prints what N switches cost. */
int main(int argc, char **argv) {
  if (argc > 2)
    run_forever(argv[2]);
  else if (argc > 1)
    return overflow_part(argv[1]);
  else
    run_all();
  return argc > 2 ? 0 : test_end();
}
