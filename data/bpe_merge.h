/* The merging half of BPE training: from counted words to a list of merges. */
#ifndef DATA_BPE_MERGE_H
#define DATA_BPE_MERGE_H

#include <stdint.h>

#include "data/word_count.h"

struct bpe_merges {
    char *bytes;           /* of all tokens, one after the other; ids 0-255 are the bytes in `alphabet` order */
    size_t *start;         /* (n_tokens + 1) */
    int32_t n_tokens;
    int32_t (*merges)[2];  /* (n_merges, 2), in order */
    int32_t n_merges;
};

/* Merge until there are n_tokens tokens or no pair occurs min_count times (at least 1) and makes a token of at most
 * max_token_length bytes. alphabet[i] is the byte of token i. PLM_ENOMEM. Free with bpe_merges_free, also on error. */
int bpe_merge(struct bpe_merges *out, const struct word_table *words, const unsigned char alphabet[256], int32_t n_tokens,
              int32_t max_token_length, int64_t min_count, struct plm_status *st);
void bpe_merges_free(struct bpe_merges *m);

#endif
