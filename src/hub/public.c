/*
 * greenlua.h: greenlets of C programs, over the hub. May use core and hub.
 *
 * The only mutable global is `this_world`, owned by green_init and green_close.
 */
#include <errno.h>
#include <stdlib.h>

#include "hub.h"
#include "wait.h"

#include "../greenlua.h" /* after status.h, whose codes it then leaves out */

/* A greenlet made here. It has two owners, the caller until green_release and
** itself until its end; the second to leave frees it. */
typedef struct Handle {
  Task task; /* first */
  void (*body)(void *arg);
  int (*raw_body)(void *arg, void *value, void **result);
  void *arg;
  HubCall burial; /* frees it when its own stack is no longer in use */
  bool released;  /* the caller has left */
} Handle;

typedef struct World {
  Hub hub; /* first */
  Task main, self;
} World;

static _Thread_local World *this_world;

/* ---- life ---- */

int green_init(void) {
  if (hub_current()) return -EEXIST;
  World *w = calloc(1, sizeof *w);
  if (!w) return -ENOMEM;
  int code = hub_init(&w->hub, &w->self, &w->main);
  if (code < 0)
    free(w);
  else
    this_world = w;
  return code;
}

void green_close(void) {
  if (!this_world) return;
  hub_close(&this_world->hub);
  free(this_world);
  this_world = NULL;
}

/* ---- greenlets ---- */

static void bury(HubCall *call) { free((char *)call - offsetof(Handle, burial)); }

static Handle *new_handle(void *arg) {
  Handle *h = this_world ? malloc(sizeof *h) : NULL;
  if (!h) return NULL;
  h->body = NULL;
  h->raw_body = NULL;
  h->arg = arg;
  h->burial = (HubCall){.fn = bury};
  h->released = false;
  return h;
}

/* The greenlet's own leaving, on its own stack, which is in use until the next
** greenlet has been reached. */
static void leave(Handle *h) {
  if (h->released) hub_call_soon(h->task.hub, &h->burial);
}

static void run_spawned(Task *t) {
  Handle *h = (Handle *)t;
  h->body(h->arg);
  leave(h);
}

static int run_raw(Greenlet *g, void *value, void **result) {
  Handle *h = (Handle *)g;
  task_begin(&h->task);
  int status = h->raw_body(h->arg, value, result);
  task_end(&h->task);
  leave(h);
  return status;
}

Greenlet *green_spawn(void (*fn)(void *arg), void *arg) {
  Handle *h = new_handle(arg);
  if (!h) return NULL;
  h->body = fn;
  task_init_spawned(&h->task, &this_world->hub, run_spawned);
  hub_spawn(&h->task);
  return &h->task.g;
}

Greenlet *green_new(int (*fn)(void *arg, void *value, void **result), void *arg) {
  Handle *h = new_handle(arg);
  if (!h) return NULL;
  h->raw_body = fn;
  task_init(&h->task, &this_world->hub, &hub_running(&this_world->hub)->g, run_raw);
  return &h->task.g;
}

void green_release(Greenlet *g) {
  Handle *h = (Handle *)g;
  h->released = true;
  if (g->state == GREENLET_NEW && !h->task.spawned) greenlet_discard(g);
  if (g->state == GREENLET_DEAD) free(h);
}

int green_switch(Greenlet *g, void *value, void **result) {
  return greenlet_switch(g, GREEN_OK, value, result);
}

int green_throw(Greenlet *g, void *error, void **result) {
  return greenlet_switch(g, GREEN_THROWN, error, result);
}

Greenlet *green_current(void) { return &hub_running(hub_current())->g; }

int green_dead(const Greenlet *g) { return g->state == GREENLET_DEAD; }

void green_set_name(Greenlet *g, const char *name) { g->name = name; }

void green_kill(Greenlet *g) {
  Task *t = (Task *)g;
  if (g->state == GREENLET_DEAD) return;
  if (g->state != GREENLET_NEW) {
    hub_cancel(t);
    return;
  }
  greenlet_discard(g);
  task_end(t);
}

/* ---- waiting ---- */

double green_deadline(double seconds) { return hub_deadline(hub_current(), seconds); }

int green_join(Greenlet *g, double deadline) {
  return hub_join_task(hub_current(), (Task *)g, deadline);
}

int green_sleep(double until) { return hub_sleep(hub_current(), until); }

int green_yield(void) { return hub_yield(hub_current()); }

int green_wait_fd(int fd, int events, double deadline) {
  return wait_fd(hub_current(), fd, events, deadline);
}

int green_wait_child(pid_t pid, int *status, double deadline) {
  return wait_child(hub_current(), pid, status, deadline);
}

int green_park(const char *what, double deadline) { return hub_park(hub_current(), what, deadline); }

void green_ready(Greenlet *g, int code) { hub_ready((Task *)g, code); }

void green_wake(Greenlet *g) { hub_wake(((Task *)g)->hub, (Task *)g); }

void green_hold(int delta) { hub_hold(hub_current(), delta); }

const char *green_strerror(int code) { return status_text(code); }
