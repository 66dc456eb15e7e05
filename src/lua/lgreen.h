/*
 * The openers of the binding files. Each pushes one table, its module; all are
 * called by luaopen_green_core, in this order.
 */
#ifndef GREEN_LGREEN_H
#define GREEN_LGREEN_H

#include <lua.h>

int lgreenlet_open(lua_State *L); /* core.greenlet: raw greenlets, tasks, cancellation */
int lhub_open(lua_State *L);      /* core.hub: sleep, yield, wait, loop watchers */
int ldns_open(lua_State *L);      /* core.dns: the resolver */
int lsocket_open(lua_State *L);   /* core.socket: TCP */
int lhttp_open(lua_State *L);     /* core.http: one transfer; policy is lua/green/http.lua */

/* The C part of the modules, one table of the five: `require "green.core"`.
** Makes the calling thread's hub, of which the running state's main thread is
** the main greenlet. */
int luaopen_green_core(lua_State *L);

#endif
