/*
 * resolv.conf(5), read by us: c-ares 1.18 ignores `timeout:` and `attempts:`,
 * and by its defaults needs 75 s to give up on one silent server (D19).
 */
#ifndef GREEN_RESOLVCONF_H
#define GREEN_RESOLVCONF_H

#include "resolver.h"

#define RESOLVCONF_SERVERS 8
#define RESOLVCONF_SEARCH 16                       /* domains; longer lists are cut */
#define RESOLVCONF_NAME 256                        /* bytes of a domain name and its NUL */
#define RESOLVCONF_CANDIDATE (2 * RESOLVCONF_NAME) /* of two joined by a dot */

typedef struct ResolvConf {
  Address servers[RESOLVCONF_SERVERS];             /* with ports */
  int nservers;                                    /* > 0 once read */
  char search[RESOLVCONF_SEARCH][RESOLVCONF_NAME]; /* lower case, without dots at the ends */
  int nsearch;
  double timeout; /* seconds before the first retry */
  int tries;      /* per server */
  int ndots;      /* names with fewer dots try the search list first */
  bool rotate;    /* begin with another server each time */
} ResolvConf;

/* Reads `path` and then the environment's LOCALDOMAIN and RES_OPTIONS. A file
** that is missing or names no server means 127.0.0.1, as in resolv.conf(5). */
void resolvconf_read(ResolvConf *conf, const char *path);

/* Replaces the servers by those of `list`: addresses with optional ports,
** "127.0.0.1:5353,[::1]:53", separated by commas or spaces. Returns 0;
** or -EINVAL or -ENOMEM, and nothing has changed. */
int resolvconf_set_servers(ResolvConf *conf, const char *list);

/* Writes the `step`th name to ask for `name` (0 is the first), which is shorter
** than RESOLVCONF_NAME, to `out`: the name itself and its combinations with the
** search list, in the order of resolv.conf(5)'s ndots rule. Returns false when
** there are no more. */
bool resolvconf_candidate(const ResolvConf *conf, const char *name, int step, char out[RESOLVCONF_CANDIDATE]);

#endif
