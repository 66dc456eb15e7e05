/*
 * The switch by the C library's ucontext, for machines without an assembly
 * one. Each switch costs a system call (swapcontext saves the signal mask).
 * The suspended ucontext_t lies on the stack that it suspends. Uses libc only.
 */
#include "context.h"

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

/* What a new context needs until it runs; it lies at the top of its stack. */
typedef struct {
  ucontext_t uc;
  void *(*entry)(void *arg);
  void *arg;
} Start;

/* makecontext passes ints only (makecontext(3)), so a pointer comes as two. */
static void start(unsigned high, unsigned low) {
  Start *s = (Start *)(uintptr_t)((uint64_t)high << 32 | low);
  setcontext(s->entry(s->arg));
  abort();
}

void context_start(void **save, void *low, void *top, void *(*entry)(void *arg), void *arg) {
  uintptr_t place = ((uintptr_t)top - sizeof(Start)) & ~(uintptr_t)63;
  Start *s = (Start *)place;
  getcontext(&s->uc);
  s->entry = entry;
  s->arg = arg;
  s->uc.uc_link = NULL;
  s->uc.uc_stack.ss_sp = low;
  s->uc.uc_stack.ss_size = place - (uintptr_t)low;
  s->uc.uc_stack.ss_flags = 0;
  uint64_t p = (uint64_t)place;
  makecontext(&s->uc, (void (*)(void))start, 2, (unsigned)(p >> 32), (unsigned)p);
  context_switch(save, &s->uc);
}

void context_switch(void **save, void *load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, load);
}
