/*
 * libcurl's multi-socket interface on the hub's loop. May use the hub.
 *
 * Not our watchers but the running jobs hold the loop open (hub_hold): every
 * watcher is taken off libev's count when it starts, and put back before it
 * stops. A watcher that libev or the hub has stopped by itself is off both
 * counts, which its callback sets right.
 */
#include "curlloop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Idle connections that are kept. By default libcurl keeps four times as many
** as there are transfers, which drops good ones whenever a crowd thins out. */
#define IDLE_MAX 256L

typedef struct CurlSocket {
  HubIo io; /* first */
  CurlLoop *loop;
} CurlSocket;

static const char service_key;

/* Waiting is forbidden while libcurl is on the stack (D20). */
static void enter(CurlLoop *loop) { loop->hub->nowait++; }
static void leave(CurlLoop *loop) { loop->hub->nowait--; }

static void hold(CurlJob *job, bool held) {
  if (job->held == held) return;
  job->held = held;
  hub_hold(job->loop->hub, held ? +1 : -1);
}

/* ---- jobs ---- */

static void link_job(CurlLoop *loop, CurlJob *job) {
  job->loop = loop;
  job->prev = NULL;
  job->next = loop->jobs;
  if (loop->jobs) loop->jobs->prev = job;
  loop->jobs = job;
  loop->njobs++;
}

static void unlink_job(CurlJob *job) {
  CurlLoop *loop = job->loop;
  if (job->next) job->next->prev = job->prev;
  if (job->prev)
    job->prev->next = job->next;
  else
    loop->jobs = job->next;
  loop->njobs--;
  job->loop = NULL;
}

int curlloop_add(CurlLoop *loop, CurlJob *job) {
  assert(!job->loop && job->easy && job->done);
  loop->curl->easy_setopt(job->easy, CURLOPT_PRIVATE, job);
  link_job(loop, job);
  job->held = false;
  hold(job, true);
  enter(loop);
  CURLMcode code = loop->curl->multi_add_handle(loop->multi, job->easy);
  leave(loop);
  if (code == CURLM_OK) return GREEN_OK;
  hold(job, false);
  unlink_job(job);
  return -ENOMEM;
}

void curlloop_remove(CurlJob *job) {
  CurlLoop *loop = job->loop;
  if (!loop) return;
  enter(loop);
  CURLMcode code = loop->curl->multi_remove_handle(loop->multi, job->easy);
  leave(loop);
  assert(code == CURLM_OK); /* anything else: we are inside one of its callbacks */
  (void)code;
  hold(job, false);
  unlink_job(job);
}

static void finish(CurlJob *job, CURLcode result) {
  curlloop_remove(job);
  job->done(job, result);
}

/* Hands out the transfers that libcurl has brought to an end. */
static void collect(CurlLoop *loop) {
  CURLMsg *message;
  int left;
  while ((message = loop->curl->multi_info_read(loop->multi, &left)) != NULL) {
    CurlJob *job = NULL;
    if (message->msg != CURLMSG_DONE) continue;
    CURLcode result = message->data.result; /* the message dies with the removal */
    loop->curl->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &job);
    finish(job, result);
  }
}

void curlloop_pausing(CurlJob *job) { hold(job, false); }

void curlloop_resume(CurlJob *job) {
  CurlLoop *loop = job->loop;
  if (!loop) return;
  hold(job, true); /* first: a callback may pause it again */
  enter(loop);
  CURLcode code = loop->curl->easy_pause(job->easy, CURLPAUSE_CONT);
  leave(loop);
  /* libcurl reports a callback's refusal here, and only here */
  if (code != CURLE_OK) finish(job, code);
}

/* ---- libcurl's wishes ---- */

static void act(CurlLoop *loop, curl_socket_t fd, int events) {
  int running;
  enter(loop);
  loop->curl->multi_socket_action(loop->multi, fd, events, &running);
  leave(loop);
  collect(loop);
}

static void on_timer(struct ev_loop *ev, ev_timer *w, int events) {
  (void)events;
  ev_ref(ev); /* one-shot: libev has stopped it */
  act(w->data, CURL_SOCKET_TIMEOUT, 0);
}

static void timer_stop(CurlLoop *loop) {
  struct ev_loop *ev = loop->hub->loop;
  if (ev_clear_pending(ev, &loop->timer)) ev_ref(ev); /* on_timer will not do it */
  if (!ev_is_active(&loop->timer)) return;
  ev_ref(ev);
  ev_timer_stop(ev, &loop->timer);
}

/* 0 means 'soon': libcurl forbids to be called from here, so a timer of 0 s. */
static int on_timeout_wish(CURLM *multi, long milliseconds, void *arg) {
  CurlLoop *loop = arg;
  struct ev_loop *ev = loop->hub->loop;
  (void)multi;
  timer_stop(loop);
  if (milliseconds < 0) return 0;
  ev_timer_set(&loop->timer, (double)milliseconds / 1e3, 0.);
  ev_timer_start(ev, &loop->timer);
  ev_unref(ev);
  return 0;
}

static void socket_start(CurlSocket *s) {
  hub_io_start(s->loop->hub, &s->io);
  ev_unref(s->loop->hub->loop);
}

static void socket_stop(CurlSocket *s) {
  if (!ev_is_active(&s->io.ev)) return;
  ev_ref(s->loop->hub->loop);
  hub_io_stop(s->loop->hub, &s->io);
}

static void on_socket(struct ev_loop *ev, ev_io *w, int events) {
  CurlSocket *s = w->data;
  int mask = 0;
  if (!ev_is_active(w)) ev_ref(ev); /* the hub found the descriptor closed, and stopped it */
  if (events & EV_READ) mask |= CURL_CSELECT_IN;
  if (events & EV_WRITE) mask |= CURL_CSELECT_OUT;
  if (events & EV_ERROR) mask = CURL_CSELECT_ERR;
  act(s->loop, w->fd, mask);
}

static CurlSocket *socket_new(CurlLoop *loop, curl_socket_t fd) {
  CurlSocket *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->loop = loop;
  ev_io_init(&s->io.ev, on_socket, fd, EV_READ);
  s->io.ev.data = s;
  loop->curl->multi_assign(loop->multi, fd, s);
  return s;
}

static int on_socket_wish(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned) {
  CurlLoop *loop = arg;
  CurlSocket *s = assigned;
  (void)easy;
  if (what == CURL_POLL_REMOVE) {
    if (s) socket_stop(s);
    free(s);
    return 0;
  }
  if (!s && !(s = socket_new(loop, fd))) return -1;
  socket_stop(s);
  int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);
  ev_io_set(&s->io.ev, fd, events);
  if (events) socket_start(s);
  return 0;
}

/* ---- life ---- */

/* The two descriptors that will be given out next: the lowest free ones (open(2)). */
static void next_descriptors(int next[2]) {
  for (int i = 0; i < 2; i++) next[i] = eventfd(0, EFD_CLOEXEC);
  for (int i = 0; i < 2; i++)
    if (next[i] >= 0) close(next[i]);
}

static bool is_unix_socket(int fd) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* libcurl 7.88 makes a pair of sockets for curl_multi_wakeup, which children
** would inherit; there is no option against it, and none to get at them. */
static CURLM *multi_new(CurlLoop *loop) {
  int next[2];
  next_descriptors(next);
  CURLM *multi = loop->curl->multi_init();
  for (int i = 0; i < 2; i++)
    if (is_unix_socket(next[i])) fcntl(next[i], F_SETFD, FD_CLOEXEC);
  return multi;
}

static int multi_open(CurlLoop *loop) {
  const Libcurl *curl = loop->curl;
  CURLM *multi = multi_new(loop);
  if (!multi) return -ENOMEM;
  curl->multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket_wish);
  curl->multi_setopt(multi, CURLMOPT_SOCKETDATA, loop);
  curl->multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timeout_wish);
  curl->multi_setopt(multi, CURLMOPT_TIMERDATA, loop);
  curl->multi_setopt(multi, CURLMOPT_MAXCONNECTS, IDLE_MAX);
  loop->multi = multi;
  return GREEN_OK;
}

static void multi_close(CurlLoop *loop) {
  if (!loop->multi) return;
  enter(loop);
  loop->curl->multi_cleanup(loop->multi);
  leave(loop);
  timer_stop(loop);
  loop->multi = NULL;
}

/* Their owners' handles outlive the multi handle, but are out of it. */
static void close_service(HubService *service) {
  CurlLoop *loop = (CurlLoop *)service;
  while (loop->jobs) finish(loop->jobs, CURLE_ABORTED_BY_CALLBACK);
  multi_close(loop);
  free(loop);
}

static CurlLoop *service_new(Hub *hub, const Libcurl *curl) {
  CurlLoop *loop = calloc(1, sizeof *loop);
  if (!loop) return NULL;
  loop->hub = hub;
  loop->curl = curl;
  loop->service.key = &service_key;
  loop->service.close = close_service;
  ev_timer_init(&loop->timer, on_timer, 0., 0.);
  loop->timer.data = loop;
  hub_service_add(hub, &loop->service);
  return loop;
}

int curlloop_get(Hub *hub, CurlLoop **out) {
  const Libcurl *curl = libcurl_open();
  if (!curl) return -ELIBACC;
  CurlLoop *loop = (CurlLoop *)hub_service(hub, &service_key);
  if (!loop && !(loop = service_new(hub, curl))) return -ENOMEM;
  *out = loop;
  return loop->multi ? GREEN_OK : multi_open(loop);
}

/* libcurl has no call for it: its connections go with the multi handle. */
void curlloop_drop_idle(Hub *hub) {
  CurlLoop *loop = (CurlLoop *)hub_service(hub, &service_key);
  if (loop && loop->njobs == 0) multi_close(loop);
}
