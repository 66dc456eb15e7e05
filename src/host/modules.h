/*
 * The Lua modules inside the executable, as text: modules.c is made from lua/
 * by tools/embed.
 */
#ifndef GREEN_MODULES_H
#define GREEN_MODULES_H

#include <stddef.h>

typedef struct HostModule {
  const char *name;  /* as `require` takes it: "green.http"; NULL ends the table */
  const char *chunk; /* as tracebacks show it: "=greenlua:green/http.lua" */
  size_t size;
  const char *text;
} HostModule;

extern const HostModule host_modules[];

#endif
