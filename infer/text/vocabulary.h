/* A vocabulary on its way from a file to a tokenizer: tokens in the printable byte-level form, merges as pairs of them. */
#ifndef INFER_TEXT_VOCABULARY_H
#define INFER_TEXT_VOCABULARY_H

#include "infer/text/tokenizer.h"

struct vocabulary {
    int32_t n;              /* ids: 0 .. n-1 */
    const char **token;     /* (n) raw bytes; NULL where the id has no ordinary token */
    size_t *length;         /* (n) */
    int32_t (*merges)[2];   /* (n_merges) by rank */
    int32_t n_merges, merge_capacity;
    char *bytes, *scratch;  /* what token points into; room to decode one side of a merge */
    size_t used, capacity;
    int32_t *slots;         /* ordinary tokens by their bytes, open addressing, -1: free */
    size_t mask;
};

/* Room for ids below n, of which n_tokens have tokens of printable_bytes bytes all together, and for n_merges merges. Free with
 * vocabulary_free, also after an error. */
int vocabulary_create(struct vocabulary *v, int32_t n, size_t n_tokens, size_t printable_bytes, int32_t n_merges, struct plm_status *st);
void vocabulary_free(struct vocabulary *v);

/* Set token `id` (once) from its printable form. PLM_EFORMAT when a character is outside the byte-level alphabet. */
int vocabulary_put(struct vocabulary *v, int32_t id, const char *printable, size_t n, struct plm_status *st);

/* An added token of plain ASCII without spaces, which means the same bytes in both forms, may be made by merges as
 * well: set it unless an ordinary token has these bytes. Other texts are left alone. After all ordinary tokens. */
int vocabulary_put_added(struct vocabulary *v, int32_t id, const char *text, size_t n, struct plm_status *st);

/* Whether a merge has it as a side or as its result, for every id: (n), malloc'ed; NULL: out of memory. After all
 * merges. */
bool *vocabulary_merged(const struct vocabulary *v);

/* Append a merge of two printable tokens; or of "a b" in one text. PLM_EFORMAT when a side is not in the vocabulary. */
int vocabulary_merge(struct vocabulary *v, const char *left, size_t n_left, const char *right, size_t n_right, struct plm_status *st);
int vocabulary_merge_text(struct vocabulary *v, const char *text, size_t n, struct plm_status *st);

/* Of equal merges keep the last (Hugging Face) or the first (llama.cpp). Returns how many went; -1: out of memory. */
int32_t vocabulary_drop_merges(struct vocabulary *v, bool keep_last);

#endif
