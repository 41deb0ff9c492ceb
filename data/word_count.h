/* Counts of distinct words within bounded memory. */
#ifndef DATA_WORD_COUNT_H
#define DATA_WORD_COUNT_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

struct word {
    int64_t count; /* 0: a free slot */
    size_t offset; /* of the bytes in word_table.bytes */
    uint32_t length;
    uint32_t hash;
};

/* Open addressing; start with {0}, end with word_table_free. */
struct word_table {
    struct word *slots; /* (n_slots), a power of two, at most half used */
    size_t n_slots, n_words;
    char *bytes;
    size_t used, capacity; /* of bytes */
};

/* Count `count` more of a word. PLM_ENOMEM. */
int word_table_add(struct word_table *t, const char *word, uint32_t length, int64_t count, struct plm_status *st);

/* Add the counts of `from`. */
int word_table_merge(struct word_table *t, const struct word_table *from, struct plm_status *st);

/* Bytes the words of the table stand for: a function of the set of words, not of how the table grew. */
size_t word_table_cost(const struct word_table *t);

/* Drop the rarest words until word_table_cost is at most `cost`: all words with counts up to the smallest count that is
 * enough, so the order in which words came does not matter. Adds what was dropped to *words and *count. */
int word_table_prune(struct word_table *t, size_t cost, int64_t *words, int64_t *count, struct plm_status *st);

/* Forget the words, keep the memory. */
void word_table_clear(struct word_table *t);
void word_table_free(struct word_table *t);

#endif
