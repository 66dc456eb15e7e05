/* Tests of src/core/stack.c, also of the guards, by children that fault. */
#define _GNU_SOURCE
#include "../../src/core/stack.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../../src/core/sanitize.h"
#include "test.h"

#define USABLE ((size_t)STACK_PAGES * STACK_PAGE)
#define GUARD ((size_t)STACK_GUARD_PAGES * STACK_PAGE)
#define MANY 10000

static StackPool pool;
static char *slots[MANY];

/* Memory of [p, p + size) that is resident, in pages. */
static size_t resident(char *p, size_t size) {
  static unsigned char pages[STACK_SLOT_PAGES];
  size_t n = 0;
  CHECK_INT(mincore(p, size, pages), 0);
  for (size_t i = 0; i < size / STACK_PAGE; i++) n += pages[i] & 1;
  return n;
}

static void whole_slot_is_usable(void) {
  stack_pool_init(&pool);
  char *slot = stack_get(&pool);
  CHECK(slot != NULL);
  CHECK_INT(stack_low(slot) - slot, GUARD);
  CHECK((size_t)(stack_top(slot) - stack_low(slot)) > USABLE - 2048);
  CHECK_INT((uintptr_t)stack_top(slot) % 64, 0);
  memset(stack_low(slot), 1, (size_t)(stack_top(slot) - stack_low(slot)));
  CHECK(*stack_owner(slot) == NULL);
  CHECK_INT(pool.nlive, 1);
  stack_put(&pool, slot);
  CHECK_INT(pool.nlive, 0);
  CHECK_INT(pool.nfree, 1);
  stack_pool_close(&pool);
}

static void tops_are_coloured(void) {
  stack_pool_init(&pool);
  int seen[16] = {0}, colours = 0;
  for (int i = 0; i < 16; i++) {
    slots[i] = stack_get(&pool);
    size_t set = (uintptr_t)stack_top(slots[i]) / 64 % 16;
    colours += !seen[set]++;
  }
  CHECK_INT(colours, 16);
  stack_pool_close(&pool);
}

static void last_in_first_out(void) {
  stack_pool_init(&pool);
  char *a = stack_get(&pool), *b = stack_get(&pool);
  stack_put(&pool, a);
  stack_put(&pool, b);
  CHECK(stack_get(&pool) == b);
  CHECK(stack_get(&pool) == a);
  CHECK_INT(pool.nfree, 0);
  stack_pool_close(&pool);
}

static void trims_above_the_mark(void) {
  stack_pool_init(&pool);
  pool.max_free = 2;
  for (int i = 0; i < 5; i++) {
    slots[i] = stack_get(&pool);
    memset(stack_low(slots[i]), 1, USABLE / 2);
  }
  for (int i = 0; i < 5; i++) stack_put(&pool, slots[i]);
  CHECK_INT(pool.nfree, 5);
  CHECK(resident(stack_low(slots[0]), USABLE) >= STACK_PAGES / 2);
  CHECK(resident(stack_low(slots[1]), USABLE) >= STACK_PAGES / 2);
  for (int i = 2; i < 5; i++) CHECK_INT(resident(stack_low(slots[i]), USABLE), 0);
  CHECK(stack_get(&pool) == slots[1]); /* warm ones first */
  CHECK(stack_get(&pool) == slots[0]);
  CHECK(stack_get(&pool) == slots[4]);
  CHECK(stack_get(&pool) == slots[3]);
  CHECK(stack_get(&pool) == slots[2]);
  CHECK_INT(pool.nlive, 5);
  stack_pool_close(&pool);
}

static void many_without_overlap(void) {
  stack_pool_init(&pool);
  for (int i = 0; i < MANY; i++) {
    slots[i] = stack_get(&pool);
    CHECK(slots[i] != NULL);
    *(int *)stack_low(slots[i]) = i;
    *stack_owner(slots[i]) = &slots[i];
  }
  CHECK_INT(pool.nlive, MANY);
  for (int i = 0; i < MANY; i++) {
    CHECK_INT(*(int *)stack_low(slots[i]), i);
    CHECK(*stack_owner(slots[i]) == &slots[i]);
    CHECK(stack_guard_hit(&pool, slots[i]) == slots[i]);
  }
  for (int i = 0; i < MANY; i++) stack_put(&pool, slots[i]);
  CHECK_INT(pool.nfree, MANY);
  for (int i = 0; i < MANY; i++) CHECK(stack_get(&pool) != NULL && pool.nslots < 3 * MANY);
  stack_pool_close(&pool);
}

static int owners;

static void count_owner(char *slot, void *owner) {
  CHECK(*stack_owner(slot) == owner);
  owners++;
}

static void walks_owned_slots(void) {
  stack_pool_init(&pool);
  for (int i = 0; i < 20; i++) {
    slots[i] = stack_get(&pool);
    *stack_owner(slots[i]) = &pool;
  }
  stack_put(&pool, slots[7]);
  owners = 0;
  stack_each_owner(&pool, count_owner);
  CHECK_INT(owners, 19);
  stack_pool_close(&pool);
}

static void guard_hit_knows_guards(void) {
  stack_pool_init(&pool);
  CHECK(stack_guard_hit(&pool, &pool) == NULL);
  char *slot = stack_get(&pool);
  CHECK(stack_guard_hit(&pool, slot) == slot);
  CHECK(stack_guard_hit(&pool, slot + GUARD - 1) == slot);
  CHECK(stack_guard_hit(&pool, slot + GUARD) == NULL);
  CHECK(stack_guard_hit(&pool, slot - 1) == NULL);
  CHECK(stack_guard_hit(&pool, slot + (size_t)STACK_SLOT_PAGES * STACK_PAGE) == NULL); /* unused */
  CHECK(stack_guard_hit(&pool, NULL) == NULL);
  stack_pool_close(&pool);
}

static void touch_guard_ends(void) {
  signal(SIGSEGV, SIG_DFL); /* AddressSanitizer's handler would exit instead */
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  stack_pool_init(&pool);
  volatile char *slot = stack_get(&pool);
  volatile char *again;
  slot[GUARD] = 1;
  stack_put(&pool, (char *)slot);
  pool.max_free = 0; /* trimming must not take the guard away */
  again = stack_get(&pool);
  stack_put(&pool, (char *)again);
  again = stack_get(&pool);
  again[GUARD] = 1;
  if (getenv("TOUCH_LOW") != NULL)
    again[0] = 1;
  else
    again[GUARD - 1] = 1;
}

static void guards_fault(void) {
  char err[256];
  int status = test_child(touch_guard_ends, err, sizeof err);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  setenv("TOUCH_LOW", "1", 1);
  status = test_child(touch_guard_ends, err, sizeof err);
  unsetenv("TOUCH_LOW");
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* The kind of guard is chosen once for a process, so the fallback is tried by
** running this program anew with the name of a part. */
static void exec_part(const char *part) {
  setenv("GREENLUA_GUARD", "mprotect", 1);
  test_exec_self(part);
}

static void exec_kind(void) { exec_part("kind"); }
static void exec_touch(void) { exec_part("touch"); }
static void exec_use_up(void) { exec_part("use up"); }

static int use_up_mappings(void) {
  stack_pool_init(&pool);
  int n = 0;
  while (n < 200000 && stack_get(&pool) != NULL) n++;
  stack_pool_close(&pool); /* what runs at exit needs mappings too */
  fprintf(stderr, "%d %s", n, stack_last_error());
  return 0;
}

static int run_part(const char *part) {
  if (strcmp(part, "kind") == 0) return stack_guard_kind() == STACK_GUARD_MPROTECT ? 0 : 3;
  if (strcmp(part, "use up") == 0) return use_up_mappings();
  touch_guard_ends();
  return 4;
}

static void fallback_guards(void) {
  char err[256];
  int status = test_child(exec_kind, err, sizeof err);
  CHECK_INT(WEXITSTATUS(status), 0);
  status = test_child(exec_touch, err, sizeof err);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static long max_map_count(void) {
  long n = 0;
  FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
  if (f == NULL || fscanf(f, "%ld", &n) != 1) n = 0;
  if (f != NULL) fclose(f);
  return n;
}

static void fallback_runs_out_loudly(void) {
  char err[256];
  int status = test_child(exec_use_up, err, sizeof err);
  CHECK(WIFEXITED(status));
  CHECK_INT(WEXITSTATUS(status), 0);
  CHECK(strstr(err, "raise vm.max_map_count") != NULL);
  CHECK(atoi(err) > 1000);
}

#ifndef SANITIZE_ADDRESS
static void use_up_address_space(void) {
  struct rlimit limit = {100 << 20, 100 << 20};
  setrlimit(RLIMIT_AS, &limit);
  stack_pool_init(&pool);
  int n = 0;
  while (n < 1000 && stack_get(&pool) != NULL) n++;
  if (pool.nlive != (size_t)n) _exit(4);
  fprintf(stderr, "%d %s", n, stack_last_error());
}

static void address_space_runs_out_loudly(void) {
  char err[256];
  int status = test_child(use_up_address_space, err, sizeof err);
  CHECK_INT(status, 0);
  CHECK(strstr(err, "no address space left") != NULL);
  CHECK(atoi(err) > 100); /* smaller regions were tried: 180 fit into 100 MiB less the program */
}
#endif

int main(int argc, char **argv) {
  if (argc > 1) return run_part(argv[1]);
  RUN("a slot is usable between guard and top", whole_slot_is_usable);
  RUN("D2 neighbours' tops have 16 colours", tops_are_coloured);
  RUN("slots are reused last-in first-out", last_in_first_out);
  RUN("above the mark a slot's pages go back; warm slots are reused first", trims_above_the_mark);
  RUN("10,000 slots do not overlap and are all reused", many_without_overlap);
  RUN("a walk sees the slots that have an owner", walks_owned_slots);
  RUN("guard_hit knows guards from stacks and from the rest", guard_hit_knows_guards);
  RUN("T53 both ends of a guard fault, after reuse and trimming too", guards_fault);
  RUN("T53 GREENLUA_GUARD=mprotect guards as well", fallback_guards);
  if (max_map_count() > 0 && max_map_count() < 200000)
    RUN("T53 no mapping left for a guard: the error says what to raise", fallback_runs_out_loudly);
  else
    SKIP("T53 no mapping left for a guard", "vm.max_map_count is large");
#ifdef SANITIZE_ADDRESS
  SKIP("no address space left", "AddressSanitizer's shadow needs terabytes of it");
#else
  RUN("no address space left: smaller regions, then an error", address_space_runs_out_loudly);
#endif
  return test_end();
}
