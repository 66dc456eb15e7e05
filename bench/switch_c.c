/*
 * The bare switch between two stacks, in C, beside Boost.Context's. Both sides
 * hand control back and forth, from one place in the code, as a scheduler does
 * (our switch ends in a `ret`, which the processor then predicts; context_x86_64.S).
 * A unit is one switch, so half a round trip.
 * greenlet_switch, which adds states and values, is shown for comparison.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/context.h"
#include "core/greenlet.h"

#define SWITCHES 4000000
#define ROUNDS 9
#define STACK_SIZE 65536
#define TARGET 1.5

/* Boost.Context's C interface: boost/context/detail/fcontext.hpp. */
typedef struct {
  void *from;
  void *data;
} Transfer;
extern Transfer jump_fcontext(void *to, void *data);
extern void *make_fcontext(void *top, size_t size, void (*fn)(Transfer));

static double cpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static char *new_stack(void) {
  char *stack = aligned_alloc(64, STACK_SIZE);
  if (stack == NULL) abort();
  return stack;
}

/* ---- ours ---- */

static void *sides[2]; /* the suspended contexts */

/* Switches from `side` to the other and back, `count` times. */
__attribute__((noinline)) static void context_bounce(int side, int count) {
  for (int i = 0; i < count; i++) context_switch(&sides[side], sides[!side]);
}

static void *context_body(void *arg) {
  (void)arg;
  context_switch(&sides[1], sides[0]); /* it is there now */
  for (;;) context_bounce(1, SWITCHES);
  return NULL;
}

static double context_round(void) {
  if (sides[1] == NULL) {
    char *stack = new_stack();
    context_start(&sides[0], stack, stack + STACK_SIZE, context_body, NULL);
  }
  double started = cpu_now();
  context_bounce(0, SWITCHES / 2);
  return (cpu_now() - started) / SWITCHES;
}

/* ---- Boost's ---- */

static void *boost_sides[2];

__attribute__((noinline)) static void boost_bounce(int side, int count) {
  for (int i = 0; i < count; i++) boost_sides[!side] = jump_fcontext(boost_sides[!side], NULL).from;
}

static void boost_body(Transfer t) {
  boost_sides[0] = t.from;
  for (;;) boost_bounce(1, SWITCHES);
}

static double boost_round(void) {
  if (boost_sides[1] == NULL) {
    boost_sides[1] = make_fcontext(new_stack() + STACK_SIZE, STACK_SIZE, boost_body);
  }
  double started = cpu_now();
  boost_bounce(0, SWITCHES / 2);
  return (cpu_now() - started) / SWITCHES;
}

/* ---- greenlets ---- */

static GreenletThread thread;
static Greenlet root, child;

static int greenlet_body(Greenlet *self, void *value, void **result) {
  (void)result;
  while (value == NULL) greenlet_switch(self->parent, GREEN_OK, NULL, &value);
  return GREEN_OK;
}

static double greenlet_round(void) {
  double started = cpu_now();
  for (int i = 0; i < SWITCHES / 2; i++) greenlet_switch(&child, GREEN_OK, NULL, NULL);
  return (cpu_now() - started) / SWITCHES;
}

static void keep_least(double *least, double value) {
  if (*least == 0 || value < *least) *least = value;
}

int main(void) {
  double context = 0, boost = 0, greenlet = 0;
  if (greenlet_thread_init(&thread, &root) != 0) return 1;
  greenlet_init(&child, &root, greenlet_body);
  for (int i = 0; i < ROUNDS; i++) {
    keep_least(&context, context_round());
    keep_least(&boost, boost_round());
    keep_least(&greenlet, greenlet_round());
  }
  printf("%-22s %-12s %10.3f ns\n", "switch-c", "green", context);
  printf("%-22s %-12s %10.3f ns\n", "switch-c", "boost", boost);
  printf("%-22s %-12s %10.3f ns\n", "switch-c", "greenlet", greenlet);
  printf("%-22s %-12s %10.3f of boost; target %.2f\n", "switch-c", "ratio", context / boost, TARGET);
  return 0;
}
