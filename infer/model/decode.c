#include "infer/model/decode.h"

#include <string.h>

void decode_buffers_layout(struct decode_buffers *b, const struct model_config *c, int64_t capacity, struct arena *arena)
{
    const size_t d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads, f = sizeof(float);
    b->x = arena_alloc(arena, d, f);
    b->a = arena_alloc(arena, d, f);
    b->q = arena_alloc(arena, heads * (size_t)model_qk_head_dim(c), f);
    b->q_latent = arena_alloc(arena, heads * (size_t)model_latent_dim(c), f);
    b->scores = arena_alloc(arena, heads * (size_t)capacity, f);
    b->z = arena_alloc(arena, heads * (size_t)c->kv_lora_rank, f);
    b->attn = arena_alloc(arena, heads * (size_t)c->v_head_dim, f);
    b->u = arena_alloc(arena, (size_t)c->intermediate_size, f);
}

struct absorb_job {
    const struct forward_pass *f;
    const struct decode_buffers *b;
    const struct weight *kv_b;
};

static const void *weight_row(const struct weight *w, int64_t row)
{
    return (const char *)w->data + (size_t)row * dtype_row_bytes(w->type, w->cols);
}

/* q~_h = W_UK,h^T q_nope_h: W_UK,h is rows h*(nope+v) .. +nope of kv_b, so this adds up weighted rows. */
static void absorb_queries(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct absorb_job *j = ctx;
    const struct model_config *c = j->f->config;
    for (int64_t h = begin; h < end; h++) {
        const float *q = j->b->q + h * model_qk_head_dim(c);
        float *out = j->b->q_latent + h * model_latent_dim(c);
        memset(out, 0, (size_t)c->kv_lora_rank * sizeof *out);
        for (int i = 0; i < c->qk_nope_head_dim; i++)
            j->f->ops->axpy(out, q[i], weight_row(j->kv_b, h * (c->qk_nope_head_dim + c->v_head_dim) + i), j->kv_b->type,
                            c->kv_lora_rank);
        memcpy(out + c->kv_lora_rank, q + c->qk_nope_head_dim, (size_t)c->qk_rope_head_dim * sizeof *out);
    }
}

static void absorbed_attention(const struct forward_pass *f, const struct decode_buffers *b, const struct weight *kv_b,
                               const float *keys, int64_t n_keys)
{
    const struct model_config *c = f->config;
    const int heads = c->num_attention_heads, per_head = c->qk_nope_head_dim + c->v_head_dim;
    const int64_t ld = model_latent_dim(c);
    struct absorb_job j = {f, b, kv_b};
    pool_for(f->pool, heads, 1, absorb_queries, &j);
    f->ops->gemm(&(struct gemm){.m = heads, .n = n_keys, .k = ld, .trans_b = true, .alpha = 1, .a = b->q_latent, .lda = ld,
                                .b = keys, .ldb = ld, .c = b->scores, .ldc = n_keys}, f->pool);
    const float scale = attention_scale(&(struct attention){.nope = c->qk_nope_head_dim, .rope = c->qk_rope_head_dim});
    for (int h = 0; h < heads; h++) {
        float *p = b->scores + h * n_keys;
        float sum = f->ops->exp_sum(p, p, n_keys, scale, scale * f->ops->max(p, n_keys));
        f->ops->scale(p, 1 / sum, n_keys);
    }
    f->ops->gemm(&(struct gemm){.m = heads, .n = c->kv_lora_rank, .k = n_keys, .alpha = 1, .a = b->scores, .lda = n_keys,
                                .b = keys, .ldb = ld, .c = b->z, .ldc = c->kv_lora_rank}, f->pool);
    for (int h = 0; h < heads; h++) {
        const struct weight w_uv = {weight_row(kv_b, (int64_t)h * per_head + c->qk_nope_head_dim), kv_b->type, c->v_head_dim, kv_b->cols};
        forward_linear(f, b->attn + h * c->v_head_dim, c->v_head_dim, b->z + (int64_t)h * c->kv_lora_rank, c->kv_lora_rank, &w_uv, 1, false);
    }
}

void decode_token(const struct forward_pass *f, const struct latent_cache *cache, const struct decode_buffers *b, int32_t token)
{
    const struct model_config *c = f->config;
    const int64_t d = c->hidden_size, rank = c->kv_lora_rank, ld = cache->latent_dim, ldq = (int64_t)c->num_attention_heads * model_qk_head_dim(c);
    forward_embed(f, &token, 1, b->x);
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
        const struct weight *w = f->weights->layers[layer].at;
        float *latent = latent_cache_row(cache, layer, cache->length);
        forward_rms_norm(f, b->a, d, NULL, b->x, d, &w[TENSOR_ATTN_NORM], 1);
        forward_linear(f, b->q, ldq, b->a, d, &w[TENSOR_Q], 1, false);
        forward_linear(f, latent, ld, b->a, d, &w[TENSOR_KV_A], 1, false);
        forward_rope(f, b->q + c->qk_nope_head_dim, ldq, c->num_attention_heads, model_qk_head_dim(c), false);
        forward_rms_norm(f, latent, ld, NULL, latent, ld, &w[TENSOR_KV_A_NORM], 1);
        forward_rope(f, latent + rank, ld, 1, 0, false);
        absorbed_attention(f, b, &w[TENSOR_KV_B], latent_cache_row(cache, layer, 0), cache->length + 1);
        forward_linear(f, b->x, d, b->attn, (int64_t)c->num_attention_heads * c->v_head_dim, &w[TENSOR_O], 1, true);
        forward_rms_norm(f, b->a, d, NULL, b->x, d, &w[TENSOR_FFN_NORM], 1);
        forward_linear(f, b->u, c->intermediate_size, b->a, d, &w[TENSOR_UP], 1, false);
        f->ops->relu2(b->u, b->u, c->intermediate_size);
        forward_linear(f, b->x, d, b->u, c->intermediate_size, &w[TENSOR_DOWN], 1, true);
    }
}
