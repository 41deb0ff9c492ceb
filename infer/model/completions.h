/* Completions of many prompts, sampled together: prompts join the batch as others end (continuous batching). What is sampled is a pure function
 * of the model and of each request's own seed, stream and prompt, given the order of requests and the batch's size. */
#ifndef INFER_MODEL_COMPLETIONS_H
#define INFER_MODEL_COMPLETIONS_H

#include "infer/model/engine.h"

struct completion_request {
    const int32_t *prompt;   /* (n_prompt), valid until it is delivered; requests in a row that begin alike share their cache */
    int64_t n_prompt;
    int64_t max_tokens;      /* >= 1; n_prompt + max_tokens is cut to the context */
    uint64_t seed;           /* draws: sampling_draw with this seed and stream */
    uint32_t stream;
    void *tag;               /* the caller's */
};

enum completion_end { COMPLETION_ENDED, COMPLETION_LIMIT };

struct completion {
    const int32_t *tokens;   /* (n), the ending token included; valid during the call */
    const float *log_probs;  /* (n) ln p of each under the model itself (temperature 1, nothing cut off) */
    int64_t n;
    enum completion_end end;
};

struct completer_options {
    int n_threads, max_batch;  /* sequences decoded together */
    int64_t context;           /* 0: the model's */
    struct plm_sampling sampling; /* seed unused: each request has its own */
    const int32_t *end_tokens; /* (n_end_tokens) any of them ends a completion */
    int n_end_tokens;
    const struct ops *ops;     /* as in struct engine_options */
    bool packed;               /* as there, where the core's products gain by it; what is sampled is the same to the bit */
};

struct completer;

/* The model must outlive it; its weights may change between (not during) calls of completer_run: buffers are kept, caches are not. */
int completer_create(struct completer **out, const struct plm_model *model, const struct completer_options *o, struct plm_status *st);
void completer_destroy(struct completer *c);

/* next fills in the next request, or returns false when there is none at the moment (there may be one again after a delivery); done takes a completion
 * and may make further requests available (the next turn of a chain). Ends when next has none and nothing is under way. A prompt that does not fit the
 * context is PLM_ELIMIT: check lengths before. */
struct completion_source {
    bool (*next)(void *ctx, struct completion_request *request);
    int (*done)(void *ctx, const struct completion_request *request, const struct completion *completion, struct plm_status *st);
    /* NULL allowed: sees every token as it is sampled (an ending one too); what is not PLM_OK ends the run: PLM_ESTOPPED on request. */
    int (*token)(void *ctx, const struct completion_request *request, int32_t token, struct plm_status *st);
    void *ctx;
};
int completer_run(struct completer *c, const struct completion_source *source, struct plm_status *st);

/* Most tokens of a prompt and its completion together. */
int64_t completer_context(const struct completer *c);

/* Of all runs so far. */
struct completer_stats {
    int64_t prompt_tokens, reused_tokens; /* of all prompts, and those of them that were in a cache */
    int64_t generated, steps;             /* tokens sampled; batches decoded */
    double prefill_s, decode_s;           /* decode_s: sampling and deliveries too */
};
struct completer_stats completer_stats(const struct completer *c);

#endif
