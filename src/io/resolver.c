/*
 * The flow of a lookup: number, localhost, hosts file, cache, queries along
 * the search list. The first real lookup makes the resolver; until then
 * nothing is read and c-ares is not touched. Waits by hub_park_in.
 *
 * A failing server is told apart from a missing name: c-ares stops a search at
 * REFUSED, glibc goes on (so do we), because servers refuse bare names that
 * they are not responsible for.
 */
#define _GNU_SOURCE /* secure_getenv */
#include "resolver.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "dnscache.h"
#include "filestamp.h"
#include "hostsfile.h"

#define NAME_MAX_LEN 253 /* RFC 1035 section 2.3.4, in text form */
#define LABEL_MAX 63
#define LATE_FAMILY 0.050  /* seconds that an answer waits for the other family's (RFC 8305) */
#define TTL_MAX 3600u      /* T35 */
#define TTL_NEGATIVE 5u    /* T34 */
#define DEAD_SERVER 30.0   /* seconds that a silent server is asked last */
#define CHANNEL_QUERIES 64 /* then a new channel, and with it a new UDP port (T32) */

typedef struct Resolver Resolver;

struct Resolver {
  HubService service; /* first */
  Hub *hub;
  ResolvConf conf;
  FileStamp stamp; /* of resolv.conf */
  const char *conf_path;
  char *servers;  /* set by hand; NULL: resolv.conf's */
  double timeout; /* set by hand; 0: resolv.conf's */
  int tries;
  HostsFile hosts;
  DnsCache cache;
  DnsChannel *channels; /* all of them, the retired too */
  DnsChannel *channel;  /* the one for new queries; NULL: to be made */
  bool stale;           /* its servers' order is not the best any more */
  int skip;             /* servers that stay silent, first in the list: asked last */
  Deadline skip_until;
  pid_t pid; /* a forked child must not share the parent's sockets */
};

static const char service_key;

/* ---- life ---- */

static void close_service(HubService *s) {
  Resolver *r = (Resolver *)s;
  while (r->channels) dnschannel_close(r->channels);
  dnscache_free(&r->cache);
  hostsfile_free(&r->hosts);
  free(r->servers);
  free(r);
}

static Resolver *resolver_of(Hub *hub) {
  Resolver *r = (Resolver *)hub_service(hub, &service_key);
  if (r) return r;
  r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->service.key = &service_key;
  r->service.close = close_service;
  r->hub = hub;
  r->pid = getpid();
  r->conf_path = "/etc/resolv.conf";
  hostsfile_init(&r->hosts, "/etc/hosts");
  hub_service_add(hub, &r->service);
  const char *servers = secure_getenv("GREENLUA_DNS_SERVERS");
  if (servers) resolver_set_servers(hub, servers); /* an invalid value counts as none */
  return r;
}

/* New queries get a new channel. */
static void renew_channel(Resolver *r) {
  if (r->channel) dnschannel_retire(r->channel);
  r->channel = NULL;
  r->stale = false;
}

/* Something about the servers has changed: what they said is void. */
static void start_afresh(Resolver *r) {
  renew_channel(r);
  dnscache_clear(&r->cache);
  r->skip = 0;
}

/* What was set by hand has changed: the configuration is to be read anew. */
static void reconfigure(Resolver *r) {
  start_afresh(r);
  r->stamp.next = 0;
}

/* In a forked child all of the parent's queries end: their answers would come
** to sockets that both processes read. */
static void check_fork(Resolver *r) {
  if (r->pid == getpid()) return;
  r->pid = getpid();
  r->channel = NULL;
  r->stale = false;
  while (r->channels) dnschannel_close(r->channels);
  dnscache_clear(&r->cache);
}

/* ---- the channel for new queries ---- */

static void refresh_conf(Resolver *r) {
  if (!filestamp_changed(&r->stamp, r->conf_path, r->hub->now)) return;
  start_afresh(r);
  resolvconf_read(&r->conf, r->conf_path);
  if (r->servers) resolvconf_set_servers(&r->conf, r->servers);
  if (r->timeout > 0) r->conf.timeout = r->timeout;
  if (r->tries > 0) r->conf.tries = r->tries;
}

/* The list with those that stay silent at its end. */
static void put_dead_last(ResolvConf *conf, int skip) {
  Address moved[RESOLVCONF_SERVERS];
  size_t size = sizeof moved[0];
  int rest = conf->nservers - skip;
  memcpy(moved, conf->servers + skip, (size_t)rest * size);
  memcpy(moved + rest, conf->servers, (size_t)skip * size);
  memcpy(conf->servers, moved, (size_t)conf->nservers * size);
}

static DnsChannel *current_channel(Resolver *r) {
  if (r->skip > 0 && r->hub->now >= r->skip_until) {
    r->skip = 0;
    renew_channel(r);
  }
  if (r->channel &&
      (r->stale || dnschannel_asked(r->channel) >= CHANNEL_QUERIES || !dnschannel_sound(r->channel)))
    renew_channel(r);
  if (!r->channel) {
    ResolvConf conf = r->conf;
    put_dead_last(&conf, r->skip);
    r->channel = dnschannel_open(r->hub, &conf, &r->channels);
  }
  return r->channel;
}

/* `timeouts` servers of the channel's list were silent before one spoke: noted
** once for each channel. With `rotate` there is no telling which. */
static void note_silence(Resolver *r, const DnsChannel *ch, int timeouts) {
  if (ch != r->channel || r->stale || timeouts <= 0 || r->conf.rotate || r->conf.nservers < 2) return;
  r->skip = (r->skip + timeouts) % r->conf.nservers;
  r->skip_until = r->hub->now + DEAD_SERVER;
  r->stale = true;
}

/* ---- one lookup's queries ---- */

/* The graver of two codes. A server that failed, or was silent, outweighs a
** missing name, which may exist after all. */
static int graver(int a, int b) {
  static const int order[] = {-ENOMEM, GREEN_EAI_AGAIN, GREEN_EAI_FAIL, GREEN_EAI_NONAME};
  for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
    if (a == order[i] || b == order[i]) return order[i];
  return GREEN_OK;
}

static void wake_all(Lookup *l) {
  while (hub_queue_wake(&l->waiters, GREEN_OK))
    ;
}

static void finish(Resolver *r, Lookup *l) {
  unsigned ttl;
  l->done = true;
  l->channel = NULL;
  if (l->n > 0) {
    l->code = GREEN_OK;
    ttl = l->ttl < 1 ? 1 : l->ttl > TTL_MAX ? TTL_MAX : l->ttl;
    /* One family's server failed: ask it again soon. */
    if (l->worst != GREEN_OK && l->worst != GREEN_EAI_NONAME && ttl > TTL_NEGATIVE) ttl = TTL_NEGATIVE;
  } else {
    l->code = l->worst;
    ttl = l->code == GREEN_EAI_NONAME ? TTL_NEGATIVE : 0; /* failures are not kept */
  }
  l->expires = r->hub->now + ttl;
  if (!r->hub->closing) /* then its waiters are gone, not unwound */
    wake_all(l);
  /* A reference of its own, so that an unlisted record without waiters goes. */
  dnscache_drop(&r->cache, l);
}

static int add_addresses(Lookup *l, const DnsAnswer *answer) {
  int n = answer->n < RESOLVER_MAX - l->n ? answer->n : RESOLVER_MAX - l->n;
  if (n <= 0) return GREEN_OK;
  Address *more = realloc(l->addrs, (size_t)(l->n + n) * sizeof *more);
  if (!more) return -ENOMEM;
  l->addrs = more;
  memcpy(more + l->n, answer->addrs, (size_t)n * sizeof *more);
  l->ttl = l->n == 0 || answer->ttl < l->ttl ? answer->ttl : l->ttl;
  l->n += n;
  address_order(l->addrs, l->n);
  return GREEN_OK;
}

static void ask_step(Resolver *r, Lookup *l);

/* Takes one answer into the record: its addresses, or its failure. */
static int take(Lookup *l, const DnsAnswer *answer) {
  if (answer->code == GREEN_TIMEDOUT || answer->code == GREEN_CANCELLED) return GREEN_EAI_AGAIN;
  return answer->code == GREEN_OK ? add_addresses(l, answer) : answer->code;
}

static void on_answer(void *arg, const DnsAnswer *answer) {
  Lookup *l = arg;
  Resolver *r = l->owner;
  bool first = l->n == 0;
  bool heard = answer->code != GREEN_TIMEDOUT && answer->code != GREEN_CANCELLED;
  int code = take(l, answer);
  l->worst = graver(l->worst, code);
  if (heard) note_silence(r, l->channel, answer->timeouts);
  /* Silence or lack of memory: the next candidate would fare no better. */
  l->stop |= !heard || code == -ENOMEM;
  if (--l->running > 0) {
    if (first && l->n > 0) {
      l->first = r->hub->now;
      wake_all(l); /* from now on they wait only a little for the other family */
    }
    return;
  }
  l->step++;
  if (l->n > 0 || l->stop)
    finish(r, l);
  else
    ask_step(r, l);
}

/* Asks for the next candidate, or finishes when there is none. Answers may
** come inside dnschannel_ask; the last of them goes on, or frees `l`. */
static void ask_step(Resolver *r, Lookup *l) {
  char name[RESOLVCONF_CANDIDATE];
  DnsChannel *ch = l->channel;
  int family = l->family;
  if (!resolvconf_candidate(dnschannel_conf(ch), l->name, l->step, name)) {
    finish(r, l);
    return;
  }
  l->running = family == AF_UNSPEC ? 2 : 1;
  if (family != AF_INET6) dnschannel_ask(ch, name, AF_INET, on_answer, l);
  if (family != AF_INET) dnschannel_ask(ch, name, AF_INET6, on_answer, l);
}

/* A record for the name, whose queries run or ran; held for the caller. NULL
** for lack of memory or descriptors. */
static Lookup *obtain(Resolver *r, const char *name, int family) {
  Lookup *l = dnscache_find(&r->cache, name, family, r->hub->now);
  if (l) {
    dnscache_hold(l);
    return l;
  }
  DnsChannel *ch = current_channel(r);
  l = ch ? dnscache_add(&r->cache, name, family) : NULL;
  if (!l) return NULL;
  l->owner = r;
  l->channel = ch;
  dnscache_hold(l); /* its queries' */
  ask_step(r, l);
  return l;
}

/* ---- waiting for it ---- */

static int copy_out(const Address *from, int n, Address *out, int max) {
  if (n > max) n = max;
  memcpy(out, from, (size_t)n * sizeof *out);
  return n;
}

static int await(Resolver *r, Lookup *l, Address *out, int max, Deadline deadline) {
  while (!l->done) {
    Deadline until = l->n > 0 ? l->first + LATE_FAMILY : DEADLINE_NEVER;
    if (l->n > 0 && hub_now_update(r->hub) >= until) break;
    if (deadline <= r->hub->now) return GREEN_TIMEDOUT; /* the answer will be in the cache */
    int code = hub_park_in(r->hub, &l->waiters, "resolve", l, until < deadline ? until : deadline);
    if (code < 0 && !(code == GREEN_TIMEDOUT && until < deadline)) return code;
  }
  return l->n > 0 ? copy_out(l->addrs, l->n, out, max) : l->code;
}

/* ---- names that need no server ---- */

/* Copies the name in lower case. False when no such host can exist: glibc's
** res_hnok is as strict about bytes, RFC 1035 about lengths. */
static bool canonical(const char *host, char out[RESOLVCONF_NAME]) {
  size_t len = strlen(host), label = 0;
  size_t text = len > 0 && host[len - 1] == '.' ? len - 1 : len;
  if (text == 0 || text > NAME_MAX_LEN) return false;
  for (size_t i = 0; i < text; i++) {
    unsigned char c = (unsigned char)host[i];
    label = c == '.' ? 0 : label + 1;
    bool empty = c == '.' && (i == 0 || host[i - 1] == '.');
    if (c > 127 || !(isalnum(c) || strchr("-_.", c)) || empty || label > LABEL_MAX) return false;
    out[i] = (char)tolower(c);
  }
  strcpy(out + text, host + text);
  return true;
}

/* RFC 6761 section 6.3: localhost and what is below it is loopback, always. */
static int localhost(const char *name, size_t len, int family, Address *out, int max) {
  static const char suffix[] = "localhost";
  size_t n = sizeof suffix - 1;
  if (len < n || strncmp(name + len - n, suffix, n) != 0 || (len > n && name[len - n - 1] != '.')) return 0;
  Address both[2];
  int count = 0;
  if (family != AF_INET) address_from_raw(&both[count++], AF_INET6, &in6addr_loopback);
  if (family != AF_INET6)
    address_from_raw(&both[count++], AF_INET, &(struct in_addr){htonl(INADDR_LOOPBACK)});
  address_order(both, count);
  return copy_out(both, count, out, max);
}

static int from_hosts(Resolver *r, const char *name, size_t len, int family, Address *out, int max) {
  char bare[RESOLVCONF_NAME];
  memcpy(bare, name, len);
  bare[len] = '\0';
  int n = hostsfile_lookup(&r->hosts, bare, family, out, max, r->hub->now);
  if (n > 1) address_order(out, n);
  return n;
}

/* ---- the interface ---- */

int resolver_numeric(const char *host, int family, Address *out) {
  return address_parse(host, out) && address_fit(out, family) ? 1 : GREEN_EAI_NONAME;
}

int resolver_lookup(Hub *hub, const char *host, int family, Address *out, int max, Deadline deadline) {
  char name[RESOLVCONF_NAME];
  Address number;
  assert(max > 0);
  if (address_parse(host, &number)) {
    *out = number; /* one of the other family is no name to ask for */
    return address_fit(out, family) ? 1 : GREEN_EAI_NONAME;
  }
  if (!canonical(host, name)) return GREEN_EAI_NONAME;
  size_t len = strlen(name);
  size_t bare = name[len - 1] == '.' ? len - 1 : len;
  int n = localhost(name, bare, family, out, max);
  if (n > 0) return n;
  Resolver *r = resolver_of(hub);
  if (!r) return -ENOMEM;
  hub_now_update(hub);
  n = from_hosts(r, name, bare, family, out, max);
  if (n != 0) return n;
  check_fork(r);
  refresh_conf(r);
  Lookup *l = obtain(r, name, family);
  if (!l) return -ENOMEM;
  n = await(r, l, out, max, deadline);
  dnscache_drop(&r->cache, l);
  return n;
}

int resolver_set_servers(Hub *hub, const char *servers) {
  Resolver *r = resolver_of(hub);
  ResolvConf check;
  char *copy = NULL;
  if (!r) return -ENOMEM;
  if (servers) {
    int code = resolvconf_set_servers(&check, servers);
    if (code < 0) return code;
    copy = strdup(servers);
    if (!copy) return -ENOMEM;
  }
  free(r->servers);
  r->servers = copy;
  reconfigure(r);
  return 0;
}

int resolver_servers(Hub *hub, Address *out, int max) {
  Resolver *r = resolver_of(hub);
  if (!r) return -ENOMEM;
  hub_now_update(hub);
  refresh_conf(r);
  return copy_out(r->conf.servers, r->conf.nservers, out, max);
}

int resolver_set_files(Hub *hub, const char *resolv_conf, const char *hosts) {
  Resolver *r = resolver_of(hub);
  if (!r) return -ENOMEM;
  if (resolv_conf) {
    r->conf_path = resolv_conf;
    reconfigure(r);
  }
  if (hosts) {
    hostsfile_free(&r->hosts);
    hostsfile_init(&r->hosts, hosts);
  }
  return 0;
}

int resolver_set_patience(Hub *hub, double timeout, int tries) {
  if (!(timeout >= 0 && timeout <= RESOLVER_TIMEOUT_MAX) || tries < 0 || tries > RESOLVER_TRIES_MAX)
    return -EINVAL;
  Resolver *r = resolver_of(hub);
  if (!r) return -ENOMEM;
  if (timeout > 0) r->timeout = timeout;
  if (tries > 0) r->tries = tries;
  reconfigure(r);
  return 0;
}

int resolver_patience(Hub *hub, double *timeout, int *tries) {
  Resolver *r = resolver_of(hub);
  if (!r) return -ENOMEM;
  hub_now_update(hub);
  refresh_conf(r);
  *timeout = r->conf.timeout;
  *tries = r->conf.tries;
  return 0;
}
