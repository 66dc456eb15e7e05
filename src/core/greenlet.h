/*
 * Greenlets: C stacks that hand control to each other explicitly.
 *
 * A greenlet has a parent, a state and a stack of its own, which it takes when
 * it is first switched to and gives back when it dies. A switch carries one
 * pointer and a status; what the pointer means is the caller's business. The
 * tree of parents of one OS thread is rooted in its main greenlet, which is
 * the thread's own stack and never dies. No event loop, no Lua.
 *
 *   struct of an embedder          Greenlet's life
 *   +-----------+                  NEW --switch--> CURRENT <--switch--> SUSPENDED
 *   | Greenlet  | <- first field    |                 |
 *   | its own   |                   +--throw--> DEAD <-+ body returned
 *   +-----------+
 */
#ifndef GREEN_GREENLET_H
#define GREEN_GREENLET_H

#include <stdint.h>

#include "stack.h"
#include "status.h"

typedef struct Greenlet Greenlet;
typedef struct GreenletThread GreenletThread;

/* The body of a greenlet. `value` is what the first switch carried. Returns
** GREEN_OK and sets `*result` (it starts as NULL) to hand a value to the
** parent, or GREEN_THROWN with an error object in `*result`, which the
** parent's pending switch then returns. */
typedef int (*GreenletFn)(Greenlet *self, void *value, void **result);

typedef enum {
  GREENLET_NEW,       /* not yet started: no stack */
  GREENLET_CURRENT,   /* runs; one per thread */
  GREENLET_SUSPENDED, /* `sp` is valid */
  GREENLET_DEAD       /* its stack is given back, or about to be */
} GreenletState;

struct Greenlet {
  void *sp;               /* the suspended context; valid when SUSPENDED */
  char *stack;            /* its slot; NULL when NEW, DEAD or main */
  Greenlet *parent;       /* NULL for main only */
  GreenletThread *thread; /* the only OS thread that may touch it */
  GreenletFn fn;          /* its body */
  const char *name;       /* for messages; NULL: the id serves. Owned by the embedder */
  void *fake_stack;       /* AddressSanitizer's, while suspended; see sanitize.h */
  void *registration;     /* valgrind's, while it has a stack; ditto */
  uint32_t id;            /* 1 is the thread's main greenlet */
  uint8_t state;          /* GreenletState */
};

/* Called on the origin's stack just before each switch. `thrown` says whether
** an error is carried. `origin` is DEAD when the switch is its end. It may
** change parents, kill NEW greenlets and even switch: the target is looked for
** again afterwards, and no switch is traced while the tracer runs. It turns
** itself off by clearing `tracer`. */
typedef void (*GreenletTracer)(void *arg, int thrown, Greenlet *origin, Greenlet *target);

struct GreenletThread {
  Greenlet *current;
  Greenlet *main;
  Greenlet *dying;     /* died in the last switch; its stack is given back on arrival */
  Greenlet *successor; /* who follows the body that is about to return; NULL: its parent */
  void *value;         /* the transfer under way */
  int status;          /* ditto: GREEN_OK, GREEN_THROWN, or another code without a value */
  uint32_t next_id;
  GreenletTracer tracer; /* NULL: none */
  void *tracer_arg;
  Greenlet *tracing;    /* in whom the tracer runs now; NULL: in nobody */
  const void *main_low; /* the thread's own stack; set only for AddressSanitizer */
  size_t main_size;
  StackPool stacks;
};

/* This OS thread's greenlets, or NULL before greenlet_thread_init. */
GreenletThread *greenlet_thread(void);

/* Makes the calling OS thread's stack the main greenlet `main` of `t`.
** Returns 0, or -EEXIST when the thread has one already. */
int greenlet_thread_init(GreenletThread *t, Greenlet *main);

/* Ends what greenlet_thread_init began: called on main, gives all stacks back
** to the system. Greenlets that still live are forgotten, not unwound. */
void greenlet_thread_close(GreenletThread *t);

/* Makes `g` a NEW greenlet of the calling thread; the memory is the caller's. */
void greenlet_init(Greenlet *g, Greenlet *parent, GreenletFn fn);

/* Takes the stack that the first switch to the NEW `g` needs, so that that
** switch cannot fail. Returns 0, or -ENOMEM (and `g` stays NEW). */
int greenlet_prepare(Greenlet *g);

/* Switches to `to`, carrying `value` and `status` (GREEN_OK, or GREEN_THROWN
** with an error object in `value`, or another negative code). A NEW greenlet
** is started with the value; if something is thrown into it, it dies without
** running and what was thrown goes on to its parent. A DEAD one stands for its
** nearest living ancestor. Returns when somebody switches back: the status
** that came, and in `*result` (if not NULL) the value.
** Errors, without any switch: GREEN_FOREIGN, -ENOMEM. */
int greenlet_switch(Greenlet *to, int status, void *value, void **result);

/* Ends the current greenlet and goes on with `next` (as greenlet_switch would),
** from deep inside. A body that can return sets `successor` and returns: that
** is faster, see context.h. */
_Noreturn void greenlet_exit(Greenlet *next, int status, void *value);

/* Marks a NEW greenlet dead without running it. */
void greenlet_discard(Greenlet *g);

/* Gives `g` another parent. Returns 0, GREEN_CYCLE, GREEN_FOREIGN, or -EINVAL
** for main, which can have none. On error nothing has changed. */
int greenlet_set_parent(Greenlet *g, Greenlet *parent);

/* Makes LeakSanitizer take what parked greenlets refer to as used. To be called
** at exit, before its check; empty without it (D23). */
void greenlet_lsan_roots(GreenletThread *t);

/* Has a stack overflow reported by name instead of dying of a bare SIGSEGV
** (T53): "greenlua: stack overflow in greenlet 'NAME' (id N)" on stderr, then
** the process dies of the signal as before, its core intact. Each OS thread
** calls it for an alternate signal stack of its own; the handler is installed
** only where nobody has installed another. _remove gives the calling thread's
** alternate stack back. */
void stack_overflow_handler_install(void);
void stack_overflow_handler_remove(void);

static inline Greenlet *greenlet_current(GreenletThread *t) { return t->current; }

#endif
