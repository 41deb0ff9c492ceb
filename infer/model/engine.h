/* The engine: several sequences of one model, each with its own cache, taken forward together.
 *
 * Sequences join and leave at any step: a step takes a list of (sequence, tokens), in any mixture of prompts and single tokens.
 * Single tokens of all sequences go through the weights as one batch (absorbed attention, each over its own cache), and with them
 * several of one sequence where asked for; longer ones are prefilled with expanded attention, in chunks. */
#ifndef INFER_MODEL_ENGINE_H
#define INFER_MODEL_ENGINE_H

#include "infer/cache/policy.h"
#include "infer/model/model.h"

struct engine;   /* buffers and threads for one model; one step at a time */
struct sequence; /* tokens so far and their latent cache; belongs to an engine */

struct engine_options {
    int n_threads;     /* 0: one per processor */
    int max_batch;     /* tokens that are decoded together, of one or several sequences; 0: 1 */
    int64_t context;   /* most slots of a sequence; 0: what the model was trained for */
    bool dense;        /* do without neuron-major copies of ffn_down: less memory, all neurons are read */
    bool policies;     /* sequences may have cache policies: room for what they need */
    bool packed;       /* float32 matrices once more, where memory allows, in the order that products of many rows read: engine_pack */
    const struct ops *ops; /* the operations to use, e.g. those of a trainer; NULL: the core's best. Must outlive the engine */
};

/* The model must outlive the engine. Free with engine_destroy, after its sequences. */
int engine_create(struct engine **out, const struct plm_model *model, const struct engine_options *options, struct plm_status *st);
void engine_destroy(struct engine *e);

/* Read the model's weights: before the first step of an engine with `packed`, and again when they have changed. */
void engine_pack(struct engine *e);

size_t engine_bytes(const struct engine *e);

/* Active neurons of a layer, and all that were computed, over all tokens so far: their ratio is the share that is not zero. */
void engine_activity(const struct engine *e, int layer, int64_t *active, int64_t *neurons);

struct sequence_options {
    int64_t capacity;     /* slots per layer, and so the longest prompt; 0: the engine's context */
    enum dtype type;      /* of the cache: f32, f16, or q8_0 (when kv_lora_rank and qk_rope_head_dim are multiples of 32) */
    struct policy_options policy; /* policy_options_default(POLICY_FULL), or another when the engine has `policies` */
    int64_t budget;       /* slots per layer on average that the policy keeps; 0: */
    double share;         /* this share of the first prompt, in (0, 1] */
};

/* options NULL: f32, everything kept. With a policy the first tokens appended are the prompt: it is attended in full, then the
 * cache is compressed; every token after it goes through the cache one at a time. A policy whose budgets are below the capacity takes
 * any number of tokens, in the same memory; their positions are true ones, also beyond those that the model was trained for. */
int sequence_create(struct sequence **out, struct engine *e, const struct sequence_options *options, struct plm_status *st);
void sequence_destroy(struct sequence *s);

/* Bytes that an engine with these options and one sequence would take, without allocating: the measuring pass of both. */
int engine_measure(const struct plm_model *model, const struct engine_options *options, const struct sequence_options *sequence, size_t *engine_bytes,
                   size_t *sequence_bytes, struct plm_status *st);

int64_t sequence_length(const struct sequence *s);
int64_t sequence_capacity(const struct sequence *s);      /* slots per layer */
int64_t sequence_room(const struct sequence *s);          /* tokens it takes more: of an endless one what 31 bits can count */
int64_t sequence_held(const struct sequence *s);          /* tokens remembered: all, or of an endless one the last */
const int32_t *sequence_tokens(const struct sequence *s); /* (held) */
size_t sequence_bytes(const struct sequence *s);

/* Slots in use, all layers together, and the budget of a layer (0 before the prompt, or without a policy). */
int64_t sequence_slots(const struct sequence *s);
int64_t sequence_budget(const struct sequence *s, int layer);

/* Keep the first n tokens. A compressed sequence can only be cut to nothing: PLM_EUNSUPPORTED otherwise. */
int sequence_truncate(struct sequence *s, int64_t n, struct plm_status *st);

/* Make `to` what `from` is: N samples of one prompt prefill it once. Same model, same type; capacity for from's tokens. */
int sequence_copy(struct sequence *to, const struct sequence *from, struct plm_status *st);

/* Make `to` the first n tokens of `from`: prompts that begin alike. Neither has a cache policy. */
int sequence_copy_first(struct sequence *to, const struct sequence *from, int64_t n, struct plm_status *st);

/* The sequence in a file, and back: refused when the file belongs to another model (its hyper-parameters and a checksum of its
 * weights are recorded), is damaged, or does not fit. */
int sequence_save(const struct sequence *s, const char *path, struct plm_status *st);
int sequence_load(struct sequence *s, const char *path, struct plm_status *st);

struct engine_item {
    struct sequence *sequence; /* at most once per step */
    const int32_t *tokens;     /* (n) to append, n >= 1 */
    int64_t n;
    bool decode;               /* take them through the cache (absorbed attention) even when n > 1: as many together as the batch has room */
    bool all;                  /* logits of all n positions, not only of the last */
    float *logits;             /* (n or 1, V); NULL: not wanted */
};

/* Append the tokens of every item. Everything is checked first: after an error no sequence has changed, but for one: a policy
 * whose budgets turn out impossible for the prompt (PLM_EINVAL) leaves that sequence empty. */
int engine_step(struct engine *e, const struct engine_item *items, int n_items, struct plm_status *st);

#endif
