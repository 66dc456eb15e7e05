/*
 * Names to addresses: c-ares on the hub's loop (D19).
 *
 * Numbers (every form of inet_aton(3), scoped IPv6) and `localhost` never
 * reach c-ares. Each lookup in flight is a shared, reference-counted record:
 * who waits for the same name and family waits for the same query; who leaves
 * (kill, deadline) is unlinked and the query runs on. One Resolver per hub.
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

/* Looks up `host`. `family` is AF_UNSPEC, AF_INET or AF_INET6. Writes at most
** `max` addresses (port 0) to `out`, in the order to try them. Waits unless
** the answer is known. Returns their number (> 0), GREEN_EAI_*, -ENOMEM, or a
** code as hub_park. */
int resolver_lookup(Hub *hub, const char *host, int family, Address *out, int max, Deadline deadline);

/* A numeric address only, never waits: 1, or GREEN_EAI_NONAME. */
int resolver_numeric(const char *host, int family, Address *out);

/* Uses `servers` ("127.0.0.1:5353,[::1]:53") from now on instead of
** resolv.conf's; NULL goes back to resolv.conf. Lookups in flight end with the
** servers that they began with. Returns 0 or -EINVAL. */
int resolver_set_servers(Hub *hub, const char *servers);

/* Seconds before the first retry, and tries per server; 0 keeps the present
** value. Defaults: resolv.conf's `options timeout: attempts:`, else 2 and 2. */
int resolver_set_patience(Hub *hub, double timeout, int tries);

#endif
