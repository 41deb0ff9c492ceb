/* A float32 forward pass of one sequence under a cache policy, in the layouts that D2O is defined for: the latent cache, and the
 * expanded one with a group per head. It is made of the core's operations and follows the reference step by step, for
 * verification; generation goes through infer/model/engine.h. */
#ifndef TRAIN_COMPRESSED_PASS_H
#define TRAIN_COMPRESSED_PASS_H

#include "infer/cache/policy.h"
#include "infer/model/forward.h"
#include "infer/model/model.h"

enum kv_layout { KV_MLA, KV_MHA };

struct compressed_pass {
    const struct plm_model *model;
    enum kv_layout layout;
    int n_layer, n_group;      /* groups per layer: 1, or one per head */
    struct policy_options options;
    int64_t prompt, capacity;  /* tokens of the prompt; with those that follow */
    int64_t length;            /* tokens so far */
    struct kv_slots *slots;    /* (n_layer, n_group) */
    int64_t *budgets;          /* (n_layer) */
    double *density;           /* (n_layer) */

    struct arena arena; /* all of the memory, and the buffers in it */
    struct forward_pass f;
    struct rope_table rope;
    struct layer_activations act;
    unsigned char *column_scratch, *policy_scratch;
    double *columns, *group_columns; /* (prompt) */
    float *q_content, *q_rotary;     /* (heads, rank or nope), (heads, rope) */
    float *z;                        /* (heads, rank) */
    float *scores;                   /* (heads, capacity) */
    float *last;                     /* (d) normed last row of the residual stream */
};

/* `model` and `pool` must outlive the pass. options are checked. Free with compressed_pass_free. */
int compressed_pass_create(struct compressed_pass *p, const struct plm_model *model, enum kv_layout layout,
                           const struct policy_options *options, int64_t prompt, int64_t capacity, const struct ops *ops,
                           struct thread_pool *pool, struct plm_status *st);
void compressed_pass_free(struct compressed_pass *p);

/* The prompt's tokens with the full cache, then layer budgets for `budget` slots per layer on average, and compression. logits
 * (V) follow the last token. */
int compressed_pass_prefill(struct compressed_pass *p, const int32_t *tokens, int64_t budget, float *logits,
                            struct plm_status *st);

/* One more token, compressing what has grown too long; at most capacity - prompt of them. */
int compressed_pass_decode(struct compressed_pass *p, int32_t token, float *logits, struct plm_status *st);

#endif
