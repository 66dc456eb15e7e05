/*
 * A file that appears under its name only when it is complete.
 *
 * The bytes go to a file with a random name in the same folder, created with
 * O_EXCL and mode 0600; committing renames it over the final name, which is
 * replaced and never followed (T18). Whatever ends otherwise leaves nothing.
 * Never waits for the hub: writing to a regular file blocks. The process ignores
 * SIGXFSZ from the first file on, unless somebody handles it.
 */
#ifndef GREEN_TEMPFILE_H
#define GREEN_TEMPFILE_H

#include <stddef.h>

#include "../core/status.h"

typedef struct TempFile {
  char *path; /* the final name; owned; NULL when there is no file */
  char *temp; /* the present name; owned; NULL once committed or discarded */
  int fd;     /* -1: none */
} TempFile;

/* Makes the temporary file for `path`. Returns 0, -ENOMEM, or what open says;
** then there is no file, and nothing to discard. */
int tempfile_open(TempFile *t, const char *path);

/* Appends `n` bytes. Returns 0 or -errno (-ENOSPC, -EFBIG, -EIO, ...). */
int tempfile_write(TempFile *t, const char *data, size_t n);

/* Gives the file its name, and the mode that a file made by open would have.
** Returns 0 or -errno; after an error the file is discarded. */
int tempfile_commit(TempFile *t);

/* Removes the file unless it was committed. May be called twice. */
void tempfile_discard(TempFile *t);

#endif
