/*
 * The texts and names of status codes. Uses libc only.
 */
#define _GNU_SOURCE
#include "status.h"

#include <errno.h>
#include <features.h>
#include <stddef.h>
#include <string.h>

typedef struct {
  int code;
  const char *name;
  const char *text;
} StatusEntry;

/* Our own codes, and the errors of the system that LuaSocket words in its own
** way (its pierror.h). A name that is NULL is the system's. */
static const StatusEntry entries[] = {
    {GREEN_OK, "OK", "ok"},
    {GREEN_TIMEDOUT, "ETIMEDOUT", "timeout"},
    {GREEN_CANCELLED, "ECANCELED", "cancelled"},
    {GREEN_CLOSED, "EBADF", "closed"},
    {GREEN_EOF, "EOF", "closed"},
    {GREEN_BUSY, "EBUSY", "already used by another greenlet"},
    {GREEN_DEADLOCK, "EDEADLK", "this operation would block forever"},
    {GREEN_NOWAIT, "ENOWAIT", "cannot wait here"},
    {GREEN_BADSWITCH, "EBADSWITCH", "switched to while waiting"},
    {GREEN_THROWN, "ETHROWN", "an error was thrown"},
    {GREEN_FOREIGN, "EFOREIGN", "the greenlet belongs to another thread"},
    {GREEN_CYCLE, "ECYCLE", "cyclic parent chain"},
    {GREEN_EAI_NONAME, "EAI_NONAME", "host or service not provided, or not known"},
    {GREEN_EAI_AGAIN, "EAI_AGAIN", "temporary failure in name resolution"},
    {GREEN_EAI_FAIL, "EAI_FAIL", "non-recoverable failure in name resolution"},
    {GREEN_EAI_SERVICE, "EAI_SERVICE", "service not supported for socket type"},
    {-ETIMEDOUT, NULL, "timeout"},
    {-EADDRINUSE, NULL, "address already in use"},
    {-EISCONN, NULL, "already connected"},
    {-EACCES, NULL, "permission denied"},
    {-ECONNREFUSED, NULL, "connection refused"},
    {-ECONNABORTED, NULL, "closed"},
    {-ECONNRESET, NULL, "closed"},
    {-EPIPE, NULL, "closed"},
};

static const StatusEntry *find(int code) {
  for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
    if (entries[i].code == code) return &entries[i];
  }
  return NULL;
}

/* strerrorname_np and strerrordesc_np have static, untranslated strings where
** strerror's may be a thread's buffer (strerror(3); glibc 2.32). */
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 32)
static const char *system_name(int code) { return strerrorname_np(code); }
static const char *system_text(int code) { return strerrordesc_np(code); }
#else
static const char *system_name(int code) { return code == ETIMEDOUT ? "ETIMEDOUT" : NULL; }
static const char *system_text(int code) { return strerror(code); }
#endif

const char *status_text(int code) {
  const StatusEntry *e = find(code);
  if (e != NULL) return e->text;
  const char *text = code < 0 && code > GREEN_TIMEDOUT ? system_text(-code) : NULL;
  return text != NULL ? text : "unknown error";
}

const char *status_name(int code) {
  const StatusEntry *e = find(code);
  if (e != NULL && e->name != NULL) return e->name;
  const char *name = code < 0 && code > GREEN_TIMEDOUT ? system_name(-code) : NULL;
  return name != NULL ? name : "EUNKNOWN";
}
