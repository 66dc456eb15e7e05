/*
 * Stacks: slots of 137 pages in large reservations of address space (D2).
 *
 *   low address                                                    high address
 *   | guard, 9 pages | usable stack, 128 pages = 512 KiB <- top - colour | owner |
 *
 * The stride is an odd number of pages and the tops are coloured, else a
 * thousand stacks share TLB and cache sets. Only touched pages cost memory.
 * Free slots are reused last-in first-out; above a high-water mark of free
 * ones their pages are given back to the system. Knows nothing of greenlets.
 */
#ifndef GREEN_STACK_H
#define GREEN_STACK_H

#include <stddef.h>

#include "sanitized.h"

#define STACK_PAGE 4096
#define STACK_GUARD_PAGES 9
#define STACK_PAGES (128 * SANITIZE_FRAMES) /* redzones: eight times as much, and still an odd stride */
#define STACK_SLOT_PAGES (STACK_GUARD_PAGES + STACK_PAGES)

typedef enum {
  STACK_GUARD_UNKNOWN, /* not probed yet */
  STACK_GUARD_MADVISE, /* MADV_GUARD_INSTALL, Linux 6.13+: does not split the mapping */
  STACK_GUARD_MPROTECT /* the fallback: two mappings a slot */
} StackGuard;

typedef struct StackRegion StackRegion;

typedef struct StackPool {
  StackRegion *regions; /* all reservations, newest first */
  char **free;          /* free slots: warm ones from the start, trimmed ones from the end */
  size_t nslots;        /* slots in all regions; `free` has room for so many */
  size_t nwarm;         /* free slots whose pages are kept */
  size_t nfree;         /* free slots, trimmed ones included; never used ones are not counted */
  size_t nlive;         /* slots handed out */
  size_t max_free;      /* so many warm ones are kept; above, a slot given back is trimmed */
} StackPool;

void stack_pool_init(StackPool *pool);

/* Returns every reservation to the system, slots in use included. */
void stack_pool_close(StackPool *pool);

/* Takes a slot with its guard in place. Returns its handle (its lowest
** address, the guard's), or NULL: no address space, or no mapping left for a
** guard; stack_last_error tells which. */
char *stack_get(StackPool *pool);

/* Gives a slot back. Its memory may be trimmed at once. */
void stack_put(StackPool *pool, char *slot);

/* The usable part of a slot: lowest address, and coloured top. */
char *stack_low(char *slot);
char *stack_top(char *slot);

/* A word above the top that belongs to whoever has the slot; NULL in a slot
** that was just taken. */
void **stack_owner(char *slot);

/* Calls `fn` for each slot that has an owner. */
void stack_each_owner(const StackPool *pool, void (*fn)(char *slot, void *owner));

/* Does `addr` lie in a guard of this pool's slots? Async-signal-safe. Returns
** the slot, or NULL. */
char *stack_guard_hit(const StackPool *pool, const void *addr);

/* Which kind of guard this process uses. The first call probes: old kernels
** answer EINVAL, and qemu-user answers 0 and guards nothing.
** GREENLUA_GUARD=mprotect in the environment forces the fallback. */
StackGuard stack_guard_kind(void);

/* What to tell the user after stack_get returned NULL; static storage. */
const char *stack_last_error(void);

#endif
