/*
 * Between hub.c and loop.c: the loop's turns, and what they ask of the hub.
 */
#ifndef GREEN_LOOP_H
#define GREEN_LOOP_H

#include "hub.h"

/* Makes the libev loop and the hub's own watchers. False: no memory. */
bool loop_open(Hub *hub);

/* The body of the hub's greenlet: runs the loop, for ever. */
int loop_body(Greenlet *g, void *value, void **result);

/* Chooses who runs next: the one place that does. The first ready task, or the
** hub's own when none is ready or the slice is over. */
Task *hub_next(Hub *hub);

/* CLOCK_MONOTONIC now. */
Deadline hub_clock(void);

#endif
