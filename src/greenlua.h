/*
 * greenlua's C interface: green threads for C programs, with no Lua at all, and
 * for C modules that run in the host.
 *
 * A greenlet has a C stack of its own and runs until it waits; then another
 * one runs. Raw greenlets (green_new) hand control to each other by
 * green_switch; spawned ones (green_spawn) are scheduled by the hub, which runs
 * the event loop. One hub per OS thread; a greenlet belongs to the thread that
 * made it, and only green_wake may be called from another.
 *
 * What can wait takes a deadline: an absolute time from green_deadline, or
 * GREEN_NEVER. It returns 0 or more, or a negative code: -errno, or one of
 * those below; green_strerror tells each in words.
 */
#ifndef GREENLUA_H
#define GREENLUA_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GREEN_API __attribute__((visibility("default")))

typedef struct Greenlet Greenlet;

#define GREEN_NEVER 1e300 /* a deadline that does not come */

#ifndef GREEN_STATUS_H
enum {
  GREEN_OK = 0,
  GREEN_TIMEDOUT = -10001,  /* the deadline passed first */
  GREEN_CANCELLED = -10002, /* green_kill: every wait says so from now on; clean up and return */
  GREEN_DEADLOCK = -10006,  /* nothing can ever end this wait */
  GREEN_NOWAIT = -10007,    /* waiting is forbidden here: a callback of the hub */
  GREEN_BADSWITCH = -10008, /* somebody switched into this greenlet while it waited */
  GREEN_THROWN = -10009,    /* green_throw: the error is in *result */
  GREEN_FOREIGN = -10010    /* the greenlet belongs to another OS thread */
};
#endif

enum { GREEN_READ = 1, GREEN_WRITE = 2 };

/* ---- life ---- */

/* Makes the calling thread's hub; its stack becomes the main greenlet. Returns
** 0, or -EEXIST when there is one: in the host there always is. */
GREEN_API int green_init(void);

/* Ends what green_init made, on the main greenlet. Greenlets that still live
** are forgotten, not unwound: join or kill them first. */
GREEN_API void green_close(void);

/* ---- greenlets ---- */

/* Starts `fn(arg)` in a greenlet of its own; it runs when the caller next
** waits. The caller owns the handle and gives it back with green_release.
** NULL: no memory, or no hub of green_init in this thread. */
GREEN_API Greenlet *green_spawn(void (*fn)(void *arg), void *arg);

/* A raw greenlet, not started: the first green_switch starts
** `fn(arg, value, &result)`. What it returns, GREEN_OK with a value in *result
** or GREEN_THROWN with an error, is what its parent's green_switch returns; the
** parent is the greenlet that called green_new. Ownership as above. */
GREEN_API Greenlet *green_new(int (*fn)(void *arg, void *value, void **result), void *arg);

/* Gives the handle back. A greenlet that has not ended goes on. A raw one that
** was never started is gone. */
GREEN_API void green_release(Greenlet *g);

/* Switches to `g` with a value; returns when somebody switches back, with their
** value in *result (`result` may be NULL). A dead greenlet stands for its
** nearest living ancestor. Errors: GREEN_FOREIGN, -ENOMEM, GREEN_CANCELLED when
** it comes back because of green_kill, and what is thrown. */
GREEN_API int green_switch(Greenlet *g, void *value, void **result);

/* Switches to `g` and lets its green_switch return GREEN_THROWN with `error`.
** An unstarted one dies without having run, and its parent is told, unless it
** is a spawned one: it has no parent that listens. */
GREEN_API int green_throw(Greenlet *g, void *error, void **result);

/* The greenlet that runs. Never NULL where there is a hub. */
GREEN_API Greenlet *green_current(void);

/* Has it ended? */
GREEN_API int green_dead(const Greenlet *g);

/* A name for messages; the string must live as long as the greenlet. */
GREEN_API void green_set_name(Greenlet *g, const char *name);

/* Every wait of `g`, the present one first, returns GREEN_CANCELLED from now
** on. One that has not run yet never will. */
GREEN_API void green_kill(Greenlet *g);

/* ---- waiting ---- */

/* The deadline `seconds` from now. */
GREEN_API double green_deadline(double seconds);

/* Waits until `g` has ended. */
GREEN_API int green_join(Greenlet *g, double deadline);

/* Waits until `until`. */
GREEN_API int green_sleep(double until);

/* Lets every other ready greenlet run once. */
GREEN_API int green_yield(void);

/* Waits until the descriptor is ready for one of `events`. Returns those that
** it is ready for. */
GREEN_API int green_wait_fd(int fd, int events, double deadline);

/* Waits until the child has ended, and reaps it; *status as waitpid(2). */
GREEN_API int green_wait_child(pid_t pid, int *status, double deadline);

/* Waits for green_ready or green_wake. `what` names the wait in reports. */
GREEN_API int green_park(const char *what, double deadline);

/* Lets the green_park of `g` return `code`. Nothing happens if it does not wait. */
GREEN_API void green_ready(Greenlet *g, int code);

/* The same with GREEN_OK, from any thread. While a wait depends on another
** thread, hold the loop with green_hold(1), and let go with green_hold(-1):
** else it counts as a deadlock. */
GREEN_API void green_wake(Greenlet *g);
GREEN_API void green_hold(int delta);

/* A code in words; static storage. */
GREEN_API const char *green_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
