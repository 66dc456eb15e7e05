/* When to reread a file: stat(2) at most once a second. */
#include "filestamp.h"

#include <string.h>

#define INTERVAL 1.0 /* seconds between two looks */

bool filestamp_changed(FileStamp *s, const char *path, Deadline now) {
  if (now < s->next) return false;
  bool first = s->next == 0;
  s->next = now + INTERVAL;
  struct stat st;
  if (stat(path, &st) < 0) memset(&st, 0, sizeof st);
  /* Editors replace the file (another inode); a writer in place changes mtime or size. */
  bool same = st.st_dev == s->dev && st.st_ino == s->ino && st.st_size == s->size &&
              st.st_mtim.tv_sec == s->mtime.tv_sec && st.st_mtim.tv_nsec == s->mtime.tv_nsec;
  s->dev = st.st_dev;
  s->ino = st.st_ino;
  s->size = st.st_size;
  s->mtime = st.st_mtim;
  return first || !same;
}
