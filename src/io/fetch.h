/*
 * One HTTP exchange: a request goes out, a response is pulled by its greenlet.
 *
 * libcurl does the protocol; names are looked up by our resolver and given to
 * it, because Debian's libcurl resolves in threads that cannot be ended (D20).
 * Redirects are the caller's policy: each hop is another fetch_start. A Fetch
 * has one owner; everything but fetch_close is refused to a second greenlet
 * while the first one waits.
 *
 *   fetch_init -> [fetch_header]* -> fetch_start -> fetch_head
 *     -> fetch_read ... (0 at the end), or fetch_body -> fetch_close
 */
#ifndef GREEN_FETCH_H
#define GREEN_FETCH_H

#include <stdint.h>

#include "../hub/hub.h"
#include "curlloop.h"

#define FETCH_HEAD_MAX (256 * 1024) /* bytes of a response's heads, 1xx and trailers included */
#define FETCH_LINE_MAX (64 * 1024)  /* bytes of one header line */
#define FETCH_FIELDS_MAX 1000       /* header lines of all heads */
#define FETCH_PAUSE_AT (256 * 1024) /* so much waiting for its reader pauses a streamed body */
#define FETCH_UNLIMITED UINT64_MAX

/* What fetch_start is to do. All pointers are needed during the call only,
** but for `body`, which must live until fetch_close. */
typedef struct FetchRequest {
  const char *url;    /* absolute; http or https */
  const char *method; /* a token, as it goes out */
  const char *host;   /* who is connected to: the host of `proxy`, else of `url`, as written */
  int port;           /* ditto */
  const char *body;   /* NULL: none */
  size_t body_len;
  const char *proxy;   /* http, https or socks5h; NULL: none, whatever the environment says */
  const char *cafile;  /* certificates to trust instead of the system's; NULL: the system's */
  bool insecure;       /* accept any certificate */
  bool stream;         /* read piece by piece: the body waits for its reader */
  Deadline connect_by; /* until then the connection must stand */
  uint64_t max_body;   /* a longer body is an error; FETCH_UNLIMITED: none is */
  double stall;        /* seconds without progress that end it (see wait_news); 0: no limit */
} FetchRequest;

typedef struct FetchBuffer {
  char *data; /* owned; NULL while size is 0 */
  size_t len, size;
} FetchBuffer;

typedef struct Fetch {
  CurlJob job; /* first; job.easy is NULL until started */
  Hub *hub;
  const Libcurl *curl;          /* once started */
  struct curl_slist *fields;    /* the request's header lines */
  struct curl_slist *addresses; /* what `host` resolved to, in CURLOPT_RESOLVE's form */
  FetchBuffer head;             /* the final response's head, as it came */
  FetchBuffer in;               /* body that has come and was not read */
  FetchBuffer out;              /* the piece handed out last */
  Task *waiter;                 /* who waits for news; NULL: nobody */
  unsigned exchange;            /* how many were closed: a waiter's is over when this has changed */
  uint64_t received;            /* bytes of the body so far */
  uint64_t max_body;
  size_t pause_at;                /* bytes in `in` that pause the transfer; SIZE_MAX: never */
  size_t head_bytes, head_fields; /* for the limits, over all heads */
  double stall;
  Deadline progress; /* when the body last grew, or something was last asked for */
  int code;          /* once done: 0, or why it failed */
  int refused;       /* a callback ended the transfer: why; else 0 */
  bool resolving;    /* in fetch_start, before there is a handle */
  bool numeric;      /* the host is an address, which libcurl may parse */
  bool interim;      /* the head so far is a 1xx: another follows */
  bool headed;       /* the final head is complete */
  bool done;         /* the transfer has ended */
  bool paused;
  int explained; /* the code that `message` tells more about; 0: none */
  char message[CURL_ERROR_SIZE + 64];
  char error[CURL_ERROR_SIZE]; /* libcurl's words */
} Fetch;

/* Makes `f` an idle Fetch of `hub`. */
void fetch_init(Fetch *f, Hub *hub);

/* Adds a header to the next request. Neither may hold CR, LF or NUL. An empty
** value is sent as such. Returns 0, -EINVAL, -ELIBACC or -ENOMEM. */
int fetch_header(Fetch *f, const char *name, const char *value);

/* Looks the host up and begins the exchange. `f` must be idle. Returns 0, a
** code of resolver_lookup, -ELIBACC (no libcurl), -ENOMEM, -EINVAL, GREEN_BUSY,
** or GREEN_CLOSED when it was closed meanwhile. After an error it is idle. */
int fetch_start(Fetch *f, const FetchRequest *request, Deadline deadline);

/* Waits for the head of the final response: its status line and header lines,
** `*len` bytes valid until fetch_close. Returns 0 or why there is none. */
int fetch_head(Fetch *f, const char **head, size_t *len, Deadline deadline);

/* Waits for the next piece of the body: `*len` bytes, valid until the next call
** for `f`. Returns 1, 0 at the end of a complete body, or an error. A body that
** is not streamed comes whole. */
int fetch_read(Fetch *f, const char **piece, size_t *len, Deadline deadline);

/* Waits for the rest of the body, all in one piece. More than `max` bytes are
** an error, whatever the request allowed. Returns 0 or an error. */
int fetch_body(Fetch *f, uint64_t max, const char **body, size_t *len, Deadline deadline);

/* Reads and forgets the rest of the body, so that its connection can be used
** again. Returns 0 at its end, -EFBIG after `limit` bytes, or an error. */
int fetch_skip(Fetch *f, size_t limit, Deadline deadline);

/* Ends the exchange at once, in whatever state, and makes `f` idle, to be
** started again or forgotten. Who waits gets GREEN_CLOSED. Never waits. */
void fetch_close(Fetch *f);

/* What to tell the user about `code`, which a function above has just
** returned. Valid until the next call for `f`. */
const char *fetch_message(const Fetch *f, int code);

#endif
