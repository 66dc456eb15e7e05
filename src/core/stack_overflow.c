/*
 * The message at a stack overflow (T53). Uses stack and greenlet of its own
 * room. Everything on_fault calls is async-signal-safe (signal-safety(7)).
 *
 * State: `alternate`, the calling thread's alternate signal stack.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "greenlet.h"

/* A frame with AVX-512 state has 3.4 KB, with AMX 11 KB; the rest is ours. */
#define ALTERNATE_BYTES ((size_t)64 * 1024)

static _Thread_local void *alternate;

typedef struct {
  char text[256];
  size_t length;
} Message;

/* snprintf is not async-signal-safe. What does not fit is cut off. */
static void add(Message *m, const char *s) {
  for (; *s != '\0' && m->length < sizeof m->text - 1; s++) m->text[m->length++] = *s;
}

static void add_number(Message *m, unsigned n) {
  char digits[12];
  char *p = digits + sizeof digits;
  *--p = '\0';
  do {
    *--p = (char)('0' + n % 10);
  } while ((n /= 10) != 0);
  add(m, p);
}

static void report(const Greenlet *g, const char *slot) {
  Message m = {.length = 0};
  add(&m, "greenlua: ");
  add(&m, slot == g->stack ? "stack overflow" : "access to another greenlet's stack guard");
  add(&m, " in greenlet '");
  if (g->name != NULL)
    add(&m, g->name);
  else
    add_number(&m, g->id);
  add(&m, "' (id ");
  add_number(&m, g->id);
  add(&m, ")\n");
  if (write(STDERR_FILENO, m.text, m.length) < 0) return; /* the process dies anyway */
}

/* Returning runs the faulting instruction again, now with the default action:
** the core shows the fault, not this handler. A signal that was sent has no
** instruction to run again, so it is sent once more; it waits until we return. */
static void on_fault(int sig, siginfo_t *info, void *context) {
  (void)context;
  GreenletThread *t = greenlet_thread();
  int sent = info->si_code <= 0;
  if (t != NULL && !sent) {
    const char *slot = stack_guard_hit(&t->stacks, info->si_addr);
    if (slot != NULL) report(t->current, slot);
  }
  signal(sig, SIG_DFL);
  if (sent) raise(sig);
}

static void handle(int sig) {
  struct sigaction old, action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  if (sigaction(sig, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
    sigaction(sig, &action, NULL);
}

void stack_overflow_handler_install(void) {
  stack_t old;
  if (sigaltstack(NULL, &old) < 0) return;
  if (old.ss_flags & SS_DISABLE) {
    void *p = mmap(NULL, ALTERNATE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return;
    stack_t stack = {.ss_sp = p, .ss_size = ALTERNATE_BYTES};
    if (sigaltstack(&stack, NULL) < 0) {
      munmap(p, ALTERNATE_BYTES);
      return;
    }
    alternate = p;
  }
  handle(SIGSEGV);
  handle(SIGBUS);
}

void stack_overflow_handler_remove(void) {
  if (alternate == NULL) return;
  stack_t none = {.ss_flags = SS_DISABLE};
  sigaltstack(&none, NULL);
  munmap(alternate, ALTERNATE_BYTES);
  alternate = NULL;
}
