/* Finding added tokens in text, as the AddedVocabulary of Hugging Face tokenizers does: at the leftmost place the
 * longest token, then the conditions and white space of that one. */
#ifndef INFER_TEXT_ADDED_SET_H
#define INFER_TEXT_ADDED_SET_H

#include "infer/base/status.h"

struct added_set;
struct tokenizer;

/* Those of t's added tokens whose `normalized` is this; their own texts are normalised then, when the tokenizer does
 * it. */
int added_set_create(struct added_set **out, const struct tokenizer *t, bool normalized, struct plm_status *st);
void added_set_free(struct added_set *s);

/* Whether anything can be found at all when special tokens are not parsed. */
bool added_set_matters(const struct added_set *s, bool parse_special);

/* A walk over a text; start with the text and zeros. */
struct added_walk {
    const char *text;
    size_t length;
    bool parse_special;
    size_t scan, taken; /* where the next match may begin, and how far the text belongs to matches already */
    size_t begin, end;  /* the match: [begin, end) with the white space it takes along */
    int32_t id;
};

/* The next match; false: no more. A special token that is not parsed hides shorter ones at its place, but is no match.
 */
bool added_set_next(const struct added_set *s, struct added_walk *w);

#endif
