/*
 * Addresses without names: parsing numbers, and the order to try several in.
 * Neither does I/O beyond asking the kernel which way it would route.
 */
#ifndef GREEN_ADDRESS_H
#define GREEN_ADDRESS_H

#include "resolver.h"

/* Parses a number as getaddrinfo(3) with AI_NUMERICHOST does: every form of
** inet_aton(3), IPv6 with an optional %scope. Returns true, with `*out` of the
** family that the number has and port 0. */
bool address_parse(const char *text, Address *out);

/* Turns `a` into an address of `family` (AF_UNSPEC: any): false when it does
** not fit. A v4-mapped IPv6 address fits AF_INET. */
bool address_fit(Address *a, int family);

/* As an IPv4 or IPv6 address of 4 or 16 raw bytes, port 0. */
void address_from_raw(Address *out, int family, const void *raw);

/* Sets the port, in host byte order. */
void address_set_port(Address *a, unsigned port);

/* Sorts into the order to try them in: RFC 6724 section 6, rules 1 (usable),
** 2 (scope), 5 (label) and 6 (precedence); otherwise the given order stays. */
void address_order(Address *list, int n);

#endif
