/*
 * TCP: making sockets, connecting, listening, accepting.
 *
 * Every socket is non-blocking and close-on-exec from birth (T46). Addresses
 * are the resolver's; names are its business. A function that fails or is
 * cancelled leaves no descriptor and no half-open connection behind.
 */
#ifndef GREEN_NET_H
#define GREEN_NET_H

#include "resolver.h"
#include "stream.h"

/* A TCP socket of `family`: AF_INET, or AF_INET6 and then for IPv6 only.
** Returns the descriptor or -errno. */
int net_socket(int family);

/* The family of a socket, or -errno. */
int net_family(int fd);

/* Orders `list` so that the families take turns, the first one's first: when
** one family does not work at all, every second try is of the other (RFC 8305,
** section 4). */
void net_interleave(Address *list, int n);

/* Connects `s` to the first address of `list` that answers, trying each in
** turn. `local` is the address to bind to first, or NULL. When `s` has a
** descriptor already, that one is used, and addresses of its family only;
** otherwise one is made for each try. A try that is not the last gets a share
** of the time that is left, so that an address that swallows everything does
** not cost all of it. With DEADLINE_NOW only the first address is tried, and
** the descriptor is kept after GREEN_TIMEDOUT: the connection goes on by
** itself. Returns 0; or the last try's -errno, GREEN_TIMEDOUT, GREEN_CLOSED,
** or a code as hub_park. */
int net_connect(Stream *s, const Address *list, int n, const Address *local, Deadline deadline);

/* Binds `s` to the first address of `list` that the system grants, making a
** socket when `s` has none; `reuse` sets SO_REUSEADDR first. Never waits.
** Returns 0 or -errno. */
int net_bind(Stream *s, const Address *list, int n, bool reuse);

/* Accepts one connection on the listening `s`. Connections that died in the
** queue are skipped. Returns a descriptor, or -errno (-EMFILE: the connection
** stays in the queue), GREEN_TIMEDOUT, GREEN_CLOSED, GREEN_BUSY, or a code as
** hub_park. */
int net_accept(Stream *s, Deadline deadline);

#endif
