#include "train/verify_d2o.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cache/policy.h"
#include "infer/model/forward.h"
#include "infer/model/model.h"
#include "train/compressed_pass.h"

#define MAX_TOKENS (1 << 20)

static const char *const layout_names[] = {[KV_MLA] = "mla", [KV_MHA] = "mha"};

/* What is written in the end: tensors by name, and the JSON beside them. */
struct results {
    struct { char name[48]; float *data; int n_dims; int64_t shape[3]; } tensors[3 * POLICY_COUNT];
    int n;
    json_t *root, *runs, *gqa_kept;
};

struct d2o_case {
    int32_t *prompt, *tokens;
    int64_t n_prompt, n_tokens, budget;
    struct policy_options options;
};

struct gqa_case {
    struct safetensors file;
    const struct stored_tensor *q, *k, *v;
    int64_t n_prefill, budget;
    double theta;
};

static int load_json(json_t **root, const char *path, struct plm_status *st)
{
    json_error_t error;
    *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (*root)
        return PLM_OK;
    if (error.line < 0)
        return status_set(st, PLM_EIO, "%s", error.text); /* names the file */
    return status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", path, error.line, error.column, error.text);
}

static int read_tokens(const json_t *root, const char *key, int vocab, int32_t **out, int64_t *n, const char *path,
                       struct plm_status *st)
{
    const json_t *list = json_object_get(root, key);
    const size_t size = json_array_size(list);
    if (size < 1 || size > MAX_TOKENS)
        return status_set(st, PLM_EFORMAT, "%s: %s has %zu tokens, expected a list of 1 to %d", path, key, size, MAX_TOKENS);
    *out = calloc(size, sizeof **out);
    if (!*out)
        return status_no_memory(st, size * sizeof **out, "tokens");
    *n = (int64_t)size;
    for (size_t i = 0; i < size; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= vocab)
            return status_set(st, PLM_EFORMAT, "%s: %s[%zu] is no token of this model's %d", path, key, i, vocab);
        (*out)[i] = (int32_t)json_integer_value(v);
    }
    return PLM_OK;
}

static int read_case(struct d2o_case *c, const char *path, int vocab, struct plm_status *st)
{
    json_error_t error;
    json_t *root;
    int code = load_json(&root, path, st);
    if (code)
        return code;
    c->options = policy_options_default(POLICY_FULL);
    json_int_t budget = 0;
    double temperature = 0, beta = 0, slack = 0;
    int gate = 1;
    if (json_unpack_ex(root, &error, 0, "{s:I, s:{s:i, s:i, s:F, s:F, s:F, s:b, s:i}}", "budget", &budget, "options", "n_sink",
                       &c->options.n_sink, "s_min", &c->options.min_budget, "temperature", &temperature, "beta", &beta, "slack",
                       &slack, "gate", &gate, "batch", &c->options.batch) != 0)
        code = status_set(st, PLM_EFORMAT, "%s: %s", path, error.text);
    if (!code && (budget < 1 || budget > MAX_TOKENS))
        code = status_set(st, PLM_EFORMAT, "%s: budget is %lld, expected 1 to %d", path, (long long)budget, MAX_TOKENS);
    c->budget = budget;
    c->options.temperature = (float)temperature, c->options.beta = (float)beta, c->options.slack = (float)slack,
    c->options.gate = gate;
    if (!code)
        code = read_tokens(root, "prompt", vocab, &c->prompt, &c->n_prompt, path, st);
    if (!code)
        code = read_tokens(root, "tokens", vocab, &c->tokens, &c->n_tokens, path, st);
    json_decref(root);
    return code;
}

static int read_gqa(struct gqa_case *g, const char *dir, struct plm_status *st)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/gqa.json", dir);
    json_error_t error;
    json_t *root;
    int code = load_json(&root, path, st);
    if (code)
        return code;
    json_int_t n_prefill = 0, budget = 0;
    if (json_unpack_ex(root, &error, 0, "{s:I, s:I, s:F}", "n_prefill", &n_prefill, "budget", &budget, "theta", &g->theta) != 0)
        code = status_set(st, PLM_EFORMAT, "%s: %s", path, error.text);
    json_decref(root);
    g->n_prefill = n_prefill, g->budget = budget;
    snprintf(path, sizeof path, "%s/gqa.safetensors", dir);
    if (!code)
        code = safetensors_open(&g->file, path, st);
    if (code)
        return code;
    g->q = safetensors_find(&g->file, "q"), g->k = safetensors_find(&g->file, "k"), g->v = safetensors_find(&g->file, "v");
    const struct stored_tensor *all[] = {g->q, g->k, g->v};
    for (int i = 0; i < 3; i++)
        if (!all[i] || all[i]->n_dims != 3 || all[i]->type != DTYPE_F32)
            return status_set(st, PLM_EFORMAT, "%s: expected F32 tensors q, k and v of three dimensions", path);
    const int64_t *q = g->q->shape, *k = g->k->shape, *v = g->v->shape;
    if (q[0] != k[0] || q[0] != v[0] || k[1] != v[1] || q[2] != k[2] || k[1] < 1 || q[1] % k[1] || q[2] < 2 || q[2] % 2 ||
        v[2] < 1 || q[0] > MAX_TOKENS || q[1] > MAX_TOKENS || q[2] > MAX_TOKENS || v[2] > MAX_TOKENS)
        return status_set(st, PLM_EFORMAT, "%s: q, k and v must be (T,H,d), (T,G,d) and (T,G,dv) with G dividing H and even d",
                          path);
    if (n_prefill < 1 || n_prefill > q[0] || budget < 1 || budget > MAX_TOKENS)
        return status_set(st, PLM_EFORMAT, "%s/gqa.json: n_prefill is %lld of %lld rows and budget %lld; expected at least 1",
                          dir, (long long)n_prefill, (long long)q[0], (long long)budget);
    return PLM_OK;
}

static int compare_positions(const void *a, const void *b)
{
    return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b);
}

/* Rising positions of a group; `sorted` has room for them. */
static json_t *kept_positions(const struct kv_slots *s, int32_t *sorted)
{
    json_t *list = json_array();
    memcpy(sorted, s->pos, (size_t)s->length * sizeof *sorted);
    qsort(sorted, (size_t)s->length, sizeof *sorted, compare_positions);
    for (int64_t i = 0; i < s->length; i++)
        json_array_append_new(list, json_integer(sorted[i]));
    return list;
}

static void record_step(json_t *kept, const struct compressed_pass *p, int32_t *sorted)
{
    json_t *step = json_array();
    for (int layer = 0; layer < p->n_layer; layer++) {
        json_t *groups = json_array();
        for (int g = 0; g < p->n_group; g++)
            json_array_append_new(groups, kept_positions(&p->slots[layer * p->n_group + g], sorted));
        json_array_append_new(step, groups);
    }
    json_array_append_new(kept, step);
}

/* Room for the next result: a tensor of two or three dimensions. */
static float *add_tensor(struct results *r, int n_dims, int64_t n0, int64_t n1, int64_t n2, struct plm_status *st)
{
    size_t elements;
    r->tensors[r->n].n_dims = n_dims;
    r->tensors[r->n].shape[0] = n0, r->tensors[r->n].shape[1] = n1, r->tensors[r->n].shape[2] = n2;
    float *data = NULL;
    if (!__builtin_mul_overflow((size_t)n0 * (size_t)n1, (size_t)n2, &elements))
        data = calloc(elements, sizeof *data);
    if (!data)
        status_set(st, PLM_ENOMEM, "no memory for a result of %lld x %lld x %lld", (long long)n0, (long long)n1, (long long)n2);
    r->tensors[r->n++].data = data;
    return data;
}

static int run_policy(struct results *r, const struct plm_model *model, const struct d2o_case *c, enum kv_layout layout,
                      enum cache_policy policy, struct thread_pool *pool, struct plm_status *st)
{
    struct compressed_pass p;
    struct policy_options options = c->options;
    options.policy = policy;
    const int64_t vocab = model->config.vocab_size;
    char name[32];
    snprintf(name, sizeof name, "%s.%s", layout_names[layout], cache_policy_name(policy));
    snprintf(r->tensors[r->n].name, sizeof r->tensors->name, "logits.%s", name);
    float *logits = add_tensor(r, 2, c->n_tokens, vocab, 1, st);
    int32_t *sorted = calloc((size_t)(c->n_prompt + c->n_tokens), sizeof *sorted);
    json_t *run = json_object(), *kept = json_array(), *budgets = json_array(), *density = json_array();
    int code = logits && sorted ? PLM_OK : PLM_ENOMEM;
    if (code)
        status_set(st, PLM_ENOMEM, "no memory for a run of %lld tokens", (long long)c->n_tokens);
    else
        code = compressed_pass_create(&p, model, layout, &options, c->n_prompt, c->n_prompt + c->n_tokens, ops_select(OPS_BEST),
                                      pool, st);
    if (!code) {
        code = compressed_pass_prefill(&p, c->prompt, c->budget, logits, st);
        for (int64_t k = 0; !code; k++) {
            record_step(kept, &p, sorted);
            if (k == c->n_tokens - 1)
                break;
            code = compressed_pass_decode(&p, c->tokens[k], logits + (k + 1) * vocab, st);
        }
        for (int l = 0; l < p.n_layer && !code; l++) {
            json_array_append_new(budgets, json_integer(p.budgets[l]));
            json_array_append_new(density, json_real(p.density[l]));
        }
        compressed_pass_free(&p);
    }
    json_object_set_new(run, "budgets", budgets);
    json_object_set_new(run, "density", density);
    json_object_set_new(run, "kept", kept);
    json_object_set_new(r->runs, name, run);
    free(sorted);
    return code ? status_prefix(st, "run %s", name) : PLM_OK;
}

/* A GQA layer: one group at a time, through the whole sequence. In the prompt too a query attends over the slots so far, which
 * adds its probabilities to their scores. */
struct gqa_group {
    struct arena arena;
    struct rope_table rope;
    struct kv_slots slots;
    void *policy_scratch;
    float *q, *k, *out, *scores; /* (heads per group, d), (d), (heads per group, dv), (heads per group, T) */
    int32_t *sorted;
};

static void layout_group(struct gqa_group *s, const struct gqa_case *g, const struct policy_options *options,
                         const struct model_config *rotation)
{
    const int64_t t = g->q->shape[0], d = g->q->shape[2], dv = g->v->shape[2];
    const size_t heads = (size_t)(g->q->shape[1] / g->k->shape[1]);
    const struct kv_shape shape = {.rotary = (int)d, .value = (int)dv, .type = DTYPE_F32, .rope_theta = (float)g->theta};
    rope_table_layout(&s->rope, rotation, t, &s->arena);
    kv_slots_layout(&s->slots, &shape, t, true, &s->arena);
    s->policy_scratch = arena_alloc(&s->arena, policy_scratch_bytes(options, &shape, t), 1);
    s->q = arena_alloc(&s->arena, heads * (size_t)d, sizeof *s->q);
    s->k = arena_alloc(&s->arena, (size_t)d, sizeof *s->k);
    s->out = arena_alloc(&s->arena, heads * (size_t)dv, sizeof *s->out);
    s->scores = arena_alloc(&s->arena, heads * (size_t)t, sizeof *s->scores);
    s->sorted = arena_alloc(&s->arena, (size_t)t, sizeof *s->sorted);
}

static int run_group(struct gqa_group *s, const struct gqa_case *g, const struct policy_options *options, int64_t group,
                     float *out, json_t *kept, struct plm_status *st)
{
    const struct ops *ops = ops_select(OPS_BEST);
    const int64_t t = g->q->shape[0], n_head = g->q->shape[1], d = g->q->shape[2], n_group = g->k->shape[1], dv = g->v->shape[2];
    const int64_t heads = n_head / n_group;
    const float *q = g->q->data, *k = g->k->data, *v = g->v->data;
    int code = PLM_OK;
    kv_slots_reset(&s->slots);
    for (int64_t i = 0; i < t && !code; i++) {
        const float *cosine = s->rope.cos + i * s->rope.half, *sine = s->rope.sin + i * s->rope.half;
        const bool prompt = i < g->n_prefill;
        memcpy(s->q, q + (i * n_head + group * heads) * d, (size_t)(heads * d) * sizeof *s->q);
        memcpy(s->k, k + (i * n_group + group) * d, (size_t)d * sizeof *s->k);
        for (int64_t h = 0; h < heads; h++)
            ops->rope(s->q + h * d, cosine, sine, d);
        ops->rope(s->k, cosine, sine, d);
        kv_append(&s->slots, (int32_t)i, NULL, s->k, v + (i * n_group + group) * dv);
        kv_attend(&s->slots, ops, (int)heads, NULL, s->q, 1 / sqrtf((float)d), options->policy == POLICY_D2O_COUNT && !prompt,
                  s->out, s->scores);
        memcpy(out + (i * n_head + group * heads) * dv, s->out, (size_t)(heads * dv) * sizeof *s->out);
        if (i + 1 < g->n_prefill)
            continue;
        if (prompt || policy_due(options, &s->slots, g->budget))
            code = policy_compress(options, &s->slots, g->budget, ops, NULL, s->policy_scratch, st);
        json_array_append_new(json_array_get(kept, (size_t)(i + 1 - g->n_prefill)), kept_positions(&s->slots, s->sorted));
    }
    return code;
}

static int run_gqa(struct results *r, const struct gqa_case *g, enum cache_policy policy, struct plm_status *st)
{
    struct gqa_group s = {0};
    const struct policy_options options = policy_options_default(policy);
    const struct model_config rotation = {.qk_rope_head_dim = (int)g->q->shape[2], .rope_theta = (float)g->theta};
    snprintf(r->tensors[r->n].name, sizeof r->tensors->name, "out.%s", cache_policy_name(policy));
    float *out = add_tensor(r, 3, g->q->shape[0], g->q->shape[1], g->v->shape[2], st);
    layout_group(&s, g, &options, &rotation);
    int code = out ? arena_commit(&s.arena, 0, "a GQA layer", st) : PLM_ENOMEM;
    if (code)
        return code;
    layout_group(&s, g, &options, &rotation);
    rope_table_fill(&s.rope, &rotation);
    json_t *kept = json_array();
    for (int64_t step = g->n_prefill; step <= g->q->shape[0]; step++)
        json_array_append_new(kept, json_array());
    for (int64_t group = 0; group < g->k->shape[1] && !code; group++)
        code = run_group(&s, g, &options, group, out, kept, st);
    json_object_set_new(r->gqa_kept, cache_policy_name(policy), kept);
    arena_free(&s.arena);
    return code ? status_prefix(st, "GQA layer, policy %s", cache_policy_name(policy)) : PLM_OK;
}

/* FILE.safetensors -> FILE.json; any other name gets .json appended. */
static int json_path(char *path, size_t size, const char *out, struct plm_status *st)
{
    static const char suffix[] = ".safetensors";
    size_t length = strlen(out);
    if (length > sizeof suffix - 1 && strcmp(out + length - (sizeof suffix - 1), suffix) == 0)
        length -= sizeof suffix - 1;
    const int n = snprintf(path, size, "%.*s.json", (int)length, out);
    return n > 0 && (size_t)n < size ? PLM_OK : status_set(st, PLM_EINVAL, "path too long: '%s'", out);
}

static int write_results(const struct results *r, const char *out, struct plm_status *st)
{
    struct safetensors_writer *w;
    char path[PATH_MAX];
    int code = json_path(path, sizeof path, out, st);
    if (!code)
        code = safetensors_create(&w, out, st);
    if (code)
        return code;
    for (int i = 0; i < r->n && !code; i++)
        code = safetensors_declare(w, r->tensors[i].name, DTYPE_F32, r->tensors[i].n_dims, r->tensors[i].shape, st);
    for (int i = 0; i < r->n && !code; i++) {
        const int64_t *n = r->tensors[i].shape;
        code = safetensors_write(w, r->tensors[i].data, (size_t)n[0] * (size_t)n[1] * (size_t)n[2] * sizeof(float), st);
    }
    if (code) {
        safetensors_discard(w);
        return code;
    }
    code = safetensors_finish(w, st);
    if (!code && json_dump_file(r->root, path, JSON_COMPACT) != 0)
        code = status_set(st, PLM_EIO, "cannot write '%s'", path);
    return code;
}

static int run_all(const struct plm_model *model, const struct d2o_case *c, const struct gqa_case *g, struct thread_pool *pool,
                   const char *out, struct plm_status *st)
{
    struct results r = {.root = json_object(), .runs = json_object(), .gqa_kept = json_object()};
    json_object_set_new(r.root, "runs", r.runs);
    json_object_set_new(r.root, "gqa", json_pack("{s:o}", "kept", r.gqa_kept));
    int code = PLM_OK;
    for (int layout = KV_MLA; layout <= KV_MHA; layout++)
        for (int policy = 0; policy < POLICY_COUNT && !code; policy++)
            code = run_policy(&r, model, c, (enum kv_layout)layout, (enum cache_policy)policy, pool, st);
    for (int policy = 0; policy < POLICY_COUNT && !code; policy++)
        code = run_gqa(&r, g, (enum cache_policy)policy, st);
    if (!code)
        code = write_results(&r, out, st);
    for (int i = 0; i < r.n; i++)
        free(r.tensors[i].data);
    json_decref(r.root);
    return code;
}

int verify_d2o(const char *case_dir, const char *d2o_dir, const char *out, int threads, struct plm_status *st)
{
    char path[PATH_MAX];
    struct plm_model *model = NULL;
    struct thread_pool *pool = NULL;
    struct d2o_case c = {0};
    struct gqa_case g = {0};
    if (strlen(case_dir) >= PATH_MAX - 32 || strlen(d2o_dir) >= PATH_MAX - 32)
        return status_set(st, PLM_EINVAL, "path too long: '%s' or '%s'", case_dir, d2o_dir);
    snprintf(path, sizeof path, "%s/model", case_dir);
    int code = plm_model_open(&model, path, st);
    snprintf(path, sizeof path, "%s/d2o.json", d2o_dir);
    if (!code)
        code = read_case(&c, path, model->config.vocab_size, st);
    if (!code)
        code = read_gqa(&g, d2o_dir, st);
    if (!code)
        code = pool_create(&pool, threads, st);
    if (!code)
        code = run_all(model, &c, &g, pool, out, st);
    pool_destroy(pool);
    safetensors_close(&g.file);
    plm_model_close(model);
    free(c.prompt);
    free(c.tokens);
    return code ? status_prefix(st, "case '%s'", d2o_dir) : PLM_OK;
}
