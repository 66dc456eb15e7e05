/* The command line: lua5.4's options, and a few of ours. No Lua. */
#include <stdio.h>
#include <string.h>

#include "host.h"

static const char usage[] =
    "usage: %s [options] [script [args]]\n"
    "Available options are:\n"
    "  -e stat   execute string 'stat'\n"
    "  -i        enter interactive mode after executing 'script'\n"
    "  -l mod    require library 'mod' into global 'mod'\n"
    "  -l g=mod  require library 'mod' into global 'g'\n"
    "  -v        show version information\n"
    "  -E        ignore environment variables, and modules in the current folder\n"
    "  -W        turn warnings on\n"
    "  --        stop handling options\n"
    "  -         stop handling options and execute stdin\n"
    "  --binary    the script may be a precompiled chunk\n"
    "  --isolated  the same as -E\n"
    "  --help, --version\n";

/* An option of more than one letter. Returns false if there is none such. */
static bool long_option(Options *o, const char *name) {
  if (strcmp(name, "binary") == 0)
    o->binary = true;
  else if (strcmp(name, "isolated") == 0)
    o->isolated = true;
  else if (strcmp(name, "version") == 0)
    o->version = true;
  else if (strcmp(name, "help") == 0)
    o->help = true;
  else
    return false;
  return true;
}

/* A one-letter option that takes no argument. Returns false if there is none such. */
static bool flag(Options *o, char letter) {
  switch (letter) {
    case 'E':
      o->isolated = true;
      return true;
    case 'W':
      return true; /* carried out in its turn, among -e and -l */
    case 'i':
      o->interactive = o->version = true;
      return true;
    case 'v':
      o->version = true;
      return true;
    case 'h':
      o->help = true;
      return true;
    default:
      return false;
  }
}

int options_parse(Options *o, int argc, char **argv) {
  memset(o, 0, sizeof *o);
  o->argc = argc;
  o->argv = argv;
  int i = 1;
  for (; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
    const char *arg = argv[i];
    if (strcmp(arg, "--") == 0) {
      i++;
      break;
    }
    if (arg[1] == '-') {
      if (!long_option(o, arg + 2)) return i;
    } else if (arg[1] == 'e' || arg[1] == 'l') {
      o->execute |= arg[1] == 'e';
      if (arg[2] != '\0') continue; /* its argument follows in the same word */
      if (i + 1 >= argc || argv[i + 1][0] == '-') return i;
      i++;
    } else if (arg[2] != '\0' || !flag(o, arg[1])) {
      return i;
    }
  }
  o->end = i;
  o->script = i < argc ? i : 0;
  return 0;
}

void options_complain(const char *progname, const char *bad) {
  bool needs = (bad[1] == 'e' || bad[1] == 'l') && bad[2] == '\0';
  fprintf(stderr, needs ? "%s: '%s' needs argument\n" : "%s: unrecognized option '%s'\n", progname, bad);
  fprintf(stderr, usage, progname);
}

void options_help(const char *progname) { printf(usage, progname); }
