/*
 * What can be set and asked: options (one table of LuaSocket's names), timeouts,
 * addresses, the descriptor. May use io/net, lcheck and lsocket.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "../core/status.h"
#include "../io/net.h"
#include "lcheck.h"
#include "lsocket.h"

typedef enum { OPTION_BOOL, OPTION_INT, OPTION_LINGER, OPTION_DEVICE, OPTION_ERROR } OptionKind;

typedef struct Option {
  const char *name;
  int level, option;
  OptionKind kind;
  bool get, set;
} Option;

static const Option options[] = {
    {"keepalive", SOL_SOCKET, SO_KEEPALIVE, OPTION_BOOL, true, true},
    {"reuseaddr", SOL_SOCKET, SO_REUSEADDR, OPTION_BOOL, true, true},
    {"reuseport", SOL_SOCKET, SO_REUSEPORT, OPTION_BOOL, true, true},
    {"tcp-nodelay", IPPROTO_TCP, TCP_NODELAY, OPTION_BOOL, true, true},
    {"tcp-keepidle", IPPROTO_TCP, TCP_KEEPIDLE, OPTION_INT, true, true},
    {"tcp-keepcnt", IPPROTO_TCP, TCP_KEEPCNT, OPTION_INT, true, true},
    {"tcp-keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, OPTION_INT, true, true},
    {"ipv6-v6only", IPPROTO_IPV6, IPV6_V6ONLY, OPTION_BOOL, true, true},
    {"linger", SOL_SOCKET, SO_LINGER, OPTION_LINGER, true, true},
    {"recv-buffer-size", SOL_SOCKET, SO_RCVBUF, OPTION_INT, true, true},
    {"send-buffer-size", SOL_SOCKET, SO_SNDBUF, OPTION_INT, true, true},
    {"tcp-defer-accept", IPPROTO_TCP, TCP_DEFER_ACCEPT, OPTION_INT, false, true},
    {"tcp-fastopen", IPPROTO_TCP, TCP_FASTOPEN, OPTION_INT, false, true},
    {"tcp-fastopen-connect", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OPTION_INT, false, true},
    {"bindtodevice", SOL_SOCKET, SO_BINDTODEVICE, OPTION_DEVICE, true, true},
    {"error", SOL_SOCKET, SO_ERROR, OPTION_ERROR, true, false},
};

/* A value as the system takes it. */
typedef union Value {
  int i;
  struct linger linger;
  char device[IFNAMSIZ];
} Value;

/* The option named by argument 2. */
static const Option *check_option(lua_State *L, bool set) {
  const char *name = luaL_checkstring(L, 2);
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    const Option *o = &options[i];
    if (strcmp(o->name, name) == 0 && (set ? o->set : o->get)) return o;
  }
  luaL_argerror(L, 2, lua_pushfstring(L, "unsupported option `%s'", name));
  return NULL;
}

static int fail(lua_State *L, const char *call, int error) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s failed", call);
  lua_pushstring(L, status_name(-error));
  return 3;
}

/* ---- setting ---- */

/* { on = boolean, timeout = seconds } at argument 3. */
static void check_linger(lua_State *L, struct linger *linger) {
  luaL_checktype(L, 3, LUA_TTABLE);
  if (lua_getfield(L, 3, "on") != LUA_TBOOLEAN) luaL_argerror(L, 3, "invalid 'on' field");
  linger->l_onoff = lua_toboolean(L, -1);
  lua_getfield(L, 3, "timeout");
  int isnumber;
  lua_Number timeout = lua_tonumberx(L, -1, &isnumber);
  if (!isnumber || !(timeout >= 0 && timeout < 1e9)) luaL_argerror(L, 3, "invalid 'timeout' field");
  linger->l_linger = (int)timeout;
}

/* The value at argument 3. Returns its length. */
static socklen_t check_value(lua_State *L, const Option *o, Value *value) {
  size_t len;
  switch (o->kind) {
    case OPTION_BOOL:
      luaL_checktype(L, 3, LUA_TBOOLEAN);
      value->i = lua_toboolean(L, 3);
      return sizeof value->i;
    case OPTION_LINGER:
      check_linger(L, &value->linger);
      return sizeof value->linger;
    case OPTION_DEVICE: {
      const char *name = luaL_checklstring(L, 3, &len);
      luaL_argcheck(L, len < IFNAMSIZ, 3, "device name too long");
      memcpy(value->device, name, len + 1);
      return (socklen_t)len + 1;
    }
    default:
      value->i = (int)lcheck_range(L, 3, 0, INT32_MAX);
      return sizeof value->i;
  }
}

/*
---Sets an option of the socket. The value is a boolean for keepalive, reuseaddr,
---reuseport, tcp-nodelay, ipv6-v6only; a number for tcp-keepidle, tcp-keepcnt,
---tcp-keepintvl, recv-buffer-size, send-buffer-size, tcp-defer-accept,
---tcp-fastopen, tcp-fastopen-connect; a table for linger; a name for bindtodevice.
---
---```lua
---client:setoption("tcp-nodelay", true)
---client:setoption("linger", { on = true, timeout = 0 })
---```
---@param name string
---@param value boolean|integer|string|{on: boolean, timeout: number}
---@return integer? one
---@return string? message
---@return string? code
function tcp:setoption(name, value) end
*/
static int l_setoption(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  const Option *o = check_option(L, true);
  Value value;
  socklen_t len = check_value(L, o, &value);
  if (setsockopt(so->s.poll.fd, o->level, o->option, &value, len) < 0) return fail(L, "setsockopt", errno);
  lua_pushinteger(L, 1);
  return 1;
}

/* ---- getting ---- */

static void push_linger(lua_State *L, const struct linger *linger) {
  lua_createtable(L, 0, 2);
  lua_pushboolean(L, linger->l_onoff);
  lua_setfield(L, -2, "on");
  lua_pushinteger(L, linger->l_linger);
  lua_setfield(L, -2, "timeout");
}

static void push_value(lua_State *L, const Option *o, const Value *value, socklen_t len) {
  switch (o->kind) {
    case OPTION_BOOL:
      lua_pushboolean(L, value->i);
      break;
    case OPTION_LINGER:
      push_linger(L, &value->linger);
      break;
    case OPTION_DEVICE:
      lua_pushlstring(L, value->device, strnlen(value->device, len));
      break;
    case OPTION_ERROR:
      lua_pushstring(L, value->i ? status_text(-value->i) : NULL);
      break;
    default:
      lua_pushinteger(L, value->i);
  }
}

/*
---The value of an option: those of setoption but tcp-defer-accept, tcp-fastopen
---and tcp-fastopen-connect; and "error", the pending error as a message, or nil.
---@param name string
---@return boolean|integer|string|{on: boolean, timeout: integer}|nil value
---@return string? message
---@return string? code
function tcp:getoption(name) end
*/
static int l_getoption(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  const Option *o = check_option(L, false);
  Value value = {0};
  socklen_t len = sizeof value;
  if (getsockopt(so->s.poll.fd, o->level, o->option, &value, &len) < 0) return fail(L, "getsockopt", errno);
  push_value(L, o, &value, len);
  return 1;
}

/* ---- timeouts ---- */

/*
---How long a call may wait: nil or a negative number for ever, 0 not at all.
---LuaSocket's modes "b" and "t" both count from the start of the call, and the
---smaller one ends it.
---@param seconds? number
---@param mode? "b"|"t"  "b"
---@return integer  1
function tcp:settimeout(seconds, mode) end
*/
static int l_settimeout(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  double seconds = luaL_optnumber(L, 2, -1);
  const char *mode = luaL_optstring(L, 3, "b");
  if (isnan(seconds)) luaL_argerror(L, 2, "expected a number of seconds, got NaN");
  if (seconds < 0) seconds = -1;
  if (*mode == 'b')
    so->block = seconds;
  else if (*mode == 't' || *mode == 'r')
    so->total = seconds;
  else
    luaL_argerror(L, 3, "invalid timeout mode");
  lua_pushinteger(L, 1);
  return 1;
}

/*
---The timeouts of both modes in seconds; -1: none.
---@return number block
---@return number total
function tcp:gettimeout() end
*/
static int l_gettimeout(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  lua_pushnumber(L, so->block);
  lua_pushnumber(L, so->total);
  return 2;
}

/* ---- names ---- */

/* Pushes address, port, family. */
static int push_name(lua_State *L, const Address *a) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  int error =
      getnameinfo(&a->sa, a->len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) return luaL_error(L, "%s", gai_strerror(error));
  lua_pushstring(L, host);
  lua_pushinteger(L, strtol(port, NULL, 10));
  lua_pushstring(L, a->sa.sa_family == AF_INET6 ? "inet6" : "inet");
  return 3;
}

/*
---The address of the peer.
---@return string? address
---@return integer|string port  or the message
---@return string? family  "inet" or "inet6"; or the code
function tcp:getpeername() end
*/
static int l_getpeername(lua_State *L) {
  Address a = {.len = sizeof a.in6};
  LSocket *so = lsocket_check_any(L);
  if (getpeername(so->s.poll.fd, &a.sa, &a.len) < 0) return lcheck_fail(L, -errno, "getpeername");
  return push_name(L, &a);
}

/*
---The own address.
---@return string? address
---@return integer|string port  or the message
---@return string? family  "inet" or "inet6"; or the code
function tcp:getsockname() end
*/
static int l_getsockname(lua_State *L) {
  Address a = {.len = sizeof a.in6};
  LSocket *so = lsocket_check_any(L);
  if (getsockname(so->s.poll.fd, &a.sa, &a.len) < 0) return lcheck_fail(L, -errno, "getsockname");
  return push_name(L, &a);
}

/*
---The family of addresses, "inet4" where none is chosen yet.
---@return "inet4"|"inet6"
function tcp:getfamily() end
*/
static int l_getfamily(lua_State *L) {
  lua_pushstring(L, lsocket_check_any(L)->family == AF_INET6 ? "inet6" : "inet4");
  return 1;
}

/*
---The descriptor, or -1.
---@return integer
function tcp:getfd() end
*/
static int l_getfd(lua_State *L) {
  lua_pushinteger(L, lsocket_check_any(L)->s.poll.fd);
  return 1;
}

/*
---Gives the socket another descriptor, which it makes non-blocking, or none by
----1. The old one is not closed; who waits on it gets nil, "closed".
---@param fd integer
function tcp:setfd(fd) end
*/
static int l_setfd(lua_State *L) {
  LSocket *so = lsocket_check_any(L);
  int fd = (int)lcheck_range(L, 2, -1, INT32_MAX);
  stream_detach(&so->s);
  so->closed = fd < 0;
  if (fd < 0) return 0;
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  stream_open(&so->s, fd);
  lsocket_note_family(so);
  return 0;
}

const luaL_Reg lsockopt_methods[] = {
    {"setoption", l_setoption},
    {"getoption", l_getoption},
    {"settimeout", l_settimeout},
    {"gettimeout", l_gettimeout},
    {"getpeername", l_getpeername},
    {"getsockname", l_getsockname},
    {"getfamily", l_getfamily},
    {"getfd", l_getfd},
    {"setfd", l_setfd},
    {NULL, NULL},
};
