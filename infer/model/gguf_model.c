/* What a GGUF file of architecture plm says about the model (plm.md 2.1). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/model/model.h"

static int get_int(const struct gguf *g, const char *key, int *out, struct plm_status *st)
{
    uint64_t v;
    int code = gguf_get_u64(g, key, &v, st);
    if (code)
        return code;
    if (v > INT32_MAX)
        return status_set(st, PLM_EFORMAT, "%s is %llu, expected at most %d", key, (unsigned long long)v, INT32_MAX);
    *out = (int)v;
    return PLM_OK;
}

static int check_architecture(const struct gguf *g, struct plm_status *st)
{
    const char *name;
    size_t length;
    int code = gguf_get_string(g, "general.architecture", &name, &length, st);
    if (!code && (length != 3 || memcmp(name, "plm", 3) != 0))
        code = status_set(st, PLM_EUNSUPPORTED, "general.architecture is '%.*s', this program runs 'plm'",
                          (int)(length < 64 ? length : 64), name);
    return code;
}

static int get_f32(const struct gguf *g, const char *key, float *out, struct plm_status *st)
{
    double v;
    if (!gguf_has(g, key))
        return PLM_OK;
    const int code = gguf_get_f64(g, key, &v, st);
    *out = code ? *out : (float)v;
    return code;
}

/* How rotary embeddings are scaled, as llama.cpp computes it: a factor without a type is linear, YaRN multiplies the
 * attention factor by 1 + 0.1 ln(factor). */
static int read_rope_scaling(struct model_config *c, const struct gguf *g, struct plm_status *st)
{
    struct rope_scaling *s = &c->rope_scaling;
    float factor = 0, attention = 1, yarn_attention = 1, log_multiplier = 0, ext = -1; /* below 0: as the type has it */
    const char *name = "linear";
    size_t length = 6;
    s->beta_fast = 32, s->beta_slow = 1;
    int code =
        gguf_has(g, "plm.rope.scaling.type") ? gguf_get_string(g, "plm.rope.scaling.type", &name, &length, st) : PLM_OK;
    const struct {
        const char *key;
        float *to;
    } numbers[] = {{"plm.rope.scale_linear", &factor},
                   {"plm.rope.scaling.factor", &factor},
                   {"plm.rope.scaling.attn_factor", &attention},
                   {"plm.rope.scaling.yarn_attn_factor", &yarn_attention},
                   {"plm.rope.scaling.yarn_log_multiplier", &log_multiplier},
                   {"plm.rope.scaling.yarn_ext_factor", &ext},
                   {"plm.rope.scaling.yarn_beta_fast", &s->beta_fast},
                   {"plm.rope.scaling.yarn_beta_slow", &s->beta_slow}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !code; i++)
        code = get_f32(g, numbers[i].key, numbers[i].to, st);
    if (!code && log_multiplier != 0)
        code = status_set(st, PLM_EUNSUPPORTED,
                          "plm.rope.scaling.yarn_log_multiplier is %g; only files without it are supported",
                          (double)log_multiplier);
    const bool linear = length == 6 && !memcmp(name, "linear", 6), yarn = length == 4 && !memcmp(name, "yarn", 4),
               none = length == 4 && !memcmp(name, "none", 4);
    if (!code && !linear && !yarn && !none)
        code = status_set(st, PLM_EUNSUPPORTED, "plm.rope.scaling.type is '%.*s'; none, linear and yarn are supported",
                          (int)(length < 64 ? length : 64), name);
    s->original = c->max_position_embeddings;
    if (!code && gguf_has(g, "plm.rope.scaling.original_context_length"))
        code = get_int(g, "plm.rope.scaling.original_context_length", &s->original, st);
    if (code)
        return code;
    s->original = s->original ? s->original : c->max_position_embeddings;
    s->factor = none || factor == 0 ? 1 : factor;
    s->mix = ext < 0 ? yarn : ext;
    if (s->mix != 0 && s->mix != 1)
        return status_set(st, PLM_EUNSUPPORTED, "plm.rope.scaling.yarn_ext_factor is %g; 0 and 1 are supported",
                          (double)ext);
    if (s->mix == 1 && yarn_attention != 1)
        return status_set(
            st, PLM_EUNSUPPORTED,
            "plm.rope.scaling.yarn_attn_factor is %g, which llama.cpp derives from the factor; expected 1",
            (double)yarn_attention);
    if (!(s->factor >= 1))
        return status_set(st, PLM_EFORMAT, "plm.rope.scaling.factor is %g; expected 1 or more", (double)s->factor);
    s->magnitude = attention * (s->mix == 1 ? 1 + 0.1f * logf(s->factor) : yarn_attention);
    if (!(s->magnitude > 0))
        return status_set(st, PLM_EFORMAT, "plm.rope.scaling.attn_factor is %g; expected a positive number",
                          (double)attention);
    s->type = s->mix == 1 ? ROPE_YARN : s->factor != 1 ? ROPE_LINEAR : ROPE_UNSCALED;
    if (s->type == ROPE_LINEAR && s->magnitude != 1)
        return status_set(
            st, PLM_EUNSUPPORTED,
            "plm.rope.scaling.attn_factor is %g with linear scaling; expected 1: config.json has no word for it",
            (double)s->magnitude);
    if (s->type == ROPE_UNSCALED && s->magnitude != 1)
        s->type = ROPE_YARN, s->mix = 1; /* of factor 1: every frequency stays, and config.json can say it */
    else if (s->type != ROPE_YARN)
        *s = (struct rope_scaling){.type = s->type, .factor = s->type == ROPE_LINEAR ? s->factor : 0};
    return PLM_OK;
}

/* A key that must have the one value a PLM has (or another that says the same). */
static int check_value(const struct gguf *g, const char *key, const char *name, bool *known, struct plm_status *st)
{
    static const struct {
        const char *name;
        double value, also;
    } fixed[] = {{"attention.q_lora_rank", 0, 0},
                 {"attention.causal", 1, 1},
                 {"attention.sliding_window", 0, 0},
                 {"attention.scale", 0, 0},
                 {"attention.logit_softcapping", 0, 0},
                 {"attention.clamp_kqv", 0, 0},
                 {"attention.max_alibi_bias", 0, 0},
                 {"attention.temperature_length", 0, 0},
                 {"attention.layer_norm_epsilon", 0, 0},
                 {"attn_logit_softcapping", 0, 0},
                 {"final_logit_softcapping", 0, 0},
                 {"logit_scale", 0, 1},
                 {"embedding_scale", 0, 1},
                 {"residual_scale", 0, 1},
                 {"expert_count", 0, 0},
                 {"expert_used_count", 0, 0},
                 {"expert_shared_count", 0, 0},
                 {"leading_dense_block_count", 0, 0},
                 {"nextn_predict_layers", 0, 0},
                 {"use_parallel_residual", 0, 0},
                 {"pooling_type", 0, 0}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        double value = 0;
        uint64_t flag = 0;
        if (strcmp(fixed[i].name, name) != 0)
            continue;
        *known = true;
        int code = gguf_get_u64(g, key, &flag, NULL) == PLM_OK ? PLM_OK : gguf_get_f64(g, key, &value, st);
        value += (double)flag;
        if (!code && value != fixed[i].value && value != fixed[i].also)
            code = status_set(st, PLM_EUNSUPPORTED,
                              "%s is set, to %g; a PLM has no such setting, and it is not applied here", key, value);
        return code;
    }
    return PLM_OK;
}

/* Keys of the architecture that are read in this file or elsewhere, or change nothing whatever they are. */
static bool is_known(const char *name)
{
    static const char *const names[] = {"rope.scale_linear",
                                        "rope.scaling.type",
                                        "rope.scaling.factor",
                                        "rope.scaling.attn_factor",
                                        "rope.scaling.original_context_length",
                                        "rope.scaling.finetuned",
                                        "rope.scaling.yarn_log_multiplier",
                                        "rope.scaling.yarn_ext_factor",
                                        "rope.scaling.yarn_attn_factor",
                                        "rope.scaling.yarn_beta_fast",
                                        "rope.scaling.yarn_beta_slow",
                                        "attention.key_length",
                                        "attention.value_length",
                                        "attention.head_count_kv",
                                        "tensor_data_layout",
                                        "end_token_ids"};
    static const char *const begins[] = {"tokenizer.", "chat_template", "refine_template"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    for (int i = 0; i < model_config_n_fields; i++)
        if (model_config_fields[i].gguf_key && strcmp(name, model_config_fields[i].gguf_key) == 0)
            return true;
    return false;
}

/* Keys of the architecture that are not read must not change what is computed; of unknown ones nobody can say. */
static int check_keys(const struct gguf *g, struct plm_status *st)
{
    const char *at;
    size_t length;
    for (size_t i = 0; (at = gguf_key(g, i, &length)); i++) {
        char key[128];
        if (length < 5 || memcmp(at, "plm.", 4) != 0)
            continue;
        snprintf(key, sizeof key, "%.*s", (int)(length < sizeof key ? length : sizeof key - 1), at);
        bool known = is_known(key + 4);
        int code = check_value(g, key, key + 4, &known, st);
        if (!code && !known)
            code = status_set(st, PLM_EUNSUPPORTED,
                              "key '%s' is not known, and may change what is computed; remove it if it does not", key);
        if (code)
            return code;
    }
    return PLM_OK;
}

int gguf_read_config(struct model_config *c, const struct gguf *g, struct plm_status *st)
{
    *c = model_config_default();
    c->rope_theta = 10000; /* what a file that leaves it out means to llama.cpp */
    int code = check_architecture(g, st);
    if (!code)
        code = check_keys(g, st);
    for (int i = 0; i < model_config_n_fields && !code; i++) {
        const struct model_config_field *f = &model_config_fields[i];
        char key[96], *at = (char *)c + f->offset;
        if (!f->gguf_key)
            continue;
        snprintf(key, sizeof key, "plm.%s", f->gguf_key);
        bool vocabulary = !strcmp(f->name, "vocab_size");
        if (!gguf_has(g, key) && (!f->required || vocabulary))
            continue;
        double number;
        if (f->is_float) {
            code = gguf_get_f64(g, key, &number, st);
            if (!code)
                *(float *)(void *)at = (float)number;
        } else {
            code = get_int(g, key, (int *)(void *)at, st);
        }
    }
    int key_length = 0;
    uint64_t n_tokens = 0;
    if (!code)
        code = get_int(g, "plm.attention.key_length", &key_length, st);
    if (!code)
        code = get_int(g, "plm.attention.value_length", &c->v_head_dim, st);
    if (!code && c->vocab_size == 0) {
        code = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &n_tokens, st);
        c->vocab_size = n_tokens <= INT32_MAX ? (int)n_tokens : 0;
    }
    if (code)
        return code;
    c->qk_nope_head_dim = key_length - c->qk_rope_head_dim;
    code = read_rope_scaling(c, g, st);
    int kv_heads = c->num_attention_heads;
    if (!code && gguf_has(g, "plm.attention.head_count_kv"))
        code = get_int(g, "plm.attention.head_count_kv", &kv_heads, st);
    if (!code && kv_heads != c->num_attention_heads)
        code = status_set(st, PLM_EUNSUPPORTED, "plm.attention.head_count_kv is %d; it must equal the %d heads",
                          kv_heads, c->num_attention_heads);
    if (code)
        return code;
    return model_config_check(c, "GGUF metadata", st);
}
