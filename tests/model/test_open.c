/* Models that are not what they say: every one is refused with a message that names the tensor or key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/format/gguf.h"
#include "infer/format/safetensors.h"
#include "infer/model/tensor_table.h"
#include "infer/plm.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

/* What is wrong with a file. */
struct fault {
    const char *drop;      /* a tensor that is left out, by its Hugging Face name */
    const char *extra;     /* one that no PLM has */
    const char *transpose; /* one whose dimensions are exchanged */
    const char *flatten;   /* one with a single dimension */
    const char *pad;       /* one with two dimensions of 1 more, outermost */
    const char *damage;    /* one whose last element is `value` */
    float value;
    const char *head;      /* this name holds the embedding once more, with `head_value` added to its last element when it is not 0 */
    float head_value;
};

#define DIR_NAME "bad-model"
#define GGUF_NAME "bad-model.gguf"

struct out { /* one of the two writers */
    struct safetensors_writer *st;
    struct gguf_writer *gguf;
    enum dtype type;
};

static void declare(struct out *o, const char *name, enum dtype type, int n_dims, const int64_t *shape)
{
    struct plm_status st = {0};
    if (o->gguf ? gguf_declare(o->gguf, name, type, n_dims, shape, &st) : safetensors_declare(o->st, name, type, n_dims, shape, &st))
        fail_msg("%s", st.message);
}

/* n values of a tensor; the last one is `last` when it is not NULL. */
static void put(struct out *o, enum dtype type, int64_t n, float last, bool has_last)
{
    struct plm_status st = {0};
    float *x = malloc((size_t)n * sizeof *x);
    void *stored = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.001f * (float)(i % 97) + 0.5f;
    if (has_last)
        x[n - 1] = last;
    dtype_from_f32(type, stored, x, n);
    const size_t bytes = (size_t)n * (size_t)dtype_info(type)->block_bytes;
    if (o->gguf ? gguf_write(o->gguf, stored, bytes, &st) : safetensors_write(o->st, stored, bytes, &st))
        fail_msg("%s", st.message);
    free(x);
    free(stored);
}

static bool is(const char *name, const char *other) { return other && !strcmp(name, other); }

static void put_tensors(struct out *o, const struct model_config *c, const struct fault *f)
{
    struct tensor_table t;
    assert_int_equal(tensor_table_build(&t, c, 1, NULL), PLM_OK);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < t.n_tensors; i++) {
            const struct tensor_desc *d = &t.tensors[i];
            const enum dtype type = o->gguf && d->n_dims == 1 ? DTYPE_F32 : o->type;
            const int64_t n = tensor_elements(d), as_is[2] = {d->n_dims == 2 ? d->rows : d->cols, d->cols}, turned[2] = {d->cols, d->rows};
            if (is(d->name, f->drop))
                continue;
            if (pass)
                put(o, type, n, f->value, is(d->name, f->damage));
            else if (is(d->name, f->pad))
                declare(o, o->gguf ? d->gguf_name : d->name, type, d->n_dims + 2, d->n_dims == 2 ? (int64_t[]){1, 1, d->rows, d->cols}
                                                                                                : (int64_t[]){1, 1, d->cols});
            else if (is(d->name, f->flatten))
                declare(o, o->gguf ? d->gguf_name : d->name, type, 1, &n);
            else
                declare(o, o->gguf ? d->gguf_name : d->name, type, d->n_dims, is(d->name, f->transpose) ? turned : as_is);
        }
        if (f->extra && pass)
            put(o, o->type, 32, 0, false);
        else if (f->extra)
            declare(o, f->extra, o->type, 1, (int64_t[]){32});
        if (f->head && pass)
            put(o, o->type, tensor_elements(&t.tensors[0]), f->head_value, f->head_value != 0);
        else if (f->head)
            declare(o, f->head, o->type, 2, (int64_t[]){t.tensors[0].rows, t.tensors[0].cols});
    }
    tensor_table_free(&t);
}

static struct model_config config_of_files(void)
{
    struct model_config c = small_config();
    c.vocab_size = 50;
    return c;
}

static void write_directory(const struct fault *f, enum dtype type)
{
    struct model_config c = config_of_files();
    struct out o = {.type = type};
    mkdir(DIR_NAME, 0777);
    char *text = model_config_to_json(&c);
    FILE *file = fopen(DIR_NAME "/config.json", "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(text);
    assert_int_equal(safetensors_create(&o.st, DIR_NAME "/model.safetensors", NULL), PLM_OK);
    put_tensors(&o, &c, f);
    assert_int_equal(safetensors_finish(o.st, NULL), PLM_OK);
}

/* One metadata entry that differs: left out, or with another value. */
struct entry {
    const char *key;
    int kind; /* 0: missing, 'u', 'f', 's' */
    uint32_t u;
    float f;
    const char *s;
};

static void write_gguf(const struct fault *f, const struct entry *e)
{
    const struct model_config c = config_of_files();
    struct out o = {.type = DTYPE_F16};
    const struct {
        const char *key;
        uint32_t u;
    } numbers[] = {{"plm.context_length", (uint32_t)c.max_position_embeddings}, {"plm.embedding_length", (uint32_t)c.hidden_size},
                   {"plm.block_count", (uint32_t)c.num_hidden_layers}, {"plm.feed_forward_length", (uint32_t)c.intermediate_size},
                   {"plm.attention.head_count", (uint32_t)c.num_attention_heads}, {"plm.attention.key_length", (uint32_t)model_qk_head_dim(&c)},
                   {"plm.attention.value_length", (uint32_t)c.v_head_dim}, {"plm.rope.dimension_count", (uint32_t)c.qk_rope_head_dim},
                   {"plm.attention.kv_lora_rank", (uint32_t)c.kv_lora_rank}, {"plm.vocab_size", (uint32_t)c.vocab_size}};
    assert_int_equal(gguf_create(&o.gguf, GGUF_NAME, NULL), PLM_OK);
    if (!is("general.architecture", e->key))
        gguf_set_string(o.gguf, "general.architecture", "plm", 3, NULL);
    if (!is("plm.attention.layer_norm_rms_epsilon", e->key))
        gguf_set_f32(o.gguf, "plm.attention.layer_norm_rms_epsilon", 1e-6f, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!is(numbers[i].key, e->key))
            gguf_set_u32(o.gguf, numbers[i].key, numbers[i].u, NULL);
    if (e->kind == 'u')
        gguf_set_u32(o.gguf, e->key, e->u, NULL);
    if (e->kind == 'f')
        gguf_set_f32(o.gguf, e->key, e->f, NULL);
    if (e->kind == 's')
        gguf_set_string(o.gguf, e->key, e->s, strlen(e->s), NULL);
    put_tensors(&o, &c, f);
    assert_int_equal(gguf_finish(o.gguf, NULL), PLM_OK);
}

/* Opening gives this code (and a message with these words). */
static void expect(const char *path, int code, const char *want, const char *also)
{
    struct plm_status st = {0};
    struct plm_model *m;
    const int got = plm_model_open(&m, path, &st);
    if (got != code || (code && (!strstr(st.message, want) || !strstr(st.message, also))))
        fail_msg("expected code %d with '%s' and '%s', got %d: %s", code, want ? want : "", also ? also : "", got, st.message);
    plm_model_close(m);
}

static void expect_both(const struct fault *f, int code, const char *hf_name, const char *gguf_name, const char *also)
{
    write_directory(f, DTYPE_F32);
    expect(DIR_NAME, code, hf_name, also);
    write_directory(f, DTYPE_BF16);
    expect(DIR_NAME, code, hf_name, also);
    write_gguf(f, &(struct entry){0});
    expect(GGUF_NAME, code, gguf_name, also);
}

static void wrong_tensors(void **state)
{
    (void)state;
    static const char up[] = "model.layers.1.mlp.up_proj.weight", norm[] = "model.layers.0.self_attn.kv_a_layernorm.weight";
    expect_both(&(struct fault){0}, PLM_OK, NULL, NULL, NULL);
    expect_both(&(struct fault){.drop = up}, PLM_EFORMAT, up, "blk.1.ffn_up.weight", "missing");
    expect_both(&(struct fault){.drop = "model.norm.weight"}, PLM_EFORMAT, "model.norm.weight", "output_norm.weight", "missing");
    expect_both(&(struct fault){.extra = "model.layers.0.self_attn.q_proj.bias"}, PLM_EFORMAT, "unknown tensor 'model.layers.0.self_attn.q_proj.bias'",
                "unknown tensor 'model.layers.0.self_attn.q_proj.bias'", "has 20 tensors");
    expect_both(&(struct fault){.transpose = up}, PLM_EFORMAT, up, "blk.1.ffn_up.weight", "(96, 64)");
    expect_both(&(struct fault){.flatten = up}, PLM_EFORMAT, up, "blk.1.ffn_up.weight", "1 dimensions");
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        expect_both(&(struct fault){.damage = norm, .value = values[i]}, PLM_EFORMAT, norm, "blk.0.attn_kv_a_norm.weight", "element 31 is ");
        expect_both(&(struct fault){.damage = "model.norm.weight", .value = values[i]}, PLM_EFORMAT, "model.norm.weight", "output_norm.weight",
                    "element 63 is ");
    }
}

/* lm_head.weight (output.weight): fine when it repeats the embedding. */
static void separate_heads(void **state)
{
    (void)state;
    write_directory(&(struct fault){.head = "lm_head.weight"}, DTYPE_BF16);
    expect(DIR_NAME, PLM_OK, NULL, NULL);
    write_directory(&(struct fault){.head = "lm_head.weight", .head_value = 0.25f}, DTYPE_BF16);
    expect(DIR_NAME, PLM_EUNSUPPORTED, "'lm_head.weight' differs from the embedding", "tied");
    write_directory(&(struct fault){.head = "lm_head.weight", .extra = "more"}, DTYPE_F32);
    expect(DIR_NAME, PLM_EFORMAT, "unknown tensor 'more'", "20 tensors");
    write_gguf(&(struct fault){.head = "output.weight"}, &(struct entry){0});
    expect(GGUF_NAME, PLM_OK, NULL, NULL);
    write_gguf(&(struct fault){.head = "output.weight", .head_value = 0.25f}, &(struct entry){0});
    expect(GGUF_NAME, PLM_EUNSUPPORTED, "'output.weight' differs from the embedding", "tied");
}

/* Tensors that hold only what the configuration says are left out; of others the name is told. */
static void derived_tensors(void **state)
{
    (void)state;
    expect_both(&(struct fault){.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"}, PLM_OK, NULL, NULL, NULL);
    expect_both(&(struct fault){.extra = "model.rotary_emb.cos_cached"}, PLM_OK, NULL, NULL, NULL);
    expect_both(&(struct fault){.extra = "inv_freq.weight"}, PLM_EFORMAT, "'inv_freq.weight'", "'inv_freq.weight'", "unknown tensor");
}

/* A norm of ne (n, 1, 1) in GGUF is one of n elements; in a safetensors file it is another shape. */
static void dimensions_of_one(void **state)
{
    (void)state;
    static const char norm[] = "model.layers.1.input_layernorm.weight", up[] = "model.layers.1.mlp.up_proj.weight";
    write_gguf(&(struct fault){.pad = norm}, &(struct entry){0});
    expect(GGUF_NAME, PLM_OK, NULL, NULL);
    write_gguf(&(struct fault){.pad = up}, &(struct entry){0});
    expect(GGUF_NAME, PLM_OK, NULL, NULL);
    write_directory(&(struct fault){.pad = norm}, DTYPE_F32);
    expect(DIR_NAME, PLM_EFORMAT, norm, "3 dimensions");
}

/* A NaN in a matrix is not looked for (the file is mapped, not read), but no text comes out of it. */
static void damaged_matrices_are_found_in_the_logits(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct plm_model *m;
    struct plm_session *s;
    int32_t token;
    write_directory(&(struct fault){.damage = "model.layers.1.mlp.down_proj.weight", .value = NAN}, DTYPE_BF16);
    assert_int_equal(plm_model_open(&m, DIR_NAME, &st), PLM_OK);
    assert_int_equal(plm_session_open(&s, m, NULL, &st), PLM_OK);
    assert_int_equal(plm_session_append(s, (const int32_t[]){1, 2, 3}, 3, &st), PLM_OK);
    const struct plm_sampling greedy = {.top_p = 1, .repetition_penalty = 1};
    assert_int_equal(plm_session_sample(s, &greedy, &token, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "damaged"));
    plm_session_close(s);
    plm_model_close(m);
}

static void wrong_metadata(void **state)
{
    (void)state;
    static const struct {
        struct entry e;
        int code;
        const char *want, *also;
    } cases[] = {
        {{"general.architecture"}, PLM_EFORMAT, "general.architecture", "missing"},
        {{"general.architecture", 's', .s = "llama"}, PLM_EUNSUPPORTED, "'llama'", "'plm'"},
        {{"general.architecture", 'u', 1}, PLM_EFORMAT, "general.architecture", "expected a string"},
        {{"plm.block_count"}, PLM_EFORMAT, "plm.block_count", "missing"},
        {{"plm.block_count", 'u', 0}, PLM_EFORMAT, "num_hidden_layers is 0", "expected 1 to"},
        {{"plm.block_count", 'u', 3}, PLM_EFORMAT, "blk.2.", "missing"},
        {{"plm.block_count", 'u', 1}, PLM_EFORMAT, "unknown tensor 'blk.1.", "11 tensors"},
        {{"plm.block_count", 'u', 4000000000u}, PLM_EFORMAT, "plm.block_count", "4000000000"},
        {{"plm.block_count", 'f', .f = 2}, PLM_EFORMAT, "plm.block_count", "expected an unsigned integer"},
        {{"plm.embedding_length", 'u', 65}, PLM_EFORMAT, "token_embd.weight", "65"},
        {{"plm.embedding_length", 'u', 2000000000}, PLM_EFORMAT, "hidden_size is 2000000000", "expected"},
        {{"plm.attention.key_length"}, PLM_EFORMAT, "key_length", "missing"},
        {{"plm.attention.key_length", 'u', 8}, PLM_EFORMAT, "qk_nope_head_dim is 0", "expected"},
        {{"plm.attention.key_length", 'u', 0}, PLM_EFORMAT, "qk_nope_head_dim is -8", "expected"},
        {{"plm.attention.value_length", 'u', 33}, PLM_EFORMAT, "attn_kv_b.weight", "(135, 32)"},
        {{"plm.attention.head_count", 's', .s = "3"}, PLM_EFORMAT, "head_count", "expected an unsigned integer"},
        {{"plm.attention.head_count", 'u', 70000}, PLM_EFORMAT, "num_attention_heads is 70000", "expected"},
        {{"plm.rope.dimension_count", 'u', 7}, PLM_EFORMAT, "qk_rope_head_dim is 7", "even"},
        {{"plm.attention.kv_lora_rank", 'u', 31}, PLM_EFORMAT, "attn_kv_a_mqa.weight", "(39, 64)"},
        {{"plm.attention.layer_norm_rms_epsilon", 'f', .f = NAN}, PLM_EFORMAT, "rms_norm_eps", "positive"},
        {{"plm.attention.layer_norm_rms_epsilon", 'f', .f = -1}, PLM_EFORMAT, "rms_norm_eps", "positive"},
        {{"plm.rope.freq_base", 'f', .f = 0}, PLM_EFORMAT, "rope_theta", "positive"},
        {{"plm.context_length", 'u', 0}, PLM_EFORMAT, "max_position_embeddings is 0", "expected"},
        {{"plm.vocab_size", 'u', 51}, PLM_EFORMAT, "token_embd.weight", "(51, 64)"},
        {{"plm.vocab_size", 'u', 1u << 30}, PLM_EFORMAT, "vocab_size", "expected"},
        {{"plm.vocab_size"}, PLM_EFORMAT, "tokenizer.ggml.tokens", "missing"},
        {{"tokenizer.ggml.tokens", 's', .s = "x"}, PLM_EFORMAT, "tokenizer.ggml", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_gguf(&(struct fault){0}, &cases[i].e);
        expect(GGUF_NAME, cases[i].code, cases[i].want, cases[i].also);
    }
}

static int clean_up(void **state)
{
    (void)state;
    remove_model(DIR_NAME);
    remove(GGUF_NAME);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(wrong_tensors), cmocka_unit_test(separate_heads), cmocka_unit_test(derived_tensors), cmocka_unit_test(dimensions_of_one),
                                       cmocka_unit_test(damaged_matrices_are_found_in_the_logits), cmocka_unit_test(wrong_metadata)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, clean_up);
}
