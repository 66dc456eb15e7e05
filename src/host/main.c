/*
 * greenlua: Lua's stand-alone interpreter, whose script runs on the main
 * greenlet from its first line.
 *
 * The order of a run is lua5.4's: options, libraries, `arg`, LUA_INIT, -e and
 * -l and -W, the script, the REPL. Then the host waits for the greenlets that
 * were spawned, as most languages do for their threads (D17). The exit status
 * is 0, or 1 after an error, also one of a greenlet that nobody looked at, or
 * 130 after Ctrl-C.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../hub/hub.h"
#include "../lua/lcheck.h"
#include "../lua/lgreen.h"
#include "../lua/lgreenlet.h"
#include "host.h"
#include "modules.h"

#define EXIT_INTERRUPTED 130 /* 128 + SIGINT, as shells have it */

/* ---- modules ---- */

/* package.preload's function for a module inside the executable; its place in
** host_modules is the upvalue. Called with the module's name. */
static int load_module(lua_State *L) {
  const HostModule *m = &host_modules[lua_tointeger(L, lua_upvalueindex(1))];
  lua_settop(L, 2);
  if (luaL_loadbufferx(L, m->text, m->size, m->chunk, "t") != LUA_OK) return lua_error(L);
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

static void preload(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (int i = 0; host_modules[i].name; i++) {
    lua_pushinteger(L, i);
    lua_pushcclosure(L, load_module, 1);
    lua_setfield(L, -2, host_modules[i].name);
  }
  lua_pushcfunction(L, luaopen_green_core);
  lua_setfield(L, -2, "green.core");
  lua_pop(L, 1);
}

/* Takes the current folder out of package.path and package.cpath (T41). */
static void drop_current_folder(lua_State *L) {
  static const char *const fields[] = {"path", "cpath"};
  lua_getglobal(L, LUA_LOADLIBNAME);
  for (int i = 0; i < 2; i++) {
    luaL_Buffer kept;
    lua_getfield(L, -1, fields[i]);
    const char *path = lua_tostring(L, -1), *sep = "";
    luaL_buffinit(L, &kept);
    while (*path) {
      size_t n = strcspn(path, LUA_PATH_SEP);
      if (strncmp(path, "./", 2) != 0) {
        luaL_addstring(&kept, sep);
        luaL_addlstring(&kept, path, n);
        sep = LUA_PATH_SEP;
      }
      path += n + (path[n] != '\0');
    }
    luaL_pushresult(&kept);
    lua_setfield(L, -3, fields[i]);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ---- what the command line asks for ---- */

static void create_arg(lua_State *L, const Options *o) {
  lua_createtable(L, o->argc - o->script - 1, o->script + 1);
  for (int i = 0; i < o->argc; i++) {
    lua_pushstring(L, o->argv[i]);
    lua_rawseti(L, -2, i - o->script);
  }
  lua_setglobal(L, "arg");
}

static bool run_init(lua_State *L) {
  const char *name = "=LUA_INIT_5_4";
  const char *init = getenv(name + 1);
  if (!init) {
    name = "=LUA_INIT";
    init = getenv(name + 1);
  }
  if (!init) return true;
  if (init[0] == '@') return chunk_file(L, init + 1, "t", 0) == LUA_OK;
  return chunk_string(L, init, name) == LUA_OK;
}

/* Carries out -e, -l and -W in their order. */
static bool run_options(lua_State *L, const Options *o) {
  for (int i = 1; i < o->end; i++) {
    char letter = o->argv[i][1];
    if (letter == 'W') lua_warning(L, "@on", 0);
    if (letter != 'e' && letter != 'l') continue;
    const char *value = o->argv[i][2] ? o->argv[i] + 2 : o->argv[++i];
    int status = letter == 'e' ? chunk_string(L, value, "=(command line)") : chunk_library(L, value);
    if (status != LUA_OK) return false;
  }
  return true;
}

/* The script gets the elements of `arg`, which -e or LUA_INIT may have changed. */
static bool run_script(lua_State *L, const Options *o) {
  const char *path = o->argv[o->script];
  if (strcmp(path, "-") == 0 && strcmp(o->argv[o->script - 1], "--") != 0) path = NULL;
  if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
  int n = (int)luaL_len(L, -1), table = lua_gettop(L);
  luaL_checkstack(L, n + 3, "too many arguments to script");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, table, i);
  lua_remove(L, table);
  return chunk_file(L, path, o->binary ? "bt" : "t", n) == LUA_OK;
}

static bool run_all(lua_State *L, const Options *o) {
  if (!o->isolated && !run_init(L)) return false;
  if (!run_options(L, o)) return false;
  if (o->script && !run_script(L, o)) return false;
  if (o->interactive) return repl_run(L);
  if (o->script || o->execute || o->version) return true;
  if (!isatty(STDIN_FILENO)) return chunk_file(L, NULL, o->binary ? "bt" : "t", 0) == LUA_OK;
  version_print();
  return repl_run(L);
}

/* ---- life ---- */

/* The whole run; the options are a light userdata at 1. Returns true if nothing
** failed on the main greenlet. Waits for the others, unless Ctrl-C was pressed. */
static int run(lua_State *L) {
  const Options *o = lua_touserdata(L, 1);
  luaL_checkversion(L);
  if (o->version) version_print();
  if (o->isolated) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  preload(L);
  luaL_requiref(L, "green.core", luaopen_green_core, 0);
  if (o->isolated) drop_current_folder(L);
  create_arg(L, o);
  interrupt_init();
  lua_settop(L, 1);
  lua_gc(L, LUA_GCRESTART);
  lua_gc(L, LUA_GCGEN, 0, 0); /* as lua.c (D16) */
  bool ok = run_all(L, o);
  if (!interrupt_pending()) {
    lgreenlet_absolve();
    int code = hub_join_spawned(lcheck_waitable(L, "greenlua"), DEADLINE_NEVER);
    if (code != GREEN_OK) lcheck_raise(L, code, "greenlua");
  }
  lua_pushboolean(L, ok);
  return 1;
}

/* Ends what still lives: daemons, or all after Ctrl-C. Returns true if every
** failure has been looked at; the others are reported now at the latest. */
static int finish(lua_State *L) {
  lgreenlet_unwind(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "green.core");
  lua_getfield(L, -1, "greenlet");
  lua_getfield(L, -1, "failures");
  lua_call(L, 0, 1);
  lua_pushboolean(L, lua_tointeger(L, -1) == 0);
  return 1;
}

/* Calls `step`, and reports its error. Returns true if it returned true. */
static bool protected(lua_State *L, lua_CFunction step, const Options *o) {
  lua_pushcfunction(L, step);
  lua_pushlightuserdata(L, (void *)o);
  int status = chunk_call(L, 1, 1);
  bool ok = status == LUA_OK && lua_toboolean(L, -1);
  chunk_report(L, status);
  lua_settop(L, 0);
  return ok;
}

static int live(const Options *o) {
  lua_State *L = luaL_newstate();
  if (!L) {
    fprintf(stderr, "%s: cannot create state: not enough memory\n", o->argv[0]);
    return EXIT_FAILURE;
  }
  lua_gc(L, LUA_GCSTOP);
  bool ok = protected(L, run, o);
  if (hub_current()) ok = protected(L, finish, o) && ok;
  lua_close(L);
  if (interrupt_pending()) return EXIT_INTERRUPTED;
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
  static char name[] = "greenlua", *no_arguments[] = {name, NULL};
  if (argc < 1 || !argv[0][0]) { /* execve(2) allows it */
    argc = 1;
    argv = no_arguments;
  }
  chunk_progname(argv[0]);
  environment_secure(argv[0]);
  Options o;
  int bad = options_parse(&o, argc, argv);
  if (bad) {
    options_complain(argv[0], argv[bad]);
    return EXIT_FAILURE;
  }
  if (o.help) {
    options_help(argv[0]);
    return EXIT_SUCCESS;
  }
  o.isolated = o.isolated || environment_privileged();
  if (o.isolated) environment_isolate();
  sigpipe_init();
  return live(&o);
}
