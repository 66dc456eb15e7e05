/* What the environment may not do: to a privileged program, and under -E. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "host.h"

extern char **environ;

/* Variables with which a caller makes us, or a library that we may open, load
** code or write files, or sends our traffic elsewhere: Lua, OpenSSL, libcurl,
** c-ares (ares_init(3)), resolv.conf(5), hostname(7). A '*' stands at either end. */
static const char *const dangerous[] = {
    "LUA_*",   "GREENLUA_*", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE", "OPENSSL_*",
    "*_proxy", "*_PROXY",    "CARES_*",       "HOSTALIASES",  "RES_OPTIONS",   "LOCALDOMAIN",
};

static const char *const own[] = {"GREENLUA_*"};

static bool matches(const char *pattern, const char *name, size_t n) {
  size_t k = strlen(pattern);
  if (pattern[k - 1] == '*') return n >= k - 1 && strncmp(name, pattern, k - 1) == 0;
  if (pattern[0] == '*') return n >= k - 1 && strncmp(name + n - (k - 1), pattern + 1, k - 1) == 0;
  return n == k && strncmp(name, pattern, k) == 0;
}

/* Takes out what matches; in place, since unsetenv would move what we walk
** through, and a privileged program may be out of memory by its caller's will.
** Returns how many. */
static int take_out(const char *const patterns[], size_t npatterns) {
  int taken = 0;
  char **to = environ;
  for (char **from = environ; *from; from++) {
    size_t n = strcspn(*from, "=");
    bool hit = false;
    for (size_t i = 0; i < npatterns && !hit; i++) hit = matches(patterns[i], *from, n);
    if (hit)
      taken++;
    else
      *to++ = *from;
  }
  *to = NULL;
  return taken;
}

bool environment_privileged(void) { return getauxval(AT_SECURE) != 0; }

void environment_secure(const char *progname) {
  if (!environ || !environment_privileged()) return;
  int taken = take_out(dangerous, sizeof dangerous / sizeof *dangerous);
  if (taken > 0)
    fprintf(stderr, "%s: this program is privileged: %d environment variables are ignored\n", progname,
            taken);
}

void environment_isolate(void) {
  if (environ) take_out(own, sizeof own / sizeof *own);
}
