/*
 * One c-ares channel on the hub's loop: its sockets are watchers, its timeouts
 * one timer. Knows how to ask one server list for the addresses of one name in
 * one family; search lists, sharing and caching are resolver.c's.
 *
 * Its servers never change. A channel that is retired answers what it was
 * asked and then ends itself. Between queries its sockets stay open
 * (ARES_FLAG_STAYOPEN) but do not keep the loop alive, so that a deadlock is
 * still seen.
 */
#ifndef GREEN_DNSCHANNEL_H
#define GREEN_DNSCHANNEL_H

#include "resolvconf.h"

typedef struct DnsChannel DnsChannel;

typedef struct DnsAnswer {
  int code;     /* 0; GREEN_EAI_NONAME, _AGAIN (refused or failed), _FAIL; -ENOMEM;
                   GREEN_TIMEDOUT: no server spoke; GREEN_CANCELLED: the channel ends */
  int n;        /* addresses; > 0 when code is 0 */
  unsigned ttl; /* seconds, the least of all records of the answer */
  int timeouts; /* servers that stayed silent before one spoke */
  Address addrs[RESOLVER_MAX];
} DnsAnswer;

/* Called once for each query, perhaps inside dnschannel_ask. The answer is
** valid during the call. It may ask again; it must not wait. */
typedef void (*DnsAnswerFn)(void *arg, const DnsAnswer *answer);

/* Makes a channel with a copy of `conf`; the least of its timeouts is 10 ms.
** It links itself into `*list`, which is its owner's list of all channels.
** Returns NULL for lack of memory or descriptors. */
DnsChannel *dnschannel_open(Hub *hub, const ResolvConf *conf, DnsChannel **list);

/* Asks for the A (AF_INET) or AAAA (AF_INET6) records of exactly `name`. */
void dnschannel_ask(DnsChannel *ch, const char *name, int family, DnsAnswerFn fn, void *arg);

/* Nothing new will be asked: it ends when its last query has been answered. */
void dnschannel_retire(DnsChannel *ch);

/* Answers everything with GREEN_CANCELLED and ends. Not inside an answer. */
void dnschannel_close(DnsChannel *ch);

/* False when somebody has closed one of its sockets: c-ares would try each of
** its servers over the dead descriptor and give up. */
bool dnschannel_sound(const DnsChannel *ch);

const ResolvConf *dnschannel_conf(const DnsChannel *ch);

/* Queries made so far. c-ares 1.18 keeps its UDP port as long as its socket,
** so the owner replaces a channel after a while, lest the port be guessed. */
unsigned dnschannel_asked(const DnsChannel *ch);

#endif
