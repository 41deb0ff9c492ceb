/* A file mapped read-only into memory. */
#ifndef INFER_BASE_MAPPED_H
#define INFER_BASE_MAPPED_H

#include <stddef.h>

#include "infer/base/status.h"

struct mapped_file {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;               /* bytes */
};

/* Map a regular file. The mapping lives until mapped_close; the path is not kept. */
int mapped_open(struct mapped_file *m, const char *path, struct plm_status *st);
void mapped_close(struct mapped_file *m);

/* Give back the memory of whole pages within a mapping, which are read from the file again when they are used. */
void mapped_release(const void *data, size_t size);

#endif
