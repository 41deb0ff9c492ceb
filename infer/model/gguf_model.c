/* What a GGUF file of architecture plm says about the model (plm.md 2.1). */
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

int gguf_read_config(struct model_config *c, const struct gguf *g, struct plm_status *st)
{
    *c = model_config_default();
    int code = check_architecture(g, st);
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
    return model_config_check(c, "GGUF metadata", st);
}
