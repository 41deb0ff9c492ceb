/* Packing of documents into rows of seq_len input positions: best-fit decreasing (Ding et al., "Fewer truncations improve
 * language modeling", ICML 2024). Only documents longer than a row are split, no token is dropped.
 *
 * A document of n tokens (the last is its end-of-text) yields n - 1 inputs, each with the next token as its target. A piece
 * of `length` inputs that begins at token i reads the tokens i .. i + length. */
#ifndef DATA_PACK_H
#define DATA_PACK_H

#include <stdint.h>

#include "infer/base/status.h"

struct piece {
    uint64_t begin;  /* index in the shard's /tokens of its first input */
    int32_t length;  /* inputs */
    int32_t column;  /* position in the row of the first input */
};

struct packing {
    int64_t n_rows, n_pieces;
    int64_t n_inputs;      /* sum of the pieces' lengths: the predicted tokens */
    int64_t *row_begin;    /* (n_rows + 1): row r holds pieces[row_begin[r], row_begin[r + 1]), by rising column */
    struct piece *pieces;  /* (n_pieces) */
};

/* Pack the documents [offsets[i], offsets[i + 1]), i < n_documents, as doc_offsets holds them. Deterministic, O(n). */
int pack_documents(struct packing *p, const uint64_t *offsets, int64_t n_documents, int seq_len, struct plm_status *st);
void packing_free(struct packing *p);

#endif
