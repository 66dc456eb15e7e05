/* Tests of src/core/context_*: the machine's part of a switch, without greenlets. */
#define _GNU_SOURCE
#include "../../src/core/context.h"

#include <fenv.h>

#include "../../src/core/sanitize.h"
#include "test.h"

#define STACK_BYTES (64 * 1024)

static _Alignas(16) char stack[STACK_BYTES], other_stack[STACK_BYTES];
static void *main_context, *context, *other_context;
static int steps;
static void *seen_arg;
static uintptr_t seen_sp;
static void *fake_main, *fake_self;
static const void *thread_low;
static size_t thread_size;

/* AddressSanitizer has to be told, as greenlet.c does. */
static void go(void **save, void *load, void **fake, const void *low, size_t size) {
  sanitize_leave(fake, low, size);
  context_switch(save, load);
  sanitize_arrive(*fake);
}

static void begin(char *low, char *top, void *(*entry)(void *arg), void *arg) {
  sanitize_leave(&fake_main, low, STACK_BYTES);
  context_start(&main_context, low, top, entry, arg);
  sanitize_arrive(fake_main);
}

static void enter(char *low, void *load) { go(&main_context, load, &fake_main, low, STACK_BYTES); }

static void leave(void **save) { go(save, main_context, &fake_self, thread_low, thread_size); }

static void *stepper(void *arg) {
  sanitize_arrive(NULL);
  seen_arg = arg;
  seen_sp = (uintptr_t)__builtin_frame_address(0);
  for (;;) {
    steps++;
    leave(&context);
  }
  return NULL;
}

static void starts_on_its_stack(void) {
  steps = 0;
  begin(stack, stack + sizeof stack, stepper, &steps);
  CHECK_INT(steps, 1);
  CHECK(seen_arg == &steps);
  CHECK(seen_sp > (uintptr_t)stack && seen_sp < (uintptr_t)stack + sizeof stack);
#ifdef __x86_64__
  CHECK_INT(seen_sp % 16, 0); /* after the prologue's push of rbp: psABI 3.2.2 */
#endif
}

static void odd_tops_are_aligned(void) {
  for (int odd = 1; odd < 64; odd += 9) {
    steps = 0;
    begin(stack, stack + sizeof stack - odd, stepper, NULL);
    CHECK_INT(seen_sp % 16, 0);
    CHECK_INT(steps, 1);
  }
}

static void goes_on(void) {
  steps = 0;
  begin(stack, stack + sizeof stack, stepper, NULL);
  for (int i = 2; i <= 1000; i++) {
    enter(stack, context);
    CHECK_INT(steps, i);
  }
}

/* Values that the compiler keeps in callee-saved registers over the switch. */
static __attribute__((noinline)) long weigh(long a, long b, long c, long d, long e, long f) {
  for (int i = 0; i < 10; i++) {
    enter(stack, context);
    a += b, b += c, c += d, d += e, e += f, f += 1;
  }
  return a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f;
}

static void *scrambler(void *arg) {
  (void)arg;
  sanitize_arrive(NULL);
  for (;;) {
#ifdef __x86_64__
    __asm__ volatile(
        "mov $-1, %%rbx; mov $-1, %%r12; mov $-1, %%r13\n"
        "mov $-1, %%r14; mov $-1, %%r15" ::
            : "rbx", "r12", "r13", "r14", "r15");
#endif
    leave(&context);
  }
  return NULL;
}

static void keeps_registers(void) {
  long a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;
  volatile long vf = f;
  begin(stack, stack + sizeof stack, scrambler, NULL);
  long got = weigh(a, b, c, d, e, vf);
  for (int i = 0; i < 10; i++) a += b, b += c, c += d, d += e, e += f, f += 1;
  CHECK_INT(got, a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f);
}

static int inner_round[2];
static double inner_third;

/* fegetround asks the x87 word; this asks mxcsr, where doubles are SSE's. */
static double third(void) {
  volatile double one = 1, three = 3;
  return one / three;
}

static void *rounder(void *arg) {
  (void)arg;
  sanitize_arrive(NULL);
  inner_round[0] = fegetround();
  fesetround(FE_UPWARD);
  leave(&other_context);
  inner_round[1] = fegetround();
  inner_third = third();
  leave(&other_context);
  return NULL;
}

static void control_words_are_the_contexts(void) {
  CHECK_INT(fegetround(), FE_TONEAREST);
  double nearest = third();
  begin(other_stack, other_stack + sizeof other_stack, rounder, NULL);
  CHECK_INT(inner_round[0], FE_TONEAREST);
  CHECK(third() == nearest);
  CHECK_INT(fegetround(), FE_TONEAREST);
  fesetround(FE_DOWNWARD);
  enter(other_stack, other_context);
  CHECK_INT(inner_round[1], FE_UPWARD);
  CHECK(inner_third > nearest);
  CHECK_INT(fegetround(), FE_DOWNWARD);
  fesetround(FE_TONEAREST);
}

/* Returns to whoever entered it last: their context is what it ends with. */
static void *returner(void *arg) {
  sanitize_arrive(NULL);
  steps++;
  leave(&context);
  (*(int *)arg)++;
  sanitize_leave(NULL, thread_low, thread_size);
  return main_context;
}

__attribute__((no_sanitize("address"))) static void ends_by_returning(void) {
  int returned = 0;
  steps = 0;
  begin(stack, stack + sizeof stack, returner, &returned);
  CHECK_INT(steps, 1);
  CHECK_INT(returned, 0);
  enter(stack, context);
  CHECK_INT(returned, 1);
}

int main(void) {
  sanitize_thread_stack(&thread_low, &thread_size);
  RUN("a new context starts on its stack with its argument", starts_on_its_stack);
  RUN("a top that is not aligned does no harm", odd_tops_are_aligned);
  RUN("a suspended context goes on where it was", goes_on);
  RUN("an entry that returns goes on with the context that it gives", ends_by_returning);
  RUN("registers survive a switch", keeps_registers);
  RUN("D10 the control words belong to the context", control_words_are_the_contexts);
  return test_end();
}
