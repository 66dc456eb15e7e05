/*
 * The one status type of the C rooms.
 *
 * A function that can fail returns 0 or a count, or a negative code: `-errno`
 * for what the system refused, or one of the codes below for what only
 * greenlua knows. Nothing below the Lua binding uses `errno` as a contract.
 */
#ifndef GREEN_STATUS_H
#define GREEN_STATUS_H

enum {
  GREEN_OK = 0,
  GREEN_TIMEDOUT = -10001,  /* the deadline passed first */
  GREEN_CANCELLED = -10002, /* a kill, or an outer scope timed out; the binding raises its object */
  GREEN_CLOSED = -10003,    /* the object was closed on this side, before or during the wait */
  GREEN_EOF = -10004,       /* the peer closed */
  GREEN_BUSY = -10005,      /* already used by another greenlet */
  GREEN_DEADLOCK = -10006,  /* nothing can ever end this wait */
  GREEN_NOWAIT = -10007,    /* waiting is forbidden here: hub callback, finalizer, C callback */
  GREEN_BADSWITCH = -10008, /* somebody switched into a waiting greenlet; the wait is void */
  GREEN_THROWN = -10009,    /* an error object was thrown: it is the value of the transfer */
  GREEN_FOREIGN = -10010,   /* the greenlet belongs to another OS thread */
  GREEN_CYCLE = -10011,     /* the new parent is the greenlet itself or one of its descendants */
  /* the resolver's answers, with getaddrinfo's meanings (RFC 3493, getaddrinfo(3)) */
  GREEN_EAI_NONAME = -10020, /* no such name, or no address of the family asked for */
  GREEN_EAI_AGAIN = -10021,  /* no server answered, or one said SERVFAIL or REFUSED */
  GREEN_EAI_FAIL = -10022,   /* the answer or the name was malformed */
  GREEN_EAI_SERVICE = -10023 /* the service name is unknown */
};

/* The stable short text of a code, as LuaSocket words it: "timeout", "closed",
** "connection refused"; otherwise strerror's. Never NULL; static storage. */
const char *status_text(int code);

/* The symbolic name of a code: "ETIMEDOUT", "ECONNREFUSED", "EOF",
** "EAI_NONAME". Never NULL; static storage. */
const char *status_name(int code);

#endif
