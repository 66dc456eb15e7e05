/*
 * SIGPIPE: a broken pipe is an error of the write, not the end of the process,
 * unless the pipe is stdout: then nobody reads what the program writes.
 *
 * A handler, not SIG_IGN: exec resets handlers to the default, whereas a child
 * would inherit SIG_IGN, and `yes | head` in a child would never end
 * (execve(2), signal(7)). Sockets send with MSG_NOSIGNAL and never come here.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "host.h"

static void on_sigpipe(int sig) {
  int saved = errno;
  struct pollfd out = {.fd = STDOUT_FILENO};
  /* POLLERR on the writing end: nobody has the reading end open (poll(2)). */
  if (poll(&out, 1, 0) > 0 && (out.revents & POLLERR)) {
    signal(sig, SIG_DFL);
    raise(sig); /* delivered when this handler returns */
  }
  errno = saved;
}

void sigpipe_init(void) {
  struct sigaction old;
  /* What the caller chose to ignore stays ignored. */
  if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
  struct sigaction action = {.sa_handler = on_sigpipe, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGPIPE, &action, NULL);
}
