/*
 * How long a program takes from its start to its end, for two commands by
 * turns: `start NAME TARGET A B` prints the median of each, run as
 * `A -e ""` and `B -e ""`, and the ratio of A's to B's.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS 200

extern char **environ;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Runs `program -e ""` and returns the microseconds it took; exits when it
** cannot be run or fails. */
static double run(const char *program) {
  char *argv[] = {(char *)program, "-e", "", NULL};
  double started = now();
  pid_t pid;
  int status;
  int error = posix_spawnp(&pid, program, NULL, NULL, argv, environ);
  if (error != 0) {
    fprintf(stderr, "start: cannot run %s: %s\n", program, strerror(error));
    exit(1);
  }
  if (waitpid(pid, &status, 0) != pid || status != 0) {
    fprintf(stderr, "start: %s failed\n", program);
    exit(1);
  }
  return now() - started;
}

static int order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  static double a[ROUNDS], b[ROUNDS];
  if (argc != 5) {
    fprintf(stderr, "usage: start NAME TARGET PROGRAM OTHER\n");
    return 2;
  }
  for (int i = 0; i < ROUNDS; i++) {
    a[i] = run(argv[3]);
    b[i] = run(argv[4]);
  }
  qsort(a, ROUNDS, sizeof *a, order);
  qsort(b, ROUNDS, sizeof *b, order);
  printf("%-22s %-12s %10.3f us\n", argv[1], "greenlua", a[ROUNDS / 2]);
  printf("%-22s %-12s %10.3f us\n", argv[1], "lua5.4", b[ROUNDS / 2]);
  printf("%-22s %-12s %10.3f of lua5.4; target %s\n", argv[1], "ratio", a[ROUNDS / 2] / b[ROUNDS / 2],
         argv[2]);
  return 0;
}
