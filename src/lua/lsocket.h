/*
 * The record behind a socket, shared by the files that make up core.socket
 * (lsocket: life, lsockio: send and receive, lsockopt: options, timeouts,
 * addresses), and by nobody else.
 *
 * The classes are LuaSocket's: a `tcp{master}` becomes a `tcp{server}` by
 * listen and a `tcp{client}` by connect. The class is the metatable. Every
 * method is a closure over the three metatables, by which it knows a socket
 * without a look into the registry.
 */
#ifndef GREEN_LSOCKET_H
#define GREEN_LSOCKET_H

#include <lauxlib.h>
#include <lua.h>

#include "../io/stream.h"

/* Also the places of the metatables among a method's upvalues. */
enum { SOCKET_MASTER = 1, SOCKET_CLIENT = 2, SOCKET_SERVER = 3 };

typedef struct LSocket {
  Stream s;       /* first */
  double block;   /* settimeout's "b", seconds for one call; negative: none */
  double total;   /* settimeout's "t", ditto; the smaller counts */
  Deadline birth; /* of getstats' age, on the hub's clock */
  int family;     /* AF_INET or AF_INET6; AF_UNSPEC until bind or connect has chosen */
  bool closed;    /* by close() or setfd(-1); else a missing descriptor is one not made yet */
} LSocket;

/* The socket at argument 1, of the given class, or of any. Raises otherwise. */
LSocket *lsocket_check(lua_State *L, int class_);
LSocket *lsocket_check_any(lua_State *L);

/* When a call that begins now has to end, by the socket's timeouts. */
Deadline lsocket_deadline(LSocket *so);

/* As lcheck_waitable, for a call on this socket. With a timeout of 0 nothing
** waits, and the call may also be made in a callback of the hub. */
void lsocket_waitable(lua_State *L, LSocket *so, const char *fname);

/* Notes the family of its descriptor, if it has one. */
void lsocket_note_family(LSocket *so);

/* The methods of the other two files; each ends with {NULL, NULL}. */
extern const luaL_Reg lsockio_methods[];
extern const luaL_Reg lsockopt_methods[];

#endif
