/*
 * A file that appears under its name only when it is complete. Uses libc only.
 */
#include "tempfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_TRIES 16 /* a name of 64 random bits that exists is no accident */

/* ".green-" and 16 digits, beside `path`. Its length does not depend on the
** final name's, which may be as long as the file system allows. */
static char *temp_name(const char *path) {
  const char *slash = strrchr(path, '/');
  size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
  size_t size = folder + sizeof ".green-0123456789abcdef";
  uint64_t number;
  char *name = malloc(size);
  if (!name) return NULL;
  if (getrandom(&number, sizeof number, 0) != sizeof number) number = (uintptr_t)name;
  memcpy(name, path, folder);
  snprintf(name + folder, size - folder, ".green-%016" PRIx64, number);
  return name;
}

static int create(TempFile *t) {
  for (int i = 0; i < NAME_TRIES; i++) {
    free(t->temp);
    t->temp = temp_name(t->path);
    if (!t->temp) return -ENOMEM;
    t->fd = open(t->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (t->fd >= 0) return GREEN_OK;
    if (errno != EEXIST) return -errno;
  }
  return -EEXIST;
}

static void forget(TempFile *t) {
  free(t->temp);
  free(t->path);
  *t = (TempFile){NULL, NULL, -1};
}

/* So that a write beyond `ulimit -f` answers EFBIG and does not end the process. */
static void ignore_sigxfsz(void) {
  struct sigaction present;
  if (sigaction(SIGXFSZ, NULL, &present) == 0 && present.sa_handler == SIG_DFL) signal(SIGXFSZ, SIG_IGN);
}

int tempfile_open(TempFile *t, const char *path) {
  ignore_sigxfsz();
  *t = (TempFile){strdup(path), NULL, -1};
  int code = t->path ? create(t) : -ENOMEM;
  if (code < 0) forget(t);
  return code;
}

int tempfile_write(TempFile *t, const char *data, size_t n) {
  while (n > 0) {
    ssize_t written = write(t->fd, data, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return -errno;
    data += written;
    n -= (size_t)written;
  }
  return GREEN_OK;
}

/* There is no call that only asks for the mask (umask(2)). In the moment
** between these two, other threads' files get fewer rights, not more. */
static mode_t creation_mask(void) {
  mode_t mask = umask(077);
  umask(mask);
  return mask;
}

static int close_file(TempFile *t) {
  int fd = t->fd;
  t->fd = -1;
  return close(fd) < 0 && errno != EINTR ? -errno : GREEN_OK; /* NFS reports late */
}

int tempfile_commit(TempFile *t) {
  int code = fchmod(t->fd, 0666 & ~creation_mask()) < 0 ? -errno : GREEN_OK;
  int closed = close_file(t);
  if (code == GREEN_OK) code = closed;
  if (code == GREEN_OK && rename(t->temp, t->path) < 0) code = -errno;
  if (code < 0)
    tempfile_discard(t);
  else
    forget(t);
  return code;
}

void tempfile_discard(TempFile *t) {
  if (t->fd >= 0) close_file(t);
  if (t->temp) unlink(t->temp);
  forget(t);
}
