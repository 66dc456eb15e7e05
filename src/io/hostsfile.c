/* The hosts file as a hash table in memory; plain reads, no waiting. */
#include "hostsfile.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"

#define BLANKS " \t\r"

struct HostsEntry {
  const char *name; /* lower case, in `text` */
  unsigned next;    /* 1 + index of the next entry with the same hash; 0: none */
  Address addr;
};

void hostsfile_init(HostsFile *h, const char *path) {
  memset(h, 0, sizeof *h);
  h->path = path;
}

static void drop(HostsFile *h) {
  free(h->entries);
  free(h->buckets);
  free(h->text);
  h->entries = NULL;
  h->buckets = NULL;
  h->text = NULL;
  h->count = h->size = 0;
}

void hostsfile_free(HostsFile *h) { drop(h); }

/* FNV-1a. The file is root's: nobody can choose names that collide. */
static unsigned hash(const char *name) {
  unsigned h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h;
}

/* The whole file, with a NUL behind; NULL when it cannot be read. */
static char *slurp(const char *path) {
  FILE *f = fopen(path, "re");
  char *text = NULL;
  size_t size = 0;
  if (!f) return NULL;
  if (getdelim(&text, &size, '\0', f) < 0) { /* up to a NUL, which ends it for us */
    free(text);
    text = NULL;
  }
  fclose(f);
  return text;
}

static int add_entry(HostsFile *h, char *name, const Address *addr) {
  if (h->count == h->size) {
    unsigned size = h->size ? 2 * h->size : 16;
    HostsEntry *more = realloc(h->entries, size * sizeof *more);
    if (!more) return -ENOMEM;
    h->entries = more;
    h->size = size;
  }
  for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
  h->entries[h->count++] = (HostsEntry){.name = name, .addr = *addr};
  return 0;
}

static int parse_line(HostsFile *h, char *line) {
  char *save;
  Address addr;
  line[strcspn(line, "#")] = '\0';
  char *number = strtok_r(line, BLANKS, &save);
  if (!number || !address_parse(number, &addr)) return 0;
  for (char *w = strtok_r(NULL, BLANKS, &save); w; w = strtok_r(NULL, BLANKS, &save))
    if (add_entry(h, w, &addr) < 0) return -ENOMEM;
  return 0;
}

/* Chains the entries, the last first, so that each chain is in file order. */
static int build_index(HostsFile *h) {
  unsigned n = 16;
  while (n < h->count) n *= 2;
  h->buckets = calloc(n, sizeof *h->buckets);
  if (!h->buckets) return -ENOMEM;
  h->mask = n - 1;
  for (unsigned i = h->count; i > 0; i--) {
    unsigned *bucket = &h->buckets[hash(h->entries[i - 1].name) & h->mask];
    h->entries[i - 1].next = *bucket;
    *bucket = i;
  }
  return 0;
}

static int reread(HostsFile *h) {
  drop(h);
  h->text = slurp(h->path);
  if (!h->text) return 0;
  char *save;
  int r = 0;
  for (char *l = strtok_r(h->text, "\n", &save); l && r == 0; l = strtok_r(NULL, "\n", &save))
    r = parse_line(h, l);
  if (r == 0) r = build_index(h);
  if (r < 0) {
    drop(h);
    h->stamp.next = 0; /* try again at the next lookup */
  }
  return r;
}

int hostsfile_lookup(HostsFile *h, const char *name, int family, Address *out, int max, Deadline now) {
  if (filestamp_changed(&h->stamp, h->path, now)) {
    int r = reread(h);
    if (r < 0) return r;
  }
  int n = 0;
  if (!h->buckets) return 0;
  for (unsigned i = h->buckets[hash(name) & h->mask]; i > 0 && n < max;) {
    const HostsEntry *e = &h->entries[i - 1];
    Address a = e->addr;
    if (strcmp(e->name, name) == 0 && address_fit(&a, family)) out[n++] = a;
    i = e->next;
  }
  return n;
}
