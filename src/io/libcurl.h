/*
 * libcurl's functions, by dlopen at the first use.
 *
 * Linking libcurl makes the start of the host four times stock Lua's, and
 * Debian has no static GSSAPI to link it statically (D20). The table is shared
 * by all hubs of the process and never unloaded: libcurl and OpenSSL keep
 * per-process state that does not survive that.
 */
#ifndef GREEN_LIBCURL_H
#define GREEN_LIBCURL_H

#include <curl/curl.h>

/* Each field is the function `curl_` + its name; see libcurl's manual pages. */
typedef struct Libcurl {
  CURLcode (*global_init)(long flags);
  const char *(*easy_strerror)(CURLcode code);
  const char *(*version)(void);

  CURL *(*easy_init)(void);
  CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
  CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
  CURLcode (*easy_pause)(CURL *easy, int bitmask);
  void (*easy_cleanup)(CURL *easy);

  CURLM *(*multi_init)(void);
  CURLMcode (*multi_setopt)(CURLM *multi, CURLMoption option, ...);
  CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
  CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
  CURLMcode (*multi_assign)(CURLM *multi, curl_socket_t fd, void *data);
  CURLMcode (*multi_socket_action)(CURLM *multi, curl_socket_t fd, int events, int *running);
  CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
  CURLMcode (*multi_cleanup)(CURLM *multi);

  struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
  void (*slist_free_all)(struct curl_slist *list);

  CURLU *(*url)(void);
  CURLUcode (*url_set)(CURLU *url, CURLUPart part, const char *text, unsigned flags);
  CURLUcode (*url_get)(CURLU *url, CURLUPart part, char **text, unsigned flags);
  const char *(*url_strerror)(CURLUcode code);
  void (*url_cleanup)(CURLU *url);
  void (*free)(void *text);
} Libcurl;

/* The table, or NULL: libcurl_error then says why and which Debian package
** helps. May be called from any OS thread. The first call loads the library
** and has the process ignore SIGPIPE, unless somebody handles it: OpenSSL
** writes without MSG_NOSIGNAL. */
const Libcurl *libcurl_open(void);

/* Static storage; meaningful after libcurl_open returned NULL. */
const char *libcurl_error(void);

#endif
