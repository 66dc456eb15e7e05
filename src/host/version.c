/* -v: our version and those of what is inside, or opened when needed. */
#include <ares.h>
#include <dlfcn.h>
#include <ev.h>
#include <lua.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

/* libcurl's version, as "7.88.1". Opened here only to ask (D20), and left open: the
** libraries it needs do not clean up when unloaded. */
static const char *curl_version_text(void) {
  static char text[64];
  void *lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
  if (!lib) return "not found";
  const char *(*version)(void);
  *(void **)&version = dlsym(lib, "curl_version"); /* dlopen(3)'s way to convert */
  const char *all = version ? version() : "";      /* "libcurl/7.88.1 OpenSSL/3.0.15 ..." */
  const char *slash = strchr(all, '/');
  snprintf(text, sizeof text, "%.*s", slash ? (int)strcspn(slash + 1, " ") : 7,
           slash ? slash + 1 : "unknown");
  return text;
}

void version_print(void) {
  printf("greenlua %s  Copyright (C) 2026 greenlua contributors\n%s\n", HOST_VERSION, LUA_COPYRIGHT);
  printf("libev %d.%d, c-ares %s, libcurl %s\n", ev_version_major(), ev_version_minor(), ares_version(NULL),
         curl_version_text());
  fflush(stdout);
}
