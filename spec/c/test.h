/*
 * The harness of the C tests: checks that end the running test, a line for
 * each test, and a summary. One program per source file; see README.md.
 *
 *   static void adds_up(void) { CHECK_INT(1 + 1, 2); }
 *   int main(void) { RUN("XY1 numbers add up", adds_up); return test_end(); }
 *
 * A failed check jumps back to test_run, so it may stand in helpers, and also
 * on a greenlet's stack: there it ends the program with the summary, since
 * nothing may jump from stack to stack.
 */
#ifndef GREEN_TEST_H
#define GREEN_TEST_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int test_passed, test_failures;
static const char *test_name;
static jmp_buf test_back;
static char *test_frame; /* an address on the stack of test_run */

/* Prints the summary. Returns the exit status: 1 if a test failed. */
static inline int test_end(void) {
  printf("%d passed, %d failed\n", test_passed, test_failures);
  fflush(stdout);
  return test_failures != 0;
}

static inline void test_fail(const char *file, int line, const char *why) {
  char here;
  printf("not ok %s: %s:%d: %s\n", test_name, file, line, why);
  test_failures++;
  intptr_t distance = (intptr_t)((uintptr_t)test_frame - (uintptr_t)&here);
  if (distance >= 0 && distance < 256 * 1024) longjmp(test_back, 1);
  test_end();
  _Exit(1);
}

static inline void test_run(const char *name, void (*fn)(void)) {
  char here;
  test_frame = &here;
  test_name = name;
  if (setjmp(test_back) == 0) {
    fn();
    printf("ok %s\n", name);
    test_passed++;
  }
  fflush(stdout);
}

#define RUN(name, fn) test_run(name, fn)

/* For what cannot be tested here; `why` says what is missing. */
#define SKIP(name, why) printf("ok %s # skipped: %s\n", name, why)

#define CHECK(condition)                                         \
  do {                                                           \
    if (!(condition)) test_fail(__FILE__, __LINE__, #condition); \
  } while (0)

static inline void test_check_int(long long got, long long want, const char *what, const char *file,
                                  int line) {
  char why[256];
  if (got == want) return;
  snprintf(why, sizeof why, "%s is %lld, not %lld", what, got, want);
  test_fail(file, line, why);
}

#define CHECK_INT(got, want) test_check_int((got), (want), #got, __FILE__, __LINE__)

static inline void test_check_str(const char *got, const char *want, const char *what, const char *file,
                                  int line) {
  char why[1024];
  if (got != NULL && strcmp(got, want) == 0) return;
  snprintf(why, sizeof why, "%.99s is \"%.400s\", not \"%.400s\"", what, got != NULL ? got : "(null)", want);
  test_fail(file, line, why);
}

#define CHECK_STR(got, want) test_check_str((got), (want), #got, __FILE__, __LINE__)

/* Runs `fn` in a child whose stderr goes to `err` (a string of at most `size`
** bytes). Returns the child's status as waitpid gives it. */
static inline int test_child(void (*fn)(void), char *err, size_t size) {
  int fds[2];
  fflush(NULL);
  if (pipe(fds) < 0) return -1;
  pid_t pid = fork();
  if (pid == 0) {
    dup2(fds[1], STDERR_FILENO);
    close(fds[0]);
    close(fds[1]);
    fn();
    _exit(0);
  }
  close(fds[1]);
  size_t n = 0;
  ssize_t got;
  char rest[512]; /* what does not fit is read too, else the child could block */
  while ((got = n + 1 < size ? read(fds[0], err + n, size - 1 - n) : read(fds[0], rest, sizeof rest)) > 0) {
    if (n + 1 < size) n += (size_t)got;
  }
  err[n] = '\0';
  close(fds[0]);
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

/* Runs this program anew with one argument, in place of the calling process.
** By its path: under valgrind /proc/self/exe is valgrind, but its link is not. */
static inline void test_exec_self(const char *arg) {
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n > 0) {
    path[n] = '\0';
    execl(path, path, arg, (char *)NULL);
  }
  _exit(127);
}

static inline double test_seconds(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

#endif
