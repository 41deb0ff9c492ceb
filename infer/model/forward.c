#include "infer/model/forward.h"

#include <math.h>
#include <string.h>

#define ROWS_GRAIN 16 /* rows per work item of the cheap row-wise loops */

void rope_table_layout(struct rope_table *r, const struct model_config *c, int64_t positions, struct arena *arena)
{
    r->positions = positions;
    r->half = c->qk_rope_head_dim / 2;
    r->cos = arena_alloc(arena, (size_t)positions * (size_t)r->half, sizeof *r->cos);
    r->sin = arena_alloc(arena, (size_t)positions * (size_t)r->half, sizeof *r->sin);
    r->minus_sin = arena_alloc(arena, (size_t)positions * (size_t)r->half, sizeof *r->minus_sin);
}

void rope_table_fill(struct rope_table *r, const struct model_config *c)
{
    for (int i = 0; i < r->half; i++) {
        const double frequency = rope_frequency(c->rope_theta, c->qk_rope_head_dim, &c->rope_scaling, i), magnitude = rope_magnitude(&c->rope_scaling);
        for (int64_t p = 0; p < r->positions; p++) {
            r->cos[p * r->half + i] = (float)(magnitude * cos((double)p * frequency));
            r->sin[p * r->half + i] = (float)(magnitude * sin((double)p * frequency));
            r->minus_sin[p * r->half + i] = -r->sin[p * r->half + i];
        }
    }
}

void layer_activations_layout(struct layer_activations *l, const struct model_config *c, int64_t rows, struct arena *arena)
{
    const size_t r = (size_t)rows, d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads;
    const size_t latent = (size_t)model_latent_dim(c), f = sizeof(float);
    l->x = arena_alloc(arena, r * d, f);
    l->attn_rstd = arena_alloc(arena, r, f);
    l->a = arena_alloc(arena, r * d, f);
    l->q = arena_alloc(arena, r * heads * (size_t)model_qk_head_dim(c), f);
    l->kv_a = arena_alloc(arena, r * latent, f);
    l->kv_rstd = arena_alloc(arena, r, f);
    l->latent = arena_alloc(arena, r * latent, f);
    l->kv = arena_alloc(arena, r * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim), f);
    l->attn = arena_alloc(arena, r * heads * (size_t)c->v_head_dim, f);
    l->lse = arena_alloc(arena, r * heads, f);
    l->mid = arena_alloc(arena, r * d, f);
    l->ffn_rstd = arena_alloc(arena, r, f);
    l->b = arena_alloc(arena, r * d, f);
    l->u = arena_alloc(arena, r * (size_t)c->intermediate_size, f);
}

struct embed_job {
    const struct forward_pass *f;
    const int32_t *tokens;
    float *x;
};

static void embed_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct embed_job *j = ctx;
    const struct weight *w = &j->f->weights->embed;
    const size_t row_bytes = dtype_row_bytes(w->type, w->cols);
    for (int64_t i = begin; i < end; i++)
        j->f->ops->to_f32(j->x + i * w->cols, (const char *)w->data + (size_t)j->tokens[i] * row_bytes, w->type, w->cols);
}

void forward_embed(const struct forward_pass *f, const int32_t *tokens, int64_t n, float *x)
{
    struct embed_job j = {f, tokens, x};
    pool_for(f->pool, n, ROWS_GRAIN, embed_rows, &j);
}

struct norm_job {
    const struct forward_pass *f;
    float *y, *rstd;
    const float *x, *weight;
    int64_t ldy, ldx, n;
};

static void norm_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct norm_job *j = ctx;
    j->f->ops->rms_norm(j->y + begin * j->ldy, j->ldy, j->rstd ? j->rstd + begin : NULL, j->x + begin * j->ldx, j->ldx,
                        j->weight, end - begin, j->n, j->f->config->rms_norm_eps);
}

void forward_rms_norm(const struct forward_pass *f, float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx,
                      const struct weight *w, int64_t rows)
{
    struct norm_job j = {f, y, rstd, x, weight_f32(w), ldy, ldx, w->cols};
    pool_for(f->pool, rows, ROWS_GRAIN, norm_rows, &j);
}

static void linear(const struct forward_pass *f, float *y, int64_t ldy, const float *x, int64_t ldx, const struct weight *w, int64_t rows,
                   bool accumulate, enum precision precision)
{
    const struct gemm g = {.m = rows, .n = w->rows, .k = w->cols, .trans_b = true, .accumulate = accumulate, .alpha = 1, .a = x,
                           .lda = ldx, .b = w->data, .ldb = w->cols, .b_type = w->type, .b_panels = w->panels, .precision = precision,
                           .c = y, .ldc = ldy};
    f->ops->gemm(&g, f->pool);
}

void forward_linear(const struct forward_pass *f, float *y, int64_t ldy, const float *x, int64_t ldx, const struct weight *w,
                    int64_t rows, bool accumulate)
{
    linear(f, y, ldy, x, ldx, w, rows, accumulate, f->precision);
}

void forward_down(const struct forward_pass *f, float *out, const float *m, const struct weight *w, int64_t rows)
{
    linear(f, out, w->rows, m, w->cols, w, rows, true, dtype_is_quantized(w->type) ? f->squares : f->precision);
}

struct rope_job {
    const struct forward_pass *f;
    float *x;
    int64_t ld, head_stride;
    int n_head;
    bool back;
};

static void rope_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct rope_job *j = ctx;
    const struct rope_table *t = j->f->rope;
    for (int64_t r = begin; r < end; r++) {
        int64_t position = r % j->f->q_len + j->f->past - (j->f->doc_start ? j->f->doc_start[r] : 0);
        const float *cos_row = t->cos + position * t->half, *sin_row = (j->back ? t->minus_sin : t->sin) + position * t->half;
        for (int h = 0; h < j->n_head; h++)
            j->f->ops->rope(j->x + r * j->ld + h * j->head_stride, cos_row, sin_row, 2 * t->half);
    }
}

void forward_rope(const struct forward_pass *f, float *x, int64_t ld, int n_head, int64_t head_stride, bool back)
{
    struct rope_job j = {f, x, ld, head_stride, n_head, back};
    pool_for(f->pool, f->n_seq * f->q_len, ROWS_GRAIN, rope_rows, &j);
}

struct copy_job {
    float *to;
    const float *from;
    int64_t ld_to, ld_from, n;
};

static void copy_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct copy_job *j = ctx;
    for (int64_t r = begin; r < end; r++)
        memcpy(j->to + r * j->ld_to, j->from + r * j->ld_from, (size_t)j->n * sizeof *j->to);
}

struct relu2_job {
    const struct ops *ops;
    float *m;
    const float *u;
    int64_t *active;
};

static void relu2_range(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct relu2_job *j = ctx;
    j->ops->relu2(j->m + begin, j->u + begin, end - begin);
    if (!j->active)
        return;
    int64_t active = 0;
    for (int64_t i = begin; i < end; i++)
        active += j->m[i] != 0;
    __atomic_fetch_add(j->active, active, __ATOMIC_RELAXED);
}

void forward_relu2(const struct forward_pass *f, int layer, float *m, const float *u, int64_t rows)
{
    struct relu2_job j = {f->ops, m, u, f->active ? &f->active[layer] : NULL};
    pool_for(f->pool, rows * f->config->intermediate_size, 16384, relu2_range, &j);
}

static void copy(const struct forward_pass *f, float *to, int64_t ld_to, const float *from, int64_t ld_from, int64_t rows, int64_t n)
{
    if (to == from) /* an inference session keeps one residual stream in place */
        return;
    struct copy_job j = {to, from, ld_to, ld_from, n};
    pool_for(f->pool, rows, ROWS_GRAIN, copy_rows, &j);
}

struct attention forward_attention(const struct forward_pass *f, const struct layer_activations *act, const float *keys)
{
    const struct model_config *c = f->config;
    const int64_t heads = c->num_attention_heads;
    return (struct attention){.n_seq = f->n_seq, .q_len = f->q_len, .past = f->past, .n_head = c->num_attention_heads, .nope = c->qk_nope_head_dim,
        .logit_factor = c->rope_scaling.logit_factor,
        .rope = c->qk_rope_head_dim, .v = c->v_head_dim, .first_key = f->doc_start, .q = act->q, .ldq = heads * model_qk_head_dim(c), .kv = act->kv,
        .ldkv = heads * (c->qk_nope_head_dim + c->v_head_dim), .k_pe = keys + c->kv_lora_rank, .ld_pe = model_latent_dim(c), .out = act->attn, .lse = act->lse};
}

void forward_project(const struct forward_pass *f, int layer, const struct layer_activations *act)
{
    const struct model_config *c = f->config;
    const struct weight *w = f->weights->layers[layer].at;
    const int64_t rows = f->n_seq * f->q_len, d = c->hidden_size, rank = c->kv_lora_rank, ld_latent = model_latent_dim(c);
    const int64_t ldq = (int64_t)c->num_attention_heads * model_qk_head_dim(c);
    forward_rms_norm(f, act->a, d, act->attn_rstd, act->x, d, &w[TENSOR_ATTN_NORM], rows);
    forward_linear(f, act->q, ldq, act->a, d, &w[TENSOR_Q], rows, false);
    forward_linear(f, act->kv_a, ld_latent, act->a, d, &w[TENSOR_KV_A], rows, false);
    forward_rope(f, act->q + c->qk_nope_head_dim, ldq, c->num_attention_heads, model_qk_head_dim(c), false);
    forward_rms_norm(f, act->latent, ld_latent, act->kv_rstd, act->kv_a, ld_latent, &w[TENSOR_KV_A_NORM], rows);
    copy(f, act->latent + rank, ld_latent, act->kv_a + rank, ld_latent, rows, c->qk_rope_head_dim);
    forward_rope(f, act->latent + rank, ld_latent, 1, 0, false);
}

void forward_expand(const struct forward_pass *f, int layer, const float *latents, int64_t rows, float *kv)
{
    const struct weight *w = &f->weights->layers[layer].at[TENSOR_KV_B];
    forward_linear(f, kv, w->rows, latents, model_latent_dim(f->config), w, rows, false);
}

void forward_output(const struct forward_pass *f, int layer, const struct layer_activations *act, float *out)
{
    const struct model_config *c = f->config;
    const struct weight *w = f->weights->layers[layer].at;
    const int64_t rows = f->n_seq * f->q_len, d = c->hidden_size, ff = c->intermediate_size;
    copy(f, act->mid, d, act->x, d, rows, d);
    forward_linear(f, act->mid, d, act->attn, (int64_t)c->num_attention_heads * c->v_head_dim, &w[TENSOR_O], rows, true);
    forward_rms_norm(f, act->b, d, act->ffn_rstd, act->mid, d, &w[TENSOR_FFN_NORM], rows);
    copy(f, out, d, act->mid, d, rows, d);
    /* In chunks of rows, so that a chunk's activations are still in the cache when they are squared and multiplied on. */
    for (int64_t r = 0; r < rows; r += FORWARD_MLP_ROWS) {
        const int64_t n = rows - r < FORWARD_MLP_ROWS ? rows - r : FORWARD_MLP_ROWS, at = act->u == act->m ? 0 : r * ff;
        forward_linear(f, act->u + at, ff, act->b + r * d, d, &w[TENSOR_UP], n, false);
        forward_relu2(f, layer, act->m + at, act->u + at, n);
        forward_down(f, out + r * d, act->m + at, &w[TENSOR_DOWN], n);
    }
}

void forward_layer(const struct forward_pass *f, int layer, const struct layer_activations *act, const float *keys, float *out)
{
    forward_project(f, layer, act);
    forward_expand(f, layer, keys, f->n_seq * (f->past + f->q_len), act->kv);
    const struct attention a = forward_attention(f, act, keys);
    attention_forward(&a, f->ops, f->pool, f->attention_scratch, f->max_keys);
    forward_output(f, layer, act, out);
}
