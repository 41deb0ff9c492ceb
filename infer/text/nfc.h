/* Unicode normalisation form C (UAX #15). */
#ifndef INFER_TEXT_NFC_H
#define INFER_TEXT_NFC_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

/* Buffers that are reused from call to call; start with {0}, end with nfc_free. */
struct nfc {
    char *text; /* normalised text */
    size_t length, capacity;
    uint32_t *points; /* (2, points_capacity): one segment, and room to sort it */
    size_t points_capacity;
};

/* NFC of `text`. Where nothing changes (the usual case, found by a quick check), *out is `text` itself, otherwise it is
 * n->text, valid until the next call. Bytes that are not UTF-8 stay as they are, and nothing composes across them.
 * O(length). PLM_ENOMEM. */
int nfc_normalize(struct nfc *n, const char *text, size_t length, const char **out, size_t *out_length,
                  struct plm_status *st);
void nfc_free(struct nfc *n);

#endif
