/*
 * What the checkers must be told about stacks that they did not make: all
 * conditionals on sanitizers and valgrind are here (D23). In a plain build
 * every function is empty.
 *
 *   -fsanitize=address    switches are announced, memory of reused slots is
 *                         made addressable again, live stacks are leak roots
 *   -DGREEN_VALGRIND      stacks are registered (needs valgrind's headers)
 */
#ifndef GREEN_SANITIZE_H
#define GREEN_SANITIZE_H

#include <stddef.h>
#include <stdint.h>

#include "sanitized.h"

#ifdef SANITIZE_ADDRESS

#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#include <sys/mman.h>

/* Before a switch to the stack [low, low + size). `fake` is where to keep the
** fake stack of the one that is left; NULL when it is left for good, so that
** it is freed. */
static inline void sanitize_leave(void **fake, const void *low, size_t size) {
  __sanitizer_start_switch_fiber(fake, low, size);
}

/* After a switch, on the stack that was reached; `fake` is what it had left
** with, NULL on a new stack. */
static inline void sanitize_arrive(void *fake) { __sanitizer_finish_switch_fiber(fake, NULL, NULL); }

/* A range may be used again. To be called when a slot is taken, not when it is
** given back: the frames that give it back would poison it once more (D23).
**
** The whole pages of its shadow are dropped, and read as 0, addressable, from
** then on: writing the zeros would make half a megabyte of shadow resident for
** each slot, and cost most of the time of a test. */
static inline void sanitize_reuse(const void *p, size_t size) {
  const uintptr_t page = 4096;
  size_t scale, offset;
  __asan_get_shadow_mapping(&scale, &offset);
  uintptr_t low = (uintptr_t)p, high = low + size;
  uintptr_t from = ((low >> scale) + offset + page - 1) & ~(page - 1);
  uintptr_t to = ((high >> scale) + offset) & ~(page - 1);
  if (from >= to || madvise((void *)from, to - from, MADV_DONTNEED) != 0) {
    __asan_unpoison_memory_region(p, size);
    return;
  }
  uintptr_t first = (from - offset) << scale, last = (to - offset) << scale;
  __asan_unpoison_memory_region(p, first - low);
  __asan_unpoison_memory_region((void *)last, high - last);
}

/* What is only referred to from [p, p + size) is no leak. */
static inline void sanitize_root(const void *p, size_t size) { __lsan_register_root_region(p, size); }

/* The bounds of the calling OS thread's own stack. */
static inline void sanitize_thread_stack(const void **low, size_t *size) {
  pthread_attr_t attr;
  void *p = NULL;
  if (pthread_getattr_np(pthread_self(), &attr) != 0) return;
  pthread_attr_getstack(&attr, &p, size);
  pthread_attr_destroy(&attr);
  *low = p;
}

#else

static inline void sanitize_leave(void **fake, const void *low, size_t size) {
  (void)fake, (void)low, (void)size;
}

static inline void sanitize_arrive(void *fake) { (void)fake; }

static inline void sanitize_reuse(const void *p, size_t size) { (void)p, (void)size; }

static inline void sanitize_root(const void *p, size_t size) { (void)p, (void)size; }

static inline void sanitize_thread_stack(const void **low, size_t *size) { (void)low, (void)size; }

#endif

#if defined GREEN_VALGRIND && __has_include(<valgrind/valgrind.h>)

#include <valgrind/valgrind.h>

/* Tells valgrind of the stack [low, high). Returns what sanitize_deregister wants. */
static inline void *sanitize_register(const char *low, const char *high) {
  return (void *)(uintptr_t)VALGRIND_STACK_REGISTER(low, high - 1);
}

static inline void sanitize_deregister(void *id) { VALGRIND_STACK_DEREGISTER((unsigned)(uintptr_t)id); }

#else

static inline void *sanitize_register(const char *low, const char *high) {
  (void)low, (void)high;
  return NULL;
}

static inline void sanitize_deregister(void *id) { (void)id; }

#endif

#endif
