/*
 * core.http: one HTTP exchange, and a file that appears when it is complete.
 * Policy (redirects, what an error is, options) is lua/green/http.lua's. May
 * use lcheck, fetch, tempfile.
 *
 * A transfer serves one request: it is started again for each hop of a
 * redirect, under one deadline. Its user value 1 is the request's body, which
 * libcurl reads in place.
 */
#include "../io/fetch.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../io/tempfile.h"
#include "lcheck.h"
#include "lgreen.h"

#define TRANSFER "green.http.transfer" /* the metatables' names in the registry */
#define TEMPFILE "green.http.tempfile"

typedef struct Transfer {
  Fetch fetch;
  Deadline deadline; /* of the whole request */
} Transfer;

/* ---- URLs ---- */

enum { PART_URL, PART_SCHEME, PART_HOST, PART_PORT, PARTS };

typedef struct Parts {
  CURLU *url;
  char *text[PARTS]; /* libcurl's */
} Parts;

static CURLUcode split(const Libcurl *curl, Parts *p, const char *base, const char *text) {
  static const CURLUPart parts[PARTS] = {CURLUPART_URL, CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
  CURLUcode code = CURLUE_OK;
  if (base) code = curl->url_set(p->url, CURLUPART_URL, base, CURLU_NON_SUPPORT_SCHEME);
  /* a server's reference may hold what must be escaped; a caller's URL may not */
  unsigned flags = CURLU_NON_SUPPORT_SCHEME | (base ? CURLU_URLENCODE : 0);
  if (code == CURLUE_OK) code = curl->url_set(p->url, CURLUPART_URL, text, flags);
  if (code == CURLUE_OK) code = curl->url_set(p->url, CURLUPART_FRAGMENT, NULL, 0);
  for (int i = 0; i < PARTS && code == CURLUE_OK; i++) {
    flags = i == PART_PORT ? CURLU_DEFAULT_PORT : 0;
    code = curl->url_get(p->url, parts[i], &p->text[i], flags);
    if (code == CURLUE_NO_PORT) code = CURLUE_OK; /* of a scheme that is not ours */
  }
  return code;
}

/* IPv6 addresses stand in brackets in an URL, and nowhere else. */
static void push_host(lua_State *L, const char *host) {
  size_t n = strlen(host);
  if (host[0] == '[')
    lua_pushlstring(L, host + 1, n - 2);
  else
    lua_pushlstring(L, host, n);
}

/* Protected: so that what libcurl allocated is freed when Lua has no memory. */
static int push_parts(lua_State *L) {
  const Parts *p = lua_touserdata(L, 1);
  lua_createtable(L, 0, PARTS);
  lua_pushstring(L, p->text[PART_URL]);
  lua_setfield(L, -2, "url");
  lua_pushstring(L, p->text[PART_SCHEME]);
  lua_setfield(L, -2, "scheme");
  push_host(L, p->text[PART_HOST]);
  lua_setfield(L, -2, "host");
  lua_pushinteger(L, p->text[PART_PORT] ? strtol(p->text[PART_PORT], NULL, 10) : 0);
  lua_setfield(L, -2, "port");
  return 1;
}

static int push_failure(lua_State *L, const char *message, int code) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  lua_pushstring(L, status_name(code));
  return 3;
}

/* A string without NUL bytes, which C would cut it at. */
static const char *check_text(lua_State *L, int arg) {
  size_t n;
  const char *text = luaL_checklstring(L, arg, &n);
  if (strlen(text) != n) luaL_argerror(L, arg, "the string holds a NUL byte");
  return text;
}

/*
---Splits an absolute URL, or a reference relative to `base`. The fragment is
---dropped; without a port, the scheme's default stands in its place.
---@param text string
---@param base? string
---@return { url: string, scheme: string, host: string, port: integer }?
---@return string? message
---@return string? code
function http.url(text, base) end
*/
static int split_url(lua_State *L) {
  const char *text = check_text(L, 1);
  const char *base = lua_isnoneornil(L, 2) ? NULL : check_text(L, 2);
  const Libcurl *curl = libcurl_open();
  if (!curl) return push_failure(L, libcurl_error(), -ELIBACC);
  Parts parts = {curl->url(), {NULL}};
  if (!parts.url) return luaL_error(L, "not enough memory");
  CURLUcode code = split(curl, &parts, base, text);
  lua_pushcfunction(L, push_parts);
  lua_pushlightuserdata(L, &parts);
  int status = code == CURLUE_OK ? lua_pcall(L, 1, 1, 0) : LUA_OK;
  for (int i = 0; i < PARTS; i++) curl->free(parts.text[i]);
  curl->url_cleanup(parts.url);
  if (status != LUA_OK) return lua_error(L);
  if (code == CURLUE_OK) return 1;
  lua_pushfstring(L, "malformed URL: %s", curl->url_strerror(code));
  return push_failure(L, lua_tostring(L, -1), -EINVAL);
}

/* ---- a transfer ---- */

static Transfer *check_transfer(lua_State *L) { return luaL_checkudata(L, 1, TRANSFER); }

/* As lcheck_fail, with the transfer's own words. */
static int fail(lua_State *L, const Transfer *t, int code, const char *fname) {
  lcheck_raise(L, code, fname);
  return push_failure(L, fetch_message(&t->fetch, code), code);
}

/*
---A new transfer, which has `timeout` seconds from now for all that it does.
---@param timeout? number  seconds; nil: no limit
---@return green.http.transfer
function http.transfer(timeout) end
*/
static int new_transfer(lua_State *L) {
  Hub *hub = lcheck_hub(L);
  Deadline deadline = lcheck_timeout(L, hub, 1);
  Transfer *t = lua_newuserdatauv(L, sizeof *t, 1);
  fetch_init(&t->fetch, hub);
  t->deadline = deadline;
  luaL_setmetatable(L, TRANSFER);
  return 1;
}

/* Raises for the value on the top, the request's field `name`. */
static void bad_field(lua_State *L, const char *name, const char *expected) {
  luaL_error(L, "bad field '%s' (%s expected, got %s)", name, expected, luaL_typename(L, -1));
}

/* The fields of a request stay on the stack, which keeps their strings alive
** while the name is looked up. */
static const char *text_field(lua_State *L, const char *name, const char *otherwise) {
  if (lua_getfield(L, 2, name) == LUA_TNIL) return otherwise;
  size_t n;
  const char *text = lua_tolstring(L, -1, &n);
  if (!text) bad_field(L, name, "string");
  if (strlen(text) != n) luaL_error(L, "bad field '%s' (it holds a NUL byte)", name);
  return text;
}

static lua_Number number_field(lua_State *L, const char *name, lua_Number otherwise) {
  int isnumber = 1;
  lua_Number n = lua_getfield(L, 2, name) == LUA_TNIL ? otherwise : lua_tonumberx(L, -1, &isnumber);
  if (!isnumber) bad_field(L, name, "number");
  lua_pop(L, 1);
  return n;
}

static bool flag_field(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  bool flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return flag;
}

/* 2^53 bytes and infinity are no limit. */
static uint64_t byte_limit(lua_Number n) { return n < 9e15 ? (uint64_t)(n > 0 ? n : 0) : FETCH_UNLIMITED; }

/* The table at index 2 as a FetchRequest. */
static void read_request(lua_State *L, Hub *hub, FetchRequest *r) {
  memset(r, 0, sizeof *r);
  luaL_checkstack(L, 20, NULL);
  r->url = text_field(L, "url", "");
  r->method = text_field(L, "method", "GET");
  r->host = text_field(L, "host", "");
  r->port = (int)number_field(L, "port", 0);
  r->proxy = text_field(L, "proxy", NULL);
  r->cafile = text_field(L, "cafile", NULL);
  r->insecure = flag_field(L, "insecure");
  r->stream = flag_field(L, "stream");
  r->connect_by = hub_deadline(hub, number_field(L, "connect_timeout", HUGE_VAL));
  r->max_body = byte_limit(number_field(L, "max_body", HUGE_VAL));
  r->stall = number_field(L, "stall", 0);
  if (lua_getfield(L, 2, "body") != LUA_TNIL) {
    r->body = lua_tolstring(L, -1, &r->body_len);
    if (!r->body) bad_field(L, "body", "string");
  }
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, 1);
}

static const char *header_text(lua_State *L, int index) {
  size_t n;
  const char *text = lua_tolstring(L, index, &n);
  if (!text || strlen(text) != n) luaL_error(L, "bad field 'headers' (strings without NUL bytes expected)");
  return text;
}

/* Names and values take turns in the list `headers`. */
static int add_headers(lua_State *L, Transfer *t) {
  int code = GREEN_OK;
  if (lua_getfield(L, 2, "headers") != LUA_TTABLE) return code;
  int list = lua_gettop(L);
  lua_Integer n = luaL_len(L, list);
  for (lua_Integer i = 1; i < n && code == GREEN_OK; i += 2) {
    lua_geti(L, list, i);
    lua_geti(L, list, i + 1);
    code = fetch_header(&t->fetch, header_text(L, -2), header_text(L, -1));
    lua_settop(L, list);
  }
  return code;
}

/*
---Sends a request: its fields are `url`, `host` and `port` (of the proxy, if
---there is one), `method`, `headers` (names and values in turn), `body`,
---`stream`, `proxy`, `cafile`, `insecure`, `connect_timeout`, `stall`,
---`max_body`. What the transfer did before is closed.
---@async
---@param request table
---@return true? started
---@return string? message
---@return string? code
function transfer:start(request) end
*/
static int start_transfer(lua_State *L) {
  Transfer *t = check_transfer(L);
  FetchRequest r;
  luaL_checktype(L, 2, LUA_TTABLE);
  Hub *hub = lcheck_waitable(L, "start");
  fetch_close(&t->fetch);
  read_request(L, hub, &r);
  int code = add_headers(L, t);
  if (code == GREEN_OK) code = fetch_start(&t->fetch, &r, t->deadline);
  if (code < 0) return fail(L, t, code, "start");
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- the head ---- */

static void push_lower(lua_State *L, const char *s, size_t n) {
  luaL_Buffer b;
  char *to = luaL_buffinitsize(L, &b, n);
  for (size_t i = 0; i < n; i++) to[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
  luaL_pushresultsize(&b, n);
}

static const char *skip_blanks(const char *s, const char *end) {
  while (s < end && (*s == ' ' || *s == '\t')) s++;
  return s;
}

/* The length of `s` without the blanks at its end. */
static size_t trimmed(const char *s, size_t n) {
  while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) n--;
  return n;
}

/* Sets `headers[name]`, or joins the value to what is there. Stack: the table,
** the name (which stays). */
static void add_value(lua_State *L, const char *value, size_t n, const char *joint) {
  lua_pushvalue(L, -1);
  bool first = lua_rawget(L, -3) == LUA_TNIL;
  if (first) {
    lua_pop(L, 1);
    lua_pushlstring(L, value, n);
  } else {
    lua_pushstring(L, joint);
    lua_pushlstring(L, value, n);
    lua_concat(L, 3);
  }
  lua_pushvalue(L, -2);
  lua_insert(L, -2);
  lua_rawset(L, -4);
}

/* One line without its end. Stack: the table, the last field's name or nil. */
static void push_field(lua_State *L, const char *line, size_t n) {
  const char *end = line + n, *colon = memchr(line, ':', n);
  const char *value = skip_blanks(line, end);
  if (value > line) { /* a folded line goes on with the field before (RFC 9112, 5.2) */
    if (!lua_isnil(L, -1)) add_value(L, value, (size_t)(end - value), " ");
    return;
  }
  if (!colon || colon == line) return;
  lua_pop(L, 1);
  push_lower(L, line, (size_t)(colon - line));
  value = skip_blanks(colon + 1, end);
  add_value(L, value, (size_t)(end - value), ", ");
}

/* Pushes a table of the lines in [line, end): lower-case names, values of the
** same name joined. */
static void push_headers(lua_State *L, const char *line, const char *end) {
  lua_createtable(L, 0, 8);
  lua_pushnil(L);
  while (line < end) {
    const char *feed = memchr(line, '\n', (size_t)(end - line));
    push_field(L, line, trimmed(line, (size_t)((feed ? feed : end) - line)));
    line = feed ? feed + 1 : end;
  }
  lua_pop(L, 1);
}

/* The status line "HTTP/1.1 200 OK", whose form libcurl has checked: pushes
** status, headers, reason, version. */
static int push_head(lua_State *L, const char *head, size_t len) {
  const char *end = head + len;
  const char *feed = memchr(head, '\n', len);
  size_t n = trimmed(head, (size_t)((feed ? feed : end) - head));
  const char *stop = head + n, *space = memchr(head, ' ', n);
  const char *number = space ? skip_blanks(space, stop) : stop;
  const char *reason = number;
  lua_Integer status = 0;
  while (reason < stop && *reason >= '0' && *reason <= '9') status = status * 10 + *reason++ - '0';
  reason = skip_blanks(reason, stop);
  const char *version = head + strlen("HTTP/");
  lua_pushinteger(L, status);
  push_headers(L, feed ? feed + 1 : end, end);
  lua_pushlstring(L, reason, (size_t)(stop - reason));
  lua_pushlstring(L, version, space ? (size_t)(space - version) : 0);
  return 4;
}

/*
---Waits for the head of the response.
---@async
---@return integer? status
---@return table<string, string>|string headers  lower-case names; or the error's message
---@return string reason  or the error's code
---@return string? version  "1.0", "1.1", "2"
function transfer:head() end
*/
static int read_head(lua_State *L) {
  Transfer *t = check_transfer(L);
  const char *head;
  size_t len;
  lcheck_waitable(L, "head");
  int code = fetch_head(&t->fetch, &head, &len, t->deadline);
  return code < 0 ? fail(L, t, code, "head") : push_head(L, head, len);
}

/* ---- the body ---- */

/*
---Waits for the next piece of a streamed body. At its end, nil and no message.
---@async
---@return string? piece
---@return string? message
---@return string? code
function transfer:read() end
*/
static int read_piece(lua_State *L) {
  Transfer *t = check_transfer(L);
  const char *piece;
  size_t len;
  lcheck_waitable(L, "read");
  int code = fetch_read(&t->fetch, &piece, &len, t->deadline);
  if (code < 0) return fail(L, t, code, "read");
  if (code == 0)
    lua_pushnil(L);
  else
    lua_pushlstring(L, piece, len);
  return 1;
}

/*
---Waits for the rest of the body, and returns it in one string.
---@async
---@param max? number  more bytes are an error; nil: as the request says
---@return string? body
---@return string? message
---@return string? code
function transfer:body(max) end
*/
static int read_body(lua_State *L) {
  Transfer *t = check_transfer(L);
  uint64_t max = byte_limit(luaL_optnumber(L, 2, HUGE_VAL));
  const char *body;
  size_t len;
  lcheck_waitable(L, "body");
  int code = fetch_body(&t->fetch, max, &body, &len, t->deadline);
  if (code < 0) return fail(L, t, code, "body");
  lua_pushlstring(L, body ? body : "", len);
  return 1;
}

/*
---Reads and forgets the rest of the body, so that its connection can be used
---again; gives up after `limit` bytes or `seconds`.
---@async
---@param limit integer
---@param seconds number
function transfer:skip(limit, seconds) end
*/
static int skip_body(lua_State *L) {
  Transfer *t = check_transfer(L);
  size_t limit = (size_t)lcheck_range(L, 2, 0, LUA_MAXINTEGER);
  Hub *hub = lcheck_waitable(L, "skip");
  Deadline deadline = lcheck_timeout(L, hub, 3);
  if (deadline > t->deadline) deadline = t->deadline;
  lcheck_raise(L, fetch_skip(&t->fetch, limit, deadline), "skip");
  return 0;
}

/*
---Ends the exchange at once. What waits for it gets "closed".
function transfer:close() end
*/
static int close_transfer(lua_State *L) {
  fetch_close(&check_transfer(L)->fetch);
  return 0;
}

/* ---- files ---- */

/* The userdata is a TempFile; its path is NULL once committed or discarded. */
static TempFile *check_tempfile(lua_State *L, int arg) { return luaL_checkudata(L, arg, TEMPFILE); }

/* "cannot write photo.jpg: No space left on device". */
static int fail_file(lua_State *L, const char *path, int code) {
  lua_pushfstring(L, "cannot write %s: %s", path, status_text(code));
  return push_failure(L, lua_tostring(L, -1), code);
}

/*
---Makes a file that appears as `path` when it is committed.
---@param path string
---@return green.http.tempfile?
---@return string? message
---@return string? code
function http.tempfile(path) end
*/
static int new_tempfile(lua_State *L) {
  const char *path = check_text(L, 1);
  TempFile *file = lua_newuserdatauv(L, sizeof *file, 0);
  *file = (TempFile){NULL, NULL, -1};
  luaL_setmetatable(L, TEMPFILE);
  int code = tempfile_open(file, path);
  return code < 0 ? fail_file(L, path, code) : 1;
}

/*
---Waits for the rest of a streamed body and writes it to `file`, which appears
---under its name when all of it is there.
---@async
---@param file green.http.tempfile
---@return integer? bytes
---@return string? message
---@return string? code
function transfer:save(file) end
*/
static int save_body(lua_State *L) {
  Transfer *t = check_transfer(L);
  TempFile *file = check_tempfile(L, 2);
  lua_Integer bytes = 0;
  const char *piece;
  size_t len;
  int code, written = GREEN_OK;
  luaL_argcheck(L, file->path, 2, "the file is closed");
  lua_settop(L, 2);
  lua_pushstring(L, file->path); /* for messages: committing forgets it */
  lcheck_waitable(L, "save");
  while ((code = fetch_read(&t->fetch, &piece, &len, t->deadline)) > 0) {
    luaL_argcheck(L, file->path, 2, "the file is closed");
    written = tempfile_write(file, piece, len);
    if (written < 0) break;
    bytes += (lua_Integer)len;
  }
  if (code < 0) return fail(L, t, code, "save");
  if (written == GREEN_OK) written = tempfile_commit(file);
  if (written < 0) return fail_file(L, lua_tostring(L, 3), written);
  lua_pushinteger(L, bytes);
  return 1;
}

/*
---Removes the file, unless it was saved.
function tempfile:close() end
*/
static int close_tempfile(lua_State *L) {
  tempfile_discard(check_tempfile(L, 1));
  return 0;
}

/* ---- the module ---- */

/*
---Closes the connections that are kept for reuse, unless a transfer is under way.
function http.close_idle() end
*/
static int close_idle(lua_State *L) {
  curlloop_drop_idle(lcheck_hub(L));
  return 0;
}

/*
---The version of libcurl, which is loaded for it: "libcurl/7.88.1 OpenSSL/3.0 ...".
---@return string? version
---@return string? message
---@return string? code
function http.version() end
*/
static int version(lua_State *L) {
  const Libcurl *curl = libcurl_open();
  if (!curl) return push_failure(L, libcurl_error(), -ELIBACC);
  lua_pushstring(L, curl->version());
  return 1;
}

static const luaL_Reg transfer_methods[] = {
    {"start", start_transfer}, {"head", read_head}, {"read", read_piece},      {"body", read_body},
    {"skip", skip_body},       {"save", save_body}, {"close", close_transfer}, {NULL, NULL}};

static const luaL_Reg transfer_metamethods[] = {
    {"__close", close_transfer}, {"__gc", close_transfer}, {NULL, NULL}};

static const luaL_Reg tempfile_methods[] = {{"close", close_tempfile}, {NULL, NULL}};

static const luaL_Reg tempfile_metamethods[] = {
    {"__close", close_tempfile}, {"__gc", close_tempfile}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"url", split_url},         {"transfer", new_transfer},
                                     {"tempfile", new_tempfile}, {"close_idle", close_idle},
                                     {"version", version},       {NULL, NULL}};

static void new_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *own) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, meta, 0);
  lua_newtable(L);
  luaL_setfuncs(L, own, 0);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

int lhttp_open(lua_State *L) {
  new_class(L, TRANSFER, transfer_metamethods, transfer_methods);
  new_class(L, TEMPFILE, tempfile_metamethods, tempfile_methods);
  luaL_newlib(L, functions);
  return 1;
}
