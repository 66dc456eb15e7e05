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

/* An unstarted hub would die of an error that passes through it on its way from
** a greenlet to main. It has nothing to do and answers at once. */
static int start_hub(World *w) {
  int code = greenlet_switch(&w->self.g, GREEN_OK, NULL, NULL);
  return code == GREEN_DEADLOCK ? GREEN_OK : code;
}

int green_init(void) {
  if (hub_current()) return -EEXIST;
  World *w = calloc(1, sizeof *w);
  if (!w) return -ENOMEM;
  int code = hub_init(&w->hub, &w->self, &w->main);
  if (code < 0) {
    free(w);
    return code;
  }
  this_world = w;
  code = start_hub(w);
  if (code < 0) green_close();
  return code;
}

void green_close(void) {
  if (!this_world) return;
  hub_close(&this_world->hub);
  free(this_world);
  this_world = NULL;
}

/* ---- greenlets ---- */

static void free_handle(Handle *h) {
  hub_wake_cancel(h->task.hub, &h->task);
  free(h);
}

static void bury(HubCall *call) { free_handle((Handle *)((char *)call - offsetof(Handle, burial))); }

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

/* It never runs; who joins it is told. */
static void end_unstarted(Greenlet *g) {
  greenlet_discard(g);
  task_end((Task *)g);
}

void green_release(Greenlet *g) {
  Handle *h = (Handle *)g;
  h->released = true;
  if (g->state == GREENLET_NEW && !h->task.spawned) end_unstarted(g);
  if (g->state == GREENLET_DEAD) free_handle(h);
}

/* The hub runs a killed greenlet with no value. */
static int transfer(Greenlet *g, int status, void *value, void **result) {
  if (g->thread != greenlet_thread()) return GREEN_FOREIGN;
  Task *self = (Task *)g->thread->current;
  void *got = NULL;
  status = greenlet_switch(g, status, value, &got);
  if (result) *result = got;
  return status == GREEN_OK && !got && self->cancelled ? GREEN_CANCELLED : status;
}

int green_switch(Greenlet *g, void *value, void **result) { return transfer(g, GREEN_OK, value, result); }

/* The parent of a spawned one is the hub, which is not to be told anything. */
int green_throw(Greenlet *g, void *error, void **result) {
  if (g->thread != greenlet_thread()) return GREEN_FOREIGN;
  if (g->state == GREENLET_NEW) {
    end_unstarted(g);
    if (((Task *)g)->spawned) return GREEN_OK;
  }
  return transfer(g, GREEN_THROWN, error, result);
}

Greenlet *green_current(void) { return &hub_running(hub_current())->g; }

int green_dead(const Greenlet *g) { return g->state == GREENLET_DEAD; }

void green_set_name(Greenlet *g, const char *name) { g->name = name; }

void green_kill(Greenlet *g) {
  if (g->state == GREENLET_NEW)
    end_unstarted(g);
  else if (g->state != GREENLET_DEAD)
    hub_cancel((Task *)g);
}

/* ---- waiting ---- */

double green_deadline(double seconds) { return hub_deadline(hub_current(), seconds); }

int green_join(Greenlet *g, double deadline) { return hub_join_task(hub_current(), (Task *)g, deadline); }

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
