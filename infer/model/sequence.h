/* Inside of struct sequence, for the engine. The public calls are in infer/model/engine.h. */
#ifndef INFER_MODEL_SEQUENCE_H
#define INFER_MODEL_SEQUENCE_H

#include "infer/model/engine.h"

struct sequence {
    const struct engine *engine;
    struct arena arena;
    int64_t capacity;        /* slots per layer */
    int64_t length, held;    /* tokens so far, and the last of them that `tokens` remembers */
    int64_t step_begin, step_rows; /* of engine_step: the length before it, and the tokens in the current batch */
    int32_t *tokens;         /* (capacity): the last `held` */
    int n_layer;
    struct kv_slots *layers; /* (n_layer) */
    struct sequence_options options;
    bool compressed;         /* the prompt is in and the policy has taken its budgets */
    int64_t *budgets;        /* (n_layer); zeros before */
    double **sums;           /* (n_layer) of (capacity): attention each position received in the prefill; NULL without scores */
};

/* Count n tokens that are in the cache now; when there is no room to remember all, the older half is forgotten. */
void sequence_remember(struct sequence *s, const int32_t *tokens, int64_t n);

/* After the prompt of a sequence with a policy: budgets, scores, and the first compression. Changes nothing when it fails. */
int sequence_finish_prompt(struct sequence *s, const struct ops *ops, struct thread_pool *pool, void *policy_scratch, struct plm_status *st);

const struct plm_model *engine_model(const struct engine *e);
int64_t engine_context(const struct engine *e);
struct thread_pool *engine_pool(const struct engine *e); /* for work between its steps */
bool engine_policies(const struct engine *e);

/* Bytes of the arena that sequence_create would commit. */
int sequence_measure(const struct engine *e, const struct sequence_options *options, size_t *bytes, struct plm_status *st);

#endif
