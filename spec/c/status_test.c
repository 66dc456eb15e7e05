/* Tests of src/core/status.c. */
#include "../../src/core/status.h"

#include <errno.h>

#include "test.h"

static void luasocket_words(void) {
  CHECK_STR(status_text(GREEN_TIMEDOUT), "timeout");
  CHECK_STR(status_text(-ETIMEDOUT), "timeout");
  CHECK_STR(status_text(GREEN_CLOSED), "closed");
  CHECK_STR(status_text(GREEN_EOF), "closed");
  CHECK_STR(status_text(-ECONNRESET), "closed");
  CHECK_STR(status_text(-EPIPE), "closed");
  CHECK_STR(status_text(-ECONNREFUSED), "connection refused");
  CHECK_STR(status_text(-EADDRINUSE), "address already in use");
  CHECK_STR(status_text(-EISCONN), "already connected");
  CHECK_STR(status_text(GREEN_EAI_NONAME), "host or service not provided, or not known");
}

static void names(void) {
  CHECK_STR(status_name(-ECONNREFUSED), "ECONNREFUSED");
  CHECK_STR(status_name(-ENOENT), "ENOENT");
  CHECK_STR(status_name(GREEN_TIMEDOUT), "ETIMEDOUT");
  CHECK_STR(status_name(GREEN_EOF), "EOF");
  CHECK_STR(status_name(GREEN_EAI_NONAME), "EAI_NONAME");
}

static void never_null(void) {
  CHECK_STR(status_text(-ENOENT), "No such file or directory");
  for (int code = 200; code > -11000; code--) {
    CHECK(status_text(code) != NULL && status_text(code)[0] != '\0');
    CHECK(status_name(code) != NULL && status_name(code)[0] != '\0');
  }
  CHECK_STR(status_text(-9999), "unknown error");
  CHECK_STR(status_name(5), "EUNKNOWN");
}

static void own_codes_differ(void) {
  for (int a = GREEN_TIMEDOUT; a >= GREEN_EAI_SERVICE; a--) {
    for (int b = a - 1; b >= GREEN_EAI_SERVICE; b--) {
      if (strcmp(status_name(a), "EUNKNOWN") != 0) CHECK(strcmp(status_name(a), status_name(b)) != 0);
    }
  }
}

int main(void) {
  RUN("texts are LuaSocket's where it has one", luasocket_words);
  RUN("names are the symbols", names);
  RUN("every code has a text and a name", never_null);
  RUN("no two codes of ours share a name", own_codes_differ);
  return test_end();
}
