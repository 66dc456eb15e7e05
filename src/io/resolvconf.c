/* The parser of resolv.conf, and the search list; no waiting, no c-ares. */
#define _GNU_SOURCE /* secure_getenv */
#include "resolvconf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"

#define BLANKS " \t\r\n"
#define DNS_PORT 53

static void add_server(ResolvConf *conf, const Address *a) {
  if (conf->nservers < RESOLVCONF_SERVERS) conf->servers[conf->nservers++] = *a;
}

/* The server of a file that names none. Allocates nothing: it cannot fail. */
static void add_loopback(ResolvConf *conf) {
  Address a;
  address_from_raw(&a, AF_INET, &(struct in_addr){htonl(INADDR_LOOPBACK)});
  address_set_port(&a, DNS_PORT);
  add_server(conf, &a);
}

static void add_search(ResolvConf *conf, const char *domain) {
  while (*domain == '.') domain++;
  size_t len = strlen(domain);
  while (len > 0 && domain[len - 1] == '.') len--;
  if (len == 0 || len >= RESOLVCONF_NAME || conf->nsearch == RESOLVCONF_SEARCH) return;
  char *to = conf->search[conf->nsearch++];
  for (size_t i = 0; i < len; i++) to[i] = (char)tolower((unsigned char)domain[i]);
  to[len] = '\0';
}

/* Takes a list of domains; it replaces an earlier one (the last instance wins). */
static void set_search(ResolvConf *conf, char *words) {
  char *save;
  conf->nsearch = 0;
  for (char *w = strtok_r(words, BLANKS, &save); w; w = strtok_r(NULL, BLANKS, &save)) add_search(conf, w);
}

/* The number after `key` in "key:number", within [low, high]; or `*to` stays. */
static void number_option(const char *word, const char *key, int low, int high, int *to) {
  size_t len = strlen(key);
  char *end;
  if (strncmp(word, key, len) != 0 || !isdigit((unsigned char)word[len])) return;
  long n = strtol(word + len, &end, 10);
  if (*end == '\0') *to = n < low ? low : n > high ? high : (int)n;
}

/* The limits are resolv.conf(5)'s. */
static void set_options(ResolvConf *conf, char *words) {
  char *save;
  for (char *w = strtok_r(words, BLANKS, &save); w; w = strtok_r(NULL, BLANKS, &save)) {
    int seconds = 0;
    number_option(w, "timeout:", 1, 30, &seconds);
    if (seconds > 0) conf->timeout = seconds;
    number_option(w, "attempts:", 1, 5, &conf->tries);
    number_option(w, "ndots:", 0, 15, &conf->ndots);
    if (strcmp(w, "rotate") == 0) conf->rotate = true;
  }
}

static void parse_line(ResolvConf *conf, char *line) {
  char *save;
  line[strcspn(line, "#;")] = '\0';
  char *key = strtok_r(line, BLANKS, &save);
  if (!key) return;
  char *rest = strtok_r(NULL, "\n", &save);
  if (!rest) return;
  if (strcmp(key, "nameserver") == 0) {
    char *number = strtok_r(rest, BLANKS, &save);
    Address a;
    /* c-ares 1.18 cannot hold a scope, so a link-local server is of no use to us. */
    if (number && address_parse(number, &a) && !(a.sa.sa_family == AF_INET6 && a.in6.sin6_scope_id != 0)) {
      address_set_port(&a, DNS_PORT);
      add_server(conf, &a);
    }
  } else if (strcmp(key, "search") == 0 || strcmp(key, "domain") == 0) {
    set_search(conf, rest);
  } else if (strcmp(key, "options") == 0) {
    set_options(conf, rest);
  }
}

/* Applies an environment variable, of which the parsers need a copy. */
static void from_environment(ResolvConf *conf, const char *var, void (*apply)(ResolvConf *, char *)) {
  const char *value = secure_getenv(var);
  char *copy = value ? strdup(value) : NULL;
  if (copy) apply(conf, copy);
  free(copy);
}

void resolvconf_read(ResolvConf *conf, const char *path) {
  memset(conf, 0, sizeof *conf);
  conf->timeout = 2;
  conf->tries = 2;
  conf->ndots = 1;
  FILE *f = fopen(path, "re");
  if (f) {
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, f) > 0) parse_line(conf, line);
    free(line);
    fclose(f);
  }
  from_environment(conf, "LOCALDOMAIN", set_search);
  from_environment(conf, "RES_OPTIONS", set_options);
  if (conf->nservers == 0) add_loopback(conf);
}

/* Parses "[v6]:port", "v6", "v4:port" or "v4"; writes into `word`. */
static bool parse_server(char *word, Address *out) {
  char *number = word, *port = NULL;
  if (*word == '[') {
    char *close = strchr(word, ']');
    if (!close || (close[1] != '\0' && close[1] != ':')) return false;
    port = close[1] == ':' ? close + 2 : NULL;
    *close = '\0';
    number = word + 1;
  } else if (strchr(word, ':') == strrchr(word, ':') && strchr(word, ':')) {
    port = strchr(word, ':') + 1;
    port[-1] = '\0';
  }
  unsigned long p = DNS_PORT;
  if (port) {
    char *end;
    if (!isdigit((unsigned char)*port)) return false;
    p = strtoul(port, &end, 10);
    if (*end != '\0' || p == 0 || p > 65535) return false;
  }
  if (!address_parse(number, out) || (out->sa.sa_family == AF_INET6 && out->in6.sin6_scope_id)) return false;
  address_set_port(out, (unsigned)p);
  return true;
}

int resolvconf_set_servers(ResolvConf *conf, const char *list) {
  Address found[RESOLVCONF_SERVERS];
  char *save, *copy = strdup(list);
  int n = 0;
  if (!copy) return -ENOMEM;
  for (char *w = strtok_r(copy, ", ", &save); w; w = strtok_r(NULL, ", ", &save)) {
    if (n == RESOLVCONF_SERVERS || !parse_server(w, &found[n])) {
      n = 0;
      break;
    }
    n++;
  }
  free(copy);
  if (n == 0) return -EINVAL;
  memcpy(conf->servers, found, (size_t)n * sizeof found[0]);
  conf->nservers = n;
  return 0;
}

bool resolvconf_candidate(const ResolvConf *conf, const char *name, int step,
                          char out[RESOLVCONF_CANDIDATE]) {
  int dots = 0;
  size_t len = strlen(name);
  bool absolute = len > 0 && name[len - 1] == '.';
  for (const char *p = name; *p; p++) dots += *p == '.';
  int nsearch = absolute ? 0 : conf->nsearch;
  bool bare_first = absolute || dots >= conf->ndots;
  int domain = bare_first ? step - 1 : step; /* -1 or nsearch: the bare name */
  if (step > nsearch) return false;
  if (domain < 0 || domain == nsearch)
    memcpy(out, name, len + 1);
  else
    snprintf(out, RESOLVCONF_CANDIDATE, "%s.%s", name, conf->search[domain]);
  return true;
}
