/*
 * One HTTP exchange over libcurl. May use the hub, the resolver, curlloop.
 *
 * libcurl's callbacks (on_*) only move bytes and set flags; whatever ends or
 * starts a transfer happens in functions called by the greenlet, or in
 * on_done, when libcurl has returned.
 */
#define _GNU_SOURCE
#include "fetch.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resolver.h"

#define BUFFER_FIRST 4096
#define BUFFER_TRUST (1024 * 1024)       /* of an announced length, so much is allocated at once */
#define RECEIVE_TOTAL (32 * 1024 * 1024) /* shared by all transfers of the hub (D20) */
#define RECEIVE_MIN (16 * 1024)
#define RECEIVE_MAX (512 * 1024)
#define ADDRESSES_MAX 32
#define NAMES_KEPT 600L /* seconds in libcurl's cache; each request sets its host anew anyway */

/* ---- buffers ---- */

static bool buffer_reserve(FetchBuffer *b, size_t size) {
  if (size <= b->size) return true;
  char *data = realloc(b->data, size);
  if (!data) return false;
  b->data = data;
  b->size = size;
  return true;
}

static bool buffer_append(FetchBuffer *b, const char *data, size_t n) {
  size_t need = b->len + n;
  if (need > b->size) {
    size_t size = b->size ? 2 * b->size : BUFFER_FIRST;
    if (!buffer_reserve(b, size > need ? size : need)) return false;
  }
  memcpy(b->data + b->len, data, n);
  b->len = need;
  return true;
}

static void buffer_free(FetchBuffer *b) {
  free(b->data);
  *b = (FetchBuffer){NULL, 0, 0};
}

/* ---- callbacks ---- */

static void wake(Fetch *f, int code) {
  if (f->waiter) hub_ready(f->waiter, code);
}

/* The answer that makes libcurl end a transfer with CURLE_WRITE_ERROR. */
static size_t refuse(Fetch *f, int code) {
  f->refused = code;
  return 0;
}

static bool is_interim(Fetch *f) {
  long status = 0;
  f->curl->easy_getinfo(f->job.easy, CURLINFO_RESPONSE_CODE, &status);
  return status >= 100 && status < 200 && status != 101;
}

static bool is_blank(const char *line, size_t n) {
  return (n == 2 && line[0] == '\r' && line[1] == '\n') || (n == 1 && line[0] == '\n');
}

/* One line of a head: status line, field, or the blank line at its end. After
** a chunked body the trailer's fields come here too; they are not kept. */
static size_t on_header(char *line, size_t size, size_t count, void *arg) {
  Fetch *f = arg;
  size_t n = size * count;
  f->head_bytes += n;
  f->head_fields++;
  if (n > FETCH_LINE_MAX || f->head_bytes > FETCH_HEAD_MAX || f->head_fields > FETCH_FIELDS_MAX)
    return refuse(f, -EMSGSIZE);
  if (f->headed) return n;
  if (f->interim) f->head.len = 0;
  f->interim = false;
  if (!buffer_append(&f->head, line, n)) return refuse(f, -ENOMEM);
  if (!is_blank(line, n)) return n;
  f->interim = is_interim(f);
  f->headed = !f->interim;
  if (f->headed) wake(f, GREEN_OK);
  return n;
}

/* Makes room for a body of announced length in one step: doublings cost copies. */
static void reserve_announced(Fetch *f) {
  curl_off_t length = -1;
  f->curl->easy_getinfo(f->job.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (length > 0 && length <= BUFFER_TRUST) buffer_reserve(&f->in, (size_t)length);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg) {
  Fetch *f = arg;
  size_t n = size * count;
  if (n > f->max_body - f->received) return refuse(f, -EFBIG);
  if (f->in.len >= f->pause_at) {
    f->paused = true;
    curlloop_pausing(&f->job);
    return CURL_WRITEFUNC_PAUSE;
  }
  if (f->received == 0) reserve_announced(f);
  if (!buffer_append(&f->in, data, n)) return refuse(f, -ENOMEM);
  f->received += n;
  f->progress = f->hub->now;
  if (f->pause_at != SIZE_MAX) wake(f, GREEN_OK); /* else the end is waited for */
  return n;
}

/* libcurl is about to resolve by itself. A number it may parse; anything else
** was forgotten by us, and would block the hub when the handle is removed. */
static int on_resolve(void *state, void *reserved, void *arg) {
  const Fetch *f = arg;
  (void)state, (void)reserved;
  return f->numeric ? 0 : 1;
}

/* Close-on-exec from birth, which libcurl 7.88 does not do. */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a) {
  (void)arg, (void)purpose;
  int fd = socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);
  return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* ---- the end of a transfer ---- */

static int system_error(Fetch *f, int otherwise) {
  long number = 0;
  f->curl->easy_getinfo(f->job.easy, CURLINFO_OS_ERRNO, &number);
  return number > 0 ? -(int)number : otherwise;
}

static int explain(Fetch *f, int code, const char *what) {
  f->explained = code;
  snprintf(f->message, sizeof f->message, "%s", what);
  return code;
}

/* `what`, then libcurl's own words. */
static int explain_more(Fetch *f, int code, const char *what, CURLcode result) {
  const char *words = f->error[0] ? f->error : f->curl->easy_strerror(result);
  f->explained = code;
  snprintf(f->message, sizeof f->message, "%s: %s", what, words);
  return code;
}

static int refusal(Fetch *f) {
  if (f->refused == -EMSGSIZE) return explain(f, -EMSGSIZE, "response head too large");
  if (f->refused == -EFBIG) return explain(f, -EFBIG, "too large");
  return f->refused ? f->refused : GREEN_CLOSED;
}

/* libcurl 7.88 has a limit of its own for a line, with a misleading code. */
static int out_of_memory(Fetch *f) {
  curl_off_t first_byte = 0; /* microseconds after the start; 0: none came */
  f->curl->easy_getinfo(f->job.easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte);
  if (f->headed || first_byte == 0) return -ENOMEM;
  return explain(f, -EMSGSIZE, "response head too large");
}

/* libcurl's code as ours, with the message where status_text is not enough. */
static int translate(Fetch *f, CURLcode result) {
  switch (result) {
    case CURLE_OK:
      return GREEN_OK;
    case CURLE_WRITE_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:
      return refusal(f);
    case CURLE_OPERATION_TIMEDOUT:
      return GREEN_TIMEDOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return GREEN_EAI_NONAME;
    case CURLE_COULDNT_CONNECT:
      return system_error(f, -ECONNREFUSED);
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
      return system_error(f, -ECONNRESET);
    case CURLE_GOT_NOTHING:
      return GREEN_EOF;
    case CURLE_PARTIAL_FILE:
      return explain(f, GREEN_EOF, "body shorter than announced");
    case CURLE_FILESIZE_EXCEEDED:
      return explain(f, -EFBIG, "too large");
    case CURLE_OUT_OF_MEMORY:
      return out_of_memory(f);
    case CURLE_PEER_FAILED_VERIFICATION:
      return explain_more(f, -EKEYREJECTED, "certificate verify failed", result);
    case CURLE_SSL_CACERT_BADFILE:
      return explain_more(f, -ENOENT, "cannot read the trusted certificates", result);
    case CURLE_SSL_CONNECT_ERROR:
      return explain_more(f, -EPROTO, "TLS handshake failed", result);
    case CURLE_PROXY:
      return explain_more(f, -EPROTO, "the proxy refused", result);
    case CURLE_URL_MALFORMAT:
      return explain_more(f, -EINVAL, "malformed URL", result);
    default:
      return explain_more(f, -EPROTO, "malformed response", result);
  }
}

static void on_done(CurlJob *job, CURLcode result) {
  Fetch *f = (Fetch *)job;
  f->code = translate(f, result);
  f->done = true;
  f->paused = false;
  wake(f, GREEN_OK);
}

/* ---- starting ---- */

void fetch_init(Fetch *f, Hub *hub) {
  memset(f, 0, sizeof *f);
  f->hub = hub;
  f->job.done = on_done;
}

static int append(Fetch *f, struct curl_slist **list, const char *line) {
  struct curl_slist *longer = f->curl->slist_append(*list, line);
  if (!longer) return -ENOMEM;
  *list = longer;
  return GREEN_OK;
}

/* libcurl's list wants "Name: value", but "Name;" for an empty value. */
int fetch_header(Fetch *f, const char *name, const char *value) {
  char *line;
  if (strpbrk(name, "\r\n:") || strpbrk(value, "\r\n")) return -EINVAL;
  if (!f->curl && !(f->curl = libcurl_open())) return explain(f, -ELIBACC, libcurl_error());
  if (asprintf(&line, value[0] ? "%s: %s" : "%s;", name, value) < 0) return -ENOMEM;
  int code = append(f, &f->fields, line);
  free(line);
  return code;
}

static int address_text(const Address *a, char *text, size_t size) {
  char number[INET6_ADDRSTRLEN];
  bool six = a->sa.sa_family == AF_INET6;
  const void *from = six ? (const void *)&a->in6.sin6_addr : (const void *)&a->in4.sin_addr;
  inet_ntop(a->sa.sa_family, from, number, sizeof number);
  return snprintf(text, size, six ? "[%s]" : "%s", number);
}

/* "+host:port:a,b": both families, and libcurl keeps its Happy Eyeballs. The
** host stands there as in the URL: a trailing dot matters. */
static int give_addresses(Fetch *f, const FetchRequest *r, const Address *list, int n) {
  char text[512 + ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3)];
  int len = snprintf(text, sizeof text, "+%s:%d:", r->host, r->port);
  if (len < 0 || len > 512) return GREEN_EAI_FAIL; /* names have at most 255 bytes */
  for (int i = 0; i < n; i++) {
    if (i > 0) text[len++] = ',';
    len += address_text(&list[i], text + len, sizeof text - (size_t)len);
  }
  return append(f, &f->addresses, text);
}

static int resolve(Fetch *f, const FetchRequest *r, Deadline deadline) {
  Address list[ADDRESSES_MAX];
  f->numeric = resolver_numeric(r->host, AF_UNSPEC, list) > 0;
  if (f->numeric) return GREEN_OK;
  Deadline until = deadline < r->connect_by ? deadline : r->connect_by;
  unsigned exchange = f->exchange;
  f->resolving = true;
  f->waiter = hub_running(f->hub);
  int n = resolver_lookup(f->hub, r->host, AF_UNSPEC, list, ADDRESSES_MAX, until);
  if (f->exchange != exchange) return n < 0 ? n : GREEN_CLOSED;
  f->waiter = NULL;
  f->resolving = false;
  return n < 0 ? n : give_addresses(f, r, list, n);
}

/* Options that libcurl refuses (out of memory, or it is too old) are counted. */
typedef struct Setter {
  const Libcurl *curl;
  CURL *easy;
  CURLcode failed;
} Setter;

static void set(Setter *s, CURLoption option, const void *value) {
  CURLcode code = s->curl->easy_setopt(s->easy, option, value);
  if (code != CURLE_OK) s->failed = code;
}

static void set_long(Setter *s, CURLoption option, long value) {
  CURLcode code = s->curl->easy_setopt(s->easy, option, value);
  if (code != CURLE_OK) s->failed = code;
}

static void set_large(Setter *s, CURLoption option, curl_off_t value) {
  CURLcode code = s->curl->easy_setopt(s->easy, option, value);
  if (code != CURLE_OK) s->failed = code;
}

static void set_callbacks(Setter *s, Fetch *f) {
  set(s, CURLOPT_HEADERFUNCTION, (const void *)on_header);
  set(s, CURLOPT_HEADERDATA, f);
  set(s, CURLOPT_WRITEFUNCTION, (const void *)on_body);
  set(s, CURLOPT_WRITEDATA, f);
  set(s, CURLOPT_RESOLVER_START_FUNCTION, (const void *)on_resolve);
  set(s, CURLOPT_RESOLVER_START_DATA, f);
  set(s, CURLOPT_OPENSOCKETFUNCTION, (const void *)on_open_socket);
  set(s, CURLOPT_ERRORBUFFER, f->error);
}

/* Without these two, which only suppress, libcurl would wait for "100 Continue"
** and call every body a form. A line of the caller's stands before and wins. */
static int suppress_defaults(Fetch *f) {
  int code = append(f, &f->fields, "Expect:");
  return code < 0 ? code : append(f, &f->fields, "Content-Type:");
}

static void set_request(Setter *s, Fetch *f, const FetchRequest *r) {
  bool has_body = r->body || strcmp(r->method, "POST") == 0 || strcmp(r->method, "PUT") == 0;
  if (has_body && suppress_defaults(f) < 0) s->failed = CURLE_OUT_OF_MEMORY;
  set(s, CURLOPT_URL, r->url);
  if (strcmp(r->method, "HEAD") == 0) set_long(s, CURLOPT_NOBODY, 1);
  if (has_body) {
    set_large(s, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
    set(s, CURLOPT_POSTFIELDS, r->body ? r->body : "");
  }
  set(s, CURLOPT_CUSTOMREQUEST, r->method);
  set(s, CURLOPT_HTTPHEADER, f->fields);
}

static void set_limits(Setter *s, const Fetch *f, const CurlLoop *loop, const FetchRequest *r) {
  Deadline left = r->connect_by - f->hub->now;
  long milliseconds = left > 86400 ? 86400000L : left > 0.001 ? (long)(left * 1e3) : 1;
  set_long(s, CURLOPT_CONNECTTIMEOUT_MS, milliseconds);
  if (r->max_body < INT64_MAX && strcmp(r->method, "HEAD") != 0)
    set_large(s, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)r->max_body);
  long share = RECEIVE_TOTAL / (long)(loop->njobs + 1);
  set_long(s, CURLOPT_BUFFERSIZE,
           share < RECEIVE_MIN   ? RECEIVE_MIN
           : share > RECEIVE_MAX ? RECEIVE_MAX
                                 : share);
}

/* What is never left to libcurl's defaults or to the environment. A paused
** HTTP/2 stream beside others holds 32 MiB of their connection's window, so
** streamed bodies have HTTP/1.1, for which libcurl takes no HTTP/2 connection
** from its pool (D20; HC5 tests it). */
static void set_policy(Setter *s, Fetch *f, const FetchRequest *r) {
  bool multiplex = strncmp(r->url, "https:", 6) == 0 && !r->stream;
  set(s, CURLOPT_PROTOCOLS_STR, "http,https");
  set_long(s, CURLOPT_FOLLOWLOCATION, 0);
  set_long(s, CURLOPT_NOSIGNAL, 1);
  set_long(s, CURLOPT_HTTP_VERSION, multiplex ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
  set_long(s, CURLOPT_PIPEWAIT, multiplex);
  set(s, CURLOPT_PROXY, r->proxy ? r->proxy : "");
  set(s, CURLOPT_NOPROXY, "");
  set_long(s, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1);
  set_long(s, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
  set_long(s, CURLOPT_SSL_VERIFYPEER, !r->insecure);
  set_long(s, CURLOPT_SSL_VERIFYHOST, r->insecure ? 0 : 2);
  if (r->cafile) {
    set(s, CURLOPT_CAINFO, r->cafile);
    set(s, CURLOPT_CAPATH, NULL);
  }
  set(s, CURLOPT_RESOLVE, f->addresses);
  set_long(s, CURLOPT_DNS_CACHE_TIMEOUT, NAMES_KEPT);
}

static void reset(Fetch *f, const FetchRequest *r) {
  f->received = 0;
  f->max_body = r->max_body;
  f->pause_at = r->stream ? FETCH_PAUSE_AT : SIZE_MAX;
  f->head_bytes = f->head_fields = 0;
  f->stall = r->stall;
  f->progress = f->hub->now;
  f->code = f->refused = 0;
  f->interim = f->headed = f->done = f->paused = false;
  f->explained = 0;
  f->error[0] = '\0';
}

static int begin(Fetch *f, CurlLoop *loop, const FetchRequest *r) {
  Setter s = {loop->curl, f->job.easy, CURLE_OK};
  set_callbacks(&s, f);
  set_request(&s, f, r);
  set_policy(&s, f, r);
  set_limits(&s, f, loop, r);
  if (s.failed == CURLE_OUT_OF_MEMORY) return -ENOMEM;
  if (s.failed != CURLE_OK) return explain_more(f, -ELIBACC, "libcurl lacks an option", s.failed);
  return curlloop_add(loop, &f->job);
}

int fetch_start(Fetch *f, const FetchRequest *r, Deadline deadline) {
  CurlLoop *loop;
  if (f->job.easy || f->resolving) return GREEN_BUSY;
  reset(f, r);
  int code = curlloop_get(f->hub, &loop);
  if (code == -ELIBACC) return explain(f, code, libcurl_error());
  if (code < 0) return code;
  f->curl = loop->curl;
  unsigned exchange = f->exchange;
  code = resolve(f, r, deadline);
  if (f->exchange != exchange) return code; /* closed meanwhile; another may have begun */
  if (code == GREEN_OK) {
    f->job.easy = f->curl->easy_init();
    code = f->job.easy ? begin(f, loop, r) : -ENOMEM;
  }
  if (code < 0) fetch_close(f);
  return code;
}

/* ---- the response ---- */

/* Waits for news of the transfer, at most until `deadline`, and at most
** `f->stall` seconds after the last progress. Only bytes of the body are
** progress: an endless head or endless chunk extensions are not (T12). Another
** greenlet may have closed the exchange before this one runs, and begun the
** next, whose waiter is not to be touched. */
static int wait_news(Fetch *f, const char *what, Deadline deadline) {
  if (f->waiter) return GREEN_BUSY;
  unsigned exchange = f->exchange;
  for (;;) {
    Deadline stalled = f->stall > 0 ? f->progress + f->stall : DEADLINE_NEVER;
    f->waiter = hub_running(f->hub);
    int code = hub_park(f->hub, what, stalled < deadline ? stalled : deadline);
    if (f->exchange != exchange) return code < 0 ? code : GREEN_CLOSED;
    f->waiter = NULL;
    if (code != GREEN_TIMEDOUT || stalled >= deadline) return code;
    if (f->progress + f->stall <= stalled) return GREEN_TIMEDOUT;
  }
}

/* Goes on with a paused transfer, now that its buffer was emptied. */
static void resume(Fetch *f) {
  if (!f->paused) return;
  f->paused = false;
  curlloop_resume(&f->job);
}

int fetch_head(Fetch *f, const char **head, size_t *len, Deadline deadline) {
  if (!f->job.easy) return GREEN_CLOSED;
  f->progress = f->hub->now;
  while (!f->headed) {
    if (f->done) return f->code < 0 ? f->code : GREEN_EOF;
    int code = wait_news(f, "http head", deadline);
    if (code < 0) return code;
  }
  *head = f->head.data;
  *len = f->head.len;
  return GREEN_OK;
}

int fetch_read(Fetch *f, const char **piece, size_t *len, Deadline deadline) {
  if (!f->job.easy) return GREEN_CLOSED;
  if (f->waiter) return GREEN_BUSY;
  /* what the reader did since the last piece counts as well */
  if (deadline < DEADLINE_NEVER && hub_now_update(f->hub) > deadline) return GREEN_TIMEDOUT;
  f->progress = f->hub->now;
  while (f->in.len == 0) {
    if (f->done) return f->code;
    int code = wait_news(f, "http body", deadline);
    if (code < 0) return code;
  }
  FetchBuffer full = f->in;
  f->in = f->out;
  f->out = full;
  f->in.len = 0;
  *piece = full.data;
  *len = full.len;
  resume(f);
  return 1;
}

int fetch_body(Fetch *f, uint64_t max, const char **body, size_t *len, Deadline deadline) {
  if (!f->job.easy) return GREEN_CLOSED;
  if (f->waiter) return GREEN_BUSY;
  if (f->received > max) return explain(f, -EFBIG, "too large");
  if (f->max_body > max) f->max_body = max;
  f->progress = f->hub->now;
  f->pause_at = SIZE_MAX;
  resume(f);
  while (!f->done) {
    int code = wait_news(f, "http body", deadline);
    if (code < 0) return code;
  }
  *body = f->in.data;
  *len = f->in.len;
  return f->code;
}

int fetch_skip(Fetch *f, size_t limit, Deadline deadline) {
  const char *piece;
  size_t len;
  int code;
  f->pause_at = FETCH_PAUSE_AT;
  while ((code = fetch_read(f, &piece, &len, deadline)) > 0) {
    if (len > limit) return -EFBIG;
    limit -= len;
  }
  return code;
}

void fetch_close(Fetch *f) {
  f->exchange++;
  f->resolving = false;
  curlloop_remove(&f->job);
  if (f->job.easy) f->curl->easy_cleanup(f->job.easy);
  f->job.easy = NULL;
  if (f->curl) {
    f->curl->slist_free_all(f->fields);
    f->curl->slist_free_all(f->addresses);
  }
  f->fields = f->addresses = NULL;
  buffer_free(&f->head);
  buffer_free(&f->in);
  buffer_free(&f->out);
  wake(f, GREEN_CLOSED);
  f->waiter = NULL;
}

const char *fetch_message(const Fetch *f, int code) {
  return f->explained == code ? f->message : status_text(code);
}
