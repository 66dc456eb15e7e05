/*
 * src/hub/public.c: the C interface, with nothing but greenlua.h, as a C
 * program uses it. Each test makes a world of its own and ends it.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "greenlua.h"
#include "test.h"

static char trail[256]; /* what ran, in order */

static void note(const char *s) { strncat(trail, s, sizeof trail - strlen(trail) - 1); }

static double in_ms(double ms) { return green_deadline(ms / 1000); }

static void (*test_body)(void);

static void wrapped(void) {
  trail[0] = '\0';
  CHECK_INT(green_init(), 0);
  test_body();
  green_close();
}

static void run(const char *name, void (*fn)(void)) {
  test_body = fn;
  RUN(name, wrapped);
}

/* ---- spawned greenlets ---- */

static void note_twice(void *arg) {
  note(arg);
  green_yield();
  note(arg);
}

static void test_spawn(void) {
  Greenlet *a = green_spawn(note_twice, "a"), *b = green_spawn(note_twice, "b");
  CHECK_STR(trail, "");
  CHECK(!green_dead(a));
  CHECK_INT(green_join(a, GREEN_NEVER), GREEN_OK);
  CHECK_INT(green_join(b, in_ms(5000)), GREEN_OK);
  CHECK_STR(trail, "abab");
  CHECK(green_dead(a) && green_dead(b));
  CHECK_INT(green_join(a, 0), GREEN_OK);
  green_release(a);
  green_release(b);
}

static int park_code; /* what the last park_it came back with */

static void park_it(void *arg) {
  park_code = green_park("test", arg ? *(double *)arg : GREEN_NEVER);
  note("p");
}

static void test_waits(void) {
  double until = in_ms(3), soon = in_ms(1);
  CHECK_INT(green_sleep(until), GREEN_OK);
  CHECK(green_deadline(0) >= until);
  CHECK_INT(green_park("test", 0), GREEN_TIMEDOUT);
  CHECK_INT(green_park("test", GREEN_NEVER), GREEN_DEADLOCK);
  Greenlet *g = green_spawn(park_it, NULL);
  green_set_name(g, "parker");
  green_yield();
  CHECK_INT(green_join(g, in_ms(1)), GREEN_TIMEDOUT);
  green_ready(g, 42);
  green_ready(g, 43);
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  CHECK_INT(park_code, 42);
  green_release(g);
  g = green_spawn(park_it, &soon);
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  CHECK_INT(park_code, GREEN_TIMEDOUT);
  CHECK_STR(green_strerror(park_code), "timeout");
  green_release(g);
}

static void release_self(void *arg) {
  (void)arg;
  green_release(green_current());
  CHECK_INT(green_sleep(in_ms(1)), GREEN_OK);
  note("s");
}

/* Before the start, while it waits, by itself, after its end. */
static void test_release(void) {
  green_release(green_spawn(note_twice, "a"));
  Greenlet *b = green_spawn(note_twice, "b");
  green_yield();
  green_release(b);
  green_spawn(release_self, NULL);
  CHECK_INT(green_sleep(in_ms(4)), GREEN_OK);
  CHECK_STR(trail, "ababs");
}

static void killed(void *arg) {
  CHECK_INT(green_sleep(GREEN_NEVER), GREEN_CANCELLED);
  CHECK_INT(green_yield(), GREEN_CANCELLED);
  CHECK_INT(green_wait_fd(*(int *)arg, GREEN_READ, GREEN_NEVER), GREEN_CANCELLED);
  note("k");
}

static void test_kill(void) {
  int fds[2];
  CHECK_INT(pipe(fds), 0);
  Greenlet *g = green_spawn(killed, fds), *never = green_spawn(note_twice, "n");
  green_kill(never);
  CHECK(green_dead(never));
  CHECK_INT(green_join(never, GREEN_NEVER), GREEN_OK);
  green_yield();
  green_kill(g);
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  green_kill(g);
  CHECK_STR(trail, "k");
  green_release(g);
  green_release(never);
  close(fds[0]);
  close(fds[1]);
}

static void test_descriptor(void) {
  int fds[2];
  CHECK_INT(pipe(fds), 0);
  CHECK_INT(green_wait_fd(fds[0], GREEN_READ, in_ms(1)), GREEN_TIMEDOUT);
  CHECK_INT(green_wait_fd(fds[1], GREEN_WRITE, GREEN_NEVER), GREEN_WRITE);
  CHECK(write(fds[1], "x", 1) == 1);
  CHECK_INT(green_wait_fd(fds[0], GREEN_READ, GREEN_NEVER), GREEN_READ);
  CHECK_INT(green_wait_fd(-1, GREEN_READ, GREEN_NEVER), -EBADF);
  close(fds[0]);
  close(fds[1]);
}

static void test_one_child(void) {
  int status;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) _exit(5);
  CHECK_INT(green_wait_child(pid, &status, in_ms(10000)), GREEN_OK);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

/* ---- raw greenlets ---- */

/* Answers each value with the next letter; "" ends it. */
static int answer(void *arg, void *value, void **result) {
  static const char *const letters[] = {"a", "b", "c"};
  Greenlet *caller = arg;
  for (int i = 0; *(char *)value; i++) {
    note(value);
    int code = green_switch(caller, (void *)letters[i % 3], &value);
    if (code != GREEN_OK) {
      note(green_strerror(code));
      *result = value;
      return code == GREEN_THROWN ? GREEN_THROWN : GREEN_OK;
    }
  }
  *result = "end";
  return GREEN_OK;
}

static void test_switch(void) {
  void *got;
  Greenlet *g = green_new(answer, green_current());
  CHECK(!green_dead(g));
  CHECK(green_switch(g, "1", &got) == GREEN_OK && strcmp(got, "a") == 0);
  CHECK(green_switch(g, "2", &got) == GREEN_OK && strcmp(got, "b") == 0);
  CHECK(green_switch(g, "", &got) == GREEN_OK && strcmp(got, "end") == 0);
  CHECK(green_dead(g));
  CHECK(green_switch(g, "me", &got) == GREEN_OK && strcmp(got, "me") == 0);
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  CHECK_STR(trail, "12");
  green_release(g);
}

static void join_it(void *arg) {
  CHECK_INT(green_join(arg, GREEN_NEVER), GREEN_OK);
  note("j");
}

static void test_throw(void) {
  void *got, *error = &got;
  Greenlet *g = green_new(answer, green_current());
  CHECK_INT(green_switch(g, "1", NULL), GREEN_OK);
  CHECK(green_throw(g, error, &got) == GREEN_THROWN && got == error);
  CHECK(green_dead(g));
  green_release(g);
  g = green_new(answer, green_current()); /* unstarted: its parent, main, is told */
  Greenlet *joiner = green_spawn(join_it, g);
  green_yield();
  CHECK(green_throw(g, error, &got) == GREEN_THROWN && got == error);
  CHECK(green_dead(g));
  CHECK_INT(green_join(joiner, in_ms(5000)), GREEN_OK);
  green_release(joiner);
  green_release(g);
  g = green_spawn(note_twice, "never"); /* a spawned one: nobody is told */
  CHECK_INT(green_throw(g, error, NULL), GREEN_OK);
  CHECK(green_dead(g));
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  green_release(g);
  CHECK_INT(green_sleep(in_ms(1)), GREEN_OK);
}

static void test_release_unstarted(void) {
  Greenlet *g = green_new(answer, green_current()), *joiner = green_spawn(join_it, g);
  green_yield();
  green_release(g);
  CHECK_INT(green_join(joiner, in_ms(5000)), GREEN_OK);
  CHECK_STR(trail, "j");
  green_release(joiner);
}

static int fails(void *arg, void *value, void **result) {
  (void)value;
  *result = arg;
  return GREEN_THROWN;
}

static Greenlet *orphan;

static void make_orphan(void *arg) { orphan = green_new(fails, arg); }

/* Its parent has ended, the parent's parent is the hub: the error is lost, the
** hub lives, and who switched is not switched back to. */
static void switch_orphan(void *arg) {
  (void)arg;
  green_switch(orphan, NULL, NULL);
  note("unreached");
}

static void test_orphan(void) {
  Greenlet *maker = green_spawn(make_orphan, &maker), *other = green_spawn(switch_orphan, NULL);
  CHECK_INT(green_join(maker, GREEN_NEVER), GREEN_OK);
  CHECK_INT(green_sleep(in_ms(2)), GREEN_OK);
  CHECK(green_dead(orphan) && !green_dead(other));
  CHECK_INT(green_sleep(in_ms(1)), GREEN_OK); /* not a bad switch: the hub lives */
  green_kill(other);
  CHECK_INT(green_join(other, in_ms(5000)), GREEN_OK);
  CHECK_STR(trail, "unreached");
  green_release(orphan);
  green_release(maker);
  green_release(other);
}

/* A killed greenlet that is suspended in a raw switch hears of it there. */
static void test_kill_raw(void) {
  Greenlet *g = green_new(answer, green_current());
  CHECK_INT(green_switch(g, "1", NULL), GREEN_OK);
  green_kill(g);
  green_kill(g);
  CHECK_INT(green_switch(g, "2", NULL), GREEN_OK); /* ours comes first, with a value */
  green_kill(g);
  CHECK_INT(green_sleep(GREEN_NEVER), GREEN_BADSWITCH); /* its end, as its parent is main */
  CHECK(green_dead(g));
  CHECK_STR(trail, "12cancelled");
  green_release(g);
}

/* ---- other threads ---- */

static void *wake_later(void *arg) {
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  green_wake(arg);
  return NULL;
}

static void test_wake(void) {
  pthread_t thread;
  Greenlet *g = green_spawn(park_it, NULL);
  green_yield();
  green_hold(1);
  CHECK_INT(pthread_create(&thread, NULL, wake_later, g), 0);
  CHECK_INT(green_join(g, GREEN_NEVER), GREEN_OK);
  green_hold(-1);
  pthread_join(thread, NULL);
  CHECK_INT(park_code, GREEN_OK);
  green_release(g);
}

/* A wake that the loop has not seen when the greenlet's memory goes. */
static void test_wake_late(void) {
  Greenlet *g = green_spawn(park_it, NULL);
  green_yield();
  green_ready(g, 1);
  green_wake(g);
  green_wake(g);
  green_yield();
  CHECK(green_dead(g));
  green_release(g);
  CHECK_INT(green_sleep(in_ms(2)), GREEN_OK);
  CHECK_STR(trail, "p");
}

static void *stranger(void *arg) {
  if (green_spawn(note_twice, "x") || green_new(answer, NULL)) return "made";
  if (green_switch(arg, NULL, NULL) != GREEN_FOREIGN) return "switched";
  if (green_throw(arg, NULL, NULL) != GREEN_FOREIGN) return "thrown";
  if (green_init() != 0) return "no hub of its own";
  if (green_init() != -EEXIST) return "two hubs";
  if (green_switch(arg, NULL, NULL) != GREEN_FOREIGN) return "switched with a hub";
  Greenlet *g = green_spawn(park_it, NULL);
  if (green_join(g, green_deadline(0.001)) != GREEN_TIMEDOUT) return "joined";
  green_kill(g);
  if (green_join(g, GREEN_NEVER) != GREEN_OK) return "not killed";
  green_release(g);
  green_close();
  green_close();
  return NULL;
}

static void test_strangers(void) {
  pthread_t thread;
  void *why;
  Greenlet *g = green_new(answer, green_current());
  CHECK_INT(pthread_create(&thread, NULL, stranger, g), 0);
  pthread_join(thread, &why);
  if (why) CHECK_STR(why, "");
  CHECK(!green_dead(g));
  green_release(g);
}

int main(void) {
  run("spawn and join", test_spawn);
  run("sleep, park and ready", test_waits);
  run("a handle is given back at any time", test_release);
  run("a kill ends every wait; who has not run never will", test_kill);
  run("descriptors", test_descriptor);
  if (syscall(SYS_pidfd_open, 0, 0) < 0 && errno == ENOSYS)
    SKIP("a child", "no pidfd_open(2) here, as in valgrind");
  else
    run("a child", test_one_child);
  run("raw switches carry values", test_switch);
  run("throw, also into an unstarted greenlet", test_throw);
  run("an unstarted greenlet given back wakes its joiners", test_release_unstarted);
  run("an error that nobody is left to hear does not end the hub", test_orphan);
  run("a kill reaches a greenlet in a raw switch", test_kill_raw);
  run("a wake from another thread", test_wake);
  run("a wake that comes too late", test_wake_late);
  run("GC9 no hub, another hub, another's greenlet", test_strangers);
  return test_end();
}
