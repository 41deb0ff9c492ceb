#include "tests/format/touch.h"

#include <stdlib.h>
#include <string.h>

static uint64_t touch_bytes(const void *data, size_t n)
{
    uint64_t sum = n;
    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + ((const unsigned char *)data)[i];
    return sum;
}

static uint64_t touch_tensor(const struct stored_tensor *t)
{
    int64_t row = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    size_t row_bytes = dtype_row_bytes(t->type, row);
    float *out = row_bytes && row_bytes <= t->bytes ? malloc((size_t)row * sizeof *out) : NULL;
    if (out)
        dtype_to_f32(t->type, out, t->data, row);
    free(out);
    return touch_bytes(t->data, t->bytes) + strlen(t->name);
}

uint64_t touch_safetensors(const struct safetensors *s)
{
    uint64_t sum = s->metadata ? strlen(s->metadata) : 0;
    for (int i = 0; i < s->n_tensors; i++) {
        if (safetensors_find(s, s->tensors[i].name) != &s->tensors[i])
            abort();
        sum += touch_tensor(&s->tensors[i]);
    }
    for (int i = 0; i < s->n_others; i++)
        sum += strlen(s->others[i].name) + strlen(safetensors_other_type(s, s->others[i].name));
    return sum;
}

uint64_t touch_gguf(const struct gguf *g)
{
    static const char *const keys[] = {"general.architecture", "general.alignment", "s", "n", "i", "f", "b"};
    uint64_t sum = 0, n;
    double d;
    const char *text;
    size_t length;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        if (gguf_get_u64(g, keys[k], &n, NULL) == PLM_OK)
            sum += n;
        if (gguf_get_f64(g, keys[k], &d, NULL) == PLM_OK)
            sum += d > 0;
        if (gguf_get_string(g, keys[k], &text, &length, NULL) == PLM_OK)
            sum += touch_bytes(text, length);
        if (gguf_get_array(g, keys[k], GGUF_STRING, &n, NULL) == PLM_OK)
            for (uint64_t i = 0; i < n; i++) {
                gguf_array_string(g, keys[k], i, &text, &length);
                sum += touch_bytes(text, length);
            }
        if (gguf_get_array(g, keys[k], GGUF_I32, &n, NULL) == PLM_OK)
            for (uint64_t i = 0; i < n; i++)
                sum += (uint32_t)gguf_array_i32(g, keys[k], i);
    }
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        struct stored_tensor t;
        struct plm_status st = {0};
        int code = gguf_tensor(g, gguf_tensor_name(g, i), &t, &st);
        if (code == PLM_OK)
            sum += touch_tensor(&t);
        else if (code != PLM_EUNSUPPORTED)
            abort();
    }
    return sum;
}
