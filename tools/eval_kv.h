/* plm eval kv: what cache policies cost in quality at equal bytes (d2o.md 5.2).
 *
 * An item is a token sequence with a prompt. Every method of the comparison prefills the prompt with the full cache, compresses
 * it to its budget, and is then fed the rest of the item token by token, evicting as it goes; only what is predicted after the
 * prompt is scored. The first cell is the full cache, the reference: all cells of an item run in one batch, so each distribution
 * is compared with the reference's as soon as both are there, and none is kept. */
#ifndef TOOLS_EVAL_KV_H
#define TOOLS_EVAL_KV_H

#include "infer/model/engine.h"
#include "tools/eval.h"

enum { KV_MAX_METHODS = 16, KV_MAX_BUDGETS = 16, KV_MAX_CELLS = 1 + KV_MAX_METHODS * KV_MAX_BUDGETS };

/* "POLICY[:OPTION]...": f32, f16, q8_0 (the type of the cache), uniform (the same budget for every layer), ungated (merge every
 * evicted slot). */
struct kv_method {
    const char *name;
    struct policy_options policy;
    enum dtype type;
};

/* PLM_EINVAL names what is unknown and what there is. */
int kv_method_parse(struct kv_method *m, const char *name, enum dtype type, struct plm_status *st);

/* One method at one budget. */
struct kv_cell {
    const struct kv_method *method;
    double share; /* of the bytes of the prompt's full cache; 0: full, which has no budget */
};

struct kv_item {
    int32_t *tokens;  /* (n) */
    size_t n, prompt; /* 1 <= prompt < n */
    int32_t *answer;  /* (n) 1 + number of the answer a token belongs to, 0: none. NULL: text, every token after the prompt is scored */
};

/* Sums over the scored tokens of one item in one cell. */
struct kv_score {
    double kl, nats;          /* KL(full || cell), -ln p of the token */
    int64_t same_top;         /* tokens where the likeliest token is the full cache's */
    int64_t answers, correct; /* answers whose every token is the likeliest */
    double bytes;             /* of the cache at its largest, metadata included */
};

/* Score `n_items` items in all cells, of which cells[0] is the reference: scores (n_items, n_cells); tokens (n_items) scored of
 * each. Both start as zeros. `type` is that of the full cache of which budgets are shares. */
int kv_run(const struct plm_model *model, int n_threads, const struct kv_cell *cells, int n_cells, enum dtype type,
           const struct kv_item *items, size_t n_items, struct kv_score *scores, int64_t *tokens, struct plm_status *st);

/* Paired bootstrap over items (Efron, percentile intervals at 95 %): the same resamples serve every statistic of a set of items,
 * so that both sides of a difference see the same items. */
struct kv_resamples {
    size_t n, count;
    int32_t *weight; /* (count, n) copies of each item */
    double *sorted;  /* (count) */
};

/* Free with kv_resamples_free, also after an error. */
int kv_resamples_draw(struct kv_resamples *r, size_t n, size_t count, uint64_t seed, struct plm_status *st);
void kv_resamples_free(struct kv_resamples *r);

/* low and high of a statistic of items that are there weight[i] times; its value on the items as they are is what it returns for
 * weight NULL. NaN resamples (a ratio to nothing) are left out; NaN when fewer than two items or no resample remain. */
void kv_interval(struct kv_resamples *r, double (*statistic)(const void *ctx, const int32_t *weight), const void *ctx,
                 double interval[2]);

struct eval_kv_options {
    const char *const *paths; /* (n_paths) text */
    int n_paths;
    const char *text_field;
    int prompt, continuation; /* tokens of a window of text; 0: half of the context */
    int windows;              /* at most so many, evenly spaced over the text */
    const struct kv_method *methods;
    int n_methods;
    const double *shares; /* (n_shares) budgets */
    int n_shares;
    enum dtype type;
    int n_threads;
    uint64_t seed; /* of the resamples */
    int resamples;
    struct eval_recall_options recall; /* count 0: no recall; depths are not used */
};

/* Table rows for text and for each recall task. */
int eval_kv(struct eval_model *e, const struct eval_kv_options *o, json_t **result, struct plm_status *st);

#endif
