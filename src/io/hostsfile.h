/*
 * hosts(5), parsed once and kept: reading 5,000 lines for each lookup would
 * make it nine times slower. Reread when the file changes.
 */
#ifndef GREEN_HOSTSFILE_H
#define GREEN_HOSTSFILE_H

#include "filestamp.h"
#include "resolver.h"

typedef struct HostsEntry HostsEntry;

typedef struct HostsFile {
  const char *path; /* the owner's */
  FileStamp stamp;
  HostsEntry *entries; /* one per name of a line, in the order of the file; NULL: none */
  unsigned count, size;
  unsigned *buckets; /* 1 + index of the first entry of each hash; NULL: none */
  unsigned mask;     /* number of buckets, a power of two, less one */
  char *text;        /* the file's bytes, into which the entries' names point */
} HostsFile;

void hostsfile_init(HostsFile *h, const char *path);
void hostsfile_free(HostsFile *h);

/* Writes at most `max` addresses of `name` (lower case, without a final dot)
** to `out`, in the order of the file. Returns their number, 0 when there are
** none, or -ENOMEM. */
int hostsfile_lookup(HostsFile *h, const char *name, int family, Address *out, int max, Deadline now);

#endif
