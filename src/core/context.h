/*
 * The machine's part of a switch: save what the ABI says a called function
 * must preserve, load the other side's. Knows nothing of greenlets.
 *
 * A suspended context is one pointer into its own stack, where everything it
 * needs to go on is saved. Exactly one of context_x86_64.S and
 * context_ucontext.c is linked (`make CONTEXT=ucontext` picks the second).
 */
#ifndef GREEN_CONTEXT_H
#define GREEN_CONTEXT_H

/* Suspends the caller, whose context is stored in `*save`, and calls
** `entry(arg)` on the stack [low, top), aligned as the ABI wants. What `entry`
** returns is the context to go on with; its own is over then. Returns when
** somebody switches to what was saved. The new context inherits the caller's
** control words, as a POSIX thread does (pthread_create(3)).
**
** (A processor predicts returns by a stack of its own. A call that begins a
** context and a return that ends it keep that in step; switches away from deep
** inside would have every later return mispredicted.) */
void context_start(void **save, void *low, void *top, void *(*entry)(void *arg), void *arg);

/* Suspends the caller, whose context is stored in `*save`, and goes on with
** `load`. Returns when somebody switches to what was saved. The control words
** of x87 and SSE go with the context (D10); errno is the caller's business. */
void context_switch(void **save, void *load);

#endif
