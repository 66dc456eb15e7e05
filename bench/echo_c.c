/*
 * The limit that the green echo server is held against: an echo server of bare
 * libev callbacks, with no scheduler, no buffers of a connection's own, no Lua.
 * Prints its port on 127.0.0.1, then serves until its stdin ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_readable(struct ev_loop *loop, ev_io *w, int events) {
  static char buffer[64 * 1024];
  (void)events;
  ssize_t n = recv(w->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  /* An echo that does not fit into the send buffer ends the connection: this
  ** server has no queues, and a ping-pong load never needs any. */
  if (n > 0 && send(w->fd, buffer, (size_t)n, MSG_NOSIGNAL) == n) return;
  ev_io_stop(loop, w);
  close(w->fd);
  free(w);
}

static void on_connection(struct ev_loop *loop, ev_io *w, int events) {
  (void)events;
  int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  ev_io *client = malloc(sizeof *client);
  if (!client) abort();
  ev_io_init(client, on_readable, fd, EV_READ);
  ev_io_start(loop, client);
}

static void on_stdin(struct ev_loop *loop, ev_io *w, int events) {
  char byte;
  (void)events;
  if (read(w->fd, &byte, 1) <= 0) ev_break(loop, EVBREAK_ALL);
}

static int listen_anywhere(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) < 0 || listen(fd, 1024) < 0 ||
      getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
    perror("echo_c");
    exit(1);
  }
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  return fd;
}

int main(void) {
  struct ev_loop *loop = ev_default_loop(0);
  ev_io listener, input;
  ev_io_init(&listener, on_connection, listen_anywhere(), EV_READ);
  ev_io_start(loop, &listener);
  ev_io_init(&input, on_stdin, STDIN_FILENO, EV_READ);
  ev_io_start(loop, &input);
  ev_run(loop, 0);
  return 0;
}
