#include "infer/model/decode.h"

#include <math.h>
#include <string.h>

#define SPARSE_ROWS 4      /* with more, some row wants nearly every neuron, and products of many rows are not bound by what is read */
#define ABSORB_ROWS 5      /* from which on converting a head's weights once pays; drafts of up to four rows stay bit for bit as alone */
#define ABSORB_GRAIN 65536 /* multiply-adds that are worth handing to another thread */

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

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
    b->cos = arena_alloc(arena, n * (size_t)c->qk_rope_head_dim / 2, f);
    b->sin = arena_alloc(arena, n * (size_t)c->qk_rope_head_dim / 2, f);
    b->items = arena_alloc(arena, n, sizeof *b->items);
    b->w_uk = batch >= ABSORB_ROWS ? arena_alloc(arena, (size_t)threads * (size_t)c->qk_nope_head_dim, (size_t)c->kv_lora_rank * f) : NULL;
    b->gemm_scratch = arena_alloc(arena, (size_t)threads, round64(ops->gemm_scratch_bytes()));
    b->sparse_scratch = arena_alloc(arena, sparse_rows_scratch(batch < SPARSE_ROWS ? batch : SPARSE_ROWS, c->intermediate_size), 1);
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
    int64_t n;
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

/* The same for heads [begin, end) of a whole batch: W_UK,h is converted once and multiplied with all rows. */
static void absorb_heads(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct absorb_job *j = ctx;
    const struct model_config *c = j->f->config;
    const int64_t heads = c->num_attention_heads, rank = c->kv_lora_rank, latent = model_latent_dim(c), qk = model_qk_head_dim(c);
    float *w_uk = j->b->w_uk + (int64_t)worker * c->qk_nope_head_dim * rank; /* (nope, rank) */
    for (int64_t h = begin; h < end; h++) {
        for (int k = 0; k < c->qk_nope_head_dim; k++)
            j->f->ops->to_f32(w_uk + k * rank, weight_row(j->kv_b, h * (c->qk_nope_head_dim + c->v_head_dim) + k), j->kv_b->type, rank);
        const struct gemm g = {.m = j->n, .n = rank, .k = c->qk_nope_head_dim, .alpha = 1, .a = j->b->q + h * qk, .lda = heads * qk, .b = w_uk, .ldb = rank,
                               .b_type = DTYPE_F32, .c = j->b->q_latent + h * latent, .ldc = heads * latent};
        j->f->ops->gemm_serial(&g, j->b->gemm_scratch + (size_t)worker * round64(j->f->ops->gemm_scratch_bytes()));
        for (int64_t r = 0; r < j->n; r++)
            memcpy(j->b->q_latent + (r * heads + h) * latent + rank, j->b->q + (r * heads + h) * qk + c->qk_nope_head_dim,
                   (size_t)c->qk_rope_head_dim * sizeof *w_uk);
    }
}

/* o_h = W_UV,h z_h for the whole batch, for heads [begin, end). */
static void expand_values(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct absorb_job *j = ctx;
    const struct model_config *c = j->f->config;
    const struct weight *w = j->kv_b;
    const int64_t heads = c->num_attention_heads, per_head = c->qk_nope_head_dim + c->v_head_dim;
    for (int64_t h = begin; h < end; h++) {
        const struct gemm g = {.m = j->n, .n = c->v_head_dim, .k = w->cols, .trans_b = true, .alpha = 1, .a = j->b->z + h * c->kv_lora_rank,
            .lda = heads * c->kv_lora_rank, .b = weight_row(w, h * per_head + c->qk_nope_head_dim), .ldb = w->cols, .b_type = w->type,
            .precision = j->f->precision, .c = j->b->attn + h * c->v_head_dim, .ldc = heads * c->v_head_dim};
        j->f->ops->gemm_serial(&g, j->b->gemm_scratch + (size_t)worker * round64(j->f->ops->gemm_scratch_bytes()));
    }
}

/* Angles of a position, from the table or computed as it was: generation within a cache budget goes on beyond the table. */
static void angles(const struct forward_pass *f, int32_t position, float *cos_row, float *sin_row)
{
    const struct rope_table *t = f->rope;
    for (int i = 0; i < t->half; i++) {
        const struct model_config *c = f->config;
        const bool there = position < t->positions;
        const double angle = there ? 0 : position * rope_frequency(c->rope_theta, c->qk_rope_head_dim, &c->rope_scaling, i);
        const double magnitude = rope_magnitude(&c->rope_scaling);
        cos_row[i] = there ? t->cos[(int64_t)position * t->half + i] : (float)(magnitude * cos(angle));
        sin_row[i] = there ? t->sin[(int64_t)position * t->half + i] : (float)(magnitude * sin(angle));
    }
}

/* Rotate queries and new keys, append the new slots, attend. */
static void attend(const struct forward_pass *f, const struct decode_buffers *b, const struct weight *w, const struct decode_row *rows, int64_t n, int layer)
{
    const struct model_config *c = f->config;
    const int64_t heads = c->num_attention_heads, rank = c->kv_lora_rank, latent = model_latent_dim(c), qk = model_qk_head_dim(c);
    for (int64_t r = 0; r < n; r++) {
        float *new_slot = b->kv_a + r * latent;
        const int half = f->rope->half;
        for (int64_t h = 0; h < heads; h++)
            f->ops->rope(b->q + (r * heads + h) * qk + c->qk_nope_head_dim, b->cos + r * half, b->sin + r * half, 2 * half);
        f->ops->rope(new_slot + rank, b->cos + r * half, b->sin + r * half, 2 * half);
        kv_append(&rows[r].slots[layer], rows[r].position, new_slot, new_slot + rank, NULL);
        b->items[r].n = rows[r].slots[layer].length; /* a row does not see those of its sequence behind it */
    }
    struct absorb_job j = {f, b, &w[TENSOR_KV_B], n};
    const int64_t per_item = (int64_t)c->qk_nope_head_dim * rank, grain = ABSORB_GRAIN / per_item;
    if (n >= ABSORB_ROWS)
        pool_for(f->pool, heads, 1, absorb_heads, &j);
    else
        pool_for(f->pool, n * heads, grain > 0 ? grain : 1, absorb_queries, &j);
    const float scale = attention_scale(&(struct attention){.nope = c->qk_nope_head_dim, .rope = c->qk_rope_head_dim,
                                                                  .logit_factor = c->rope_scaling.logit_factor});
    for (int64_t r = 0; r < n; r++) {
        const struct kv_slots *s = &rows[r].slots[layer];
        b->items[r] = (struct latent_attention){.n_head = (int)heads, .rank = (int)rank, .rope = c->qk_rope_head_dim, .q = b->q_latent + r * heads * latent,
            .rows = s->rows, .row_bytes = s->row_bytes, .type = s->shape.type, .n = b->items[r].n, .scale = scale,
            .bias = rows[r].policy->policy == POLICY_D2O_COUNT ? s->bias : NULL, .weight = s->score,
            .z = b->z + r * heads * rank};
    }
    f->ops->latent_attention(b->items, (int)n, f->pool, b->attention_scratch);
    for (int64_t r = 0; r < n; r++)
        if (policy_due(rows[r].policy, &rows[r].slots[layer], rows[r].budgets[layer]))
            policy_compress(rows[r].policy, &rows[r].slots[layer], rows[r].budgets[layer], f->ops, f->pool, b->policy_scratch, NULL);
    pool_for(per_item * heads * n > ABSORB_GRAIN ? f->pool : NULL, heads, 2, expand_values, &j);
}

/* x += W_down max(u, 0)^2; for few rows of active neurons only, where the weights are stored neuron by neuron. */
static void multiply_down(const struct forward_pass *f, const struct decode_buffers *b, int layer, int64_t n)
{
    const struct model_config *c = f->config;
    const struct weight *w = &f->weights->layers[layer].at[TENSOR_DOWN];
    const void *neurons = f->neurons && n <= SPARSE_ROWS ? f->neurons[layer] : NULL;
    if (!neurons) {
        forward_relu2(f, layer, b->u, b->u, n);
        forward_down(f, b->x, b->u, w, n);
        return;
    }
    f->ops->relu2(b->u, b->u, n * c->intermediate_size);
    const struct sparse_rows s = {.m = n, .n_rows = w->cols, .n = w->rows, .x = b->u, .ldx = w->cols, .rows = neurons, .type = w->type, .y = b->x,
                                  .ldy = w->rows, .accumulate = true, .scratch = b->sparse_scratch};
    const int64_t active = f->ops->sparse_rows(&s, f->pool);
    if (f->active)
        f->active[layer] += active;
}

void decode_batch(const struct forward_pass *f, const struct decode_buffers *b, const struct decode_row *rows, int64_t n)
{
    const struct model_config *c = f->config;
    const int64_t d = c->hidden_size, ff = c->intermediate_size, heads = c->num_attention_heads;
    for (int64_t r = 0; r < n; r++) {
        forward_embed(f, &rows[r].token, 1, b->x + r * d);
        angles(f, rows[r].position, b->cos + r * f->rope->half, b->sin + r * f->rope->half);
    }
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
        multiply_down(f, b, layer, n);
    }
}
