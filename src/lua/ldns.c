/*
 * core.dns: names to addresses. May use lcheck and io/resolver; what servers
 * and config accept is shaped by lua/green/dns.lua.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include "../io/resolver.h"
#include "lcheck.h"
#include "lgreen.h"

/* "::1%lo" at its longest, or "[address]:port". */
#define TEXT_MAX (INET6_ADDRSTRLEN + IF_NAMESIZE + 10)

/* ---- addresses as Lua values ---- */

/* Writes the number, an IPv6 one with its scope as getnameinfo(3) would. */
static void format(const Address *a, char text[TEXT_MAX]) {
  if (a->sa.sa_family == AF_INET) {
    inet_ntop(AF_INET, &a->in4.sin_addr, text, TEXT_MAX);
    return;
  }
  char interface[IF_NAMESIZE];
  const struct in6_addr *in6 = &a->in6.sin6_addr;
  unsigned scope = a->in6.sin6_scope_id;
  inet_ntop(AF_INET6, in6, text, TEXT_MAX);
  size_t len = strlen(text);
  if (scope == 0) return;
  bool link = IN6_IS_ADDR_LINKLOCAL(in6) || IN6_IS_ADDR_MC_LINKLOCAL(in6);
  if (link && if_indextoname(scope, interface))
    snprintf(text + len, TEXT_MAX - len, "%%%s", interface);
  else
    snprintf(text + len, TEXT_MAX - len, "%%%u", scope);
}

static void push_number(lua_State *L, const Address *a) {
  char text[TEXT_MAX];
  format(a, text);
  lua_pushstring(L, text);
}

/* Pushes "127.0.0.1:53" or "[::1]:53". */
static void push_server(lua_State *L, const Address *a) {
  char text[TEXT_MAX];
  format(a, text);
  if (a->sa.sa_family == AF_INET)
    lua_pushfstring(L, "%s:%d", text, (int)ntohs(a->in4.sin_port));
  else
    lua_pushfstring(L, "[%s]:%d", text, (int)ntohs(a->in6.sin6_port));
}

/* Looks up argument 1 and waits as long as it takes; a timeout of an outer
** scope ends it. Returns what resolver_lookup does. */
static int lookup(lua_State *L, Hub *hub, int family, Address out[RESOLVER_MAX]) {
  size_t len;
  const char *host = luaL_checklstring(L, 1, &len);
  if (strlen(host) != len) return GREEN_EAI_NONAME; /* C would look up what stands before the zero (T33) */
  return resolver_lookup(hub, host, family, out, RESOLVER_MAX, DEADLINE_NEVER);
}

/* ---- functions ---- */

/*
---Looks up the addresses of a host, in the order to try them. Numbers,
---`localhost` and names of the hosts file are answered without a server.
---
---```lua
---for _, a in ipairs(assert(dns.getaddrinfo "localhost")) do print(a.family, a.addr) end
---```
---@async
---@param host string
---@param family? "inet"|"inet6"|"unspec"  which addresses; default both
---@return {family: "inet"|"inet6", addr: string}[]|nil
---@return string? message
---@return string? code  "EAI_NONAME", "EAI_AGAIN", "EAI_FAIL"
*/
static int getaddrinfo_(lua_State *L) {
  static const char *const names[] = {"unspec", "inet", "inet6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  Address found[RESOLVER_MAX];
  Hub *hub = lcheck_waitable(L, "getaddrinfo");
  luaL_checkstring(L, 1); /* the first wrong argument is the one reported */
  int family = families[luaL_checkoption(L, 2, "unspec", names)];
  int n = lookup(L, hub, family, found);
  if (n < 0) return lcheck_fail(L, n, "getaddrinfo");
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, found[i].sa.sa_family == AF_INET ? "inet" : "inet6");
    lua_setfield(L, -2, "family");
    push_number(L, &found[i]);
    lua_setfield(L, -2, "addr");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/*
---Looks up the IPv4 addresses of a host, as LuaSocket's function does.
---
---```lua
---local ip = assert(dns.toip "localhost")          -- "127.0.0.1"
---```
---@async
---@param host string
---@return string|nil ip  the first address
---@return {name: string, alias: string[], ip: string[]}|string all  or the message
---@return string? code
*/
static int toip(lua_State *L) {
  Address found[RESOLVER_MAX];
  Hub *hub = lcheck_waitable(L, "toip");
  int n = lookup(L, hub, AF_INET, found);
  if (n == GREEN_EAI_NONAME) { /* LuaSocket's word for it here is another than in getaddrinfo */
    lua_pushnil(L);
    lua_pushliteral(L, "host not found");
    lua_pushstring(L, status_name(n));
    return 3;
  }
  if (n < 0) return lcheck_fail(L, n, "toip");
  push_number(L, &found[0]);
  lua_createtable(L, 0, 3);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "name");
  lua_newtable(L);
  lua_setfield(L, -2, "alias");
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    push_number(L, &found[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "ip");
  return 2;
}

/*
---Sets the servers to ask, when an argument is given: a string of addresses
---separated by commas, nil for those of resolv.conf. Returns those in use, or
---nil when the string is none; `green.dns` makes an error of that, which names
---its caller's line.
---
---```lua
---print(table.concat(core.dns.servers(), " "))     -- 127.0.0.1:53
---```
---@param servers? string
---@return string[]|nil
*/
static int servers(lua_State *L) {
  Address list[RESOLVER_MAX];
  Hub *hub = lcheck_hub(L);
  int code = GREEN_OK;
  if (lua_gettop(L) > 0) code = resolver_set_servers(hub, luaL_optstring(L, 1, NULL));
  if (code == -EINVAL) {
    lua_pushnil(L);
    return 1;
  }
  int n = code < 0 ? code : resolver_servers(hub, list, RESOLVER_MAX);
  if (n < 0) return luaL_error(L, "not enough memory");
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    push_server(L, &list[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/*
---Sets how long and how often each server is asked; nil keeps the present
---value. Returns both, or nil when one is out of range. The function of
---`green.dns` takes and returns a table, and raises.
---
---```lua
---print(core.dns.config(0.5, 3))                   -- 0.5  3
---```
---@param timeout? number  seconds before the second try, doubled for each further one
---@param tries? integer   per server
---@return number|nil timeout
---@return integer? tries
*/
static int config(lua_State *L) {
  Hub *hub = lcheck_hub(L);
  double timeout = luaL_optnumber(L, 1, 0);
  lua_Integer tries = luaL_optinteger(L, 2, 0);
  int code = GREEN_OK, now = 0;
  if (!lua_isnoneornil(L, 1) || !lua_isnoneornil(L, 2))
    code = tries == (int)tries ? resolver_set_patience(hub, timeout, (int)tries) : -EINVAL;
  if (code == -EINVAL) {
    lua_pushnil(L);
    return 1;
  }
  if (code < 0 || resolver_patience(hub, &timeout, &now) < 0) return luaL_error(L, "not enough memory");
  lua_pushnumber(L, timeout);
  lua_pushinteger(L, now);
  return 2;
}

static const luaL_Reg functions[] = {
    {"getaddrinfo", getaddrinfo_}, {"toip", toip}, {"servers", servers}, {"config", config}, {NULL, NULL}};

int ldns_open(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
