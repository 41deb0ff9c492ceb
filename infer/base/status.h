/* Status codes and messages: how every function of plm.c reports an error.
 *
 * A function that can fail returns an int: PLM_OK (0) or a positive code, and takes a `struct plm_status *` as its
 * last parameter. The message says what was wrong, where (file, line, key, tensor, record) and what to do about it. */
#ifndef INFER_BASE_STATUS_H
#define INFER_BASE_STATUS_H

#include "infer/plm.h" /* enum plm_code and struct plm_status are part of the public API */

#if defined(__GNUC__)
#define PLM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PLM_PRINTF(fmt, args)
#endif

/* Store code and formatted message in *st (NULL allowed: the message is dropped). Returns code, so that
 * `return status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));` reads as one sentence. */
int status_set(struct plm_status *st, enum plm_code code, const char *fmt, ...) PLM_PRINTF(3, 4);

/* Put context in front of the message already in *st ("checkpoint 'x': " + message). Returns the code in *st
 * (PLM_EINTERNAL when st is NULL), so that `return status_prefix(st, "shard '%s'", path);` passes an error upwards. */
int status_prefix(struct plm_status *st, const char *fmt, ...) PLM_PRINTF(2, 3);

/* Out of memory while allocating `bytes` for `what`. */
int status_no_memory(struct plm_status *st, size_t bytes, const char *what);

#endif
