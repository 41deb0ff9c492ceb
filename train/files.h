/* Writing files so that they survive a crash. */
#ifndef TRAIN_FILES_H
#define TRAIN_FILES_H

#include <stddef.h>

#include "infer/base/status.h"

/* Create or replace a file and fsync it. As everything here, it does not follow a link (infer/base/output.h). */
int file_write_synced(const char *path, const char *text, size_t bytes, struct plm_status *st);

/* Replace a file as a whole: written under another name, synced, renamed; what was there stays until then. */
int file_replace(const char *path, const char *text, size_t bytes, struct plm_status *st);

/* file_replace unless the file holds that text already: a run that is complete stays untouched, times included. */
int file_update(const char *path, const char *text, size_t bytes, struct plm_status *st);

/* fsync a directory: what was created or renamed in it is there after a crash. */
int directory_sync(const char *path, struct plm_status *st);

/* Move a finished directory of plain files into place. One of that name is exchanged in one operation and then removed. */
int directory_publish(const char *temporary, const char *final, struct plm_status *st);

/* Remove a directory and the plain files in it; it has no directories of its own. A missing one is fine; of a link only the link goes. */
int directory_remove(const char *path, struct plm_status *st);

#endif
