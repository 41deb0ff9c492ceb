/* A prompt, or a piece of one, through the model: expanded attention (plm.md 1.3) over the cache, in memory that does not grow with
 * the context. Tokens come in chunks, and the keys and values of a layer are expanded from their latents block by block, each block
 * once for all queries of the chunk. */
#ifndef INFER_MODEL_PREFILL_H
#define INFER_MODEL_PREFILL_H

#include "infer/cache/kv_slots.h"
#include "infer/model/forward.h"

#define PREFILL_CHUNK 1024 /* tokens taken through the layers at once: against these many queries a block of keys is expanded */
#define PREFILL_KEYS 512   /* keys in a block */

struct prefill_buffers {
    struct layer_activations act; /* every layer uses these; x, mid and the layer's output are one buffer, as are u and m */
    float *keys;                  /* (PREFILL_KEYS, L) latents of a block as float32 */
    float *max, *sum;             /* (PREFILL_CHUNK, H) of the attention so far */
    void *attention_scratch;
    void *column_scratch;         /* NULL without policies */
};

/* For sequences of at most `context` tokens; act.a has room for `rows` rows (d) if that is more than a chunk. */
void prefill_buffers_layout(struct prefill_buffers *b, const struct model_config *c, const struct ops *ops, int64_t context, int64_t rows,
                            bool policies, int threads, struct arena *arena);

/* Take the f->q_len <= PREFILL_CHUNK tokens after f->past through the layers and append them to `slots` (n_layer), whose first f->past
 * are in order of position; the residual stream stays in b->act.x. sums: per layer (capacity) what attention each position received,
 * added; NULL where not wanted. */
void prefill_chunk(const struct forward_pass *f, const struct prefill_buffers *b, const int32_t *tokens, struct kv_slots *slots,
                   double *const *sums);

#endif
