/* Multi-head latent attention over expanded keys and values (plm.md 1.3), for training and prefill. */
#ifndef INFER_MODEL_ATTENTION_H
#define INFER_MODEL_ATTENTION_H

#include "infer/ops/ops.h"

#define ATTENTION_TILE 64 /* query rows handled at once: the score tile of a head stays in the L2 cache */

/* Query i of a sequence sees the keys first_key[i] .. past + i of that sequence. */
struct attention {
    int64_t n_seq;            /* B: sequences, attended separately */
    int64_t q_len;            /* T: queries of each */
    int64_t past;             /* keys before the first query; a sequence has past + q_len keys */
    int n_head, nope, rope, v;
    float logit_factor;   /* of struct rope_scaling; 0: 1 */
    const int32_t *first_key; /* (B, T), index of the first visible key; NULL: 0 */
    const float *q;           /* (B*T, ldq): per head nope values, then rope rotated ones */
    int64_t ldq;
    const float *kv;          /* (B*(past+T), ldkv): per head nope key values, then v values */
    int64_t ldkv;
    const float *k_pe;        /* (B*(past+T), ld_pe): the rotated key shared by the heads */
    int64_t ld_pe;
    float *out;               /* (B*T, n_head*v) */
    float *lse;               /* (B*T, n_head): log of the softmax denominator, for the backward pass; may be NULL */
};

/* Bytes of scratch for `threads` threads and sequences of at most max_keys keys; 64-byte aligned memory. */
size_t attention_scratch_bytes(const struct ops *ops, int64_t max_keys, int threads);

void attention_forward(const struct attention *a, const struct ops *ops, struct thread_pool *pool, void *scratch,
                       int64_t max_keys);

/* ---- prefill: any number of keys, block by block, in bounded memory ---- */

/* Keys [first, first + n) of a sequence (n_seq 1, first_key NULL): a->kv and a->k_pe begin there. The blocks come in order, from 0 to
 * past + q_len without a gap; with the last one a->out and, if wanted, a->lse are complete. max, sum: (q_len, n_head), carried from
 * block to block. narrow: logits from narrower integers where the table can, see attention_narrow in ops.h. */
void attention_add_block(const struct attention *a, int64_t first, int64_t n, float *max, float *sum, bool narrow, const struct ops *ops,
                         struct thread_pool *pool, void *scratch);

/* Bytes of its scratch, 64-byte aligned, for blocks of at most max_n keys. */
size_t attention_block_scratch_bytes(const struct attention *a, int64_t max_n, const struct ops *ops, int threads);

/* ---- shared with the backward pass in train/ops ---- */

/* One tile: queries [begin, end) of one sequence and head, and the keys [lo, hi) any of them sees. */
struct attention_tile {
    int64_t seq, begin, end, lo, hi;
    int head;
};

/* Tile number i of attention_tiles(a). */
struct attention_tile attention_tile_at(const struct attention *a, int64_t i);
int64_t attention_tiles(const struct attention *a);

/* s (end-begin, hi-lo), row stride hi-lo: q.k of the tile, not scaled; masked entries are not touched. */
void attention_scores(const struct attention *a, const struct attention_tile *t, const struct ops *ops, float *s,
                      void *gemm_scratch);

/* The visible keys of query row i of the tile (i from 0), relative to lo: [*from, *to). */
void attention_visible(const struct attention *a, const struct attention_tile *t, int64_t i, int64_t *from, int64_t *to);

/* 1 / sqrt(nope + rope), times the logits' factor */
float attention_scale(const struct attention *a);

#endif
