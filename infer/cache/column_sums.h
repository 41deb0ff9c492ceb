/* Column sums of causal attention: how much attention each key received from all queries and heads, without the matrix of
 * probabilities. A second pass recomputes the logits tile by tile and turns them into probabilities with the log of the softmax
 * denominator that the first pass left (attention.h: lse). They are the prefill scores of the policies (d2o.md 1.4, 1.11). */
#ifndef INFER_CACHE_COLUMN_SUMS_H
#define INFER_CACHE_COLUMN_SUMS_H

#include "infer/model/attention.h"

/* Query i (position past + i) sees the keys 0 .. past + i. A logit is scale * (q1 . k1 + q2 . k2), where a head's query row is
 * [q1, q2]; heads may share keys (head_stride 0). Expanded MLA: k1 = k_nope, k2 = k_pe shared; absorbed: k1 = the latents,
 * shared, q1 = the absorbed query; GQA: one call per group, k1 = its keys, width2 = 0. */
struct column_sums {
    int64_t n_query, past; /* past may be negative: the keys begin within the queries */
    int64_t n_key;         /* keys there are; 0: past + n_query */
    int n_head, width1, width2;
    float scale;
    const float *q;        /* (n_query, ldq): per head width1 then width2 values, rotated */
    int64_t ldq;
    const void *k1;        /* (past + n_query, ld1) elements of key_type; head h begins at element h * head_stride */
    int64_t ld1, head_stride;
    const void *k2;        /* (past + n_query, ld2) elements of key_type, shared by the heads */
    int64_t ld2;
    enum dtype key_type;   /* f32, or a stored type (f16, q8_0): rows, heads and widths are then whole blocks */
    const float *lse;      /* (n_query, ld_lse): log of the denominator of each query and head */
    int64_t ld_lse;
};

/* The problem of one sequence of an attention_forward that had lse (first_key NULL): all its heads. */
struct column_sums column_sums_of_attention(const struct attention *a, int64_t seq);

/* The same restricted to `n_head` heads from `head` on, e.g. one group of MHA. */
struct column_sums column_sums_heads(const struct column_sums *c, int head, int n_head);

size_t column_sums_scratch_bytes(const struct ops *ops, int threads);

/* sums[j] += sum over heads and queries of the probability of key j, for all keys; a chunked prefill calls it for
 * each of its chunks. Threads split the keys, so that the result does not depend on their number. scratch: 64-byte aligned. */
void column_sums_add(const struct column_sums *c, const struct ops *ops, struct thread_pool *pool, void *scratch, double *sums);

#endif
