/*
 * libev's watchers as objects of a script: io, timer, prepare, check, idle,
 * async, stat. Their callbacks run in the hub and must not wait.
 */
#ifndef GREEN_LWATCHER_H
#define GREEN_LWATCHER_H

#include <lua.h>

#include "../hub/hub.h"

/* Sets the constructors (`io`, `timer`, ...) in the table on L's top. */
void lwatcher_open(lua_State *L);

/* How many watchers of scripts are started. */
size_t lwatcher_count(Hub *hub);

#endif
