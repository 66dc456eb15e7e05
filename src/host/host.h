/*
 * The host: Lua's stand-alone interpreter with greenlets in it. main.c puts
 * together what is here: the options, the environment, running chunks, the
 * REPL, Ctrl-C, and the Lua modules inside the executable.
 */
#ifndef GREEN_HOST_H
#define GREEN_HOST_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

#define HOST_VERSION "0.1.0"

/* What the command line asks for. */
typedef struct Options {
  char **argv;
  int argc;
  int script;       /* index of the script's name; 0: none */
  int end;          /* index of the first argument that is no option */
  bool interactive; /* -i */
  bool version;     /* -v, or -i */
  bool execute;     /* at least one -e */
  bool isolated;    /* -E, --isolated: no environment, no modules from the current folder */
  bool binary;      /* --binary: the script may be a precompiled chunk */
  bool help;        /* -h, --help */
} Options;

/* ---- options.c ---- */

/* Reads the options before the script's name. Returns 0, or the index of the
** argument that is wrong. */
int options_parse(Options *o, int argc, char **argv);

/* Writes what is wrong with `bad` to stderr, and how it is meant to be. */
void options_complain(const char *progname, const char *bad);

void options_help(const char *progname);

/* ---- environment.c ---- */

/* Takes every variable that would make a privileged program run or write what
** its caller chose out of the environment, and says so on stderr (T39). Does
** nothing in a program that has no more rights than its caller. To be called
** before any other thread or library reads the environment. */
void environment_secure(const char *progname);

/* Takes GREENLUA_* out of the environment. */
void environment_isolate(void);

/* True if this program has more rights than its caller (AT_SECURE). */
bool environment_privileged(void);

/* ---- chunk.c: all return a Lua status, after having reported an error ---- */

/* Sets the name that stands before messages; NULL: none. Returns the old one. */
const char *chunk_progname(const char *name);

/* Calls the function below the `nargs` arguments on the top, with a traceback. */
int chunk_call(lua_State *L, int nargs, int nresults);

/* Writes the error on the top of the stack to stderr, and pops it. */
int chunk_report(lua_State *L, int status);

int chunk_string(lua_State *L, const char *code, const char *name);

/* Loads and calls a file (NULL: stdin). `mode` as in luaL_loadfilex. `nargs`
** arguments are on the top of the stack; they are popped. */
int chunk_file(lua_State *L, const char *path, const char *mode, int nargs);

/* `spec` as in `-l`: requires a module and sets a global of its name. */
int chunk_library(lua_State *L, const char *spec);

/* ---- repl.c ---- */

/* Reads, evaluates and prints until the end of stdin. Greenlets run while it
** waits for a line. Returns false if Ctrl-C ended it. */
bool repl_run(lua_State *L);

/* ---- interrupt.c ---- */

/* From now on the first Ctrl-C cancels every greenlet, main included, and the
** second ends the process; see interrupt.c for what the first cannot interrupt.
** Needs the hub, and lasts until that ends. */
void interrupt_init(void);

/* Has Ctrl-C been pressed? */
bool interrupt_pending(void);

/* ---- sigpipe.c ---- */

/* A write to a broken pipe fails with EPIPE, and ends the process only when
** the pipe is stdout, as in a shell pipeline (T45). */
void sigpipe_init(void);

/* ---- version.c ---- */

void version_print(void);

#endif
