/*
 * core.socket: TCP with LuaSocket's classes, methods and results. This file has
 * constructors, connecting, listening, closing. May use io/net, the
 * resolver, lcheck and lsocket.h.
 */
#include "lsocket.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <time.h>

#include "../io/address.h"
#include "../io/net.h"
#include "lcheck.h"
#include "lgreen.h"

#define TRIES_MAX 16 /* addresses of one name that are tried */
#define BACKLOG 32   /* as LuaSocket */

static const char *const class_names[] = {NULL, "tcp{master}", "tcp{client}", "tcp{server}"};

/* ---- the object ---- */

static bool is_class(lua_State *L, int class_) { return lua_rawequal(L, -1, lua_upvalueindex(class_)); }

LSocket *lsocket_check(lua_State *L, int class_) {
  if (lua_getmetatable(L, 1)) {
    if (is_class(L, class_)) {
      lua_pop(L, 1);
      return lua_touserdata(L, 1);
    }
    lua_pop(L, 1);
  }
  luaL_typeerror(L, 1, class_names[class_]);
  return NULL;
}

/* The class of the value at 1, or 0. */
static int class_of(lua_State *L) {
  if (!lua_getmetatable(L, 1)) return 0;
  int class_ = SOCKET_SERVER;
  while (class_ > 0 && !is_class(L, class_)) class_--;
  lua_pop(L, 1);
  return class_;
}

LSocket *lsocket_check_any(lua_State *L) {
  if (class_of(L) == 0) luaL_typeerror(L, 1, "tcp{any}");
  return lua_touserdata(L, 1);
}

/* Gives the socket at `index` another class. */
static void become(lua_State *L, int index, int class_) {
  lua_pushvalue(L, lua_upvalueindex(class_));
  lua_setmetatable(L, index < 0 ? index - 1 : index);
}

/* Pushes a new socket without a descriptor. It comes before the descriptor is
** made, so that no error of Lua's can lose that. */
static LSocket *new_socket(lua_State *L, Hub *hub, int class_) {
  LSocket *so = lua_newuserdatauv(L, sizeof *so, 0);
  if (stream_init(&so->s, hub) < 0) luaL_error(L, "not enough memory");
  so->block = so->total = -1;
  so->birth = hub_now_update(hub);
  so->family = AF_UNSPEC;
  so->closed = false;
  become(L, -1, class_);
  return so;
}

Deadline lsocket_deadline(LSocket *so) {
  double seconds = so->block;
  if (seconds < 0 || (so->total >= 0 && so->total < seconds)) seconds = so->total;
  if (seconds < 0) return DEADLINE_NEVER;
  return seconds > 0 ? hub_deadline(so->s.poll.hub, seconds) : DEADLINE_NOW;
}

void lsocket_waitable(lua_State *L, LSocket *so, const char *fname) {
  if (so->block != 0 && so->total != 0) lcheck_waitable(L, fname);
}

/* Returns 1, or nil, message, code. */
static int result(lua_State *L, int code, const char *fname) {
  if (code < 0) return lcheck_fail(L, code, fname);
  lua_pushinteger(L, 1);
  return 1;
}

/* ---- hosts and ports ---- */

/* A port at `arg`: a number, also as a string, or the name of a service.
** Returns it, or GREEN_EAI_SERVICE. */
static int check_port(lua_State *L, int arg) {
  if (lua_isnumber(L, arg)) {
    int isinteger;
    lua_Integer port = lua_tointegerx(L, arg, &isinteger);
    if (!isinteger || port < 0 || port > 65535)
      luaL_argerror(L, arg, lua_pushfstring(L, "port out of range: %s", luaL_tolstring(L, arg, NULL)));
    return (int)port;
  }
  struct servent entry, *found = NULL;
  char buffer[1024];
  const char *name = luaL_checkstring(L, arg);
  getservbyname_r(name, "tcp", &entry, buffer, sizeof buffer, &found);
  return found ? ntohs((uint16_t)found->s_port) : GREEN_EAI_SERVICE;
}

/* The addresses of `host` with `port`, which may be a code of check_port's, in
** the order to try them. "*" is any address, to bind to. Returns their number
** or a code. */
static int find(LSocket *so, const char *host, int port, int family, Address *list, Deadline deadline) {
  if (port < 0) return port;
  if (family == AF_UNSPEC) family = so->family;
  if (strcmp(host, "*") == 0) host = family == AF_INET6 ? "::" : "0.0.0.0";
  int n = resolver_lookup(so->s.poll.hub, host, family, list, TRIES_MAX, deadline);
  if (n > 0 && so->closed) return GREEN_CLOSED; /* meanwhile */
  for (int i = 0; i < n; i++) address_set_port(&list[i], (unsigned)port);
  if (n > 1) net_interleave(list, n);
  return n;
}

void lsocket_note_family(LSocket *so) {
  int family = net_family(so->s.poll.fd);
  so->family = family < 0 ? AF_UNSPEC : family;
}

/* ---- connecting ---- */

static int dial(LSocket *so, const char *host, int port, int family, const Address *local,
                Deadline deadline) {
  Address list[TRIES_MAX];
  if (so->closed) return GREEN_CLOSED;
  int n = find(so, host, port, family, list, deadline);
  if (n < 0) return n;
  int code = net_connect(&so->s, list, n, local, deadline);
  if (code == 0) lsocket_note_family(so);
  return code;
}

/*
---Connects to a host by name or address; the object is a `tcp{client}` from then
---on, also if it failed. The timeouts cover the look-up of the name.
---@async
---@param host string
---@param port integer|string  a number, or the name of a service
---@return integer? one
---@return string? message  "connection refused", "timeout", ...
---@return string? code
function tcp:connect(host, port) end
*/
static int l_connect(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  lsocket_waitable(L, so, "connect");
  if (class_of(L) == SOCKET_SERVER) luaL_typeerror(L, 1, class_names[SOCKET_MASTER]);
  const char *host = luaL_checkstring(L, 2);
  int port = check_port(L, 3);
  int code = dial(so, host, port, AF_UNSPEC, NULL, lsocket_deadline(so));
  become(L, 1, SOCKET_CLIENT);
  return result(L, code, "connect");
}

static int check_family(lua_State *L, int arg) {
  static const char *const names[] = {"unspec", "inet", "inet6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  return families[luaL_checkoption(L, arg, "unspec", names)];
}

/* The address that argument 3 names, with the port of argument 4. Returns 1;
** 0 when there is no argument 3; or a code. */
static int check_local(lua_State *L, LSocket *so, int family, Address *local) {
  if (lua_isnoneornil(L, 3)) return 0;
  Address list[TRIES_MAX];
  const char *host = luaL_checkstring(L, 3);
  int port = lua_isnoneornil(L, 4) ? 0 : check_port(L, 4);
  int n = find(so, host, port, family, list, DEADLINE_NEVER);
  if (n > 0) *local = list[0];
  return n > 0 ? 1 : n;
}

/*
---A client connected to `host`, if wanted from a local address, if wanted over
---one family of addresses only.
---
---```lua
---local client <close> = assert(socket.connect("localhost", 80))
---```
---@async
---@param host string
---@param port integer|string  a number, or the name of a service
---@param laddr? string
---@param lport? integer|string
---@param family? "unspec"|"inet"|"inet6"
---@return tcp? client
---@return string? message
---@return string? code
function socket.connect(host, port, laddr, lport, family) end
*/
static int f_connect(lua_State *L) {
  Hub *hub = lcheck_waitable(L, "connect");
  Address local;
  lua_settop(L, 5);
  const char *host = luaL_checkstring(L, 1);
  int port = check_port(L, 2);
  int family = check_family(L, 5);
  LSocket *so = new_socket(L, hub, SOCKET_CLIENT);
  int code = check_local(L, so, family, &local);
  if (code >= 0) code = dial(so, host, port, family, code ? &local : NULL, DEADLINE_NEVER);
  return code < 0 ? lcheck_fail(L, code, "connect") : 1;
}

/* f_connect with its fifth argument given. */
static int connect_over(lua_State *L, const char *family) {
  lua_settop(L, 4);
  lua_pushstring(L, family);
  return f_connect(L);
}

/*
---`socket.connect` over IPv4 only.
---@async
---@param host string
---@param port integer|string
---@param laddr? string
---@param lport? integer|string
---@return tcp? client
---@return string? message
---@return string? code
function socket.connect4(host, port, laddr, lport) end
*/
static int f_connect4(lua_State *L) { return connect_over(L, "inet"); }

/*
---`socket.connect` over IPv6 only.
---@async
---@param host string
---@param port integer|string
---@param laddr? string
---@param lport? integer|string
---@return tcp? client
---@return string? message
---@return string? code
function socket.connect6(host, port, laddr, lport) end
*/
static int f_connect6(lua_State *L) { return connect_over(L, "inet6"); }

/* ---- listening ---- */

static int bind_to(LSocket *so, const char *host, int port, bool reuse, Deadline deadline) {
  Address list[TRIES_MAX];
  if (so->closed) return GREEN_CLOSED;
  int n = find(so, host, port, AF_UNSPEC, list, deadline);
  int code = n < 0 ? n : net_bind(&so->s, list, n, reuse);
  if (code == 0) lsocket_note_family(so);
  return code;
}

/*
---Binds to a local address; `"*"` is any.
---@async
---@param host string
---@param port integer|string  0: the system chooses
---@return integer? one
---@return string? message  "address already in use", ...
---@return string? code
function tcp:bind(host, port) end
*/
static int l_bind(lua_State *L) {
  lcheck_waitable(L, "bind");
  LSocket *so = lsocket_check(L, SOCKET_MASTER);
  const char *host = luaL_checkstring(L, 2);
  int port = check_port(L, 3);
  return result(L, bind_to(so, host, port, false, lsocket_deadline(so)), "bind");
}

static int check_backlog(lua_State *L, int arg) {
  return lua_isnoneornil(L, arg) ? BACKLOG : (int)lcheck_range(L, arg, 0, INT32_MAX);
}

static int start_listening(LSocket *so, int backlog) {
  return listen(so->s.poll.fd, backlog) < 0 ? -errno : 0;
}

/*
---Makes a bound socket a `tcp{server}`.
---@param backlog? integer  connections that may wait to be accepted; 32
---@return integer? one
---@return string? message
---@return string? code
function tcp:listen(backlog) end
*/
static int l_listen(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_MASTER);
  int code = start_listening(so, check_backlog(L, 2));
  if (code == 0) become(L, 1, SOCKET_SERVER);
  return result(L, code, "listen");
}

/*
---A server that listens at `host` and `port`; `"*"` is every IPv4 address.
---
---```lua
---local server <close> = assert(socket.bind("127.0.0.1", 0))
---```
---@async
---@param host string
---@param port integer|string  0: the system chooses, see getsockname
---@param backlog? integer  connections that may wait to be accepted; 32
---@return tcp? server
---@return string? message
---@return string? code
function socket.bind(host, port, backlog) end
*/
static int f_bind(lua_State *L) {
  Hub *hub = lcheck_waitable(L, "bind");
  const char *host = luaL_checkstring(L, 1);
  int port = check_port(L, 2);
  int backlog = check_backlog(L, 3);
  LSocket *so = new_socket(L, hub, SOCKET_SERVER);
  int code = bind_to(so, host, port, true, DEADLINE_NEVER);
  if (code == 0) code = start_listening(so, backlog);
  if (code < 0) stream_close(&so->s);
  return code < 0 ? lcheck_fail(L, code, "bind") : 1;
}

/*
---Waits for a connection. The client does not inherit the server's timeouts.
---
---```lua
---while true do
---  green.spawn(serve, assert(server:accept()))
---end
---```
---@async
---@return tcp? client
---@return string? message  "timeout", "closed", ...
---@return string? code
function tcp:accept() end
*/
static int l_accept(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_SERVER);
  lsocket_waitable(L, so, "accept");
  LSocket *client = new_socket(L, so->s.poll.hub, SOCKET_CLIENT);
  int fd = net_accept(&so->s, lsocket_deadline(so));
  if (fd < 0) return lcheck_fail(L, fd, "accept");
  stream_open(&client->s, fd);
  client->family = so->family;
  return 1;
}

/* ---- closing ---- */

/*
---Closes the socket: who waits on it, in whatever greenlet, gets nil, "closed".
---Never waits. Closing again does nothing.
---@return integer  1
function tcp:close() end
*/
static int l_close(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  so->closed = true;
  stream_close(&so->s);
  lua_pushinteger(L, 1);
  return 1;
}

static int l_gc(lua_State *L) {
  stream_free(&((LSocket *)lua_touserdata(L, 1))->s);
  return 0;
}

/*
---Ends the connection in one direction, or in both: the peer reads to the end.
---@param how? "receive"|"send"|"both"  "both"
---@return integer? one
---@return string? message
---@return string? code
function tcp:shutdown(how) end
*/
static int l_shutdown(lua_State *L) {
  static const char *const names[] = {"receive", "send", "both", NULL};
  static const int hows[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
  LSocket *so = lsocket_check(L, SOCKET_CLIENT);
  int how = hows[luaL_checkoption(L, 2, "both", names)];
  if (so->s.poll.fd < 0) return lcheck_fail(L, GREEN_CLOSED, "shutdown");
  int code = shutdown(so->s.poll.fd, how) < 0 ? -errno : 0;
  if (code == -ENOTCONN) code = 0; /* the peer was faster: LuaSocket says 1, too */
  return result(L, code, "shutdown");
}

/* ---- constructors ---- */

/*
---The class and the address of the object: `tcp{client}: 0x5581...`.
---@return string
*/
static int l_tostring(lua_State *L) {
  void *so = lsocket_check_any(L);
  lua_pushfstring(L, "%s: %p", class_names[class_of(L)], so);
  return 1;
}

static int make(lua_State *L, int family) {
  LSocket *so = new_socket(L, lcheck_hub(L), SOCKET_MASTER);
  so->family = family;
  if (family == AF_UNSPEC) return 1;
  int fd = net_socket(family);
  if (fd < 0) return lcheck_fail(L, fd, "tcp");
  stream_open(&so->s, fd);
  return 1;
}

/*
---A `tcp{master}` whose descriptor is made by bind or connect, when the family of
---the address is known.
---@return tcp
function socket.tcp() end
*/
static int f_tcp(lua_State *L) { return make(L, AF_UNSPEC); }

/*
---A `tcp{master}` for IPv4.
---@return tcp? master
---@return string? message
---@return string? code
function socket.tcp4() end
*/
static int f_tcp4(lua_State *L) { return make(L, AF_INET); }

/*
---A `tcp{master}` for IPv6, and nothing else.
---@return tcp? master
---@return string? message
---@return string? code
function socket.tcp6() end
*/
static int f_tcp6(lua_State *L) { return make(L, AF_INET6); }

/*
---Seconds since 1970, with a fraction: the wall clock, which may jump.
---@return number
function socket.gettime() end
*/
static int f_gettime(lua_State *L) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  lua_pushnumber(L, (lua_Number)ts.tv_sec + (lua_Number)ts.tv_nsec * 1e-9);
  return 1;
}

/* ---- opening ---- */

static const luaL_Reg methods[] = {
    {"connect", l_connect},  {"setpeername", l_connect}, {"bind", l_bind},
    {"setsockname", l_bind}, {"listen", l_listen},       {"accept", l_accept},
    {"close", l_close},      {"shutdown", l_shutdown},   {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", l_gc}, {"__close", l_close}, {"__tostring", l_tostring}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"tcp", f_tcp},         {"tcp4", f_tcp4},         {"tcp6", f_tcp6},
    {"connect", f_connect}, {"connect4", f_connect4}, {"connect6", f_connect6},
    {"bind", f_bind},       {"gettime", f_gettime},   {NULL, NULL}};

/* Sets functions in the table on the top, as closures over the metatables,
** which lie from `base` on. */
static void set_functions(lua_State *L, int base, const luaL_Reg *list) {
  for (int class_ = SOCKET_MASTER; class_ <= SOCKET_SERVER; class_++) lua_pushvalue(L, base + class_);
  luaL_setfuncs(L, list, 3);
}

/* Fills a metatable: __index is a table with the field `class`, as LuaSec's
** https expects (LSE5). */
static void fill_metatable(lua_State *L, int base, int class_) {
  lua_pushvalue(L, base + class_);
  lua_pushstring(L, class_names[class_]);
  lua_setfield(L, -2, "__name");
  set_functions(L, base, metamethods);
  lua_newtable(L);
  set_functions(L, base, methods);
  set_functions(L, base, lsockio_methods);
  set_functions(L, base, lsockopt_methods);
  lua_pushstring(L, class_names[class_]);
  lua_setfield(L, -2, "class");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

int lsocket_open(lua_State *L) {
  int base = lua_gettop(L); /* the metatables come at base + class */
  for (int class_ = SOCKET_MASTER; class_ <= SOCKET_SERVER; class_++) lua_newtable(L);
  for (int class_ = SOCKET_MASTER; class_ <= SOCKET_SERVER; class_++) fill_metatable(L, base, class_);
  lua_newtable(L);
  set_functions(L, base, functions);
  lua_replace(L, base + 1);
  lua_settop(L, base + 1);
  return 1;
}
