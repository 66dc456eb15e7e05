/*
 * Greenlets: states, parents, and the one function that switches. Uses
 * context, stack and sanitize of its own room.
 *
 * State: `this_thread`, one pointer for each OS thread; the rest is in the
 * GreenletThread, which is its embedder's.
 */
#define _GNU_SOURCE
#include "greenlet.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "sanitize.h"

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Initial-exec, so that reading it is one instruction and async-signal-safe
** even in a shared object; 8 bytes fit what glibc sets aside for late ones. */
static _Thread_local GreenletThread *this_thread __attribute__((tls_model("initial-exec")));

/* ---- threads ---- */

GreenletThread *greenlet_thread(void) { return this_thread; }

int greenlet_thread_init(GreenletThread *t, Greenlet *main) {
  if (this_thread != NULL) return -EEXIST;
  memset(t, 0, sizeof *t);
  memset(main, 0, sizeof *main);
  stack_pool_init(&t->stacks);
  sanitize_thread_stack(&t->main_low, &t->main_size);
  main->thread = t;
  main->id = 1;
  main->state = GREENLET_CURRENT;
  t->next_id = 2;
  t->main = t->current = main;
  this_thread = t;
  return 0;
}

void greenlet_thread_close(GreenletThread *t) {
  assert(t == this_thread);
  assert(t->current == t->main);
  stack_pool_close(&t->stacks);
  this_thread = NULL;
}

/* ---- stacks ---- */

/* Gives back the stack of a greenlet that will not run again. */
static void drop_stack(Greenlet *g) {
  char *stack = g->stack;
  g->stack = NULL;
  g->sp = NULL;
  sanitize_deregister(g->registration);
  stack_put(&g->thread->stacks, stack);
}

/* What is done first on a stack that was just reached: the one that died in
** the switch is no longer in use. */
static void arrive(GreenletThread *t, Greenlet *self) {
  sanitize_arrive(self->fake_stack);
  Greenlet *dead = t->dying;
  if (UNLIKELY(dead != NULL)) {
    t->dying = NULL;
    drop_stack(dead);
  }
}

int greenlet_prepare(Greenlet *g) {
  assert(g->thread == this_thread);
  assert(g->state == GREENLET_NEW);
  if (g->stack != NULL) return 0;
  char *stack = stack_get(&g->thread->stacks);
  if (stack == NULL) return -ENOMEM;
  char *low = stack_low(stack), *top = stack_top(stack);
  *stack_owner(stack) = g;
  g->stack = stack;
  g->registration = sanitize_register(low, top);
  return 0;
}

/* ---- life ---- */

void greenlet_init(Greenlet *g, Greenlet *parent, GreenletFn fn) {
  GreenletThread *t = this_thread;
  assert(t != NULL);
  assert(parent != NULL && parent->thread == t);
  memset(g, 0, sizeof *g);
  g->parent = parent;
  g->thread = t;
  g->fn = fn;
  g->id = t->next_id++;
  g->state = GREENLET_NEW;
}

void greenlet_discard(Greenlet *g) {
  assert(g->thread == this_thread);
  assert(g->state == GREENLET_NEW);
  g->state = GREENLET_DEAD;
  if (g->stack != NULL) drop_stack(g);
}

int greenlet_set_parent(Greenlet *g, Greenlet *parent) {
  GreenletThread *t = this_thread;
  if (t == NULL || g->thread != t || parent->thread != t) return GREEN_FOREIGN;
  if (g == t->main) return -EINVAL;
  for (Greenlet *p = parent; p != NULL; p = p->parent) {
    if (p == g) return GREEN_CYCLE;
  }
  g->parent = parent;
  return 0;
}

/* ---- the switch ---- */

/* Where a transfer to `to` really goes: the dead stand for their parents, and
** a NEW greenlet dies of what is thrown into it. Main ends every chain. */
static Greenlet *heir(Greenlet *to, int status) {
  while (to->state == GREENLET_DEAD || (to->state == GREENLET_NEW && status != GREEN_OK)) {
    if (to->state == GREENLET_NEW) greenlet_discard(to);
    to = to->parent;
  }
  return to;
}

static void trace(GreenletThread *t, int status, Greenlet *target) {
  if (t->tracer == NULL || t->tracing != NULL) return;
  t->tracing = t->current;
  t->tracer(t->tracer_arg, status != GREEN_OK, t->current, target);
  t->tracing = NULL;
}

/* Tells AddressSanitizer which stack comes next. */
static inline void announce(GreenletThread *t, Greenlet *self, Greenlet *to) {
  if (!SANITIZE_SWITCHES) return;
  void **fake = self->state == GREENLET_DEAD ? NULL : &self->fake_stack;
  if (to == t->main) {
    sanitize_leave(fake, t->main_low, t->main_size);
  } else {
    char *low = stack_low(to->stack);
    sanitize_leave(fake, low, (size_t)(stack_top(to->stack) - low));
  }
}

/* Makes `to`, which has a stack, the current greenlet; the switch itself is
** the caller's next act. */
static inline void hand_over(GreenletThread *t, Greenlet *to, int status, void *value) {
  Greenlet *self = t->current;
  assert(self != to);
  assert(t->dying == NULL);
  assert(to->stack != NULL || to == t->main);
  assert((to->state == GREENLET_SUSPENDED && to->sp != NULL) ||
         (to->state == GREENLET_NEW && to->sp == NULL && status == GREEN_OK));
  assert(self->state == GREENLET_CURRENT || self->state == GREENLET_DEAD);
  if (self->state == GREENLET_DEAD)
    t->dying = self;
  else
    self->state = GREENLET_SUSPENDED;
  t->value = value;
  t->status = status;
  t->current = to;
  to->state = GREENLET_CURRENT;
  announce(t, self, to);
}

static void *run(void *arg);

/* Switches to `to`. Returns when somebody switches back, never if the current
** greenlet is dead. */
static inline void transfer(GreenletThread *t, Greenlet *to, int status, void *value) {
  Greenlet *self = t->current;
  hand_over(t, to, status, value);
  if (UNLIKELY(to->sp == NULL))
    context_start(&self->sp, stack_low(to->stack), stack_top(to->stack), run, to);
  else
    context_switch(&self->sp, to->sp);
  arrive(t, self);
}

/* Everything about a switch that is not the common case: finds whom it really
** reaches, gives a NEW one its stack, and calls the tracer, after which all
** has to be asked again. Returns 0 with `*to` able to run or current, or -ENOMEM. */
static int settle(GreenletThread *t, Greenlet **to, int status) {
  for (int traced = 0;; traced = 1) {
    *to = heir(*to, status);
    if ((*to)->state == GREENLET_NEW && greenlet_prepare(*to) < 0) return -ENOMEM;
    if (traced || t->tracer == NULL || *to == t->current) return 0;
    trace(t, status, *to);
  }
}

/* The common cases, in which settle has nothing to do. */
static inline bool at_once(GreenletThread *t, Greenlet *to, int status) {
  if (t->tracer != NULL) return false;
  return to->state == GREENLET_SUSPENDED ||
         (to->state == GREENLET_NEW && to->stack != NULL && status == GREEN_OK);
}

int greenlet_switch(Greenlet *to, int status, void *value, void **result) {
  GreenletThread *t = this_thread;
  if (UNLIKELY(to->thread != t || t == NULL)) return GREEN_FOREIGN;
  Greenlet *self = t->current;
  int saved_errno = errno;                    /* it belongs to the greenlet (D10) */
  if (UNLIKELY(self->state == GREENLET_DEAD)) /* its tracer switches in its last switch */
    greenlet_exit(to, status, value);
  if (UNLIKELY(!at_once(t, to, status))) {
    int rc = settle(t, &to, status);
    if (rc < 0) return rc;
    if (to == self) {
      if (result != NULL) *result = value;
      return status;
    }
  }
  transfer(t, to, status, value);
  errno = saved_errno;
  if (result != NULL) *result = t->value;
  return t->status;
}

/* Ends the current greenlet. Returns who really goes on, with what is carried
** in `*status` and `*value`. */
static Greenlet *die(GreenletThread *t, Greenlet *next, int *status, void **value) {
  Greenlet *self = t->current;
  assert(self != t->main);
  assert(next->thread == t);
  self->state = GREENLET_DEAD;
  /* A NEW heir that can get no stack dies of that, and its parent hears of it. */
  while (!at_once(t, next, *status) && settle(t, &next, *status) < 0) {
    greenlet_discard(next);
    *status = -ENOMEM;
    *value = NULL;
  }
  if (t->tracing == self) /* its tracer made this switch, and will not return */
    t->tracing = NULL;
  return next;
}

void greenlet_exit(Greenlet *next, int status, void *value) {
  GreenletThread *t = this_thread;
  next = die(t, next, &status, &value);
  transfer(t, next, status, value);
  abort();
}

/* The base of every greenlet's stack. It ends by returning, see context.h; but
** AddressSanitizer frees its fake frames at the end, so there it may not. */
static void *run(void *arg) {
  Greenlet *self = arg;
  GreenletThread *t = self->thread;
  arrive(t, self);
  void *value = NULL;
  int status = self->fn(self, t->value, &value);
  Greenlet *next = t->successor ? t->successor : self->parent;
  t->successor = NULL;
  next = die(t, next, &status, &value);
  if (SANITIZE_SWITCHES || next->sp == NULL) {
    transfer(t, next, status, value);
    abort();
  }
  hand_over(t, next, status, value);
  return next->sp;
}

/* ---- leak checking ---- */

static void root_parked(char *slot, void *owner) {
  Greenlet *g = owner;
  if (g->state == GREENLET_SUSPENDED) sanitize_root(g->sp, (size_t)(stack_top(slot) - (char *)g->sp));
}

void greenlet_lsan_roots(GreenletThread *t) { stack_each_owner(&t->stacks, root_parked); }
