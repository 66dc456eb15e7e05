/*
 * Slots for stacks, their guards and their reuse. Uses the system calls only.
 *
 * State of the process: `guard_kind`, probed once, and `last_error`, the
 * thread's.
 */
#define _GNU_SOURCE
#include "stack.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sanitize.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13, include/uapi/asm-generic/mman-common.h */
#endif

#define GUARD_BYTES ((size_t)STACK_GUARD_PAGES * STACK_PAGE)
#define SLOT_BYTES ((size_t)STACK_SLOT_PAGES * STACK_PAGE)

/* The owner's word has a cache line of its own, so that tops stay aligned. */
#define OWNER_BYTES 64
#define COLOURS 16
#define COLOUR_BYTES 64

/* Reservations double from the first size up to the last: a program of ten
** greenlets reserves 9 MB of address space, one of 100,000 makes 32 mappings. */
#define FIRST_SLOTS 16
#define LAST_SLOTS 4096

/* About 4 MiB of warm stacks at one to four pages each. */
#define DEFAULT_MAX_FREE 256

struct StackRegion {
  StackRegion *next;
  char *base; /* the first slot */
  size_t nslots;
  atomic_size_t nused; /* slots taken at least once; the others have no guard yet. Read by a
                         ** signal handler, hence atomic */
};

static atomic_int guard_kind = STACK_GUARD_UNKNOWN;
static _Thread_local const char *last_error = "no error";

/* ---- guards ---- */

/* Does a guard made by MADV_GUARD_INSTALL guard? Asked by having the kernel
** write into it: EFAULT where it does. Neither a child nor a signal handler is
** needed, so this costs microseconds and disturbs no process; and under
** qemu-user, which passes the address of a guest's buffer to the real kernel
** but ignores the advice, the write succeeds and the answer is no. The bare
** system call, as newer C libraries fill the buffer themselves (vDSO). */
static int madvise_guards(void) {
  char *page = mmap(NULL, STACK_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return 0;
  int guards = madvise(page, STACK_PAGE, MADV_GUARD_INSTALL) == 0 &&
               syscall(SYS_getrandom, page, (size_t)1, GRND_NONBLOCK) == -1 && errno == EFAULT;
  munmap(page, STACK_PAGE);
  return guards;
}

StackGuard stack_guard_kind(void) {
  int kind = atomic_load_explicit(&guard_kind, memory_order_relaxed);
  if (kind == STACK_GUARD_UNKNOWN) {
    const char *forced = secure_getenv("GREENLUA_GUARD");
    int fallback = (forced != NULL && strcmp(forced, "mprotect") == 0) || !madvise_guards();
    kind = fallback ? STACK_GUARD_MPROTECT : STACK_GUARD_MADVISE;
    atomic_store_explicit(&guard_kind, kind, memory_order_relaxed);
  }
  return (StackGuard)kind;
}

/* Returns 0, or -1 with last_error set. A locked mapping (mlockall(2)) refuses
** MADV_GUARD_INSTALL even where the probe found it good: then mprotect too. */
static int install_guard(char *slot) {
  if (stack_guard_kind() == STACK_GUARD_MADVISE && madvise(slot, GUARD_BYTES, MADV_GUARD_INSTALL) == 0)
    return 0;
  if (mprotect(slot, GUARD_BYTES, PROT_NONE) == 0) return 0;
  last_error =
      "no memory mapping left for a stack guard; raise vm.max_map_count "
      "(sysctl vm.max_map_count)";
  return -1;
}

/* ---- regions ---- */

static StackRegion *reserve(size_t nslots) {
  StackRegion *r = malloc(sizeof *r);
  if (r == NULL) return NULL;
  char *base = mmap(NULL, nslots * SLOT_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (base == MAP_FAILED) {
    free(r);
    return NULL;
  }
  /* A huge page would make one touched page cost 2 MiB. EINVAL, where the
  ** kernel has no huge pages, is as good. */
  madvise(base, nslots * SLOT_BYTES, MADV_NOHUGEPAGE);
  r->base = base;
  r->nslots = nslots;
  atomic_init(&r->nused, 0);
  return r;
}

/* Adds a region; where address space is scarce (RLIMIT_AS,
** vm.overcommit_memory = 2) a smaller one. */
static int grow(StackPool *pool) {
  size_t want = pool->nslots < FIRST_SLOTS ? FIRST_SLOTS : pool->nslots;
  if (want > LAST_SLOTS) want = LAST_SLOTS;
  char **list = realloc(pool->free, (pool->nslots + want) * sizeof *list);
  if (list == NULL) goto fail;
  pool->free = list;
  StackRegion *r = reserve(want);
  while (r == NULL && (want /= 2) > 0) r = reserve(want);
  if (r == NULL) goto fail;
  r->next = pool->regions;
  pool->nslots += want;
  atomic_signal_fence(memory_order_release); /* the handler walks whole regions only */
  pool->regions = r;
  return 0;
fail:
  last_error = "no address space left for a stack (ulimit -v, vm.overcommit_memory)";
  return -1;
}

/* A slot that nobody has had yet, or NULL. */
static char *fresh_slot(StackPool *pool) {
  StackRegion *r = pool->regions;
  if ((r == NULL || atomic_load_explicit(&r->nused, memory_order_relaxed) == r->nslots)) {
    if (grow(pool) < 0) return NULL;
    r = pool->regions;
  }
  size_t i = atomic_load_explicit(&r->nused, memory_order_relaxed);
  char *slot = r->base + i * SLOT_BYTES;
  if (install_guard(slot) < 0) return NULL;
  atomic_store_explicit(&r->nused, i + 1, memory_order_release);
  return slot;
}

/* ---- the pool ---- */

void stack_pool_init(StackPool *pool) {
  memset(pool, 0, sizeof *pool);
  pool->max_free = DEFAULT_MAX_FREE;
}

void stack_pool_close(StackPool *pool) {
  StackRegion *r = pool->regions;
  pool->regions = NULL;
  while (r != NULL) {
    StackRegion *next = r->next;
    sanitize_reuse(r->base, r->nslots * SLOT_BYTES);
    munmap(r->base, r->nslots * SLOT_BYTES);
    free(r);
    r = next;
  }
  free(pool->free);
  stack_pool_init(pool);
}

char *stack_get(StackPool *pool) {
  char *slot;
  if (pool->nwarm > 0) {
    slot = pool->free[--pool->nwarm];
    pool->nfree--;
  } else if (pool->nfree > 0) {
    slot = pool->free[pool->nslots - pool->nfree];
    pool->nfree--;
  } else {
    slot = fresh_slot(pool);
    if (slot == NULL) return NULL;
  }
  pool->nlive++;
  sanitize_reuse(stack_low(slot), SLOT_BYTES - GUARD_BYTES);
  return slot;
}

/* Warm slots grow from the start of the list and trimmed ones from its end, so
** that a pool at its mark reuses warm ones instead of trimming and faulting in
** turns. The list cannot overflow: it has room for all slots. */
void stack_put(StackPool *pool, char *slot) {
  assert(pool->nlive > 0 && pool->nfree < pool->nslots);
  *stack_owner(slot) = NULL;
  pool->nlive--;
  if (pool->nwarm < pool->max_free) {
    pool->free[pool->nwarm++] = slot;
  } else {
    madvise(stack_low(slot), SLOT_BYTES - GUARD_BYTES, MADV_DONTNEED);
    size_t ncold = pool->nfree - pool->nwarm;
    pool->free[pool->nslots - 1 - ncold] = slot;
  }
  pool->nfree++;
}

char *stack_low(char *slot) { return slot + GUARD_BYTES; }

/* Neighbours differ by one in this quotient, wherever their region begins. */
char *stack_top(char *slot) {
  size_t colour = (uintptr_t)slot / SLOT_BYTES % COLOURS;
  return slot + SLOT_BYTES - OWNER_BYTES - colour * COLOUR_BYTES;
}

void **stack_owner(char *slot) { return (void **)(slot + SLOT_BYTES - OWNER_BYTES); }

void stack_each_owner(const StackPool *pool, void (*fn)(char *slot, void *owner)) {
  for (StackRegion *r = pool->regions; r != NULL; r = r->next) {
    for (size_t i = 0; i < r->nused; i++) {
      char *slot = r->base + i * SLOT_BYTES;
      void *owner = *stack_owner(slot);
      if (owner != NULL) fn(slot, owner);
    }
  }
}

char *stack_guard_hit(const StackPool *pool, const void *addr) {
  uintptr_t a = (uintptr_t)addr;
  for (const StackRegion *r = pool->regions; r != NULL; r = r->next) {
    uintptr_t base = (uintptr_t)r->base;
    if (a < base || a - base >= r->nused * SLOT_BYTES) continue;
    size_t offset = a - base;
    return offset % SLOT_BYTES < GUARD_BYTES ? r->base + offset / SLOT_BYTES * SLOT_BYTES : NULL;
  }
  return NULL;
}

const char *stack_last_error(void) { return last_error; }
