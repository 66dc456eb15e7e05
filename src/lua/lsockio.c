/*
 * send and receive: from the stream's buffer to Lua strings and back. May use
 * io/stream, lcheck and lsocket.h.
 */
#include <stdint.h>
#include <string.h>

#include "../core/status.h"
#include "lcheck.h"
#include "lsocket.h"

/* Results of a failed send or receive: nil, message, and on the stack's top
** what was done nevertheless, which stays the third; the code is the fourth. */
static int fail_with(lua_State *L, int code) {
  lua_pushnil(L);
  lua_pushstring(L, status_text(code));
  lua_rotate(L, -3, 2);
  lua_pushstring(L, status_name(code));
  return 4;
}

/* ---- receive ---- */

typedef enum { READ_LINE, READ_LINE_KEEP, READ_ALL, READ_COUNT } ReadKind;

/* Argument 2 is a number of bytes, for `*count`, or a pattern. As LuaSocket, by
** the first two letters; "*L" keeps the line's end. */
static ReadKind check_pattern(lua_State *L, size_t *count) {
  int isnumber;
  lua_Number n = lua_tonumberx(L, 2, &isnumber);
  if (isnumber) {
    luaL_argcheck(L, n >= 0, 2, "invalid receive pattern");
    *count = n < (lua_Number)(SIZE_MAX / 4) ? (size_t)n : SIZE_MAX / 4;
    return READ_COUNT;
  }
  const char *p = luaL_optstring(L, 2, "*l");
  if (strncmp(p, "*l", 2) == 0) return READ_LINE;
  if (strncmp(p, "*L", 2) == 0) return READ_LINE_KEEP;
  luaL_argcheck(L, strncmp(p, "*a", 2) == 0, 2, "invalid receive pattern");
  return READ_ALL;
}

static ssize_t read_kind(Stream *s, ReadKind kind, size_t count, Deadline deadline) {
  switch (kind) {
    case READ_COUNT:
      return stream_read_n(s, count, deadline);
    case READ_ALL:
      return stream_read_all(s, deadline);
    default:
      return stream_read_line(s, deadline);
  }
}

/* Takes `n` bytes off the buffer and pushes them, behind the prefix, which is
** argument 3; a line without its LF and any of its CRs (LSO1). Should pushing
** raise, nothing was taken but CRs. lua_pushlstring copies before it collects
** (lapi.c); after it the bytes may be gone, since finalizers close sockets. */
static void push_front(lua_State *L, Stream *s, ReadKind kind, size_t n, size_t prefix) {
  if (kind == READ_LINE) n = stream_drop(s, n, '\r');
  const char *data = stream_data(s);
  bool ended = kind == READ_LINE && n > 0 && data[n - 1] == '\n';
  if (prefix > 0) lua_pushvalue(L, 3);
  lua_pushlstring(L, data, ended ? n - 1 : n);
  if (prefix > 0) lua_concat(L, 2);
  stream_consume(s, n);
}

/*
---Receives: a line (`"*l"`, the default: up to LF, which is not returned, every
---CR dropped; `"*L"` returns the line as it came), everything until the peer
---closes (`"*a"`), or a number of bytes. With a prefix, that is put in front, and
---its bytes count. What has come when it fails is the third result; a kill or a
---timeout of `green.timeout` leaves it for the next call.
---
---```lua
---local line, message, partial, code = client:receive()
---local header = assert(client:receive(4))
---```
---@async
---@param pattern? "*l"|"*L"|"*a"|integer
---@param prefix? string
---@return string? data
---@return string? message  "closed", "timeout", ...
---@return string? partial
---@return string? code  "EOF", "ETIMEDOUT", "EBADF", "EBUSY", ...
function tcp:receive(pattern, prefix) end
*/
static int l_receive(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_CLIENT);
  lsocket_waitable(L, so, "receive");
  size_t count = 0, prefix = 0;
  ReadKind kind = check_pattern(L, &count);
  luaL_optlstring(L, 3, "", &prefix);
  if (kind == READ_COUNT && prefix > 0) {
    if (prefix >= count) {
      lua_settop(L, 3);
      return 1;
    }
    count -= prefix;
  }
  ssize_t n = read_kind(&so->s, kind, count, lsocket_deadline(so));
  if (n >= 0) {
    push_front(L, &so->s, kind, (size_t)n, prefix);
    return 1;
  }
  int code = (int)n;
  lcheck_raise(L, code, "receive");
  push_front(L, &so->s, kind, code == GREEN_BUSY ? 0 : stream_buffered(&so->s), prefix);
  return fail_with(L, code);
}

/* ---- send ---- */

/*
---Sends the bytes `i` to `j` of `data` (as `string.sub`; all by default). Returns
---the index of the last byte sent, also as third result when it fails.
---
---```lua
---local last, message, sent, code = client:send("hello\n")
---```
---@async
---@param data string|number
---@param i? integer
---@param j? integer
---@return integer? last
---@return string? message  "closed", "timeout", ...
---@return integer? sent  the index of the last byte that was sent
---@return string? code  "EPIPE", "ETIMEDOUT", "EBADF", "EBUSY", ...
function tcp:send(data, i, j) end
*/
static int l_send(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_CLIENT);
  lsocket_waitable(L, so, "send");
  size_t len, sent = 0;
  const char *data = luaL_checklstring(L, 2, &len);
  lua_Integer i = luaL_optinteger(L, 3, 1), j = luaL_optinteger(L, 4, -1), size = (lua_Integer)len;
  int code = 0;
  if (i < 0) i += size + 1;
  if (j < 0) j += size + 1;
  if (i < 1) i = 1;
  if (j > size) j = size;
  if (i <= j) code = stream_write(&so->s, data + i - 1, (size_t)(j - i + 1), &sent, lsocket_deadline(so));
  if (code < 0) lcheck_raise(L, code, "send");
  lua_pushinteger(L, i - 1 + (lua_Integer)sent);
  return code < 0 ? fail_with(L, code) : 1;
}

/* ---- what passed ---- */

/*
---Bytes received, bytes sent, and the age of the socket in seconds.
---@return integer received
---@return integer sent
---@return number age
function tcp:getstats() end
*/
static int l_getstats(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_CLIENT);
  lua_pushinteger(L, (lua_Integer)so->s.received);
  lua_pushinteger(L, (lua_Integer)so->s.sent);
  lua_pushnumber(L, hub_now_update(so->s.poll.hub) - so->birth);
  return 3;
}

/*
---Sets what getstats tells; nil leaves a value as it is.
---@param received? integer
---@param sent? integer
---@param age? number  seconds
---@return integer  1
function tcp:setstats(received, sent, age) end
*/
static int l_setstats(lua_State *L) {
  LSocket *so = lsocket_check(L, SOCKET_CLIENT);
  Deadline now = hub_now_update(so->s.poll.hub);
  lua_Integer received = luaL_optinteger(L, 2, (lua_Integer)so->s.received);
  lua_Integer sent = luaL_optinteger(L, 3, (lua_Integer)so->s.sent);
  lua_Number age = luaL_optnumber(L, 4, now - so->birth);
  so->s.received = (uint64_t)received;
  so->s.sent = (uint64_t)sent;
  so->birth = now - age;
  lua_pushinteger(L, 1);
  return 1;
}

/*
---Does data lie in the buffer, so that receive need not ask the system?
---@return boolean
function tcp:dirty() end
*/
static int l_dirty(lua_State *L) {
  lua_pushboolean(L, stream_buffered(&lsocket_check_any(L)->s) > 0);
  return 1;
}

const luaL_Reg lsockio_methods[] = {{"receive", l_receive},   {"send", l_send},   {"getstats", l_getstats},
                                    {"setstats", l_setstats}, {"dirty", l_dirty}, {NULL, NULL}};
