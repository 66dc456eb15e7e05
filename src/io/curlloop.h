/*
 * libcurl's multi-socket interface on the hub's loop (D20).
 *
 * One CurlLoop per hub holds one multi handle, so all greenlets share its
 * connections. A CurlJob is one easy handle in it. libcurl says which sockets
 * and which timeout it waits for; the hub's loop calls it when they come; it
 * calls the job's callbacks. Those run on whatever greenlet called libcurl,
 * with waiting forbidden, and may neither add nor remove a job.
 */
#ifndef GREEN_CURLLOOP_H
#define GREEN_CURLLOOP_H

#include "../hub/hub.h"
#include "libcurl.h"

typedef struct CurlJob CurlJob;

typedef struct CurlLoop {
  HubService service; /* first */
  Hub *hub;
  const Libcurl *curl;
  CURLM *multi;
  ev_timer timer; /* libcurl's one timeout; never keeps the hub's loop alive */
  CurlJob *jobs;  /* those added, newest first */
  unsigned njobs;
} CurlLoop;

struct CurlJob {
  CURL *easy;           /* the owner's */
  CurlLoop *loop;       /* while added; else NULL */
  CurlJob *prev, *next; /* in loop->jobs, while added */
  bool held;            /* holds the hub's loop open: added, and not paused */
  /* The transfer has ended and the job was taken out. Called after libcurl
  ** has returned, so it may do what callbacks may not; but it must not wait. */
  void (*done)(CurlJob *job, CURLcode result);
};

/* This hub's CurlLoop, made at the first call. Returns 0; -ELIBACC when there
** is no libcurl (libcurl_error has the text); -ENOMEM. */
int curlloop_get(Hub *hub, CurlLoop **out);

/* Starts the transfer of `job->easy`, whose options and `job->done` are set.
** Returns 0 or -ENOMEM. */
int curlloop_add(CurlLoop *loop, CurlJob *job);

/* Takes the job out at once, in whatever state; a connection in the middle of
** a response is closed. Nothing happens when it is not in. Never called from
** one of libcurl's callbacks. */
void curlloop_remove(CurlJob *job);

/* The job's write callback is about to answer CURL_WRITEFUNC_PAUSE: nothing
** but curlloop_resume can wake it, so it no longer holds the loop open, and
** the hub can see a deadlock. */
void curlloop_pausing(CurlJob *job);

/* Goes on with a paused job. libcurl hands over what it kept at once, so
** callbacks run inside. The job may be done afterwards. */
void curlloop_resume(CurlJob *job);

/* Closes the connections kept for reuse, unless a transfer is under way. */
void curlloop_drop_idle(Hub *hub);

#endif
