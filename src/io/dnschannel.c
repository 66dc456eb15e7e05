/* c-ares on libev. Uses hub_io_start and _stop, no waiting. */
#include "dnschannel.h"

#include <ares.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"

#define EDNS_SIZE 1232 /* bytes of UDP answer that no path fragments (DNS flag day 2020) */

/* A socket of c-ares' and its watcher. */
typedef struct Sock {
  HubIo io; /* first */
  DnsChannel *ch;
  struct Sock *next;
  bool uncounted; /* we hold an ev_unref for it */
} Sock;

struct DnsChannel {
  Hub *hub;
  ares_channel ares;
  ResolvConf conf;
  DnsChannel **list; /* the owner's list of channels, this one among them */
  DnsChannel *next;
  Sock *socks;
  ev_timer timer; /* c-ares' next timeout; runs only while pending > 0 */
  unsigned asked;
  int pending;  /* queries not yet answered */
  int depth;    /* > 0: inside c-ares, which must not be destroyed then */
  bool counted; /* the loop counts its sockets' watchers; so while pending > 0 */
  bool retired;
};

typedef struct Query {
  DnsChannel *ch;
  DnsAnswerFn fn;
  void *arg;
} Query;

/* ---- the loop's side ---- */

/* Whether the loop counts this watcher among what keeps it alive. One that
** the hub stopped (EV_ERROR) is counted back here, too: it cost one already. */
static void count_sock(Sock *s, bool counted) {
  if (s->uncounted == !counted || (!counted && !ev_is_active(&s->io.ev))) return;
  s->uncounted = !counted;
  if (counted)
    ev_ref(s->ch->hub->loop);
  else
    ev_unref(s->ch->hub->loop);
}

static void count_sockets(DnsChannel *ch, bool counted) {
  if (ch->counted == counted) return;
  ch->counted = counted;
  for (Sock *s = ch->socks; s; s = s->next) count_sock(s, counted);
}

static void stop_sock(Sock *s) {
  count_sock(s, true);
  hub_io_stop(s->ch->hub, &s->io);
}

static void start_sock(Sock *s, int events) {
  ev_io_set(&s->io.ev, s->io.ev.fd, events);
  hub_io_start(s->ch->hub, &s->io);
  count_sock(s, s->ch->counted);
}

/* Every call into c-ares stands between these two: its own sendto and connect
** may be our interposed ones, which must not park (D19). */
static void enter(DnsChannel *ch) {
  ch->hub->nowait++;
  ch->depth++;
}

static void leave(DnsChannel *ch) {
  ch->hub->nowait--;
  if (--ch->depth > 0) return;
  if (ch->pending == 0 && ch->retired) {
    dnschannel_close(ch);
    return;
  }
  struct timeval tv;
  count_sockets(ch, ch->pending > 0);
  if (ch->pending == 0) {
    ev_timer_stop(ch->hub->loop, &ch->timer);
  } else if (ares_timeout(ch->ares, NULL, &tv)) {
    /* One millisecond more: c-ares rounds down, and would be called too early. */
    ch->timer.repeat = (double)tv.tv_sec + (double)tv.tv_usec * 1e-6 + 0.001;
    ev_timer_again(ch->hub->loop, &ch->timer);
  }
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents) {
  DnsChannel *ch = w->data;
  (void)loop;
  (void)revents;
  enter(ch);
  ares_process_fd(ch->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  leave(ch);
}

static void on_event(struct ev_loop *loop, ev_io *w, int revents) {
  Sock *s = (Sock *)w; /* freed by c-ares' closing the socket, perhaps in this call */
  DnsChannel *ch = s->ch;
  ares_socket_t fd = w->fd;
  (void)loop;
  /* A descriptor that somebody closed: c-ares reads EBADF and gives it up. */
  if (revents & EV_ERROR) revents = EV_READ | EV_WRITE;
  enter(ch);
  ares_process_fd(ch->ares, revents & EV_READ ? fd : ARES_SOCKET_BAD,
                  revents & EV_WRITE ? fd : ARES_SOCKET_BAD);
  leave(ch);
}

/* c-ares wants these events of `fd` from now on; neither: it closes it. */
static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable) {
  DnsChannel *ch = arg;
  Sock **at = &ch->socks;
  int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);
  while (*at && (*at)->io.ev.fd != fd) at = &(*at)->next;
  Sock *s = *at;
  if (s) stop_sock(s);
  if (events == 0) {
    if (s) {
      *at = s->next;
      free(s);
    }
    return;
  }
  if (!s) {
    s = calloc(1, sizeof *s);
    if (!s) return; /* nobody reads the answer: the query times out */
    ev_io_init(&s->io.ev, on_event, fd, events);
    s->ch = ch;
    s->next = ch->socks;
    ch->socks = s;
  }
  start_sock(s, events);
}

/* ---- c-ares' side ---- */

static int status_code(int status) {
  switch (status) {
    case ARES_SUCCESS:
      return GREEN_OK;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_EBADNAME: /* with a domain appended it became too long */
      return GREEN_EAI_NONAME;
    case ARES_ETIMEOUT:
      return GREEN_TIMEDOUT;
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
      return GREEN_CANCELLED;
    case ARES_ENOMEM:
      return -ENOMEM;
    case ARES_EFORMERR:
    case ARES_EBADRESP:
      return GREEN_EAI_FAIL;
    default: /* SERVFAIL, NOTIMP, REFUSED, an ICMP error: c-ares tells them no further */
      return GREEN_EAI_AGAIN;
  }
}

static void take_addresses(DnsAnswer *answer, const struct ares_addrinfo *info) {
  answer->ttl = UINT32_MAX;
  for (const struct ares_addrinfo_cname *c = info->cnames; c; c = c->next)
    if (c->ttl >= 0 && (unsigned)c->ttl < answer->ttl) answer->ttl = (unsigned)c->ttl;
  for (const struct ares_addrinfo_node *a = info->nodes; a; a = a->ai_next) {
    if (a->ai_ttl >= 0 && (unsigned)a->ai_ttl < answer->ttl) answer->ttl = (unsigned)a->ai_ttl;
    if (answer->n == RESOLVER_MAX) continue;
    Address *to = &answer->addrs[answer->n];
    if (a->ai_family == AF_INET)
      address_from_raw(to, AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr);
    else if (a->ai_family == AF_INET6)
      address_from_raw(to, AF_INET6, &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr);
    else
      continue;
    answer->n++;
  }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info) {
  Query q = *(Query *)arg;
  DnsAnswer answer;
  free(arg);
  answer.code = status_code(status);
  answer.n = 0;
  answer.ttl = 0;
  answer.timeouts = timeouts;
  if (info) {
    if (status == ARES_SUCCESS) take_addresses(&answer, info);
    ares_freeaddrinfo(info);
  }
  if (answer.code == GREEN_OK && answer.n == 0) answer.code = GREEN_EAI_NONAME;
  q.ch->pending--;
  q.fn(q.arg, &answer);
}

void dnschannel_ask(DnsChannel *ch, const char *name, int family, DnsAnswerFn fn, void *arg) {
  struct ares_addrinfo_hints hints = {
      .ai_flags = ARES_AI_NOSORT, .ai_family = family, .ai_socktype = SOCK_STREAM};
  Query *q = malloc(sizeof *q);
  if (!q) {
    DnsAnswer answer = {.code = -ENOMEM};
    fn(arg, &answer);
    return;
  }
  *q = (Query){.ch = ch, .fn = fn, .arg = arg};
  ch->pending++;
  ch->asked++;
  hub_now_update(ch->hub); /* the timer counts from the loop's idea of now */
  enter(ch);
  count_sockets(ch, true);
  ares_getaddrinfo(ch->ares, name, NULL, &hints, on_answer, q);
  leave(ch);
}

/* ---- life ---- */

static int set_servers(ares_channel ares, const ResolvConf *conf) {
  struct ares_addr_port_node nodes[RESOLVCONF_SERVERS];
  memset(nodes, 0, sizeof nodes);
  for (int i = 0; i < conf->nservers; i++) {
    const Address *a = &conf->servers[i];
    struct ares_addr_port_node *node = &nodes[i];
    node->next = i + 1 < conf->nservers ? node + 1 : NULL;
    node->family = a->sa.sa_family;
    if (node->family == AF_INET) {
      memcpy(&node->addr.addr4, &a->in4.sin_addr, sizeof node->addr.addr4);
      node->udp_port = node->tcp_port = ntohs(a->in4.sin_port);
    } else {
      memcpy(&node->addr.addr6, &a->in6.sin6_addr, sizeof node->addr.addr6);
      node->udp_port = node->tcp_port = ntohs(a->in6.sin6_port);
    }
  }
  return ares_set_servers_ports(ares, nodes);
}

/* Everything is given, so that c-ares reads no file: lookups "b" is DNS only,
** no domains, and a server that the next call replaces. */
static int init_ares(DnsChannel *ch) {
  struct in_addr nobody = {.s_addr = htonl(INADDR_LOOPBACK)};
  char lookups[] = "b";
  struct ares_options o = {
      .flags = ARES_FLAG_STAYOPEN | ARES_FLAG_EDNS,
      .timeout = (int)(ch->conf.timeout * 1000),
      .tries = ch->conf.tries,
      .ndots = 0,
      .servers = &nobody,
      .nservers = 1,
      .ndomains = 0,
      .lookups = lookups,
      .ednspsz = EDNS_SIZE,
      .sock_state_cb = on_sock_state,
      .sock_state_cb_data = ch,
  };
  int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_SERVERS |
             ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB |
             (ch->conf.rotate ? ARES_OPT_ROTATE : ARES_OPT_NOROTATE);
  if (o.timeout < 10) o.timeout = 10;
  int status = ares_init_options(&ch->ares, &o, mask);
  if (status != ARES_SUCCESS) return status;
  status = set_servers(ch->ares, &ch->conf);
  if (status != ARES_SUCCESS) ares_destroy(ch->ares);
  return status;
}

DnsChannel *dnschannel_open(Hub *hub, const ResolvConf *conf, DnsChannel **list) {
  DnsChannel *ch = calloc(1, sizeof *ch);
  if (!ch) return NULL;
  ch->hub = hub;
  ch->conf = *conf;
  ev_timer_init(&ch->timer, on_timer, 0, 0);
  ch->timer.data = ch;
  hub->nowait++; /* reads /dev/urandom */
  int status = init_ares(ch);
  hub->nowait--;
  if (status != ARES_SUCCESS) {
    free(ch);
    return NULL;
  }
  ch->list = list;
  ch->next = *list;
  *list = ch;
  return ch;
}

void dnschannel_retire(DnsChannel *ch) {
  ch->retired = true;
  if (ch->pending == 0 && ch->depth == 0) dnschannel_close(ch);
}

void dnschannel_close(DnsChannel *ch) {
  assert(ch->depth == 0);
  DnsChannel **at = ch->list;
  while (*at != ch) at = &(*at)->next;
  *at = ch->next;
  ch->hub->nowait++;
  ch->depth++; /* answers given now must not end it again */
  ev_timer_stop(ch->hub->loop, &ch->timer);
  ares_destroy(ch->ares); /* answers with EDESTRUCTION and reports each socket's end */
  ch->hub->nowait--;
  assert(ch->pending == 0 && ch->socks == NULL);
  free(ch);
}

bool dnschannel_sound(const DnsChannel *ch) {
  for (const Sock *s = ch->socks; s; s = s->next)
    if (fcntl(s->io.ev.fd, F_GETFD) < 0) return false;
  return true;
}

const ResolvConf *dnschannel_conf(const DnsChannel *ch) { return &ch->conf; }

unsigned dnschannel_asked(const DnsChannel *ch) { return ch->asked; }
