/*
 * The REPL: reads a chunk, which may take several lines, evaluates it, prints
 * its results; with lua5.4's prompts and rules. Greenlets run meanwhile, since
 * waiting for a line is a wait like any other.
 */
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../hub/wait.h"
#include "../lua/lcheck.h"
#include "../lua/lgreenlet.h"
#include "host.h"

/* Waits until stdin has something, if stdin is of a kind that one can wait for. */
static int wait_for_input(lua_State *L) {
  struct stat st;
  if (fstat(STDIN_FILENO, &st) != 0 || S_ISREG(st.st_mode)) return 0;
  int events = wait_fd(lcheck_waitable(L, "stdin"), STDIN_FILENO, EV_READ, DEADLINE_NEVER);
  if (events == -EPERM) return 0; /* epoll_ctl(2): the file does not support epoll */
  return events < 0 ? events : 0;
}

/* The prompt: a global of the user's, or lua5.4's. Pushes it. */
static const char *push_prompt(lua_State *L, bool first) {
  if (lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2") == LUA_TNIL)
    lua_pushstring(L, first ? "> " : ">> ");
  else
    luaL_tolstring(L, -1, NULL);
  lua_remove(L, -2);
  return lua_tostring(L, -1);
}

/* Reads a line and pushes it without its end. Returns false, with nothing
** pushed, at the end of the input; raises when Ctrl-C ended the wait. stdin is
** unbuffered (see repl_run): a line that C has read ahead cannot be waited for. */
static bool push_line(lua_State *L, bool first) {
  fputs(push_prompt(L, first), stdout);
  fflush(stdout);
  lua_pop(L, 1);
  int code = wait_for_input(L);
  if (code < 0) lcheck_raise(L, code, "stdin");
  luaL_Buffer line;
  luaL_buffinit(L, &line);
  int c, n = 0;
  for (; (c = getc(stdin)) != EOF && c != '\n'; n++) luaL_addchar(&line, (char)c);
  luaL_pushresult(&line);
  if (c == EOF && n == 0) lua_pop(L, 1);
  return c != EOF || n > 0;
}

static int load_text(lua_State *L, int line) {
  size_t n;
  const char *text = lua_tolstring(L, line, &n);
  return luaL_loadbufferx(L, text, n, "=stdin", "t");
}

/* Is the error on the top that the chunk ended too early? */
static bool incomplete(lua_State *L, int status) {
  static const char mark[] = "<eof>";
  size_t n;
  if (status != LUA_ERRSYNTAX) return false;
  const char *message = lua_tolstring(L, -1, &n);
  return n >= sizeof mark - 1 && strcmp(message + n - (sizeof mark - 1), mark) == 0;
}

/* Replaces the line at 1 by its chunk: an expression if it can be read as one,
** else a statement, which further lines may complete. Returns a status; the
** chunk, or the error, is all that is on the stack. */
static int load_line(lua_State *L) {
  const char *line = lua_tostring(L, 1);
  if (line[0] == '=') line = lua_pushfstring(L, "return %s", line + 1), lua_replace(L, 1);
  lua_pushfstring(L, "return %s;", line);
  int status = load_text(L, 2);
  if (status != LUA_OK) {
    lua_settop(L, 1);
    while (incomplete(L, status = load_text(L, 1)) && push_line(L, false)) {
      lua_remove(L, 2); /* the error */
      lua_pushliteral(L, "\n");
      lua_insert(L, 2);
      lua_concat(L, 3);
    }
  }
  lua_replace(L, 1);
  lua_settop(L, 1);
  return status;
}

static void print_results(lua_State *L) {
  int n = lua_gettop(L);
  if (n == 0) return;
  luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  if (lua_pcall(L, n, 0, 0) == LUA_OK) return;
  lua_pushfstring(L, "error calling 'print' (%s)", lua_tostring(L, -1));
  chunk_report(L, LUA_ERRRUN);
}

/* Pushes the first line of the next chunk. A kill of main has ended the chunk that
** it came in, and goes no further; Ctrl-C ends the REPL. */
static bool push_first_line(lua_State *L) {
  if (interrupt_pending()) return false;
  lgreenlet_absolve();
  return push_line(L, true);
}

bool repl_run(lua_State *L) {
  const char *progname = chunk_progname(NULL); /* messages need no name here */
  setvbuf(stdin, NULL, _IONBF, 0);
  lua_settop(L, 0);
  while (push_first_line(L)) {
    int status = load_line(L);
    if (status == LUA_OK) status = chunk_call(L, 0, LUA_MULTRET);
    if (status == LUA_OK)
      print_results(L);
    else
      chunk_report(L, status);
    lua_settop(L, 0);
  }
  putchar('\n');
  fflush(stdout);
  chunk_progname(progname);
  return !interrupt_pending();
}
