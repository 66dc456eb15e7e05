/* A hash table of lookups; memory only. */
#include "dnscache.h"

#include <stdlib.h>
#include <string.h>

#define EVICT_LOOK 16 /* records looked at for each one added, so that adding stays cheap */

/* FNV-1a. Chosen collisions gain nothing: there are at most 1,024 answers. */
static unsigned bucket_of(const char *name, int family) {
  unsigned h = 2166136261u ^ (unsigned)family;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h % DNSCACHE_BUCKETS;
}

static void destroy(DnsCache *c, Lookup *l) {
  if (l->older)
    l->older->newer = l->newer;
  else
    c->oldest = l->newer;
  if (l->newer)
    l->newer->older = l->older;
  else
    c->newest = l->older;
  c->count--;
  free(l->addrs);
  free(l);
}

static void unlist(DnsCache *c, Lookup *l) {
  Lookup **at = &c->buckets[bucket_of(l->name, l->family)];
  while (*at != l) at = &(*at)->chain;
  *at = l->chain;
  l->listed = false;
  if (l->done && l->refs == 0) destroy(c, l);
}

Lookup *dnscache_find(DnsCache *c, const char *name, int family, Deadline now) {
  Lookup *l = c->buckets[bucket_of(name, family)];
  while (l && (l->family != family || strcmp(l->name, name) != 0)) l = l->chain;
  if (l && l->done && now >= l->expires) {
    unlist(c, l);
    return NULL;
  }
  return l;
}

static void evict(DnsCache *c) {
  Lookup *l = c->oldest;
  for (int i = 0; l && i < EVICT_LOOK && c->count >= DNSCACHE_MAX; i++) {
    Lookup *newer = l->newer;
    if (l->listed && l->done && l->refs == 0) unlist(c, l);
    l = newer;
  }
}

Lookup *dnscache_add(DnsCache *c, const char *name, int family) {
  size_t len = strlen(name) + 1;
  evict(c);
  Lookup *l = calloc(1, sizeof *l + len);
  if (!l) return NULL;
  memcpy(l->name, name, len);
  l->family = family;
  l->refs = 1;
  l->listed = true;
  Lookup **bucket = &c->buckets[bucket_of(name, family)];
  l->chain = *bucket;
  *bucket = l;
  l->older = c->newest;
  if (c->newest)
    c->newest->newer = l;
  else
    c->oldest = l;
  c->newest = l;
  c->count++;
  return l;
}

void dnscache_drop(DnsCache *c, Lookup *l) {
  if (--l->refs == 0 && l->done && !l->listed) destroy(c, l);
}

void dnscache_clear(DnsCache *c) {
  for (Lookup *l = c->oldest, *newer; l; l = newer) {
    newer = l->newer;
    if (l->listed) unlist(c, l);
  }
}

void dnscache_free(DnsCache *c) {
  while (c->oldest) destroy(c, c->oldest);
}
