/*
 * What the files of the host share: the Lua modules inside the executable,
 * and the pieces that main.c puts together.
 */
#ifndef GREEN_HOST_H
#define GREEN_HOST_H

#include <stddef.h>

/* A Lua module inside the executable, as text. The table is made by tools/embed
** from lua/ and ends with a NULL name. */
typedef struct HostModule {
  const char *name;  /* as `require` takes it: "green.http" */
  const char *chunk; /* as tracebacks show it: "=greenlua:green/http.lua" */
  size_t size;
  const char *text;
} HostModule;

extern const HostModule host_modules[];

#endif
