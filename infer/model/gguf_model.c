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
        code = status_set(st, PLM_EUNSUPPORTED, "general.architecture is '%.*s', this program runs 'plm'", (int)(length < 64 ? length : 64), name);
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

/* How rotary embeddings are scaled, as llama.cpp computes it: a factor without a type is linear, YaRN multiplies the attention factor by
 * 1 + 0.1 ln(factor). */
static int read_rope_scaling(struct model_config *c, const struct gguf *g, struct plm_status *st)
{
    struct rope_scaling *s = &c->rope_scaling;
    float factor = 0, attention = 1, yarn_attention = 1, log_multiplier = 0, ext = 1;
    const char *name = "linear";
    size_t length = 6;
    s->beta_fast = 32, s->beta_slow = 1;
    int code = gguf_has(g, "plm.rope.scaling.type") ? gguf_get_string(g, "plm.rope.scaling.type", &name, &length, st) : PLM_OK;
    const struct { const char *key; float *to; } numbers[] = {{"plm.rope.scale_linear", &factor}, {"plm.rope.scaling.factor", &factor},
        {"plm.rope.scaling.attn_factor", &attention}, {"plm.rope.scaling.yarn_attn_factor", &yarn_attention},
        {"plm.rope.scaling.yarn_log_multiplier", &log_multiplier}, {"plm.rope.scaling.yarn_ext_factor", &ext},
        {"plm.rope.scaling.yarn_beta_fast", &s->beta_fast}, {"plm.rope.scaling.yarn_beta_slow", &s->beta_slow}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !code; i++)
        code = get_f32(g, numbers[i].key, numbers[i].to, st);
    if (!code && log_multiplier != 0)
        code = status_set(st, PLM_EUNSUPPORTED, "plm.rope.scaling.yarn_log_multiplier is %g; only files without it are supported", (double)log_multiplier);
    const bool linear = length == 6 && !memcmp(name, "linear", 6), yarn = length == 4 && !memcmp(name, "yarn", 4),
               none = length == 4 && !memcmp(name, "none", 4);
    if (!code && !linear && !yarn && !none)
        code = status_set(st, PLM_EUNSUPPORTED, "plm.rope.scaling.type is '%.*s'; none, linear and yarn are supported", (int)(length < 64 ? length : 64), name);
    s->original = c->max_position_embeddings;
    if (!code && gguf_has(g, "plm.rope.scaling.original_context_length"))
        code = get_int(g, "plm.rope.scaling.original_context_length", &s->original, st);
    if (code)
        return code;
    s->factor = factor == 0 ? 1 : factor;
    s->mix = ext;
    s->type = yarn ? ROPE_YARN : linear && s->factor != 1 ? ROPE_LINEAR : ROPE_UNSCALED;
    s->magnitude = yarn ? attention * yarn_attention * (ext != 0 ? 1 + 0.1f * logf(s->factor) : 1) : attention;
    if (s->type != ROPE_YARN) {
        const float magnitude = s->magnitude == 1 ? 0 : s->magnitude;
        *s = s->type == ROPE_LINEAR ? (struct rope_scaling){.type = ROPE_LINEAR, .factor = s->factor, .magnitude = magnitude}
                                    : (struct rope_scaling){.magnitude = magnitude};
    }
    return PLM_OK;
}

/* Keys of the architecture that are not read must not change what is computed. */
static int check_keys(const struct gguf *g, struct plm_status *st)
{
    static const char *const refused[] = {"attention.q_lora_rank", "attention.sliding_window", "attention.scale", "attention.logit_softcapping",
        "attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "embedding_scale", "residual_scale", "attention.clamp_kqv",
        "attention.max_alibi_bias", "expert_count", "attention.layer_norm_epsilon", "rope.scaling.attn_factors", "attention.temperature_length"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char key[96];
        double value = 1;
        snprintf(key, sizeof key, "plm.%s", refused[i]);
        if (gguf_has(g, key) && !(gguf_get_f64(g, key, &value, NULL) == PLM_OK && value == 0))
            return status_set(st, PLM_EUNSUPPORTED, "%s is set; a PLM has no such setting, and it is not applied here", key);
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
        code = status_set(st, PLM_EUNSUPPORTED, "plm.attention.head_count_kv is %d; it must equal the %d heads", kv_heads, c->num_attention_heads);
    if (code)
        return code;
    return model_config_check(c, "GGUF metadata", st);
}
