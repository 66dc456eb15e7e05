/*
 * The load of the echo benchmark: `echo_load PORT CONNECTIONS SECONDS` keeps one
 * message of 64 bytes under way on each connection to 127.0.0.1, and prints how
 * many echoes a second came back. Exits 1 when one is wrong or missing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define EVENTS 256
#define WARM_UP 0.2 /* seconds that do not count */

typedef struct Connection {
  int fd;
  int got; /* bytes of the present echo */
} Connection;

static char message[MESSAGE];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
  fprintf(stderr, "echo_load: ");
  perror(what);
  exit(1);
}

static void send_message(Connection *c) {
  c->got = 0;
  if (send(c->fd, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE) fail("send");
}

static void open_connection(Connection *c, int epoll, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  int yes = 1;
  to.sin_port = htons((uint16_t)port);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) < 0) fail("epoll_ctl");
  send_message(c);
}

/* Returns how many echoes are complete now: 0 or 1. */
static int receive(Connection *c) {
  char echo[MESSAGE];
  ssize_t n = recv(c->fd, echo, (size_t)(MESSAGE - c->got), 0);
  if (n <= 0) fail("recv");
  if (memcmp(echo, message + c->got, (size_t)n) != 0) {
    fprintf(stderr, "echo_load: a wrong echo\n");
    exit(1);
  }
  c->got += (int)n;
  if (c->got < MESSAGE) return 0;
  send_message(c);
  return 1;
}

/* Serves events until `end`. Returns how many echoes came. */
static long run(int epoll, double end) {
  struct epoll_event events[EVENTS];
  long echoes = 0;
  while (now() < end) {
    int n = epoll_wait(epoll, events, EVENTS, 1000);
    if (n <= 0) fail("epoll_wait");
    for (int i = 0; i < n; i++) echoes += receive(events[i].data.ptr);
  }
  return echoes;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: echo_load PORT CONNECTIONS SECONDS\n");
    return 2;
  }
  int count = atoi(argv[2]), epoll = epoll_create1(EPOLL_CLOEXEC);
  Connection *all = calloc((size_t)count, sizeof *all);
  if (epoll < 0 || !all) fail("epoll_create1");
  for (int i = 0; i < MESSAGE; i++) message[i] = (char)('!' + i);
  for (int i = 0; i < count; i++) open_connection(&all[i], epoll, atoi(argv[1]));
  run(epoll, now() + WARM_UP);
  double start = now();
  long echoes = run(epoll, start + atof(argv[3]));
  printf("%.0f\n", (double)echoes / (now() - start));
  return 0;
}
