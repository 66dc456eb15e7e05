/* Numbers to addresses, and RFC 6724's order; no names, no waiting. */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void address_from_raw(Address *out, int family, const void *raw) {
  memset(out, 0, sizeof *out);
  out->sa.sa_family = (sa_family_t)family;
  if (family == AF_INET) {
    memcpy(&out->in4.sin_addr, raw, sizeof out->in4.sin_addr);
    out->len = sizeof out->in4;
  } else {
    memcpy(&out->in6.sin6_addr, raw, sizeof out->in6.sin6_addr);
    out->len = sizeof out->in6;
  }
}

void address_set_port(Address *a, unsigned port) {
  if (a->sa.sa_family == AF_INET)
    a->in4.sin_port = htons((uint16_t)port);
  else
    a->in6.sin6_port = htons((uint16_t)port);
}

/* A scope is an interface's name for link-local addresses, a number for all
** (glibc's __inet6_scopeid_pton). */
static bool parse_scope(const struct in6_addr *in6, const char *scope, uint32_t *id) {
  if (IN6_IS_ADDR_LINKLOCAL(in6) || IN6_IS_ADDR_MC_LINKLOCAL(in6)) {
    *id = if_nametoindex(scope);
    if (*id != 0) return true;
  }
  if (*scope < '0' || *scope > '9') return false;
  char *end;
  errno = 0;
  unsigned long long n = strtoull(scope, &end, 10);
  if (*end != '\0' || errno != 0 || n > UINT32_MAX) return false;
  *id = (uint32_t)n;
  return true;
}

static bool parse_in6(const char *text, Address *out) {
  char number[INET6_ADDRSTRLEN];
  struct in6_addr in6;
  uint32_t scope = 0;
  const char *percent = strchr(text, '%');
  size_t len = percent ? (size_t)(percent - text) : strlen(text);
  if (len >= sizeof number) return false;
  memcpy(number, text, len);
  number[len] = '\0';
  if (inet_pton(AF_INET6, number, &in6) != 1) return false;
  if (percent && !parse_scope(&in6, percent + 1, &scope)) return false;
  address_from_raw(out, AF_INET6, &in6);
  out->in6.sin6_scope_id = scope;
  return true;
}

bool address_parse(const char *text, Address *out) {
  struct in_addr in4;
  if (strchr(text, ':')) return parse_in6(text, out);
  /* inet_aton stops at white space and ignores the rest; getaddrinfo does not. */
  if (text[strcspn(text, " \t\n\v\f\r")] != '\0' || inet_aton(text, &in4) == 0) return false;
  address_from_raw(out, AF_INET, &in4);
  return true;
}

bool address_fit(Address *a, int family) {
  if (family == AF_UNSPEC || a->sa.sa_family == family) return true;
  if (family != AF_INET || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) return false;
  struct in_addr in4;
  memcpy(&in4, &a->in6.sin6_addr.s6_addr[12], sizeof in4);
  address_from_raw(a, AF_INET, &in4);
  return true;
}

/* RFC 6724 section 2.1's default policy table; `a` as IPv6. */
static void policy(const struct in6_addr *a, int *precedence, int *label) {
  static const struct {
    uint8_t prefix[16];
    int bits, precedence, label;
  } table[] = {
      {{[15] = 1}, 128, 50, 0},                /* ::1 */
      {{[10] = 0xff, [11] = 0xff}, 96, 35, 4}, /* v4-mapped */
      {{0}, 96, 1, 3},                         /* v4-compatible */
      {{0x20, 0x01, 0, 0}, 32, 5, 5},          /* Teredo */
      {{0x20, 0x02}, 16, 30, 2},               /* 6to4 */
      {{0x3f, 0xfe}, 16, 1, 12},               /* 6bone */
      {{0xfe, 0xc0}, 10, 1, 11},               /* site-local */
      {{0xfc}, 7, 3, 13},                      /* unique local */
  };
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    int whole = table[i].bits / 8, rest = table[i].bits % 8;
    uint8_t mask = (uint8_t)(0xff00 >> rest);
    if (memcmp(a->s6_addr, table[i].prefix, (size_t)whole) == 0 &&
        (rest == 0 || ((a->s6_addr[whole] ^ table[i].prefix[whole]) & mask) == 0)) {
      *precedence = table[i].precedence;
      *label = table[i].label;
      return;
    }
  }
  *precedence = 40;
  *label = 1;
}

/* IPv4 addresses count as v4-mapped ones (RFC 6724 section 2.1). */
static struct in6_addr as_in6(const Address *a) {
  if (a->sa.sa_family == AF_INET6) return a->in6.sin6_addr;
  struct in6_addr r = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
  memcpy(&r.s6_addr[12], &a->in4.sin_addr, 4);
  return r;
}

/* RFC 6724 sections 3.1 and 3.2; the values are those of RFC 4291. */
static int scope(const struct in6_addr *a) {
  const uint8_t *b = a->s6_addr;
  if (IN6_IS_ADDR_V4MAPPED(a)) return b[12] == 127 || (b[12] == 169 && b[13] == 254) ? 2 : 14;
  if (IN6_IS_ADDR_MULTICAST(a)) return b[1] & 15;
  if (IN6_IS_ADDR_LINKLOCAL(a) || IN6_IS_ADDR_LOOPBACK(a)) return 2;
  return IN6_IS_ADDR_SITELOCAL(a) ? 5 : 14;
}

/* How good `a` is; `fd` is a UDP socket of its family, or -1. Connecting one
** sends nothing: the kernel only chooses a route and a source address. */
static int rank(const Address *a, int fd) {
  Address to = *a, from;
  struct in6_addr dst = as_in6(a);
  int precedence, label, from_precedence, from_label;
  policy(&dst, &precedence, &label);
  memset(&from, 0, sizeof from);
  from.len = sizeof from.in6;
  address_set_port(&to, 53); /* a port of 0 is refused by some kernels; any other will do */
  if (fd < 0 || connect(fd, &to.sa, to.len) < 0 || getsockname(fd, &from.sa, &from.len) < 0)
    return precedence;
  struct in6_addr src = as_in6(&from);
  policy(&src, &from_precedence, &from_label);
  return 1 << 10 | (scope(&src) == scope(&dst)) << 9 | (from_label == label) << 8 | precedence;
}

void address_order(Address *list, int n) {
  int ranks[RESOLVER_MAX];
  bool mixed = false;
  for (int i = 0; i < n; i++) mixed |= list[i].sa.sa_family == AF_INET6;
  if (n < 2 || n > RESOLVER_MAX || !mixed)
    return; /* among IPv4 addresses the server's order (round robin) stays */
  int fd4 = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  for (int i = 0; i < n; i++) {
    Address a = list[i];
    int r = rank(&a, a.sa.sa_family == AF_INET ? fd4 : fd6), at = i;
    for (; at > 0 && ranks[at - 1] < r; at--) {
      ranks[at] = ranks[at - 1];
      list[at] = list[at - 1];
    }
    ranks[at] = r;
    list[at] = a;
  }
  if (fd6 >= 0) close(fd6);
  if (fd4 >= 0) close(fd4);
}
