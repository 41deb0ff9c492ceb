#include "infer/model/decode.h"

#include <string.h>

#define ABSORB_GRAIN 65536 /* multiply-adds that are worth handing to another thread */

void decode_buffers_layout(struct decode_buffers *b, const struct model_config *c, const struct ops *ops, int64_t batch, int64_t capacity,
                           int threads, struct arena *arena)
{
    const size_t n = (size_t)batch, d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads, f = sizeof(float);
    b->x = arena_alloc(arena, n * d, f);
    b->a = arena_alloc(arena, n * d, f);
    b->q = arena_alloc(arena, n * heads * (size_t)model_qk_head_dim(c), f);
    b->kv_a = arena_alloc(arena, n * (size_t)model_latent_dim(c), f);
    b->q_latent = arena_alloc(arena, n * heads * (size_t)model_latent_dim(c), f);
    b->z = arena_alloc(arena, n * heads * (size_t)c->kv_lora_rank, f);
    b->attn = arena_alloc(arena, n * heads * (size_t)c->v_head_dim, f);
    b->u = arena_alloc(arena, n * (size_t)c->intermediate_size, f);
    b->items = arena_alloc(arena, n, sizeof *b->items);
    b->attention_scratch = arena_alloc(arena, ops->latent_attention_scratch_bytes(c->num_attention_heads, c->kv_lora_rank, c->qk_rope_head_dim,
                                       batch * capacity, (int)batch, threads), 1);
}

static const void *weight_row(const struct weight *w, int64_t row)
{
    return (const char *)w->data + (size_t)row * dtype_row_bytes(w->type, w->cols);
}

struct absorb_job {
    const struct forward_pass *f;
    const struct decode_buffers *b;
    const struct weight *kv_b;
};

/* q~_h = W_UK,h^T q_nope_h: W_UK,h is rows h*(nope+v) .. +nope of kv_b, so this adds up weighted rows. Work item: (row, head). */
static void absorb_queries(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct absorb_job *j = ctx;
    const struct model_config *c = j->f->config;
    for (int64_t i = begin; i < end; i++) {
        const int64_t h = i % c->num_attention_heads;
        const float *q = j->b->q + i * model_qk_head_dim(c);
        float *out = j->b->q_latent + i * model_latent_dim(c);
        memset(out, 0, (size_t)c->kv_lora_rank * sizeof *out);
        for (int k = 0; k < c->qk_nope_head_dim; k++)
            j->f->ops->axpy(out, q[k], weight_row(j->kv_b, h * (c->qk_nope_head_dim + c->v_head_dim) + k), j->kv_b->type, c->kv_lora_rank);
        memcpy(out + c->kv_lora_rank, q + c->qk_nope_head_dim, (size_t)c->qk_rope_head_dim * sizeof *out);
    }
}

/* o_h = W_UV,h z_h for the whole batch, head by head. */
static void expand_values(const struct forward_pass *f, const struct decode_buffers *b, const struct weight *kv_b, int64_t n)
{
    const struct model_config *c = f->config;
    const int64_t heads = c->num_attention_heads;
    for (int64_t h = 0; h < heads; h++) {
        const struct weight w_uv = {weight_row(kv_b, h * (c->qk_nope_head_dim + c->v_head_dim) + c->qk_nope_head_dim), kv_b->type, c->v_head_dim, kv_b->cols};
        forward_linear(f, b->attn + h * c->v_head_dim, heads * c->v_head_dim, b->z + h * c->kv_lora_rank, heads * c->kv_lora_rank, &w_uv, n, false);
    }
}

static void rotate(const struct forward_pass *f, float *x, int32_t position, int n_head, int64_t head_stride)
{
    const struct rope_table *t = f->rope;
    for (int h = 0; h < n_head; h++)
        f->ops->rope(x + h * head_stride, t->cos + (int64_t)position * t->half, t->sin + (int64_t)position * t->half, 2 * t->half);
}

/* Rotate queries and new keys, append the new slots, attend. */
static void attend(const struct forward_pass *f, const struct decode_buffers *b, const struct weight *w, const struct decode_row *rows, int64_t n, int layer)
{
    const struct model_config *c = f->config;
    const int64_t heads = c->num_attention_heads, rank = c->kv_lora_rank, latent = model_latent_dim(c), qk = model_qk_head_dim(c);
    for (int64_t r = 0; r < n; r++) {
        float *new_slot = b->kv_a + r * latent;
        rotate(f, b->q + r * heads * qk + c->qk_nope_head_dim, rows[r].position, (int)heads, qk);
        rotate(f, new_slot + rank, rows[r].position, 1, 0);
        kv_append(&rows[r].slots[layer], rows[r].position, new_slot, new_slot + rank, NULL);
    }
    struct absorb_job j = {f, b, &w[TENSOR_KV_B]};
    const int64_t per_item = (int64_t)c->qk_nope_head_dim * rank, grain = ABSORB_GRAIN / per_item;
    pool_for(f->pool, n * heads, grain > 0 ? grain : 1, absorb_queries, &j);
    const float scale = attention_scale(&(struct attention){.nope = c->qk_nope_head_dim, .rope = c->qk_rope_head_dim});
    for (int64_t r = 0; r < n; r++) {
        const struct kv_slots *s = &rows[r].slots[layer];
        b->items[r] = (struct latent_attention){.n_head = (int)heads, .rank = (int)rank, .rope = c->qk_rope_head_dim, .q = b->q_latent + r * heads * latent,
            .rows = s->rows, .row_bytes = s->row_bytes, .type = s->shape.type, .n = s->length, .scale = scale,
            .bias = rows[r].policy->policy == POLICY_D2O_COUNT ? s->bias : NULL, .weight = s->score,
            .z = b->z + r * heads * rank};
    }
    f->ops->latent_attention(b->items, (int)n, f->pool, b->attention_scratch);
    for (int64_t r = 0; r < n; r++)
        if (policy_due(rows[r].policy, &rows[r].slots[layer], rows[r].budgets[layer]))
            policy_compress(rows[r].policy, &rows[r].slots[layer], rows[r].budgets[layer], f->ops, f->pool, b->policy_scratch, NULL);
    expand_values(f, b, &w[TENSOR_KV_B], n);
}

void decode_batch(const struct forward_pass *f, const struct decode_buffers *b, const struct decode_row *rows, int64_t n)
{
    const struct model_config *c = f->config;
    const int64_t d = c->hidden_size, ff = c->intermediate_size, heads = c->num_attention_heads;
    for (int64_t r = 0; r < n; r++)
        forward_embed(f, &rows[r].token, 1, b->x + r * d);
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
        const struct weight *w = f->weights->layers[layer].at;
        forward_rms_norm(f, b->a, d, NULL, b->x, d, &w[TENSOR_ATTN_NORM], n);
        forward_linear(f, b->q, heads * model_qk_head_dim(c), b->a, d, &w[TENSOR_Q], n, false);
        forward_linear(f, b->kv_a, model_latent_dim(c), b->a, d, &w[TENSOR_KV_A], n, false);
        forward_rms_norm(f, b->kv_a, model_latent_dim(c), NULL, b->kv_a, model_latent_dim(c), &w[TENSOR_KV_A_NORM], n);
        attend(f, b, w, rows, n, layer);
        forward_linear(f, b->x, d, b->attn, heads * c->v_head_dim, &w[TENSOR_O], n, true);
        forward_rms_norm(f, b->a, d, NULL, b->x, d, &w[TENSOR_FFN_NORM], n);
        forward_linear(f, b->u, ff, b->a, d, &w[TENSOR_UP], n, false);
        f->ops->relu2(b->u, b->u, n * ff);
        forward_linear(f, b->x, d, b->u, ff, &w[TENSOR_DOWN], n, true);
    }
}
