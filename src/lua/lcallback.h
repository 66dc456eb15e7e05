/*
 * A function and its arguments, kept in a userdata until the loop calls it.
 *
 * The owner is a userdata with LCALLBACK_VALUES user values of its own for this.
 */
#ifndef GREEN_LCALLBACK_H
#define GREEN_LCALLBACK_H

#include <lua.h>

enum {
  LCALLBACK_FUNCTION = 1, /* user value: the function; nil: none */
  LCALLBACK_ARGS = 2,     /* user value: a table of the arguments; nil: none */
  LCALLBACK_VALUES = 2
};

/* Raises unless the value at `arg` can be called: "bad argument #SHOWN to
** 'FNAME' (function expected, got ...)". Named by hand, since luaL_argerror knows
** neither name nor self of a method that pcall calls. */
void lcallback_check(lua_State *L, int arg, const char *fname, int shown);

/* Packs the values from `first` to the top, a checked function and its
** arguments. They are popped; the package, two values, is pushed. */
void lcallback_pack(lua_State *L, int first);

/* Pops what lcallback_pack pushed into the userdata at `owner`. Never raises. */
void lcallback_keep(lua_State *L, int owner);

/* Forgets the function and its arguments. Never raises. */
void lcallback_drop(lua_State *L, int owner);

/* Pushes the function and its arguments; returns how many arguments. */
int lcallback_push(lua_State *L, int owner);

#endif
