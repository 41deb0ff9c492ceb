/* One source of a mixture: its shards, cut into windows of consecutive documents that are packed into rows together. Only
 * the numbers of rows are kept for all windows; the packing of a window is computed again when it is visited. */
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include <stdint.h>

#include "data/pack.h"
#include "data/shard.h"

enum { CORPUS_PACKINGS = 12 }; /* packed windows kept: two groups of the order, and the next */

struct corpus_window {
    int64_t shard, first_document, n_documents;
};

struct corpus {
    struct shard **shards;          /* (n_shards) */
    int64_t n_shards;
    int seq_len;
    struct corpus_window *windows;  /* (n_windows) */
    int64_t *window_rows;           /* (n_windows) */
    int64_t n_windows, capacity;
    int64_t n_rows, n_inputs;       /* of one epoch: rows, and predicted tokens in them */
    int64_t n_tokens, token_bytes;  /* stored */
    struct packing packings[CORPUS_PACKINGS];
    int64_t packed_window[CORPUS_PACKINGS]; /* -1: none */
    int64_t last_use[CORPUS_PACKINGS], clock;
};

struct corpus_options {
    int seq_len;
    const char *tokenizer_sha256; /* NULL: not checked */
    int vocab_size;               /* shards must not need more; 0: not checked */
};

/* path: a shard or a directory with *.h5 in it. */
int corpus_open(struct corpus *c, const char *path, const struct corpus_options *o, struct plm_status *st);
void corpus_close(struct corpus *c);

/* What a source holds, in words that are equal for equal contents: tokens, documents, a hash. */
int corpus_describe(const char *path, char out[96], struct plm_status *st);

/* The packing of a window; valid until CORPUS_PACKINGS - 1 other windows were asked for. */
int corpus_packing(struct corpus *c, int64_t window, const struct packing **out, struct plm_status *st);

/* Tokens of a window: at least this many, documents being whole. */
int64_t corpus_window_tokens(int seq_len);

#endif
