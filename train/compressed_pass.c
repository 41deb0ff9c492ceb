#include "train/compressed_pass.h"

#include <string.h>

#include "infer/cache/column_sums.h"

static struct kv_shape group_shape(const struct model_config *c, enum kv_layout layout)
{
    const bool latent = layout == KV_MLA;
    return (struct kv_shape){.content = latent ? c->kv_lora_rank : c->qk_nope_head_dim, .rotary = c->qk_rope_head_dim,
                             .value = latent ? 0 : c->v_head_dim, .type = DTYPE_F32, .rope_theta = c->rope_theta, .rope_scaling = c->rope_scaling};
}

static void layout_memory(struct compressed_pass *p, const struct ops *ops, int threads)
{
    const struct model_config *c = &p->model->config;
    const struct kv_shape shape = group_shape(c, p->layout);
    const size_t heads = (size_t)c->num_attention_heads, f = sizeof(float);
    struct arena *a = &p->arena;
    p->slots = arena_alloc(a, (size_t)p->n_layer * (size_t)p->n_group, sizeof *p->slots);
    for (int i = 0; i < p->n_layer * p->n_group; i++) {
        struct kv_slots measured, *s = p->slots ? &p->slots[i] : &measured;
        kv_slots_layout(s, &shape, p->capacity, true, a);
    }
    p->budgets = arena_alloc(a, (size_t)p->n_layer, sizeof *p->budgets);
    p->density = arena_alloc(a, (size_t)p->n_layer, sizeof *p->density);
    rope_table_layout(&p->rope, c, p->capacity, a);
    layer_activations_layout(&p->act, c, p->prompt, a);
    p->act.m = arena_alloc(a, (size_t)p->prompt * (size_t)c->intermediate_size, f);
    p->f.attention_scratch = arena_alloc(a, attention_scratch_bytes(ops, p->prompt, threads), 1);
    p->column_scratch = arena_alloc(a, column_sums_scratch_bytes(ops, threads), 1);
    p->policy_scratch = arena_alloc(a, policy_scratch_bytes(&p->options, &shape, p->capacity), 1);
    p->columns = arena_alloc(a, (size_t)p->prompt, sizeof *p->columns);
    p->group_columns = arena_alloc(a, (size_t)p->prompt, sizeof *p->group_columns);
    p->q_content = arena_alloc(a, heads * (size_t)shape.content, f);
    p->q_rotary = arena_alloc(a, heads * (size_t)shape.rotary, f);
    p->z = arena_alloc(a, heads * (size_t)c->kv_lora_rank, f);
    p->scores = arena_alloc(a, heads * (size_t)p->capacity, f);
    p->last = arena_alloc(a, (size_t)c->hidden_size, f);
}

int compressed_pass_create(struct compressed_pass *p, const struct plm_model *model, enum kv_layout layout,
                           const struct policy_options *options, int64_t prompt, int64_t capacity, const struct ops *ops,
                           struct thread_pool *pool, struct plm_status *st)
{
    *p = (struct compressed_pass){.model = model, .layout = layout, .n_layer = model->config.num_hidden_layers,
                                  .n_group = layout == KV_MLA ? 1 : model->config.num_attention_heads, .options = *options,
                                  .prompt = prompt, .capacity = capacity};
    p->f = (struct forward_pass){.config = &model->config, .weights = &model->weights, .ops = ops, .pool = pool,
                                 .rope = &p->rope, .n_seq = 1, .q_len = prompt, .max_keys = prompt};
    int code = policy_options_check(options, st);
    if (code)
        return code;
    layout_memory(p, ops, pool_size(pool));
    code = arena_commit(&p->arena, 0, "a compressed forward pass", st);
    if (code)
        return code;
    layout_memory(p, ops, pool_size(pool));
    rope_table_fill(&p->rope, &model->config);
    return PLM_OK;
}

void compressed_pass_free(struct compressed_pass *p) { arena_free(&p->arena); }

static void write_logits(struct compressed_pass *p, const float *x, float *logits)
{
    const struct model_weights *w = &p->model->weights;
    const int64_t d = p->model->config.hidden_size;
    forward_rms_norm(&p->f, p->last, d, NULL, x, d, &w->final_norm, 1);
    forward_linear(&p->f, logits, w->embed.rows, p->last, d, &w->embed, 1, false);
}

/* The slot of token `row` of the activations in group g. */
static void append(struct compressed_pass *p, int layer, int g, int64_t row, int64_t pos)
{
    const struct model_config *c = &p->model->config;
    struct kv_slots *s = &p->slots[layer * p->n_group + g];
    const float *latent = p->act.latent + row * model_latent_dim(c);
    const int64_t per_head = c->qk_nope_head_dim + c->v_head_dim;
    const float *kv = p->act.kv + row * c->num_attention_heads * per_head + g * per_head;
    if (p->layout == KV_MLA)
        kv_append(s, (int32_t)pos, latent, latent + c->kv_lora_rank, NULL);
    else
        kv_append(s, (int32_t)pos, kv, latent + c->kv_lora_rank, kv + c->qk_nope_head_dim);
}

/* Slots, scores and density of a layer after its prefill. */
static void fill_layer(struct compressed_pass *p, int layer)
{
    const struct model_config *c = &p->model->config;
    const int64_t heads = c->num_attention_heads, n = p->prompt;
    const struct attention a = {.n_seq = 1, .q_len = n, .n_head = c->num_attention_heads, .nope = c->qk_nope_head_dim,
                                .logit_factor = c->rope_scaling.logit_factor,
                                .rope = c->qk_rope_head_dim, .v = c->v_head_dim, .q = p->act.q,
                                .ldq = heads * model_qk_head_dim(c), .kv = p->act.kv,
                                .ldkv = heads * (c->qk_nope_head_dim + c->v_head_dim), .k_pe = p->act.latent + c->kv_lora_rank,
                                .ld_pe = model_latent_dim(c), .lse = p->act.lse};
    const struct column_sums all = column_sums_of_attention(&a, 0);
    const int heads_per_group = c->num_attention_heads / p->n_group;
    memset(p->columns, 0, (size_t)n * sizeof *p->columns);
    for (int g = 0; g < p->n_group; g++) {
        const struct column_sums part = column_sums_heads(&all, g * heads_per_group, heads_per_group);
        struct kv_slots *s = &p->slots[layer * p->n_group + g];
        memset(p->group_columns, 0, (size_t)n * sizeof *p->group_columns);
        column_sums_add(&part, p->f.ops, p->f.pool, p->column_scratch, p->group_columns);
        for (int64_t i = 0; i < n; i++) {
            append(p, layer, g, i, i);
            s->score[i] = (float)p->group_columns[i];
            p->columns[i] += p->group_columns[i];
        }
    }
    p->density[layer] = policy_density(&p->options, p->columns, n);
}

/* Compress the groups of a layer: after the prompt all of them, later those that are due. */
static int shrink(struct compressed_pass *p, int layer, bool all, struct plm_status *st)
{
    int code = PLM_OK;
    for (int g = 0; g < p->n_group && !code; g++) {
        struct kv_slots *s = &p->slots[layer * p->n_group + g];
        if (all || policy_due(&p->options, s, p->budgets[layer]))
            code = policy_compress(&p->options, s, p->budgets[layer], p->f.ops, p->f.pool, p->policy_scratch, st);
    }
    return code;
}

int compressed_pass_prefill(struct compressed_pass *p, const int32_t *tokens, int64_t budget, float *logits,
                            struct plm_status *st)
{
    const int64_t d = p->model->config.hidden_size;
    for (int i = 0; i < p->n_layer * p->n_group; i++)
        kv_slots_reset(&p->slots[i]);
    p->f.q_len = p->prompt, p->f.past = 0;
    forward_embed(&p->f, tokens, p->prompt, p->act.x);
    for (int layer = 0; layer < p->n_layer; layer++) {
        forward_layer(&p->f, layer, &p->act, p->act.latent, p->act.x);
        fill_layer(p, layer);
    }
    p->length = p->prompt;
    write_logits(p, p->act.x + (p->prompt - 1) * d, logits);
    int code = policy_allocate(&p->options, p->density, p->n_layer, budget, p->prompt, p->budgets, st);
    for (int layer = 0; layer < p->n_layer && !code; layer++)
        code = shrink(p, layer, true, st);
    return code;
}

/* Latent layout: absorbed queries (plm.md 1.4) over the one group, then the value projection of every head. */
static void attend_latent(struct compressed_pass *p, int layer, float scale)
{
    const struct model_config *c = &p->model->config;
    const struct weight *kv_b = &p->model->weights.layers[layer].at[TENSOR_KV_B];
    const int64_t rank = c->kv_lora_rank, heads = c->num_attention_heads;
    const size_t row_bytes = dtype_row_bytes(kv_b->type, rank);
    const unsigned char *rows = kv_b->data;
    memset(p->q_content, 0, (size_t)(heads * rank) * sizeof *p->q_content);
    for (int64_t h = 0; h < heads; h++)
        for (int i = 0; i < c->qk_nope_head_dim; i++)
            p->f.ops->axpy(p->q_content + h * rank, p->act.q[h * model_qk_head_dim(c) + i],
                           rows + (size_t)(h * (c->qk_nope_head_dim + c->v_head_dim) + i) * row_bytes, kv_b->type, rank);
    kv_attend(&p->slots[layer], p->f.ops, (int)heads, p->q_content, p->q_rotary, scale, p->options.policy == POLICY_D2O_COUNT,
              p->z, p->scores);
    for (int64_t h = 0; h < heads; h++) {
        const struct weight w_uv = {rows + (size_t)(h * (c->qk_nope_head_dim + c->v_head_dim) + c->qk_nope_head_dim) * row_bytes,
                                    kv_b->type, c->v_head_dim, rank};
        forward_linear(&p->f, p->act.attn + h * c->v_head_dim, c->v_head_dim, p->z + h * rank, rank, &w_uv, 1, false);
    }
}

/* New slots of token `pos` in every group of a layer, attention over them, and its output in act.attn. */
static void attend(struct compressed_pass *p, int layer, int64_t pos)
{
    const struct model_config *c = &p->model->config;
    const struct weight *kv_b = &p->model->weights.layers[layer].at[TENSOR_KV_B];
    const int heads = c->num_attention_heads, qk = model_qk_head_dim(c), nope = c->qk_nope_head_dim;
    const float scale = attention_scale(&(struct attention){.nope = nope, .rope = c->qk_rope_head_dim, .logit_factor = c->rope_scaling.logit_factor});
    for (int h = 0; h < heads; h++)
        memcpy(p->q_rotary + h * c->qk_rope_head_dim, p->act.q + h * qk + nope,
               (size_t)c->qk_rope_head_dim * sizeof *p->q_rotary);
    if (p->layout == KV_MHA)
        forward_linear(&p->f, p->act.kv, kv_b->rows, p->act.latent, model_latent_dim(c), kv_b, 1, false);
    for (int g = 0; g < p->n_group; g++)
        append(p, layer, g, 0, pos);
    if (p->layout == KV_MLA) {
        attend_latent(p, layer, scale);
        return;
    }
    for (int h = 0; h < heads; h++)
        kv_attend(&p->slots[layer * heads + h], p->f.ops, 1, p->act.q + h * qk, p->q_rotary + h * c->qk_rope_head_dim, scale,
                  p->options.policy == POLICY_D2O_COUNT, p->act.attn + h * c->v_head_dim, p->scores);
}

int compressed_pass_decode(struct compressed_pass *p, int32_t token, float *logits, struct plm_status *st)
{
    const struct model_config *c = &p->model->config;
    const struct layer_activations *act = &p->act;
    const struct forward_pass *f = &p->f;
    const int64_t d = c->hidden_size, rank = c->kv_lora_rank, ld = model_latent_dim(c), ff = c->intermediate_size;
    const int64_t ldq = (int64_t)c->num_attention_heads * model_qk_head_dim(c);
    if (p->length >= p->capacity)
        return status_set(st, PLM_ELIMIT, "the pass was made for %lld tokens", (long long)p->capacity);
    p->f.q_len = 1, p->f.past = p->length;
    forward_embed(f, &token, 1, act->x);
    int code = PLM_OK;
    for (int layer = 0; layer < p->n_layer && !code; layer++) {
        const struct weight *w = p->model->weights.layers[layer].at;
        forward_rms_norm(f, act->a, d, NULL, act->x, d, &w[TENSOR_ATTN_NORM], 1);
        forward_linear(f, act->q, ldq, act->a, d, &w[TENSOR_Q], 1, false);
        forward_linear(f, act->latent, ld, act->a, d, &w[TENSOR_KV_A], 1, false);
        forward_rope(f, act->q + c->qk_nope_head_dim, ldq, c->num_attention_heads, model_qk_head_dim(c), false);
        forward_rms_norm(f, act->latent, ld, NULL, act->latent, ld, &w[TENSOR_KV_A_NORM], 1);
        forward_rope(f, act->latent + rank, ld, 1, 0, false);
        attend(p, layer, p->length);
        forward_linear(f, act->x, d, act->attn, (int64_t)c->num_attention_heads * c->v_head_dim, &w[TENSOR_O], 1, true);
        forward_rms_norm(f, act->b, d, NULL, act->x, d, &w[TENSOR_FFN_NORM], 1);
        forward_linear(f, act->u, ff, act->b, d, &w[TENSOR_UP], 1, false);
        f->ops->relu2(act->u, act->u, ff);
        forward_linear(f, act->x, d, act->u, ff, &w[TENSOR_DOWN], 1, true);
        code = shrink(p, layer, false, st);
    }
    p->length++;
    write_logits(p, act->x, logits);
    return code;
}
