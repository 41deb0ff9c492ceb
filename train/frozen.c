#include "train/frozen.h"

#include <math.h>
#include <string.h>

#define POSITIONS 2048 /* of a batch, when sequences are shorter: enough for the matrix products */
#define LOGIT_ROWS 64
#define BLOCK 1024     /* logits whose exponentials are added in single precision */

static int64_t rows_of(const struct frozen *f) { return (int64_t)f->max_rows * f->max_len; }

static void layout(struct frozen *f)
{
    const struct model_config *c = &f->model->config;
    struct arena *a = &f->arena;
    struct layer_activations *l = &f->act;
    const int64_t rows = rows_of(f), mlp = rows < FORWARD_MLP_ROWS ? rows : FORWARD_MLP_ROWS;
    const size_t r = (size_t)rows, d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads, latent = (size_t)model_latent_dim(c), s = sizeof(float);
    rope_table_layout(&f->rope, c, f->max_len, a);
    l->x = l->mid = arena_alloc(a, r * d, s);
    l->a = l->b = f->h = arena_alloc(a, r * d, s);
    l->q = arena_alloc(a, r * heads * (size_t)model_qk_head_dim(c), s);
    l->kv_a = arena_alloc(a, r * latent, s);
    l->latent = arena_alloc(a, r * latent, s);
    l->kv = arena_alloc(a, r * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim), s);
    l->attn = arena_alloc(a, r * heads * (size_t)c->v_head_dim, s);
    l->u = l->m = arena_alloc(a, (size_t)mlp * (size_t)c->intermediate_size, s);
    f->attention_scratch = arena_alloc(a, attention_scratch_bytes(&f->matmul.ops, f->max_len, pool_size(f->pool)), 1);
    f->logit_rows = rows < LOGIT_ROWS ? rows : LOGIT_ROWS;
    f->head_h = arena_alloc(a, (size_t)f->logit_rows * d, s);
    f->logits = arena_alloc(a, (size_t)f->logit_rows * (size_t)c->vocab_size, s);
    f->head_rows = arena_alloc(a, (size_t)f->logit_rows, sizeof *f->head_rows);
}

int frozen_open(struct frozen *f, const char *path, int max_len, struct thread_pool *pool, struct plm_status *st)
{
    *f = (struct frozen){.pool = pool};
    int code = plm_model_open(&f->model, path, st);
    if (code)
        return code;
    const int context = f->model->config.max_position_embeddings;
    if (max_len > context)
        return status_set(st, PLM_EINVAL, "'%s' takes sequences of %d tokens, %d are needed", path, context, max_len);
    f->max_len = max_len ? max_len : context;
    f->max_rows = f->max_len < POSITIONS ? POSITIONS / f->max_len : 1;
    matmul_select(&f->matmul);
    layout(f);
    code = arena_commit(&f->arena, 0, "the buffers of a scoring model", st);
    if (code)
        return code;
    layout(f);
    rope_table_fill(&f->rope, &f->model->config);
    return PLM_OK;
}

void frozen_close(struct frozen *f)
{
    plm_model_close(f->model);
    arena_free(&f->arena);
    *f = (struct frozen){0};
}

size_t frozen_bytes(const struct frozen *f) { return f->arena.size; }

static struct forward_pass pass_for(const struct frozen *f, const struct batch *b)
{
    return (struct forward_pass){.config = &f->model->config, .weights = &f->model->weights, .ops = &f->matmul.ops, .pool = f->pool, .rope = &f->rope,
        .precision = PRECISION_HIGH, .squares = PRECISION_HIGH, .n_seq = b->rows, .q_len = b->seq_len, .doc_start = b->doc_start,
        .attention_scratch = f->attention_scratch, .max_keys = f->max_len};
}

void frozen_forward(struct frozen *f, const struct batch *b)
{
    const struct forward_pass pass = pass_for(f, b);
    const int64_t rows = (int64_t)b->rows * b->seq_len, d = f->model->config.hidden_size;
    forward_embed(&pass, b->tokens, rows, f->act.x);
    for (int i = 0; i < f->model->config.num_hidden_layers; i++)
        forward_layer(&pass, i, &f->act, f->act.latent, f->act.x);
    forward_rms_norm(&pass, f->h, d, NULL, f->act.x, d, &f->model->weights.final_norm, rows);
}

struct nll_job {
    const struct frozen *f;
    const int32_t *targets;
    float *nll;
};

static void nll_rows(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct nll_job *j = ctx;
    const struct ops *ops = &j->f->matmul.ops;
    const int64_t vocab = j->f->model->config.vocab_size;
    float block[BLOCK];
    for (int64_t i = begin; i < end; i++) {
        const float *z = j->f->logits + i * vocab, max = ops->max(z, vocab);
        const int64_t row = j->f->head_rows[i];
        double sum = 0;
        for (int64_t k = 0; k < vocab; k += BLOCK)
            sum += (double)ops->exp_sum(block, z + k, vocab - k < BLOCK ? vocab - k : BLOCK, 1, max);
        j->nll[row] = (float)(log(sum) + (double)max - (double)z[j->targets[row]]);
    }
}

void frozen_nll(struct frozen *f, const struct batch *b, float *nll)
{
    const struct forward_pass pass = pass_for(f, b);
    const int64_t rows = (int64_t)b->rows * b->seq_len, d = f->model->config.hidden_size, vocab = f->model->config.vocab_size;
    for (int64_t at = 0; at < rows;) {
        int64_t n = 0;
        for (; at < rows && n < f->logit_rows; at++) { /* prompts and padding never meet the vocabulary */
            nll[at] = 0;
            if (b->weight[at] == 0)
                continue;
            memcpy(f->head_h + n * d, f->h + at * d, (size_t)d * sizeof *f->h);
            f->head_rows[n++] = at;
        }
        if (n == 0)
            continue;
        forward_linear(&pass, f->logits, vocab, f->head_h, d, &f->model->weights.embed, n, false);
        struct nll_job j = {f, b->targets, nll};
        pool_for(f->pool, n, 1, nll_rows, &j);
    }
}
