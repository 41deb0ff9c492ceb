#include "infer/model/config.h"

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/format/json.h"
#include "infer/model/config_keys.h"

#define FIELD(name, gguf_key, is_float, required)                                \
    {                                                                            \
#name, gguf_key, offsetof(struct model_config, name), is_float, required \
    }

const struct model_config_field model_config_fields[] = {
    FIELD(num_hidden_layers, "block_count", false, true),
    FIELD(hidden_size, "embedding_length", false, true),
    FIELD(num_attention_heads, "attention.head_count", false, true),
    FIELD(kv_lora_rank, "attention.kv_lora_rank", false, true),
    FIELD(qk_nope_head_dim, NULL, false, true), /* attention.key_length - rope.dimension_count */
    FIELD(qk_rope_head_dim, "rope.dimension_count", false, true),
    FIELD(v_head_dim, NULL, false, true), /* attention.value_length */
    FIELD(intermediate_size, "feed_forward_length", false, true),
    FIELD(vocab_size, "vocab_size", false, true),
    FIELD(max_position_embeddings, "context_length", false, false),
    FIELD(rope_theta, "rope.freq_base", true, false),
    FIELD(rms_norm_eps, "attention.layer_norm_rms_epsilon", true, false),
    FIELD(initializer_range, NULL, true, false),
};
const int model_config_n_fields = sizeof model_config_fields / sizeof model_config_fields[0];

struct model_config model_config_default(void)
{
    return (struct model_config){
        .max_position_embeddings = 4096, .rope_theta = 100000.0f, .rms_norm_eps = 1e-6f, .initializer_range = 0.02f};
}

/* With these limits every tensor has under 2^44 elements and all of them together under 2^58, so that sizes in bytes
 * fit 63 bits wherever they are computed. */
#define LAYERS_MAX 4096
#define WIDTH_MAX (1 << 20)
#define HEADS_MAX (1 << 16)
#define ROWS_MAX (1 << 24)

static int check_range(const char *where, const char *name, int64_t value, int64_t max, struct plm_status *st)
{
    if (value >= 1 && value <= max)
        return PLM_OK;
    return status_set(st, PLM_EFORMAT, "%s: %s is %lld; expected 1 to %lld", where, name, (long long)value,
                      (long long)max);
}

static int check_rope_scaling(const struct rope_scaling *s, float theta, const char *where, struct plm_status *st)
{
    if (s->type == ROPE_UNSCALED)
        return s->magnitude >= 0 && isfinite(s->magnitude)
                   ? PLM_OK
                   : status_set(st, PLM_EFORMAT, "%s: a rotary attention factor of %g", where, (double)s->magnitude);
    if (!(s->factor >= 1) || !isfinite(s->factor))
        return status_set(st, PLM_EFORMAT, "%s: rotary scaling (%s) by %g; expected a factor of 1 or more", where,
                          rope_scaling_name(s), (double)s->factor);
    if (!(s->magnitude >= 0) || !isfinite(s->magnitude) || !(s->logit_factor >= 0) || !isfinite(s->logit_factor))
        return status_set(st, PLM_EFORMAT, "%s: a rotary attention factor of %g", where, (double)s->magnitude);
    if (s->type == ROPE_YARN && !(theta > 1))
        return status_set(st, PLM_EFORMAT, "%s: rope_theta is %g; YaRN wants one above 1", where, (double)theta);
    if (s->type == ROPE_YARN && (s->original < 1 || !(s->beta_fast > 0) || !(s->beta_slow > 0) ||
                                 !(s->beta_fast > s->beta_slow) || !(s->mix >= 0 && s->mix <= 1)))
        return status_set(st, PLM_EFORMAT,
                          "%s: YaRN wants an original context above 0 and beta_fast (%g) above beta_slow (%g)", where,
                          (double)s->beta_fast, (double)s->beta_slow);
    return PLM_OK;
}

int model_config_check(const struct model_config *c, const char *where, struct plm_status *st)
{
    const int64_t heads = c->num_attention_heads;
    const struct {
        const char *name;
        int64_t value, max;
    } ranges[] = {
        {"num_hidden_layers", c->num_hidden_layers, LAYERS_MAX},
        {"hidden_size", c->hidden_size, WIDTH_MAX},
        {"num_attention_heads", heads, HEADS_MAX},
        {"kv_lora_rank", c->kv_lora_rank, WIDTH_MAX},
        {"qk_nope_head_dim", c->qk_nope_head_dim, WIDTH_MAX},
        {"qk_rope_head_dim", c->qk_rope_head_dim, WIDTH_MAX},
        {"v_head_dim", c->v_head_dim, WIDTH_MAX},
        {"intermediate_size", c->intermediate_size, WIDTH_MAX},
        {"vocab_size", c->vocab_size, ROWS_MAX},
        {"max_position_embeddings", c->max_position_embeddings, ROWS_MAX},
        {"num_attention_heads * (qk_nope_head_dim + qk_rope_head_dim)",
         heads * ((int64_t)c->qk_nope_head_dim + c->qk_rope_head_dim), ROWS_MAX},
        {"num_attention_heads * (qk_nope_head_dim + v_head_dim)",
         heads * ((int64_t)c->qk_nope_head_dim + c->v_head_dim), ROWS_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        int code = check_range(where, ranges[i].name, ranges[i].value, ranges[i].max, st);
        if (code)
            return code;
    }
    if (c->qk_rope_head_dim % 2 != 0)
        return status_set(st, PLM_EFORMAT, "%s: qk_rope_head_dim is %d; it must be even, rotary embedding turns pairs",
                          where, c->qk_rope_head_dim);
    if (!(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return status_set(st, PLM_EFORMAT, "%s: rope_theta is %g; expected a positive number", where,
                          (double)c->rope_theta);
    if (!(c->rms_norm_eps > 0) || !isfinite(c->rms_norm_eps))
        return status_set(st, PLM_EFORMAT, "%s: rms_norm_eps is %g; expected a positive number", where,
                          (double)c->rms_norm_eps);
    if (!(c->initializer_range >= 0) || !isfinite(c->initializer_range))
        return status_set(st, PLM_EFORMAT, "%s: initializer_range is %g; expected zero or more", where,
                          (double)c->initializer_range);
    return check_rope_scaling(&c->rope_scaling, c->rope_theta, where, st);
}

static int read_field(struct model_config *c, const struct model_config_field *field, const struct json_value *v,
                      const char *where, struct plm_status *st)
{
    void *address = (char *)c + field->offset;
    int64_t integer;
    double number;
    if (field->is_float && json_as_number(v, &number))
        *(float *)address = (float)number;
    else if (!field->is_float && json_as_integer(v, &integer) && integer >= INT_MIN && integer <= INT_MAX)
        *(int *)address = (int)integer;
    else
        return status_set(st, PLM_EFORMAT, "%s: \"%s\" must be %s", where, field->name,
                          field->is_float ? "a number" : "an integer");
    return PLM_OK;
}

/* What makes a configuration another architecture than PLM. */
static int check_architecture(const struct json_value *root, const char *where, struct plm_status *st)
{
    if (json_typeof(json_get(root, "model_type")) == JSON_NULL)
        return status_set(st, PLM_EFORMAT, "%s: \"model_type\" is missing; expected \"plm\"", where);
    const char *type = json_as_string(json_get(root, "model_type"), NULL);
    if (!type || strcmp(type, "plm") != 0)
        return status_set(st, PLM_EUNSUPPORTED, "%s: \"model_type\" is \"%.64s\"; only \"plm\" is supported", where,
                          type ? type : "(not a string)");
    return config_check_keys(root, where, st);
}

/* Every key there must be one that is applied, or says nothing. */
static int check_rope_keys(const struct json_value *section, const char *where, struct plm_status *st)
{
    static const char *const known[] = {
        "rope_type",        "type",   "rope_theta",     "factor",    "original_max_position_embeddings",
        "attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow",
        "truncate"};
    for (const struct json_value *v = json_first(section); v; v = json_next(v)) {
        const char *key = json_key(v, NULL);
        double one;
        bool good = json_typeof(v) == JSON_NULL ||
                    (!strcmp(key, "partial_rotary_factor") && json_as_number(v, &one) && one == 1);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            good |= !strcmp(key, known[i]);
        if (!good)
            return status_set(st, PLM_EUNSUPPORTED, "%s: rotary setting \"%.64s\" is not supported", where, key);
    }
    return PLM_OK;
}

/* A number of the section, or the default when it is absent or null. */
static int rope_number(const struct json_value *section, const char *key, double fallback, float *out,
                       const char *where, struct plm_status *st)
{
    const struct json_value *v = json_get(section, key);
    double value = fallback;
    if (json_typeof(v) != JSON_NULL && !json_as_number(v, &value))
        return status_set(st, PLM_EFORMAT, "%s: rotary setting \"%s\" must be a number", where, key);
    *out = (float)value;
    return PLM_OK;
}

/* YaRN's scale of attention (section 3.4 of the paper), as transformers and DeepSeek's models have it. */
static double yarn_scale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* m_all: mscale_all_dim, or 0. */
static int read_yarn(struct rope_scaling *s, const struct json_value *section, int context, float m_all,
                     const char *where, struct plm_status *st)
{
    float original, attention, m;
    bool truncate = true;
    const struct json_value *v = json_get(section, "truncate");
    int code = rope_number(section, "original_max_position_embeddings", context, &original, where, st);
    if (!code)
        code = rope_number(section, "beta_fast", 32, &s->beta_fast, where, st);
    if (!code)
        code = rope_number(section, "beta_slow", 1, &s->beta_slow, where, st);
    if (!code)
        code = rope_number(section, "attention_factor", 0, &attention, where, st);
    if (!code)
        code = rope_number(section, "mscale", 0, &m, where, st);
    if (!code && !(original >= 1 && original < 1e9f && original == floorf(original)))
        code = status_set(st, PLM_EFORMAT,
                          "%s: rotary setting \"original_max_position_embeddings\" is %g; expected a whole number "
                          "above 0",
                          where, (double)original);
    if (!code && m < 0)
        code = status_set(st, PLM_EFORMAT, "%s: rotary setting \"mscale\" is %g; expected none below zero", where,
                          (double)m);
    if (!code && json_typeof(v) != JSON_NULL && !json_as_bool(v, &truncate))
        code = status_set(st, PLM_EFORMAT, "%s: rotary setting \"truncate\" must be true or false", where);
    if (code)
        return code;
    if (s->factor == 0 && json_typeof(json_get(section, "original_max_position_embeddings")) != JSON_NULL &&
        original > 0)
        s->factor = (float)context / original; /* as transformers has it */
    const double factor = (double)s->factor;
    const bool both = m != 0 && m_all != 0;
    s->mix = 1;
    s->untruncated = !truncate;
    s->original = (int)original;
    s->magnitude = attention != 0 ? attention
                                  : (float)(both ? yarn_scale(factor, (double)m) / yarn_scale(factor, (double)m_all)
                                                 : yarn_scale(factor, 1));
    return PLM_OK;
}

/* Keys of YaRN beside another type: transformers leaves them out too. */
static void note_unused(const struct json_value *section, const char *where)
{
    static const char *const of_yarn[] = {
        "original_max_position_embeddings", "attention_factor", "mscale", "beta_fast", "beta_slow", "truncate"};
    for (size_t i = 0; i < sizeof of_yarn / sizeof *of_yarn; i++)
        if (json_typeof(json_get(section, of_yarn[i])) != JSON_NULL)
            log_info("%s: rotary setting \"%s\" is left out: linear scaling does not use it", where, of_yarn[i]);
}

/* One of the two objects that say how rotary embeddings are scaled. */
static int read_rope_section(struct rope_scaling *s, float *theta, const struct json_value *section,
                             const struct model_config *c, const char *where, struct plm_status *st)
{
    const struct json_value *v = json_get(section, "rope_type");
    v = json_typeof(v) != JSON_NULL ? v : json_get(section, "type");
    const char *type = json_typeof(v) == JSON_NULL ? "default" : json_as_string(v, NULL);
    if (!type || (strcmp(type, "default") && strcmp(type, "linear") && strcmp(type, "yarn")))
        return status_set(st, PLM_EUNSUPPORTED,
                          "%s: rotary scaling \"%.64s\" is not supported; default, linear and yarn are", where,
                          type ? type : "(not a string)");
    int code = check_rope_keys(section, where, st);
    if (!code)
        code = rope_number(section, "rope_theta", (double)*theta, theta, where, st);
    if (code || !strcmp(type, "default"))
        return code;
    s->type = !strcmp(type, "yarn") ? ROPE_YARN : ROPE_LINEAR;
    float m_all = 0;
    code = rope_number(section, "factor", 0, &s->factor, where, st);
    if (!code)
        code = rope_number(section, "mscale_all_dim", 0, &m_all, where, st);
    if (!code && m_all < 0)
        code = status_set(st, PLM_EFORMAT, "%s: rotary setting \"mscale_all_dim\" is %g; expected none below zero",
                          where, (double)m_all);
    if (!code && s->type == ROPE_YARN)
        code = read_yarn(s, section, c->max_position_embeddings, m_all, where, st);
    if (!code && m_all != 0) /* of every scaling, in DeepSeek's attention */
        s->logit_factor =
            (float)(yarn_scale((double)s->factor, (double)m_all) * yarn_scale((double)s->factor, (double)m_all));
    if (!code && s->type == ROPE_LINEAR)
        note_unused(section, where);
    return code;
}

/* "rope_parameters" and its older name, which must not say different things. A base there goes before the one beside
 * them. */
static int read_rope(struct model_config *c, const struct json_value *root, const char *where, struct plm_status *st)
{
    static const char *const names[] = {"rope_parameters", "rope_scaling"};
    struct rope_scaling found[2] = {0};
    float theta[2] = {NAN, NAN}; /* NaN: not given */
    for (int i = 0; i < 2; i++) {
        const struct json_value *section = json_get(root, names[i]);
        if (json_typeof(section) == JSON_NULL)
            continue;
        if (json_typeof(section) != JSON_OBJECT)
            return status_set(st, PLM_EFORMAT, "%s: \"%s\" must be an object", where, names[i]);
        const int code = read_rope_section(&found[i], &theta[i], section, c, where, st);
        if (code)
            return code;
    }
    if ((found[0].type && found[1].type && memcmp(&found[0], &found[1], sizeof found[0]) != 0) ||
        (!isnan(theta[0]) && !isnan(theta[1]) && theta[0] != theta[1]))
        return status_set(st, PLM_EFORMAT,
                          "%s: \"rope_parameters\" and \"rope_scaling\" say different things; leave one of them out",
                          where);
    c->rope_scaling = found[found[0].type ? 0 : 1];
    c->rope_theta = !isnan(theta[0]) ? theta[0] : !isnan(theta[1]) ? theta[1] : c->rope_theta;
    return PLM_OK;
}

static int read_config(struct model_config *c, const struct json_value *root, const char *where, struct plm_status *st)
{
    if (json_typeof(root) != JSON_OBJECT)
        return status_set(st, PLM_EFORMAT, "%s: expected a JSON object", where);
    int code = check_architecture(root, where, st);
    *c = model_config_default();
    for (int i = 0; i < model_config_n_fields && !code; i++) {
        const struct model_config_field *field = &model_config_fields[i];
        const struct json_value *v = json_get(root, field->name);
        if (json_typeof(v) != JSON_NULL)
            code = read_field(c, field, v, where, st);
        else if (field->required)
            code = status_set(st, PLM_EFORMAT, "%s: \"%s\" is missing", where, field->name);
    }
    if (!code)
        code = read_rope(c, root, where, st);
    const struct json_value *kv_heads = json_get(root, "num_key_value_heads"), *qk = json_get(root, "qk_head_dim"),
                            *head = json_get(root, "head_dim");
    int64_t n;
    if (!code && json_typeof(head) != JSON_NULL &&
        (!json_as_integer(head, &n) || (n != c->qk_rope_head_dim && n != model_qk_head_dim(c))))
        code = status_set(st, PLM_EUNSUPPORTED,
                          "%s: \"head_dim\" must be qk_rope_head_dim (%d) or the width of a head (%d)", where,
                          c->qk_rope_head_dim, model_qk_head_dim(c));
    if (!code && json_typeof(qk) != JSON_NULL &&
        (!json_as_integer(qk, &n) || n != c->qk_nope_head_dim + c->qk_rope_head_dim))
        code =
            status_set(st, PLM_EUNSUPPORTED, "%s: \"qk_head_dim\" must equal qk_nope_head_dim + qk_rope_head_dim (%d)",
                       where, c->qk_nope_head_dim + c->qk_rope_head_dim);
    if (!code && json_typeof(kv_heads) != JSON_NULL && (!json_as_integer(kv_heads, &n) || n != c->num_attention_heads))
        code = status_set(st, PLM_EUNSUPPORTED, "%s: \"num_key_value_heads\" must equal num_attention_heads (%d)",
                          where, c->num_attention_heads);
    return code ? code : model_config_check(c, where, st);
}

int model_config_from_json(struct model_config *c, const char *text, size_t length, const char *where,
                           struct plm_status *st)
{
    struct json_doc *doc;
    int code = json_parse(&doc, text, length, where, st);
    if (code)
        return code;
    code = read_config(c, json_root(doc), where, st);
    json_free(doc);
    return code;
}

/* "rope_scaling" for releases of transformers up to 4, "rope_parameters" for later ones. */
static void put_rope_scaling(struct json_buffer *b, const struct rope_scaling *s, float theta)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    for (int i = 0; i < 2 && (s->type || s->magnitude > 0); i++) {
        json_printf(b, "  \"%s\": {\"rope_type\": \"%s\", \"type\": \"%s\", \"rope_theta\": ", names[i],
                    rope_scaling_name(s), rope_scaling_name(s));
        json_put_float(b, theta);
        json_printf(b, ", \"factor\": ");
        json_put_float(b, s->factor);
        /* The logits' factor is said by mscale_all_dim, the attention factor as it is. */
        const double m = s->logit_factor > 0 && s->factor > 1
                             ? (sqrt((double)s->logit_factor) - 1) / (0.1 * log((double)s->factor))
                             : 0;
        if (m > 0) {
            json_printf(b, ", \"mscale_all_dim\": ");
            json_put_float(b, (float)m);
        }
        if (s->type == ROPE_YARN) {
            json_printf(b, ", \"original_max_position_embeddings\": %d, \"truncate\": %s", s->original,
                        s->untruncated ? "false" : "true");
            const struct {
                const char *key;
                float value;
            } numbers[] = {{"beta_fast", s->beta_fast},
                           {"beta_slow", s->beta_slow},
                           {"attention_factor", (float)rope_magnitude(s)}};
            for (int k = 0; k < 3; k++) {
                json_printf(b, ", \"%s\": ", numbers[k].key);
                json_put_float(b, numbers[k].value);
            }
        }
        json_printf(b, "},\n");
    }
}

int model_config_rope_from_json(struct model_config *c, const char *text, size_t length, const char *where,
                                struct plm_status *st)
{
    struct json_doc *doc;
    int code = json_parse(&doc, text, length, where, st);
    if (code)
        return code;
    code = read_rope(c, json_root(doc), where, st);
    json_free(doc);
    return code;
}

char *model_config_to_json(const struct model_config *c)
{
    struct json_buffer b = {0};
    json_printf(&b, "{\n  \"architectures\": [\"PLMForCausalLM\"],\n  \"model_type\": \"plm\",\n");
    for (int i = 0; i < model_config_n_fields; i++) {
        const struct model_config_field *field = &model_config_fields[i];
        const void *address = (const char *)c + field->offset;
        json_printf(&b, "  \"%s\": ", field->name);
        if (field->is_float)
            json_put_float(&b, *(const float *)address);
        else
            json_printf(&b, "%d", *(const int *)address);
        json_printf(&b, ",\n");
    }
    put_rope_scaling(&b, &c->rope_scaling, c->rope_theta);
    json_printf(&b,
                "  \"num_key_value_heads\": %d,\n  \"q_lora_rank\": null,\n  \"attention_bias\": false,\n"
                "  \"hidden_act\": \"relu2\",\n  \"rope_interleave\": true,\n  \"tie_word_embeddings\": true,\n"
                "  \"bos_token_id\": null\n}\n",
                c->num_attention_heads);
    if (b.failed) {
        free(b.data);
        return NULL;
    }
    return b.data;
}
