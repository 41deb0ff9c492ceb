/* Cache policies: which slots a sequence keeps when its budget is full (d2o.md; order of operations as in its reference).
 *
 *   full       everything
 *   streaming  sinks and the most recent (StreamingLLM)
 *   h2o        sinks, recent ones, and those with the most accumulated attention
 *   d2o        h2o, with layer budgets from the variance of attention, and evicted slots merged into their nearest neighbour
 *   d2o+count  d2o with pivots weighted by how many tokens they stand for, and ln(count) added to their logits
 *
 * A sequence uses them so: prefill with the full cache, adding up the columns of the attention (column_sums.h); density of every
 * layer; allocate; compress every group to its layer's budget. Then per token and layer: append, attend (adding the probabilities
 * to the scores), and compress when policy_due. */
#ifndef INFER_CACHE_POLICY_H
#define INFER_CACHE_POLICY_H

#include "infer/cache/kv_slots.h"

enum cache_policy { POLICY_FULL, POLICY_STREAMING, POLICY_H2O, POLICY_D2O, POLICY_D2O_COUNT, POLICY_COUNT };

/* "full", "streaming", "h2o", "d2o", "d2o+count"; POLICY_COUNT when unknown. */
const char *cache_policy_name(enum cache_policy p);
enum cache_policy cache_policy_by_name(const char *name);

struct policy_options {
    enum cache_policy policy;
    int n_sink;         /* 4: the first positions, never evicted, never merged into */
    int min_budget;     /* 8: smallest budget of a layer */
    float temperature;  /* 1: of the softmax over layers */
    float beta;         /* 0.7: of the threshold's moving average */
    float slack;        /* 1e-5: repeated tokens have equal latents; the outcome must not hang on the last bit */
    bool gate;          /* true: merge only victims similar enough; false: all */
    int batch;          /* 1: victims per compression while decoding */
};
struct policy_options policy_options_default(enum cache_policy policy);

/* PLM_EINVAL, naming the option, for one out of range. */
int policy_options_check(const struct policy_options *o, struct plm_status *st);

/* Does the policy use scores (and so needs kv_slots with policy data)? */
bool policy_needs_scores(enum cache_policy p);

/* Does it merge what it evicts (d2o, d2o+count)? */
bool policy_merges(enum cache_policy p);

/* Layer budgets (n_layer), at least min_budget and at most max(n_prompt, budget) each, summing to n_layer * budget exactly; by
 * variance for d2o and d2o+count, uniform otherwise. density (n_layer): variance over the non-sink columns of the attention
 * summed over heads and queries of the prefill; only read by the first two, may be NULL for the others. PLM_EINVAL when budget is
 * below the minimum or a density is not finite. */
int policy_allocate(const struct policy_options *o, const double *density, int n_layer, int64_t budget, int64_t n_prompt,
                    int64_t *budgets, struct plm_status *st);

/* F_l of a layer: population variance of column_sums (n), the scores summed over its groups, without those of the sinks. */
double policy_density(const struct policy_options *o, const double *column_sums, int64_t n);

/* Slots of a budget that hold the most recent positions: a quarter, to the nearest. */
static inline int64_t policy_recent(int64_t budget) { return (budget + 2) / 4; }

/* Has a group that just took a token while decoding to be compressed? */
static inline bool policy_due(const struct policy_options *o, const struct kv_slots *s, int64_t budget)
{
    return o->policy != POLICY_FULL && s->length >= budget + o->batch;
}

/* Bytes of scratch, 64-byte aligned, that policy_compress needs for slots of this shape and capacity. */
size_t policy_scratch_bytes(const struct policy_options *o, const struct kv_shape *shape, int64_t capacity);

/* Bring a group down to `budget` slots (nothing happens when it has no more, or with policy full). What stays is moved to the
 * front; see kv_slots.h for the order. pool: threads for the search of neighbours, NULL inside a loop over sequences; it does not
 * change the result. PLM_EINVAL when the budget cannot hold sinks and recent slots; the slots are then as they were. */
int policy_compress(const struct policy_options *o, struct kv_slots *s, int64_t budget, const struct ops *ops,
                    struct thread_pool *pool, void *scratch, struct plm_status *st);

#endif
