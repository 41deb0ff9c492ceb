#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "train/neftune.h"

#define LOGIT_ELEMENTS ((int64_t)4 << 20) /* of a head chunk: 16 MiB of logits stay in the last-level cache */
#define MIN_LOGIT_ROWS 32
#define MAX_LOGIT_ROWS 512

static int64_t logit_rows_for(const struct model_config *c, int64_t rows)
{
    int64_t n = LOGIT_ELEMENTS / c->vocab_size;
    n = n < MIN_LOGIT_ROWS ? MIN_LOGIT_ROWS : n > MAX_LOGIT_ROWS ? MAX_LOGIT_ROWS : n;
    return n < rows ? n : rows;
}

static void activations_layout(struct step *s, int threads)
{
    const struct model_config *c = &s->config;
    struct arena *arena = &s->activation_arena;
    const int64_t rows = (int64_t)s->max_rows * s->max_len;
    const size_t r = (size_t)rows, d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads, f = sizeof(float);
    const size_t latent = (size_t)model_latent_dim(c), ff = (size_t)c->intermediate_size;
    rope_table_layout(&s->rope, c, s->max_len, arena);
    s->shared_m = arena_alloc(arena, r * ff, f);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        layer_activations_layout(&s->layers[i], c, rows, arena);
        s->layers[i].m = s->shared_m;
    }
    s->final_x = arena_alloc(arena, r * d, f);
    s->final_rstd = arena_alloc(arena, r, f);
    s->final_h = arena_alloc(arena, r * d, f);
    s->logit_rows = logit_rows_for(c, rows);
    s->logits = arena_alloc(arena, (size_t)s->logit_rows * (size_t)c->vocab_size, f);
    s->head_h = arena_alloc(arena, (size_t)s->logit_rows * d, f);
    s->d_head_h = arena_alloc(arena, (size_t)s->logit_rows * d, f);
    s->head_rows = arena_alloc(arena, r, sizeof *s->head_rows);
    s->attention_scratch = arena_alloc(arena, attention_backward_scratch_bytes(s->ops, s->max_len, threads), 1);
    s->d_residual = arena_alloc(arena, r * d, f);
    s->d_normed = arena_alloc(arena, r * d, f);
    s->d_attn = arena_alloc(arena, r * heads * (size_t)c->v_head_dim, f);
    s->d_q = arena_alloc(arena, r * heads * (size_t)model_qk_head_dim(c), f);
    s->d_kv = arena_alloc(arena, r * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim), f);
    s->d_k_pe = arena_alloc(arena, r * heads * (size_t)c->qk_rope_head_dim, f);
    s->d_latent = arena_alloc(arena, r * latent, f);
    s->d_kv_a = arena_alloc(arena, r * latent, f);
    s->d_ff = arena_alloc(arena, r * ff, f);
}

static void initialise_weights(struct step *s, uint64_t seed)
{
    for (int i = 0; i < s->table.n_tensors; i++) {
        const struct tensor_desc *t = &s->table.tensors[i];
        float *w = s->weights + t->offset;
        for (int64_t e = 0; e < tensor_elements(t); e++)
            w[e] = t->init == INIT_ONES ? 1.0f
                                        : (float)(s->config.initializer_range * random_normal(seed, RANDOM_INIT, (uint32_t)i, (uint64_t)e));
    }
}

/* Everything up to the allocations: what step_measure needs. */
static int step_prepare(struct step *s, const struct model_config *config, int max_rows, int max_len, int world_size,
                        const struct ops *ops, int threads, struct plm_status *st)
{
    *s = (struct step){.config = *config, .ops = ops, .train_ops = train_ops_select(ops), .max_rows = max_rows, .max_len = max_len};
    if (max_rows < 1 || max_len < 1 || max_len > config->max_position_embeddings)
        return status_set(st, PLM_EINVAL, "micro-batch of %d rows of %d tokens: expected at least 1 row of 1 to %d tokens "
                          "(max_position_embeddings)", max_rows, max_len, config->max_position_embeddings);
    int code = tensor_table_build(&s->table, config, world_size, st);
    if (!code)
        code = weights_create(&s->bound, config, st);
    if (!code)
        code = weights_create(&s->bound_grads, config, st);
    if (!code && !(s->layers = calloc((size_t)config->num_hidden_layers, sizeof *s->layers)))
        code = status_no_memory(st, (size_t)config->num_hidden_layers * sizeof *s->layers, "the layer list");
    if (code)
        return code;
    s->weights = arena_alloc(&s->weight_arena, (size_t)s->table.padded, sizeof(float));
    s->grads = arena_alloc(&s->grad_arena, (size_t)s->table.padded, sizeof(float));
    activations_layout(s, threads);
    return PLM_OK;
}

int step_create(struct step *s, const struct model_config *config, int max_rows, int max_len, int world_size, uint64_t seed,
                const struct ops *ops, struct thread_pool *pool, struct plm_status *st)
{
    int code = step_prepare(s, config, max_rows, max_len, world_size, ops, pool_size(pool), st);
    if (!code)
        code = arena_commit(&s->weight_arena, 0, "weights", st);
    if (!code)
        code = arena_commit(&s->grad_arena, 0, "gradients", st);
    if (!code)
        code = arena_commit(&s->activation_arena, 0, "activations (a smaller micro_batch or seq_len needs less)", st);
    if (code) {
        step_destroy(s);
        return code;
    }
    s->pool = pool;
    s->weights = arena_alloc(&s->weight_arena, (size_t)s->table.padded, sizeof(float));
    s->grads = arena_alloc(&s->grad_arena, (size_t)s->table.padded, sizeof(float));
    activations_layout(s, pool_size(pool));
    rope_table_fill(&s->rope, config);
    weights_bind_arena(&s->bound, &s->table, s->weights);
    weights_bind_arena(&s->bound_grads, &s->table, s->grads);
    initialise_weights(s, seed);
    return PLM_OK;
}

void step_destroy(struct step *s)
{
    tensor_table_free(&s->table);
    weights_free(&s->bound);
    weights_free(&s->bound_grads);
    free(s->layers);
    arena_free(&s->weight_arena);
    arena_free(&s->grad_arena);
    arena_free(&s->activation_arena);
    *s = (struct step){0};
}

int step_measure(struct step_memory *m, const struct model_config *config, int max_rows, int max_len, int world_size,
                 const struct ops *ops, int threads, struct plm_status *st)
{
    struct step s;
    int code = step_prepare(&s, config, max_rows, max_len, world_size, ops, threads, st);
    if (!code)
        *m = (struct step_memory){s.weight_arena.used, s.grad_arena.used, s.activation_arena.used};
    step_destroy(&s);
    return code;
}

void step_zero_gradients(struct step *s) { memset(s->grads, 0, (size_t)s->table.padded * sizeof *s->grads); }

int step_check_batch(const struct step *s, const struct batch *b, struct plm_status *st)
{
    if (b->rows < 1 || b->rows > s->max_rows || b->seq_len < 1 || b->seq_len > s->max_len)
        return status_set(st, PLM_EINVAL, "batch of %d rows of %d tokens, this step holds up to %d of %d", b->rows, b->seq_len,
                          s->max_rows, s->max_len);
    for (int64_t i = 0; i < (int64_t)b->rows * b->seq_len; i++) {
        const int row = (int)(i / b->seq_len), t = (int)(i % b->seq_len), vocab = s->config.vocab_size;
        if (b->tokens[i] < 0 || b->tokens[i] >= vocab || b->targets[i] < 0 || b->targets[i] >= vocab)
            return status_set(st, PLM_EINVAL, "row %d position %d: token %d with target %d, the vocabulary has ids 0 to %d", row, t,
                              (int)b->tokens[i], (int)b->targets[i], vocab - 1);
        if (b->doc_start[i] < 0 || b->doc_start[i] > t)
            return status_set(st, PLM_EINVAL, "row %d position %d: its document starts at %d, expected 0 to %d", row, t,
                              (int)b->doc_start[i], t);
    }
    return PLM_OK;
}

static struct forward_pass pass_for(const struct step *s, const struct batch *b)
{
    return (struct forward_pass){.config = &s->config, .weights = &s->bound, .ops = s->ops, .pool = s->pool, .rope = &s->rope,
        .n_seq = b->rows, .q_len = b->seq_len, .doc_start = b->doc_start, .attention_scratch = s->attention_scratch,
        .max_keys = s->max_len};
}

void step_forward(struct step *s, const struct batch *b)
{
    const struct forward_pass f = pass_for(s, b);
    const int64_t rows = (int64_t)b->rows * b->seq_len, d = s->config.hidden_size;
    const int n_layer = s->config.num_hidden_layers;
    forward_embed(&f, b->tokens, rows, s->layers[0].x);
    if (s->noise.alpha > 0)
        neftune_add(s->layers[0].x, b, s->config.hidden_size, s->noise.alpha, s->noise.seed, s->noise.step, s->noise.first_row);
    for (int i = 0; i < n_layer; i++)
        forward_layer(&f, i, &s->layers[i], s->layers[i].latent, i + 1 < n_layer ? s->layers[i + 1].x : s->final_x);
    forward_rms_norm(&f, s->final_h, d, s->final_rstd, s->final_x, d, &s->bound.final_norm, rows);
}

/* ---- head: softmax cross-entropy over chunks of the rows that predict something ---- */

/* Rows of the batch with a weight, in order, into s->head_rows: prompts and padding never meet the vocabulary. */
static int64_t choose_rows(struct step *s, const float *weight, int64_t rows)
{
    int64_t n = 0;
    for (int64_t r = 0; r < rows; r++)
        if (!weight || weight[r] != 0)
            s->head_rows[n++] = r;
    return n;
}

/* Rows [at, at + n) of those chosen lie side by side in final_h. */
static bool contiguous(const struct step *s, int64_t at, int64_t n) { return s->head_rows[at + n - 1] - s->head_rows[at] == n - 1; }

struct loss_job {
    const struct step *s;
    float *logits;          /* (rows of the chunk, V) */
    const int64_t *rows;    /* of the batch */
    const int32_t *targets; /* and what follows: by row of the batch */
    const float *coef;      /* NULL: losses only */
    float *nll;
    uint8_t *correct;       /* NULL: not wanted */
};

static void loss_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct loss_job *j = ctx;
    const struct ops *ops = j->s->ops;
    const int64_t vocab = j->s->config.vocab_size;
    for (int64_t i = begin; i < end; i++) {
        float *z = j->logits + i * vocab;
        const int64_t r = j->rows[i];
        const float target = z[j->targets[r]], max = ops->max(z, vocab);
        if (j->correct)
            j->correct[r] = target == max;
        if (!j->coef) {
            float sum = 0; /* the logits themselves must survive: exponentials go to a small buffer, block by block */
            float block[1024];
            for (int64_t k = 0; k < vocab; k += 1024)
                sum += ops->exp_sum(block, z + k, vocab - k < 1024 ? vocab - k : 1024, 1, max);
            j->nll[r] = logf(sum) + (max - target);
        } else {
            const float sum = ops->exp_sum(z, z, vocab, 1, max);
            j->nll[r] = logf(sum) + (max - target);
            ops->scale(z, j->coef[r] / sum, vocab); /* d nll / d logits = softmax - onehot(target) */
            z[j->targets[r]] -= j->coef[r];
        }
    }
}

/* Logits of the chosen rows [at, at + n) into `logits`, and what the job makes of them. Returns the rows of final_h, side by side. */
static const float *head_chunk(struct step *s, const struct batch *b, int64_t at, int64_t n, struct loss_job job)
{
    const struct forward_pass f = pass_for(s, b);
    const int64_t d = s->config.hidden_size;
    const float *h = s->final_h + s->head_rows[at] * d;
    if (!contiguous(s, at, n)) {
        for (int64_t i = 0; i < n; i++)
            memcpy(s->head_h + i * d, s->final_h + s->head_rows[at + i] * d, (size_t)d * sizeof *s->head_h);
        h = s->head_h;
    }
    forward_linear(&f, job.logits, s->config.vocab_size, h, d, &s->bound.embed, n, false);
    job.s = s;
    job.rows = s->head_rows + at;
    job.targets = b->targets;
    pool_for(s->pool, n, 8, loss_rows, &job);
    return h;
}

static int64_t chunk_rows(const struct step *s, int64_t left) { return left < s->logit_rows ? left : s->logit_rows; }

void step_nll(struct step *s, const struct batch *b, float *nll, uint8_t *correct)
{
    const int64_t rows = (int64_t)b->rows * b->seq_len, n = choose_rows(s, b->weight, rows);
    for (int64_t r = 0; r < rows; r++)
        nll[r] = 0;
    for (int64_t r = 0; correct && r < rows; r++)
        correct[r] = 0;
    for (int64_t at = 0; at < n; at += s->logit_rows)
        head_chunk(s, b, at, chunk_rows(s, n - at), (struct loss_job){.logits = s->logits, .nll = nll, .correct = correct});
}

void step_logits(struct step *s, const struct batch *b, float *nll, float *logits)
{
    const int64_t rows = choose_rows(s, NULL, (int64_t)b->rows * b->seq_len);
    for (int64_t at = 0; at < rows; at += s->logit_rows)
        head_chunk(s, b, at, chunk_rows(s, rows - at), (struct loss_job){.logits = logits + at * s->config.vocab_size, .nll = nll});
}

/* ---- backward ---- */

/* dx (rows, w cols) [+]= dy (rows, w rows) w;  dw += dy^T x */
static void linear_backward(const struct step *s, const struct weight *w, const struct weight *dw, float *dx, int64_t lddx,
                            bool accumulate, const float *dy, int64_t lddy, const float *x, int64_t ldx, int64_t rows)
{
    s->ops->gemm(&(struct gemm){.m = rows, .n = w->cols, .k = w->rows, .accumulate = accumulate, .alpha = 1, .a = dy, .lda = lddy,
                                .b = w->data, .ldb = w->cols, .c = dx, .ldc = lddx}, s->pool);
    s->ops->gemm(&(struct gemm){.m = w->rows, .n = w->cols, .k = rows, .trans_a = true, .accumulate = true, .alpha = 1, .a = dy,
                                .lda = lddy, .b = x, .ldb = ldx, .c = (float *)dw->data, .ldc = w->cols}, s->pool);
}

struct norm_backward_job {
    const struct train_ops *ops;
    const float *dy, *x, *weight, *rstd;
    float *dx, *dw;
    int64_t lddy, ldx, lddx, rows, n;
    bool accumulate;
};

static void norm_dx_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct norm_backward_job *j = ctx;
    j->ops->rms_norm_dx(j->dx + begin * j->lddx, j->lddx, j->accumulate, j->dy + begin * j->lddy, j->lddy, j->x + begin * j->ldx, j->ldx,
                        j->weight, j->rstd + begin, end - begin, j->n);
}

static void norm_dw_columns(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct norm_backward_job *j = ctx;
    j->ops->rms_norm_dw(j->dw, j->dy, j->lddy, j->x, j->ldx, j->rstd, j->rows, begin, end);
}

/* dw before dx: dx may overwrite dy */
static void norm_backward(const struct step *s, struct norm_backward_job j)
{
    j.ops = s->train_ops;
    pool_for(s->pool, j.n, 64, norm_dw_columns, &j);
    pool_for(s->pool, j.rows, 16, norm_dx_rows, &j);
}

struct relu2_job {
    const struct step *s;
    const float *u;
};

/* m = max(u,0)^2 again, for the gradient of ffn_down */
static void relu2_again(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct relu2_job *j = ctx;
    j->s->ops->relu2(j->s->shared_m + begin, j->u + begin, end - begin);
}

static void relu2_gradient(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct relu2_job *j = ctx;
    j->s->train_ops->relu2_backward(j->s->d_ff + begin, j->s->d_ff + begin, j->u + begin, end - begin);
}

static void mlp_backward(struct step *s, const struct layer_activations *act, const struct weight *w, const struct weight *dw, int64_t rows)
{
    const int64_t d = s->config.hidden_size, ff = s->config.intermediate_size;
    struct relu2_job j = {s, act->u};
    pool_for(s->pool, rows * ff, 16384, relu2_again, &j);
    linear_backward(s, &w[TENSOR_DOWN], &dw[TENSOR_DOWN], s->d_ff, ff, false, s->d_residual, d, s->shared_m, ff, rows);
    pool_for(s->pool, rows * ff, 16384, relu2_gradient, &j);
    linear_backward(s, &w[TENSOR_UP], &dw[TENSOR_UP], s->d_normed, d, false, s->d_ff, ff, act->b, d, rows);
    norm_backward(s, (struct norm_backward_job){.dy = s->d_normed, .lddy = d, .x = act->mid, .ldx = d, .weight = weight_f32(&w[TENSOR_FFN_NORM]),
        .rstd = act->ffn_rstd, .dx = s->d_residual, .lddx = d, .dw = (float *)dw[TENSOR_FFN_NORM].data, .rows = rows, .n = d, .accumulate = true});
}

struct sum_heads_job {
    const struct step *s;
};

/* The shared rotary key's gradient is the sum over the heads that used it. */
static void sum_heads(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct step *s = ((struct sum_heads_job *)ctx)->s;
    const struct model_config *c = &s->config;
    for (int64_t r = begin; r < end; r++) {
        float *out = s->d_latent + r * model_latent_dim(c) + c->kv_lora_rank;
        const float *in = s->d_k_pe + r * c->num_attention_heads * c->qk_rope_head_dim;
        memcpy(out, in, (size_t)c->qk_rope_head_dim * sizeof *out);
        for (int h = 1; h < c->num_attention_heads; h++)
            s->ops->add(out, in + h * c->qk_rope_head_dim, c->qk_rope_head_dim);
    }
}

static void attention_part_backward(struct step *s, const struct batch *b, const struct layer_activations *act, const struct weight *w,
                                    const struct weight *dw, int64_t rows)
{
    const struct model_config *c = &s->config;
    const struct forward_pass f = pass_for(s, b);
    const int64_t d = c->hidden_size, rank = c->kv_lora_rank, latent = model_latent_dim(c), heads = c->num_attention_heads;
    const int64_t ldq = heads * model_qk_head_dim(c), ldkv = heads * (c->qk_nope_head_dim + c->v_head_dim), ld_attn = heads * c->v_head_dim;

    linear_backward(s, &w[TENSOR_O], &dw[TENSOR_O], s->d_attn, ld_attn, false, s->d_residual, d, act->attn, ld_attn, rows);
    const struct attention a = forward_attention(&f, act, act->latent);
    const struct attention_grad g = {.d_out = s->d_attn, .d_q = s->d_q, .d_kv = s->d_kv, .d_k_pe = s->d_k_pe};
    attention_backward(&a, &g, s->ops, s->train_ops, s->pool, s->attention_scratch, s->max_len);

    linear_backward(s, &w[TENSOR_KV_B], &dw[TENSOR_KV_B], s->d_latent, latent, false, s->d_kv, ldkv, act->latent, latent, rows);
    struct sum_heads_job sum = {s};
    pool_for(s->pool, rows, 16, sum_heads, &sum);
    forward_rope(&f, s->d_q + c->qk_nope_head_dim, ldq, c->num_attention_heads, model_qk_head_dim(c), true);
    forward_rope(&f, s->d_latent + rank, latent, 1, 0, true);
    norm_backward(s, (struct norm_backward_job){.dy = s->d_latent, .lddy = latent, .x = act->kv_a, .ldx = latent,
        .weight = weight_f32(&w[TENSOR_KV_A_NORM]), .rstd = act->kv_rstd, .dx = s->d_latent, .lddx = latent,
        .dw = (float *)dw[TENSOR_KV_A_NORM].data, .rows = rows, .n = rank});

    linear_backward(s, &w[TENSOR_KV_A], &dw[TENSOR_KV_A], s->d_normed, d, false, s->d_latent, latent, act->a, d, rows);
    linear_backward(s, &w[TENSOR_Q], &dw[TENSOR_Q], s->d_normed, d, true, s->d_q, ldq, act->a, d, rows);
    norm_backward(s, (struct norm_backward_job){.dy = s->d_normed, .lddy = d, .x = act->x, .ldx = d, .weight = weight_f32(&w[TENSOR_ATTN_NORM]),
        .rstd = act->attn_rstd, .dx = s->d_residual, .lddx = d, .dw = (float *)dw[TENSOR_ATTN_NORM].data, .rows = rows, .n = d, .accumulate = true});
}

struct embed_job {
    struct step *s;
    const struct batch *b;
};

/* Columns [begin, end) of every token's row: positions in order, so the sum does not depend on the threads. */
static void embed_gradient(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct embed_job *j = ctx;
    const int64_t d = j->s->config.hidden_size, rows = (int64_t)j->b->rows * j->b->seq_len;
    float *grad = (float *)j->s->bound_grads.embed.data;
    for (int64_t r = 0; r < rows; r++)
        j->s->ops->add(grad + j->b->tokens[r] * d + begin, j->s->d_residual + r * d + begin, end - begin);
}

float *step_hidden_gradients(struct step *s, const struct batch *b)
{
    memset(s->d_normed, 0, (size_t)b->rows * (size_t)b->seq_len * (size_t)s->config.hidden_size * sizeof *s->d_normed);
    return s->d_normed;
}

void step_backward_hidden(struct step *s, const struct batch *b)
{
    const int64_t rows = (int64_t)b->rows * b->seq_len, d = s->config.hidden_size;
    norm_backward(s, (struct norm_backward_job){.dy = s->d_normed, .lddy = d, .x = s->final_x, .ldx = d, .weight = weight_f32(&s->bound.final_norm),
        .rstd = s->final_rstd, .dx = s->d_residual, .lddx = d, .dw = (float *)s->bound_grads.final_norm.data, .rows = rows, .n = d});
    for (int i = s->config.num_hidden_layers - 1; i >= 0; i--) {
        const struct weight *w = s->bound.layers[i].at, *dw = s->bound_grads.layers[i].at;
        mlp_backward(s, &s->layers[i], w, dw, rows);
        attention_part_backward(s, b, &s->layers[i], w, dw, rows);
    }
    struct embed_job j = {s, b};
    pool_for(s->pool, d, 64, embed_gradient, &j);
}

void step_backward(struct step *s, const struct batch *b, const float *coef, float *nll)
{
    const int64_t rows = (int64_t)b->rows * b->seq_len, d = s->config.hidden_size, vocab = s->config.vocab_size;
    const int64_t n_targets = choose_rows(s, coef, rows);
    for (int64_t r = 0; r < rows; r++)
        nll[r] = 0;
    if (n_targets < rows)
        step_hidden_gradients(s, b);
    for (int64_t at = 0; at < n_targets; at += s->logit_rows) {
        const int64_t n = chunk_rows(s, n_targets - at), *chosen = s->head_rows + at;
        const bool direct = contiguous(s, at, n);
        const float *h = head_chunk(s, b, at, n, (struct loss_job){.logits = s->logits, .coef = coef, .nll = nll});
        linear_backward(s, &s->bound.embed, &s->bound_grads.embed, direct ? s->d_normed + chosen[0] * d : s->d_head_h, d, false, s->logits, vocab, h, d, n);
        for (int64_t i = 0; i < n && !direct; i++)
            memcpy(s->d_normed + chosen[i] * d, s->d_head_h + i * d, (size_t)d * sizeof *s->d_normed);
    }
    step_backward_hidden(s, b);
}
