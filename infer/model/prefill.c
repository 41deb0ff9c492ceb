#include "infer/model/prefill.h"

#include <string.h>

#include "infer/cache/column_sums.h"

#define READ_GRAIN 32 /* slots read from the cache at a time */

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

void prefill_buffers_layout(struct prefill_buffers *b, const struct model_config *c, const struct ops *ops, int64_t context, int64_t batch,
                            bool policies, int threads, struct arena *arena)
{
    const size_t d = (size_t)c->hidden_size, heads = (size_t)c->num_attention_heads, latent = (size_t)model_latent_dim(c), f = sizeof(float);
    const int64_t keys = min_i64(context, PREFILL_KEYS);
    b->rows = min_i64(context * batch, PREFILL_CHUNK);
    const size_t chunk = (size_t)b->rows, normed = (size_t)batch > chunk ? (size_t)batch : chunk;
    b->origin = arena_alloc(arena, chunk, sizeof *b->origin);
    struct layer_activations *l = &b->act;
    l->x = l->mid = arena_alloc(arena, chunk * d, f);
    l->a = l->b = arena_alloc(arena, normed * d, f);
    l->q = arena_alloc(arena, chunk * heads * (size_t)model_qk_head_dim(c), f);
    l->kv_a = arena_alloc(arena, chunk * latent, f);
    l->latent = arena_alloc(arena, chunk * latent, f);
    l->kv = arena_alloc(arena, (size_t)keys * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim), f);
    l->attn = arena_alloc(arena, chunk * heads * (size_t)c->v_head_dim, f);
    l->lse = policies ? arena_alloc(arena, chunk * heads, f) : NULL;
    l->u = l->m = arena_alloc(arena, (size_t)min_i64(b->rows, FORWARD_MLP_ROWS) * (size_t)c->intermediate_size, f);
    b->keys = arena_alloc(arena, (size_t)keys * latent, f);
    b->max = arena_alloc(arena, chunk * heads, f);
    b->sum = arena_alloc(arena, chunk * heads, f);
    const struct attention a = {.nope = c->qk_nope_head_dim, .rope = c->qk_rope_head_dim, .v = c->v_head_dim};
    b->attention_scratch = arena_alloc(arena, attention_block_scratch_bytes(&a, keys, ops, threads), 1);
    b->column_scratch = policies ? arena_alloc(arena, column_sums_scratch_bytes(ops, threads), 1) : NULL;
}

struct read_job {
    const struct kv_slots *slots;
    float *keys;
    int64_t first;
};

static void read_slots(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct read_job *j = ctx;
    const struct kv_shape *s = &j->slots->shape;
    for (int64_t i = begin; i < end; i++) {
        float *to = j->keys + i * (s->content + s->rotary);
        kv_read(j->slots, j->first + i, to, to + s->content, NULL);
    }
}

/* The attention of the chunk over the keys [first, first + n), which are expanded to b->act.kv: before f->past those of the cache, then
 * the chunk's own. */
static struct attention expand_block(const struct forward_pass *f, const struct prefill_buffers *b, const struct kv_slots *slots, int layer,
                                     int64_t first, int64_t n)
{
    const int64_t latent = model_latent_dim(f->config), own = first > f->past ? first - f->past : 0;
    const float *keys = b->act.latent + own * latent;
    if (first < f->past) {
        struct read_job j = {slots, b->keys, first};
        const int64_t cached = min_i64(n, f->past - first);
        pool_for(f->pool, cached, READ_GRAIN, read_slots, &j);
        memcpy(b->keys + cached * latent, b->act.latent, (size_t)((n - cached) * latent) * sizeof *keys);
        keys = b->keys;
    }
    forward_expand(f, layer, keys, n, b->act.kv);
    return forward_attention(f, &b->act, keys);
}

/* Once the chunk is attended: a second pass over the blocks, from the last, which is still expanded. */
static void add_sums(const struct forward_pass *f, const struct prefill_buffers *b, const struct kv_slots *slots, int layer,
                     struct attention last, int64_t first, double *sums)
{
    for (int64_t total = f->past + f->q_len; first >= 0; first -= PREFILL_KEYS) {
        const int64_t n = min_i64(PREFILL_KEYS, total - first);
        const struct attention a = first + n == total ? last : expand_block(f, b, slots, layer, first, n);
        struct column_sums c = column_sums_of_attention(&a, 0);
        c.past = f->past - first, c.n_key = n;
        column_sums_add(&c, f->ops, f->pool, b->column_scratch, sums + first);
    }
}

static void attend(const struct forward_pass *f, const struct prefill_buffers *b, struct kv_slots *slots, int layer, double *sums)
{
    const int64_t total = f->past + f->q_len, rank = f->config->kv_lora_rank, latent = model_latent_dim(f->config);
    struct attention a = {0};
    int64_t first = 0;
    for (;; first += PREFILL_KEYS) {
        const int64_t n = min_i64(PREFILL_KEYS, total - first);
        a = expand_block(f, b, slots, layer, first, n);
        attention_add_block(&a, first, n, b->max, b->sum, slots->shape.type != DTYPE_F32, f->ops, f->pool, b->attention_scratch);
        if (first + n == total)
            break;
    }
    if (sums)
        add_sums(f, b, slots, layer, a, first, sums);
    for (int64_t i = 0; i < f->q_len; i++)
        kv_append(slots, (int32_t)(f->past + i), b->act.latent + i * latent, b->act.latent + i * latent + rank, NULL);
}

void prefill_chunk(const struct forward_pass *f, const struct prefill_buffers *b, const struct prefill_part *parts, int n_parts)
{
    const struct model_config *c = f->config;
    const int64_t ldq = (int64_t)c->num_attention_heads * model_qk_head_dim(c), ldo = (int64_t)c->num_attention_heads * c->v_head_dim;
    struct forward_pass all = *f;
    all.past = 0, all.doc_start = b->origin;
    for (int64_t i = 0, row = 0; i < n_parts; row += parts[i].n, i++) {
        forward_embed(f, parts[i].tokens, parts[i].n, b->act.x + row * c->hidden_size);
        for (int64_t r = 0; r < parts[i].n; r++)
            b->origin[row + r] = (int32_t)(row - parts[i].past);
    }
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
        forward_project(&all, layer, &b->act);
        struct prefill_buffers own = *b; /* the rows of one part */
        for (int i = 0; i < n_parts; i++) {
            struct forward_pass one = *f;
            one.q_len = parts[i].n, one.past = parts[i].past;
            attend(&one, &own, &parts[i].slots[layer], layer, parts[i].sums[layer]);
            own.act.q += parts[i].n * ldq, own.act.latent += parts[i].n * model_latent_dim(c), own.act.attn += parts[i].n * ldo;
        }
        forward_output(&all, layer, &b->act, b->act.x);
    }
}
