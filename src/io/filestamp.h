/*
 * Has a small file of /etc changed since it was last read? Told by its device,
 * inode, size and mtime, looked at no more than once a second, so that a
 * lookup costs no system call as a rule.
 */
#ifndef GREEN_FILESTAMP_H
#define GREEN_FILESTAMP_H

#include <sys/stat.h>

#include "../hub/hub.h"

typedef struct FileStamp {
  dev_t dev;
  ino_t ino;
  off_t size;
  struct timespec mtime;
  Deadline next; /* not looked at again before then; 0: never looked at */
} FileStamp;

/* True when `path` is to be (re)read: at the first call, and when it differs
** from what the last true answer saw. A missing file is an empty one. */
bool filestamp_changed(FileStamp *s, const char *path, Deadline now);

#endif
