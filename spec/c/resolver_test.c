/*
 * io/resolver without Lua, against a DNS server of this program's own, which
 * misbehaves on demand: the first label of a question says how to answer it.
 */
#define _GNU_SOURCE /* mkostemp */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "io/address.h"
#include "io/hostsfile.h"
#include "io/resolvconf.h"
#include "io/resolver.h"
#include "test.h"

static Hub hub;
static Task self_task, main_task;

/* ---- the server: one thread, one UDP and one TCP socket on the same port ---- */

enum { TYPE_A = 1, TYPE_CNAME = 5, TYPE_AAAA = 28 };

typedef struct Server {
  int udp, tcp;
  int port;
  bool silent; /* answers nothing at all */
  pthread_t thread;
  _Atomic int questions;   /* asked so far */
  _Atomic int a_questions; /* of them, for IPv4 */
} Server;

typedef struct Message {
  unsigned char bytes[4096];
  size_t len;
} Message;

static void put16(Message *m, unsigned v) {
  m->bytes[m->len++] = (unsigned char)(v >> 8);
  m->bytes[m->len++] = (unsigned char)v;
}

static void put_record(Message *m, unsigned type, unsigned ttl, const void *data, unsigned len) {
  put16(m, 0xc00c); /* the name of the question */
  put16(m, type);
  put16(m, 1);
  put16(m, ttl >> 16);
  put16(m, ttl & 0xffff);
  put16(m, len);
  memcpy(m->bytes + m->len, data, len);
  m->len += len;
  m->bytes[7]++; /* one answer more */
}

static void put_a(Message *m, const char *addr, unsigned ttl) {
  struct in_addr in;
  inet_pton(AF_INET, addr, &in);
  put_record(m, TYPE_A, ttl, &in, 4);
}

static void put_aaaa(Message *m, const char *addr, unsigned ttl) {
  struct in6_addr in;
  inet_pton(AF_INET6, addr, &in);
  put_record(m, TYPE_AAAA, ttl, &in, 16);
}

/* The end of the question: header, name, type, class. 0: malformed. */
static size_t question_end(const Message *q) {
  size_t at = 12;
  while (at < q->len && q->bytes[at] != 0) at += q->bytes[at] + 1u;
  return at + 5 <= q->len ? at + 5 : 0;
}

/* An answer without records to `q`, whose question it repeats. */
static void reply_to(const Message *q, size_t end, unsigned rcode, Message *m) {
  memset(m, 0, sizeof *m);
  memcpy(m->bytes, q->bytes, end);
  m->len = end;
  m->bytes[2] = 0x84;
  m->bytes[3] = (unsigned char)(0x80 | rcode);
  memset(m->bytes + 6, 0, 6);
}

static void put_default(Message *m, unsigned type, unsigned ttl) {
  if (type == TYPE_A)
    put_a(m, "10.0.0.1", ttl);
  else
    put_aaaa(m, "fd00::1", ttl);
}

/* A record of another name, which must not be believed. */
static void put_foreign(Message *m) {
  static const unsigned char record[] = {5, 'o', 't', 'h', 'e', 'r', 0, 0, 1, 0, 1,
                                         0, 0,   1,   0,   0,   4,   6, 6, 6, 6};
  memcpy(m->bytes + m->len, record, sizeof record);
  m->len += sizeof record;
  m->bytes[7]++;
}

static void put_many(Message *m, int n) {
  for (int i = 0; i < n; i++) {
    char addr[32];
    snprintf(addr, sizeof addr, "10.1.%d.%d", i / 250, i % 250);
    put_a(m, addr, 60);
  }
}

static void first_label(const Message *q, char label[64]) {
  size_t len = q->bytes[12] < 63 ? q->bytes[12] : 63;
  memcpy(label, q->bytes + 13, len);
  label[len] = '\0';
}

static void send_udp(Server *s, const Message *m, const struct sockaddr_in *to) {
  sendto(s->udp, m->bytes, m->len, 0, (const struct sockaddr *)to, sizeof *to);
}

static bool begins(const char *label, const char *with) { return strncmp(label, with, strlen(with)) == 0; }

/* Fills in the answer to `label`; false: there is none. */
static bool answer(const char *label, unsigned type, const Message *q, size_t end, Message *m) {
  reply_to(q, end, 0, m);
  if (begins(label, "silent")) return false;
  if (begins(label, "vfour") && type == TYPE_AAAA) return false;
  if (begins(label, "vsix") && type == TYPE_A) return false;
  if (begins(label, "onlyfour") && type == TYPE_AAAA) return true;
  if (begins(label, "nx"))
    m->bytes[3] |= 3;
  else if (begins(label, "servfail"))
    m->bytes[3] |= 2;
  else if (begins(label, "refused") || (begins(label, "bareonly") && q->bytes[12 + 9] == 0))
    m->bytes[3] |= 5; /* bareonly: only without a domain */
  else if (begins(label, "foreign"))
    put_foreign(m);
  else if (begins(label, "many") && type == TYPE_A)
    put_many(m, 150);
  else
    put_default(m, type, begins(label, "zero") ? 0 : 60);
  return true;
}

static void serve_udp(Server *s) {
  Message q, m;
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  ssize_t n = recvfrom(s->udp, q.bytes, sizeof q.bytes, 0, (struct sockaddr *)&from, &size);
  if (n < 17) return;
  q.len = (size_t)n;
  size_t end = question_end(&q);
  if (end == 0) return;
  unsigned type = q.bytes[end - 3];
  char label[64];
  first_label(&q, label);
  s->questions++;
  s->a_questions += type == TYPE_A;
  if (s->silent) return;
  if (begins(label, "late")) usleep(150000);
  if (begins(label, "forged")) {
    reply_to(&q, end, 0, &m);
    put_a(&m, "6.6.6.6", 60);
    m.bytes[1] ^= 0x55; /* another id */
    send_udp(s, &m, &from);
    m.bytes[1] ^= 0x55;
    m.bytes[14] ^= 1; /* another question */
    send_udp(s, &m, &from);
    m.len = 7;
    send_udp(s, &m, &from);
  }
  if (!answer(label, type, &q, end, &m)) return;
  if (begins(label, "truncated")) {
    m.len = end;
    m.bytes[2] |= 2;
    m.bytes[7] = 0;
  }
  send_udp(s, &m, &from);
}

static void serve_tcp(Server *s) {
  Message q, m;
  unsigned char head[2];
  int fd = accept(s->tcp, NULL, NULL);
  struct timeval limit = {.tv_usec = 50000}; /* the client keeps it open */
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  while (recv(fd, head, 2, MSG_WAITALL) == 2) {
    q.len = (size_t)head[0] << 8 | head[1];
    if (q.len > sizeof q.bytes || recv(fd, q.bytes, q.len, MSG_WAITALL) != (ssize_t)q.len) break;
    size_t end = question_end(&q);
    char label[64];
    first_label(&q, label);
    if (end == 0 || !answer(label, q.bytes[end - 3], &q, end, &m)) break;
    head[0] = (unsigned char)(m.len >> 8);
    head[1] = (unsigned char)m.len;
    if (send(fd, head, 2, MSG_NOSIGNAL) != 2 || send(fd, m.bytes, m.len, MSG_NOSIGNAL) < 0) break;
  }
  close(fd);
}

static void *serve(void *arg) {
  Server *s = arg;
  for (;;) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s->udp, &set);
    FD_SET(s->tcp, &set);
    select((s->udp > s->tcp ? s->udp : s->tcp) + 1, &set, NULL, NULL, NULL);
    if (FD_ISSET(s->udp, &set)) serve_udp(s);
    if (FD_ISSET(s->tcp, &set)) serve_tcp(s);
  }
  return NULL;
}

static void server_start(Server *s, bool silent) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof a;
  memset(s, 0, sizeof *s);
  s->silent = silent;
  s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (bind(s->tcp, (struct sockaddr *)&a, size) < 0 || listen(s->tcp, 16) < 0 ||
      getsockname(s->tcp, (struct sockaddr *)&a, &size) < 0 ||
      bind(s->udp, (struct sockaddr *)&a, size) < 0 || pthread_create(&s->thread, NULL, serve, s) != 0) {
    perror("the test's DNS server");
    exit(1);
  }
  s->port = ntohs(a.sin_port);
}

static void server_stop(Server *s) {
  pthread_cancel(s->thread); /* in select or recvfrom */
  pthread_join(s->thread, NULL);
  close(s->udp);
  close(s->tcp);
}

static Server good, dead;

/* ---- helpers ---- */

static Address found[RESOLVER_MAX];

static int lookup(const char *name, int family) {
  return resolver_lookup(&hub, name, family, found, RESOLVER_MAX, hub_deadline(&hub, 15));
}

/* Both families' addresses, also when the second answer came 50 ms later. */
static int lookup_both(const char *name) {
  if (lookup(name, AF_UNSPEC) == 1) hub_sleep(&hub, hub_deadline(&hub, 1));
  return lookup(name, AF_UNSPEC);
}

static const char *text_of(const Address *a) {
  static char text[INET6_ADDRSTRLEN];
  const void *raw =
      a->sa.sa_family == AF_INET ? (const void *)&a->in4.sin_addr : (const void *)&a->in6.sin6_addr;
  return inet_ntop(a->sa.sa_family, raw, text, sizeof text);
}

/* A new hub whose resolver reads only what the test gives it. */
static void begin_with(const char *resolv_conf, const char *hosts) {
  CHECK_INT(hub_init(&hub, &self_task, &main_task), 0);
  CHECK_INT(resolver_set_files(&hub, resolv_conf, hosts), 0);
}

static void begin(void) {
  char servers[32];
  begin_with("/dev/null", "/dev/null");
  snprintf(servers, sizeof servers, "127.0.0.1:%d", good.port);
  CHECK_INT(resolver_set_servers(&hub, servers), 0);
  CHECK_INT(resolver_set_patience(&hub, 2, 2), 0); /* a busy machine is no silence */
}

static void be_impatient(void) { CHECK_INT(resolver_set_patience(&hub, 0.2, 2), 0); }

static void end(void) { hub_close(&hub); }

static char paths[8][32];
static int npaths;

static char *temporary(const char *text) {
  char *path = paths[npaths++];
  strcpy(path, "/tmp/resolver_test.XXXXXX");
  int fd = mkostemp(path, O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) exit(1);
  close(fd);
  return path;
}

static void remove_temporaries(void) {
  while (npaths > 0) unlink(paths[--npaths]);
}

/* A task that looks one name up. */
typedef struct Asker {
  Task task; /* first */
  const char *name;
  int family;
  Address first;
  int result;
  double patience;
} Asker;

static void asker_body(Task *t) {
  Asker *a = (Asker *)t;
  Address out[4];
  a->result = resolver_lookup(&hub, a->name, a->family, out, 4, hub_deadline(&hub, a->patience));
  if (a->result > 0) a->first = out[0];
}

static void ask(Asker *a, const char *name, int family, double patience) {
  memset(a, 0, sizeof *a);
  a->name = name;
  a->family = family;
  a->patience = patience;
  task_init_spawned(&a->task, &hub, asker_body);
  hub_spawn(&a->task);
}

static void join_all(void) { CHECK_INT(hub_join_spawned(&hub, hub_deadline(&hub, 20)), 0); }

/* ---- numbers ---- */

/* Each number as libc's getaddrinfo(AI_NUMERICHOST) sees it. */
static void numbers_as_libc(void) {
  static const char *const texts[] = {"127.0.0.1",
                                      "127.1",
                                      "0x7f.1",
                                      "2130706433",
                                      "0177.0.0.1",
                                      "1.2.3",
                                      "255.255.255.255",
                                      "256.1.1.1",
                                      "1.2.3.4.5",
                                      "1.2.3.4 ",
                                      "1.2.3.4 x",
                                      " 1.2.3.4",
                                      "1..2",
                                      "",
                                      ".",
                                      "1.",
                                      "0x",
                                      "08.1.1.1",
                                      "::1",
                                      "::",
                                      "fe80::1%lo",
                                      "fe80::1%1",
                                      "fe80::1%nosuchif",
                                      "fe80::1%",
                                      "::1%lo",
                                      "::1%7",
                                      "::1%99999999999",
                                      "::ffff:1.2.3.4",
                                      "1::2::3",
                                      "::g",
                                      "[::1]",
                                      "12345::",
                                      "localhost",
                                      "a.b",
                                      "fe80::1%lo%lo",
                                      "ff02::1%lo",
                                      "2001:db8::1%lo"};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    for (int f = 0; f < 3; f++) {
      struct addrinfo hints = {
          .ai_flags = AI_NUMERICHOST, .ai_family = families[f], .ai_socktype = SOCK_STREAM};
      struct addrinfo *want = NULL;
      Address got;
      int libc = getaddrinfo(texts[i], NULL, &hints, &want);
      int ours = resolver_numeric(texts[i], families[f], &got);
      char what[128];
      snprintf(what, sizeof what, "'%s' in family %d", texts[i], families[f]);
      test_check_int(ours, libc == 0 ? 1 : GREEN_EAI_NONAME, what, __FILE__, __LINE__);
      if (libc == 0) {
        CHECK_INT(got.len, want->ai_addrlen);
        CHECK(memcmp(&got.sa, want->ai_addr, got.len) == 0);
        freeaddrinfo(want);
      }
    }
  }
}

/* DN6: none of these reaches a server. */
static void names_without_server(void) {
  begin();
  int before = good.questions;
  CHECK_INT(lookup("127.1", AF_UNSPEC), 1);
  CHECK_STR(text_of(found), "127.0.0.1");
  CHECK_INT(lookup("127.0.0.1", AF_INET6), GREEN_EAI_NONAME);
  CHECK_INT(lookup("::1", AF_INET), GREEN_EAI_NONAME);
  static const char *const local[] = {"localhost", "localhost.", "LocalHost", "x.localhost",
                                      "a.b.localhost."};
  for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
    CHECK_INT(lookup(local[i], AF_UNSPEC), 2);
    CHECK_INT(lookup(local[i], AF_INET), 1);
    CHECK_STR(text_of(found), "127.0.0.1");
    CHECK_INT(lookup(local[i], AF_INET6), 1);
    CHECK_STR(text_of(found), "::1");
  }
  static const char *const bad[] = {"",
                                    ".",
                                    "..",
                                    "a..b",
                                    ".a",
                                    "a b",
                                    "a\tb",
                                    "a\nb",
                                    "\x01",
                                    "b\xc3\xbc"
                                    "cher.test",
                                    "a/b",
                                    "a\\b",
                                    "a\x7f"
                                    "b"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    CHECK_INT(lookup(bad[i], AF_UNSPEC), GREEN_EAI_NONAME);
  char text[300];
  memset(text, 'a', sizeof text);
  text[64] = '\0';
  CHECK_INT(lookup(text, AF_INET), GREEN_EAI_NONAME);
  memset(text, 'a', sizeof text);
  for (int i = 50; i < 250; i += 50) text[i] = '.';
  text[254] = '\0';
  CHECK_INT(lookup(text, AF_INET), GREEN_EAI_NONAME);
  CHECK_INT(good.questions, before);
  text[253] = '\0'; /* the longest name that can exist */
  CHECK_INT(lookup(text, AF_INET), 1);
  CHECK_INT(good.questions, before + 1);
  end();
}

/* ---- files ---- */

static void resolv_conf_is_parsed(void) {
  ResolvConf c;
  resolvconf_read(&c, temporary("# comment\n"
                                "nameserver 10.0.0.1 ; trailing\nnameserver ::1\n nameserver bad\n"
                                "domain first.test\nsearch One.test. two.test\n"
                                "options timeout:7 attempts:3 ndots:2 rotate unknown ndots:x\n"));
  CHECK_INT(c.nservers, 2);
  CHECK_STR(text_of(&c.servers[0]), "10.0.0.1");
  CHECK_INT(ntohs(c.servers[0].in4.sin_port), 53);
  CHECK_STR(text_of(&c.servers[1]), "::1");
  CHECK_INT(c.nsearch, 2);
  CHECK_STR(c.search[0], "one.test");
  CHECK_STR(c.search[1], "two.test");
  CHECK_INT((int)c.timeout, 7);
  CHECK_INT(c.tries, 3);
  CHECK_INT(c.ndots, 2);
  CHECK(c.rotate);
  resolvconf_read(&c, "/nonexistent/resolv.conf");
  CHECK_INT(c.nservers, 1);
  CHECK_STR(text_of(&c.servers[0]), "127.0.0.1");
  CHECK_INT((int)c.timeout, 2);
  CHECK_INT(c.tries, 2);
  CHECK_INT(c.ndots, 1);
  CHECK_INT(c.nsearch, 0);
  CHECK(!c.rotate);
}

static bool no_memory;

/* libc's for the whole program, but it can be made to fail. */
char *strdup(const char *s) {
  size_t n = strlen(s) + 1;
  char *copy = no_memory ? NULL : malloc(n);
  return copy ? memcpy(copy, s, n) : NULL;
}

static void servers_without_memory(void) {
  ResolvConf c;
  no_memory = true;
  resolvconf_read(&c, "/nonexistent/resolv.conf");
  int code = resolvconf_set_servers(&c, "10.0.0.1");
  no_memory = false;
  CHECK_INT(code, -ENOMEM);
  CHECK_INT(c.nservers, 1);
  CHECK_STR(text_of(&c.servers[0]), "127.0.0.1");
}

static void server_lists_are_parsed(void) {
  static const char *const bad[] = {
      "",     ",",       "host",  "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x",
      "[::1", "[::1]53", "[]:53", "::1%lo",     "1.1.1.1,bad"};
  ResolvConf c = {0};
  CHECK_INT(resolvconf_set_servers(&c, "127.0.0.1:5353,[::1]:54, 10.0.0.1 ::1"), 0);
  CHECK_INT(c.nservers, 4);
  CHECK_INT(ntohs(c.servers[0].in4.sin_port), 5353);
  CHECK_INT(ntohs(c.servers[1].in6.sin6_port), 54);
  CHECK_INT(ntohs(c.servers[2].in4.sin_port), 53);
  CHECK_STR(text_of(&c.servers[3]), "::1");
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    test_check_int(resolvconf_set_servers(&c, bad[i]), -EINVAL, bad[i], __FILE__, __LINE__);
  CHECK_INT(c.nservers, 4);
}

static void check_candidates(const ResolvConf *c, const char *name, const char *const *want) {
  char got[RESOLVCONF_CANDIDATE];
  int i = 0;
  for (; want[i]; i++) {
    CHECK(resolvconf_candidate(c, name, i, got));
    CHECK_STR(got, want[i]);
  }
  CHECK(!resolvconf_candidate(c, name, i, got));
}

static void search_order(void) {
  ResolvConf c = {.search = {"x.test", "y.test"}, .nsearch = 2, .ndots = 1};
  check_candidates(&c, "a", (const char *[]){"a.x.test", "a.y.test", "a", NULL});
  check_candidates(&c, "a.b", (const char *[]){"a.b", "a.b.x.test", "a.b.y.test", NULL});
  check_candidates(&c, "a.", (const char *[]){"a.", NULL});
  c.ndots = 2;
  check_candidates(&c, "a.b", (const char *[]){"a.b.x.test", "a.b.y.test", "a.b", NULL});
  c.nsearch = 0;
  check_candidates(&c, "a", (const char *[]){"a", NULL});
}

static void hosts_come_first(void) {
  char *hosts = temporary(
      "10.9.9.9 db db.test # DB2\n10.9.9.8\tDB\nfd00::9 db\n"
      "bad name\n10.1.1.1\n");
  begin();
  resolver_set_files(&hub, NULL, hosts);
  int before = good.questions;
  CHECK_INT(lookup("db", AF_INET), 2);
  CHECK_STR(text_of(&found[0]), "10.9.9.9");
  CHECK_STR(text_of(&found[1]), "10.9.9.8");
  CHECK_INT(lookup("DB.", AF_UNSPEC), 3);
  CHECK_INT(lookup("db", AF_INET6), 1);
  CHECK_STR(text_of(found), "fd00::9");
  CHECK_INT(good.questions, before);
  CHECK_INT(lookup("db2", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  /* replaced: seen after a second at the latest */
  char *other = temporary("10.7.7.7 db\n");
  CHECK_INT(rename(other, hosts), 0);
  hub_sleep(&hub, hub_deadline(&hub, 1.05));
  CHECK_INT(lookup("db", AF_INET), 1);
  CHECK_STR(text_of(found), "10.7.7.7");
  end();
}

static void search_list_goes_on_after_refusal(void) {
  begin();
  resolver_set_files(&hub, temporary("search x.test\n"), NULL);
  CHECK_INT(lookup("refused.name", AF_INET), GREEN_EAI_AGAIN);
  int before = good.questions;
  CHECK_INT(lookup("nx.name", AF_INET), GREEN_EAI_NONAME);
  CHECK_INT(good.questions, before + 2);
  end();
}

/* A bare name that the server refuses, and that exists below the search list. */
static void refused_bare_name_is_found(void) {
  char servers[32];
  begin_with(temporary("search ok.test\noptions ndots:0\n"), "/dev/null");
  snprintf(servers, sizeof servers, "127.0.0.1:%d", good.port);
  CHECK_INT(resolver_set_servers(&hub, servers), 0);
  CHECK_INT(lookup("bareonly", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  end();
}

/* DN9 in small: another resolv.conf is used by later lookups. */
static void resolv_conf_is_reread(void) {
  char *path = temporary("nameserver 127.0.0.1\n");
  begin_with(path, "/dev/null");
  CHECK_INT(resolver_servers(&hub, found, 8), 1);
  CHECK_STR(text_of(found), "127.0.0.1");
  CHECK_INT(rename(temporary("nameserver 127.0.0.2\nnameserver 127.0.0.3\n"), path), 0);
  hub_sleep(&hub, hub_deadline(&hub, 1.05));
  CHECK_INT(resolver_servers(&hub, found, 8), 2);
  CHECK_STR(text_of(&found[1]), "127.0.0.3");
  end();
}

/* ---- answers ---- */

static void both_families_and_cache(void) {
  begin();
  int before = good.questions;
  CHECK_INT(lookup_both("plain.test"), 2);
  CHECK_INT(lookup("PLAIN.test", AF_UNSPEC), 2);
  CHECK_INT(good.questions, before + 2);
  CHECK_INT(lookup("plain.test", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  CHECK_INT(lookup("onlyfour.test", AF_UNSPEC), 1);
  CHECK_INT(lookup("onlyfour.test", AF_INET6), GREEN_EAI_NONAME);
  end();
}

static void failures(void) {
  begin();
  CHECK_INT(lookup("nx.test", AF_UNSPEC), GREEN_EAI_NONAME);
  int before = good.questions;
  CHECK_INT(lookup("nx.test", AF_UNSPEC), GREEN_EAI_NONAME);
  CHECK_INT(good.questions, before); /* for five seconds at most */
  CHECK_INT(lookup("servfail.test", AF_INET), GREEN_EAI_AGAIN);
  before = good.questions;
  CHECK_INT(lookup("servfail.test", AF_INET), GREEN_EAI_AGAIN);
  CHECK(good.questions > before); /* a server's failure is not kept */
  end();
}

/* T35: a TTL of 0 counts as a second, and then the server is asked again. */
static void answers_expire(void) {
  begin();
  CHECK_INT(lookup("zero.test", AF_INET), 1);
  int before = good.questions;
  CHECK_INT(lookup("zero.test", AF_INET), 1);
  CHECK_INT(good.questions, before);
  CHECK_INT(hub_sleep(&hub, hub_deadline(&hub, 1.05)), 0);
  CHECK_INT(lookup("zero.test", AF_INET), 1);
  CHECK_INT(good.questions, before + 1);
  end();
}

static void wrong_answers_are_ignored(void) {
  begin();
  CHECK_INT(lookup("forged.test", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  int n = lookup("foreign.test", AF_INET);
  CHECK_INT(n, GREEN_EAI_NONAME); /* T35: only the asked name's records */
  CHECK_INT(lookup("other", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  CHECK_INT(lookup("truncated.test", AF_INET), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  CHECK_INT(lookup("many.test", AF_INET), RESOLVER_MAX);
  end();
}

static void one_family_is_late(void) {
  begin();
  be_impatient();
  double start = test_seconds();
  CHECK_INT(lookup("vfour.test", AF_UNSPEC), 1);
  CHECK_STR(text_of(found), "10.0.0.1");
  CHECK_INT(lookup("vsix.test", AF_UNSPEC), 1);
  CHECK_STR(text_of(found), "fd00::1");
  CHECK(test_seconds() - start < 0.6);
  end();
}

static void silence(void) {
  begin();
  be_impatient();
  double start = test_seconds();
  CHECK_INT(lookup("silent.test", AF_INET), GREEN_EAI_AGAIN);
  double took = test_seconds() - start;
  CHECK(took > 0.5 && took < 5); /* 0.2 + 0.4 */
  start = test_seconds();
  CHECK_INT(resolver_lookup(&hub, "silent2.test", AF_INET, found, 4, hub_deadline(&hub, 0.05)),
            GREEN_TIMEDOUT);
  CHECK(test_seconds() - start < 0.5);
  CHECK_INT(lookup("late.test", AF_INET), 1);
  end();
}

/* DN4: the dead server costs one timeout, then none. */
static void dead_server_is_asked_last(void) {
  char servers[64];
  begin();
  be_impatient();
  snprintf(servers, sizeof servers, "127.0.0.1:%d,127.0.0.1:%d", dead.port, good.port);
  CHECK_INT(resolver_set_servers(&hub, servers), 0);
  double start = test_seconds();
  CHECK_INT(lookup_both("one.test"), 2);
  CHECK(test_seconds() - start > 0.15);
  int before = dead.questions;
  CHECK_INT(lookup_both("two.test"), 2);
  CHECK_INT(lookup_both("three.test"), 2);
  CHECK_INT(dead.questions, before);
  end();
}

/* ---- sharing ---- */

/* DN5 */
static void waiters_leave(void) {
  enum { N = 100 };
  Asker *askers = calloc(N, sizeof *askers);
  begin();
  int before = good.questions;
  for (int i = 0; i < N; i++) ask(&askers[i], "late.shared.test", AF_INET, 10);
  CHECK_INT(hub_sleep(&hub, hub_deadline(&hub, 0.03)), 0);
  for (int i = 0; i < N - 1; i++) hub_cancel(&askers[i].task);
  join_all();
  for (int i = 0; i < N - 1; i++) CHECK_INT(askers[i].result, GREEN_CANCELLED);
  CHECK_INT(askers[N - 1].result, 1);
  CHECK_STR(text_of(&askers[N - 1].first), "10.0.0.1");
  CHECK_INT(lookup("late.shared.test", AF_INET), 1);
  CHECK_INT(good.questions, before + 1);
  end();
  free(askers);
}

/* All leave: the query runs on, and its answer is kept. */
static void nobody_stays(void) {
  Asker a;
  begin();
  int before = good.questions;
  ask(&a, "late.alone.test", AF_INET, 0.03);
  join_all();
  CHECK_INT(a.result, GREEN_TIMEDOUT);
  CHECK_INT(hub_sleep(&hub, hub_deadline(&hub, 0.25)), 0);
  CHECK_INT(lookup("late.alone.test", AF_INET), 1);
  CHECK_INT(good.questions, before + 1);
  end();
}

/* Lookups in flight end with the servers that they began with (DN9). */
static void servers_change_meanwhile(void) {
  Asker a;
  char servers[32];
  begin();
  be_impatient();
  ask(&a, "late.change.test", AF_INET, 10);
  CHECK_INT(hub_sleep(&hub, hub_deadline(&hub, 0.03)), 0);
  snprintf(servers, sizeof servers, "127.0.0.1:%d", dead.port);
  CHECK_INT(resolver_set_servers(&hub, servers), 0);
  int before = good.questions;
  CHECK_INT(lookup("late.change.test", AF_INET), GREEN_EAI_AGAIN);
  join_all();
  CHECK_INT(a.result, 1);
  CHECK_INT(good.questions, before);
  end();
}

static void many_names(void) {
  enum { N = 200 };
  Asker *askers = calloc(N, sizeof *askers);
  char(*names)[32] = calloc(N, sizeof *names);
  begin();
  for (int i = 0; i < N; i++) {
    snprintf(names[i], sizeof names[i], "n%d.test", i);
    ask(&askers[i], names[i], AF_UNSPEC, 10);
  }
  join_all();
  for (int i = 0; i < N; i++) CHECK(askers[i].result > 0);
  end();
  free(names);
  free(askers);
}

/* Its own kill is pending when a task asks for what is known: it gets the
** answer, and its next wait ends. */
static void killed_body(Task *t) {
  Asker *a = (Asker *)t;
  Address out[4];
  hub_cancel(t);
  a->result = resolver_lookup(&hub, a->name, AF_INET, out, 4, DEADLINE_NEVER);
}

static void killed_before_asking(void) {
  Asker known = {.name = "plain.kill.test"}, unknown = {.name = "late.kill.test"};
  begin();
  CHECK_INT(lookup(known.name, AF_INET), 1);
  task_init_spawned(&known.task, &hub, killed_body);
  task_init_spawned(&unknown.task, &hub, killed_body);
  hub_spawn(&known.task);
  hub_spawn(&unknown.task);
  join_all();
  CHECK_INT(known.result, 1);
  CHECK_INT(unknown.result, GREEN_CANCELLED);
  CHECK_INT(lookup(unknown.name, AF_INET), 1);
  end();
}

/* DN3: in a forked child, also while the parent's lookups are open: those end
** there, since their answers are the parent's. */
static Asker parents;

static void child_looks_up(void) {
  Asker a;
  ask(&a, "late.child.test", AF_INET, 10);
  if (lookup("child.test", AF_INET) != 1 || lookup("plain.test", AF_INET) != 1) _exit(1);
  join_all();
  end();
  _exit(a.result == 1 && parents.result == GREEN_EAI_AGAIN ? 0 : 2);
}

static void forked_child(void) {
  char err[256];
  begin();
  CHECK_INT(lookup("plain.test", AF_INET), 1);
  ask(&parents, "late.parent.test", AF_INET, 10);
  CHECK_INT(hub_sleep(&hub, hub_deadline(&hub, 0.03)), 0);
  int status = test_child(child_looks_up, err, sizeof err);
  CHECK_INT(status, 0);
  join_all();
  CHECK_INT(parents.result, 1);
  CHECK_INT(lookup("more.test", AF_INET), 1);
  end();
}

/* More names than the cache holds: it stays bounded and right. */
static void cache_is_bounded(void) {
  char name[32];
  begin();
  for (int i = 0; i < 1500; i++) {
    snprintf(name, sizeof name, "c%d.test", i);
    CHECK_INT(lookup(name, AF_INET), 1);
  }
  int before = good.questions;
  CHECK_INT(lookup("c1499.test", AF_INET), 1);
  CHECK_INT(good.questions, before);
  CHECK_INT(lookup("c0.test", AF_INET), 1);
  CHECK_INT(good.questions, before + 1);
  end();
}

/* An idle socket must not hide a deadlock. */
static void idle_resolver_lets_the_loop_end(void) {
  begin();
  CHECK_INT(lookup("plain.test", AF_INET), 1);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), 0);
  CHECK_INT(hub_park(&hub, "nothing", DEADLINE_NEVER), GREEN_DEADLOCK);
  CHECK_INT(lookup("again.test", AF_INET), 1);
  end();
}

/* Somebody closes all descriptors: the next lookups work again. */
static void sockets_closed_behind_the_back(void) {
  begin();
  CHECK_INT(lookup("plain.test", AF_INET), 1);
  for (int fd = 3; fd < 64; fd++) {
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    int type = 0;
    socklen_t type_size = sizeof type;
    if (fd != good.udp && fd != dead.udp && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 &&
        type == SOCK_DGRAM && getpeername(fd, (struct sockaddr *)&a, &size) == 0)
      close(fd);
  }
  CHECK_INT(lookup("after.test", AF_INET), 1);
  CHECK_INT(hub_join(&hub, DEADLINE_NEVER), 0);
  end();
}

/* Hub end with lookups open: nothing leaks (seen by the sanitizers). */
static void hub_ends_meanwhile(void) {
  Asker a, b;
  begin();
  ask(&a, "silent.end.test", AF_UNSPEC, 0.02);
  ask(&b, "silent.end2.test", AF_INET, 0.02);
  join_all();
  CHECK_INT(a.result, GREEN_TIMEDOUT);
  end();
}

static void arguments_are_checked(void) {
  begin();
  CHECK_INT(resolver_set_servers(&hub, "nonsense"), -EINVAL);
  CHECK_INT(lookup("plain.test", AF_INET), 1); /* unchanged */
  CHECK_INT(resolver_set_patience(&hub, -1, 0), -EINVAL);
  CHECK_INT(resolver_set_patience(&hub, 1000, 0), -EINVAL);
  CHECK_INT(resolver_set_patience(&hub, 0, 11), -EINVAL);
  double timeout;
  int tries;
  CHECK_INT(resolver_set_patience(&hub, 0, 3), 0); /* 0 keeps what is */
  CHECK_INT(resolver_patience(&hub, &timeout, &tries), 0);
  CHECK_INT((int)timeout, 2);
  CHECK_INT(tries, 3);
  end();
}

int main(void) {
  server_start(&good, false);
  server_start(&dead, true);
  RUN("DN6 numbers are as getaddrinfo(AI_NUMERICHOST) has them", numbers_as_libc);
  RUN("DN6 numbers, localhost and impossible names reach no server", names_without_server);
  RUN("DN4 resolv.conf is parsed, with its options", resolv_conf_is_parsed);
  RUN("without memory there is a server nevertheless", servers_without_memory);
  RUN("lists of servers are parsed", server_lists_are_parsed);
  RUN("the search list follows ndots", search_order);
  RUN("the hosts file comes first, and is reread", hosts_come_first);
  RUN("a refusal does not end the search", search_list_goes_on_after_refusal);
  RUN("a bare name that is refused is found below the search list", refused_bare_name_is_found);
  RUN("DN9 resolv.conf is reread", resolv_conf_is_reread);
  RUN("both families, and the cache", both_families_and_cache);
  RUN("T34 failures, and how long they are kept", failures);
  RUN("T35 answers expire", answers_expire);
  RUN("T32 T35 DN8 forged, foreign, truncated, oversized answers", wrong_answers_are_ignored);
  RUN("DN7 a family whose answer never comes costs 50 ms", one_family_is_late);
  RUN("DN2 T34 a silent server ends in EAI_AGAIN, or at the deadline", silence);
  RUN("DN4 a dead server is asked last", dead_server_is_asked_last);
  RUN("DN5 99 of 100 waiters are killed", waiters_leave);
  RUN("DN5 the query outlives its waiters", nobody_stays);
  RUN("DN5 a kill that is pending at an immediate answer", killed_before_asking);
  RUN("DN3 lookups in a forked child", forked_child);
  RUN("DN9 servers change under a lookup", servers_change_meanwhile);
  RUN("200 names at once", many_names);
  RUN("the cache is bounded", cache_is_bounded);
  RUN("an idle resolver does not hide a deadlock", idle_resolver_lets_the_loop_end);
  RUN("HB8 sockets closed behind the resolver's back", sockets_closed_behind_the_back);
  RUN("DN5 the hub ends with lookups open", hub_ends_meanwhile);
  RUN("invalid settings are refused and change nothing", arguments_are_checked);
  remove_temporaries();
  server_stop(&good);
  server_stop(&dead);
  return test_end();
}
