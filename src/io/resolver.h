/*
 * Names to addresses: c-ares on the hub's loop (D19).
 *
 * Numbers (every form of inet_aton(3), scoped IPv6), `localhost` and names of
 * the hosts file never reach c-ares. Each lookup in flight is a shared,
 * reference-counted record: who waits for the same name and family waits for
 * the same query; who leaves (kill, deadline) is unlinked and the query runs
 * on, into a cache. One Resolver per hub, made by its first real lookup.
 */
#ifndef GREEN_RESOLVER_H
#define GREEN_RESOLVER_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "../hub/hub.h"

typedef struct Address {
  union {
    struct sockaddr sa;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
  };
  socklen_t len;
} Address;

#define RESOLVER_MAX 100 /* addresses kept of one answer */
#define RESOLVER_TIMEOUT_MAX 60
#define RESOLVER_TRIES_MAX 10

/* Looks up `host`. `family` is AF_UNSPEC, AF_INET or AF_INET6. Writes at most
** `max` addresses (port 0) to `out`, in the order to try them. Waits unless
** the answer is known. Returns their number (> 0), GREEN_EAI_*, -ENOMEM, or a
** code as hub_park. */
int resolver_lookup(Hub *hub, const char *host, int family, Address *out, int max, Deadline deadline);

/* A numeric address only, never waits: 1, or GREEN_EAI_NONAME. */
int resolver_numeric(const char *host, int family, Address *out);

/* Uses `servers` ("127.0.0.1:5353,[::1]:53") from now on instead of
** resolv.conf's; NULL goes back to resolv.conf. What was known is forgotten.
** Lookups in flight end with the servers that they began with. At the start
** GREENLUA_DNS_SERVERS in the environment, if it is valid, does the same.
** Returns 0, -EINVAL (and changes nothing) or -ENOMEM. */
int resolver_set_servers(Hub *hub, const char *servers);

/* Writes the servers that the next lookup will ask, with their ports, at most
** `max`. Returns their number or -ENOMEM. */
int resolver_servers(Hub *hub, Address *out, int max);

/* Other files than /etc/resolv.conf and /etc/hosts; NULL keeps the present
** one. The strings must live as long as the hub. Returns 0 or -ENOMEM. */
int resolver_set_files(Hub *hub, const char *resolv_conf, const char *hosts);

/* Seconds before the first retry (doubled at each further one), and tries per
** server; 0 keeps the present value. Defaults: resolv.conf's `options timeout:
** attempts:`, else 2 and 2. Returns 0, -EINVAL (RESOLVER_TIMEOUT_MAX,
** RESOLVER_TRIES_MAX) or -ENOMEM. */
int resolver_set_patience(Hub *hub, double timeout, int tries);

/* What resolver_set_patience set, or resolv.conf. Returns 0 or -ENOMEM. */
int resolver_patience(Hub *hub, double *timeout, int *tries);

#endif
