/*
 * libcurl's functions, by dlopen. Uses nothing of greenlua.
 *
 * The mutable globals are `table`, `loaded` and `problem`, written once, under
 * `once`.
 */
#include "libcurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static Libcurl table;
static bool loaded;
static char problem[512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

typedef struct Symbol {
  const char *name; /* without `curl_` */
  size_t offset;    /* of its field in Libcurl */
} Symbol;

#define SYMBOL(name) \
  { #name, offsetof(Libcurl, name) }

static const Symbol symbols[] = {
    SYMBOL(global_init),
    SYMBOL(easy_strerror),
    SYMBOL(version),
    SYMBOL(easy_init),
    SYMBOL(easy_setopt),
    SYMBOL(easy_getinfo),
    SYMBOL(easy_pause),
    SYMBOL(easy_cleanup),
    SYMBOL(multi_init),
    SYMBOL(multi_setopt),
    SYMBOL(multi_add_handle),
    SYMBOL(multi_remove_handle),
    SYMBOL(multi_assign),
    SYMBOL(multi_socket_action),
    SYMBOL(multi_info_read),
    SYMBOL(multi_cleanup),
    SYMBOL(slist_append),
    SYMBOL(slist_free_all),
    SYMBOL(url),
    SYMBOL(url_set),
    SYMBOL(url_get),
    SYMBOL(url_strerror),
    SYMBOL(url_cleanup),
    SYMBOL(free),
};

/* The flavours have one interface; Debian's default is the one with OpenSSL. */
static void *open_library(void) {
  static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
  const char *why = "";
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *library = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
    if (library) return library;
    if (i == 0) {
      why = dlerror();
      snprintf(problem, sizeof problem, "HTTP needs libcurl (Debian package libcurl4): %s", why);
    }
  }
  return NULL;
}

static bool find_symbols(void *library) {
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    char name[40];
    snprintf(name, sizeof name, "curl_%s", symbols[i].name);
    void *address = dlsym(library, name);
    if (!address) {
      snprintf(problem, sizeof problem, "this libcurl is too old: it has no %s", name);
      return false;
    }
    memcpy((char *)&table + symbols[i].offset, &address, sizeof address);
  }
  return true;
}

static void ignore_sigpipe(void) {
  struct sigaction present;
  if (sigaction(SIGPIPE, NULL, &present) == 0 && present.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
}

static void load(void) {
  void *library = open_library();
  if (!library || !find_symbols(library)) return;
  CURLcode code = table.global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) {
    snprintf(problem, sizeof problem, "libcurl cannot start: %s", table.easy_strerror(code));
    return;
  }
  ignore_sigpipe();
  loaded = true;
}

const Libcurl *libcurl_open(void) {
  pthread_once(&once, load);
  return loaded ? &table : NULL;
}

const char *libcurl_error(void) { return problem; }
