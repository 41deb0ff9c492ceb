/* The refinement template z of ARIES (aries.md 1.6): a question and a draft answer become one user message that asks for a better one.
 * The slots are {x} and {y_prev}, each exactly once. The model is trained on this exact text: its hash goes into checkpoints and keys. */
#ifndef INFER_TEXT_REFINE_TEMPLATE_H
#define INFER_TEXT_REFINE_TEMPLATE_H

#include <stddef.h>

#include "infer/base/status.h"

struct refine_template;

/* path NULL: the built-in template (aries.md 1.6). A file is taken as it is; a missing or repeated slot is PLM_EINVAL, and so are
 * bytes that are not UTF-8. At most 1 MiB. */
int refine_template_open(struct refine_template **out, const char *path, struct plm_status *st);
int refine_template_from_text(struct refine_template **out, const char *text, size_t length, const char *where, struct plm_status *st);
void refine_template_free(struct refine_template *t);

/* Its text with the slots, owned by it. */
const char *refine_template_text(const struct refine_template *t);

/* The user message: malloc'ed, NUL-terminated; the caller frees. NULL when out of memory. Slots inside x or y_prev are plain text. length may be NULL. */
char *refine_template_fill(const struct refine_template *t, const char *x, size_t x_bytes, const char *y, size_t y_bytes, size_t *length);

#endif
