/*
 * The table of lookups: those in flight, which are shared by all who ask for
 * the same name and family, and those answered, until their TTL is over.
 *
 * A record lives while the table lists it, while its queries run, or while a
 * waiter holds it. Limited to DNSCACHE_MAX listed answers, oldest out first.
 */
#ifndef GREEN_DNSCACHE_H
#define GREEN_DNSCACHE_H

#include "dnschannel.h"

#define DNSCACHE_MAX 1024
#define DNSCACHE_BUCKETS 512

typedef struct Lookup {
  struct Lookup *chain;         /* the next with its hash, while listed */
  struct Lookup *older, *newer; /* in the order of birth, listed or not */
  WaitQueue waiters;
  int refs;    /* tasks inside resolver_lookup that look at it; 1 for its queries */
  bool listed; /* new lookups find it */
  bool done;   /* no query of it runs; `code` and `expires` are valid */
  int family;  /* asked for; AF_UNSPEC: two queries for each name */
  struct Resolver *owner;
  DnsChannel *channel; /* who asks; valid until done */
  int step;            /* the candidate of the search list being asked */
  int running;         /* queries of this step that are not answered */
  bool stop;           /* no further candidate is worth asking for */
  int worst;           /* the gravest failure of any step: GREEN_OK or GREEN_EAI_* */
  int code;            /* GREEN_OK (then n > 0), GREEN_EAI_* or -ENOMEM */
  int n;               /* addresses so far, in the order to try them */
  Address *addrs;      /* grows with the answers; NULL: none */
  unsigned ttl;        /* the least so far, in seconds */
  Deadline first;      /* when the first address came; valid while n > 0 */
  Deadline expires;
  char name[]; /* lower case */
} Lookup;

typedef struct DnsCache {
  Lookup *buckets[DNSCACHE_BUCKETS];
  Lookup *oldest, *newest;
  unsigned count; /* records, listed or not */
} DnsCache;

/* The listed record that is in flight, or not expired at `now`; or NULL. */
Lookup *dnscache_find(DnsCache *c, const char *name, int family, Deadline now);

/* Makes and lists a record with one reference. Returns NULL without memory. */
Lookup *dnscache_add(DnsCache *c, const char *name, int family);

/* Holding and letting go. */
static inline void dnscache_hold(Lookup *l) { l->refs++; }
void dnscache_drop(DnsCache *c, Lookup *l);

/* Forgets all answers; lookups in flight go on, for their waiters only. */
void dnscache_clear(DnsCache *c);

/* Frees everything, held or not. No query may be running. */
void dnscache_free(DnsCache *c);

#endif
