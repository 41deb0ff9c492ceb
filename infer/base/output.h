/* Files that are created: never through a symbolic link, never two writers in one. */
#ifndef INFER_BASE_OUTPUT_H
#define INFER_BASE_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "infer/base/status.h"

/* Is it something to write into as it is, not to be replaced by a file: a device, a pipe, what /dev and /proc name? */
bool output_is_device(const char *path);

/* Create `path` for reading and writing; it is new, and locked (flock) while it is open. A file or link of that name
 * that nobody holds, as a killed process leaves it, is removed first; a link is not followed. A device is opened as it
 * is. The caller closes *fd. PLM_EIO: another process is writing it, it is a directory, or the system's reason. */
int output_create(int *fd, const char *path, struct plm_status *st);

/* The same as a stream for writing. */
int output_create_stream(FILE **out, const char *path, struct plm_status *st);

/* Open a regular file to append to it, created when it is not there. PLM_EIO for a link or anything else of that name.
 */
int output_append_stream(FILE **out, const char *path, struct plm_status *st);

#endif
