/* A prompt, or a piece of one, through the model: expanded attention (plm.md 1.3) over the cache, in memory that does not grow with
 * the context. Tokens come in chunks, and the keys and values of a layer are expanded from their latents block by block, each block
 * once for all queries of the chunk. */
#ifndef INFER_MODEL_PREFILL_H
#define INFER_MODEL_PREFILL_H

#include "infer/cache/kv_slots.h"
#include "infer/model/forward.h"

#define PREFILL_CHUNK 1024 /* most tokens taken through the layers at once: against these many queries a block of keys is expanded */
#define PREFILL_KEYS 512   /* keys in a block */

struct prefill_buffers {
    struct layer_activations act; /* every layer uses these; x, mid and the layer's output are one buffer, as are u and m */
    int64_t rows;                 /* tokens that there is room for */
    int32_t *origin;              /* (rows) row minus position of every token */
    float *keys;                  /* (PREFILL_KEYS, L) latents of a block as float32 */
    float *max, *sum;             /* (rows, H) of the attention so far */
    void *attention_scratch;
    void *column_scratch;         /* NULL without policies */
};

/* For `batch` sequences of at most `context` tokens; act.a has room for `batch` rows (d) if that is more than a chunk. */
void prefill_buffers_layout(struct prefill_buffers *b, const struct model_config *c, const struct ops *ops, int64_t context, int64_t batch,
                            bool policies, int threads, struct arena *arena);

/* The next tokens of one sequence. */
struct prefill_part {
    const int32_t *tokens;  /* (n) */
    int64_t n, past;
    struct kv_slots *slots; /* (n_layer), whose first `past` are in order of position; the tokens are appended to each */
    double *const *sums;    /* per layer (capacity) what attention each position received, added; NULL where not wanted */
};

/* Take the tokens of all parts, f->q_len <= b->rows together, through the layers: the weights are read once for all. The residual stream stays in
 * b->act.x, part after part. */
void prefill_chunk(const struct forward_pass *f, const struct prefill_buffers *b, const struct prefill_part *parts, int n_parts);

#endif
