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

/* Prepares a context on the stack [low, top) that, when first switched to,
** calls `entry(arg)` with a stack aligned as the ABI wants. `entry` must never
** return. Returns the suspended context. */
void *context_make(void *low, void *top, void (*entry)(void *arg), void *arg);

/* Suspends the caller, whose context is stored in `*save`, and goes on with
** `load`. Returns when somebody switches to what was saved. The control words
** of x87 and SSE go with the context (D10); errno is the caller's business. */
void context_switch(void **save, void *load);

#endif
