#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/session.h"
#include "tests/model/support.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/files.h"

enum { N = 40 };

static void logits_of(const char *path, float *out)
{
    struct plm_status st = {0};
    struct plm_model *m;
    struct plm_session *s;
    int32_t tokens[N];
    if (plm_model_open(&m, path, &st) || plm_session_open(&s, m, NULL, &st))
        fail_msg("%s", st.message);
    for (int i = 0; i < N; i++)
        tokens[i] = (i * 29 + 3) % plm_model_vocab_size(m);
    assert_int_equal(session_append_logits(s, tokens, N, false, out, NULL), PLM_OK);
    plm_session_close(s);
    plm_model_close(m);
}

/* A model exported in every type, opened again: the same logits in f32, close ones otherwise. */
static void exported_models_compute_the_same(void **state)
{
    (void)state;
    const struct model_config c = small_config();
    const size_t n = N * (size_t)c.vocab_size;
    static const struct {
        const char *type;
        double low, high;
        int fallback;
    } cases[] = {{"f32", -1, 1e-9, 0}, {"f16", 0, 2e-2, 0}, {"bf16", 0, 1e-1, 0}, {"q8_0", 0, 1e-1, 0}, {"q4_0", 0.01, 1, 0},
                 {"q4_k", 0, 1e-1, 13}};
    char dir[64];
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    logits_of(dir, want);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct plm_model *m;
        struct export_summary summary;
        const struct model_card card = {.eos = -1, .turn_end = -1};
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        struct export_type type;
        assert_true(export_type_by_name(&type, cases[i].type));
        if (export_gguf(m, &card, &type, "test", "test.gguf", &summary, &st))
            fail_msg("%s", st.message);
        plm_model_close(m);
        assert_int_equal(summary.n_fallback, cases[i].fallback);
        assert_int_equal(summary.n_files, 1);
        assert_int_equal(strlen(summary.files[0].sha256), 64);
        export_summary_free(&summary);
        logits_of("test.gguf", got);
        const double error = relative_error(got, want, n);
        assert_true(error > cases[i].low && error < cases[i].high);
        remove("test.gguf");
    }
    remove_model(dir);
    free(want);
    free(got);
}

static void odd_rows_fall_back_and_say_so(void **state)
{
    (void)state;
    struct model_config c = small_config();
    c.kv_lora_rank = 24;
    char dir[64];
    struct plm_model *m;
    struct export_summary summary;
    const struct model_card card = {.eos = -1, .turn_end = -1};
    struct plm_status st = {0};
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
    struct export_type type;
    assert_false(export_type_by_name(&type, "q4_1"));
    assert_true(export_type_by_name(&type, "q8_0"));
    assert_int_equal(export_gguf(m, &card, &type, "test", "test.gguf", &summary, NULL), PLM_OK);
    assert_int_equal(summary.n_fallback, 2);
    assert_string_equal(summary.first_fallback, "blk.0.attn_kv_b.weight");
    assert_string_equal(summary.fallbacks, "attn_kv_b.weight (f16)");
    export_summary_free(&summary);
    remove("test.gguf");
    assert_true(export_type_by_name(&type, "f16"));
    assert_int_equal(export_gguf(m, &card, &type, "test", "no/such/directory/test.gguf", &summary, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "no/such/directory"));
    plm_model_close(m);
    remove_model(dir);
}

/* The types of a q4_k_m file, tensor by tensor, and that the models of wide rows compute nearly the same in every K type. */
static void mixtures_give_some_matrices_more_bits(void **state)
{
    (void)state;
    struct model_config c = small_config();
    c.num_hidden_layers = 9, c.hidden_size = 256, c.kv_lora_rank = 256, c.v_head_dim = 256, c.num_attention_heads = 2, c.intermediate_size = 256;
    static const bool more[9] = {true, false, false, true, false, false, true, true, true}; /* 9 / 8 = 1; from 63 / 8 = 7 */
    const size_t n = N * (size_t)c.vocab_size;
    static const struct {
        const char *name;
        double high;
    } cases[] = {{"q6_k", 0.4}, {"q4_k_m", 0.9}, {"q4_k", 0.9}}; /* random weights, nine layers */
    char dir[64];
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    logits_of(dir, want);
    for (int i = 0; i < 3; i++) {
        struct plm_status st = {0};
        struct plm_model *m;
        struct export_summary summary;
        const struct model_card card = {.eos = -1, .turn_end = -1};
        struct export_type type;
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        assert_true(export_type_by_name(&type, cases[i].name));
        if (export_gguf(m, &card, &type, "test", "test.gguf", &summary, &st))
            fail_msg("%s", st.message);
        plm_model_close(m);
        assert_int_equal(summary.n_fallback, 0);
        export_summary_free(&summary);
        logits_of("test.gguf", got);
        const double error = relative_error(got, want, n);
        assert_true(error > 0 && error < cases[i].high);
        if (i == 1) {
            struct gguf *g;
            assert_int_equal(gguf_open(&g, "test.gguf", &st), PLM_OK);
            for (int layer = -1; layer < c.num_hidden_layers; layer++) {
                struct stored_tensor s;
                char name[64] = "token_embd.weight";
                if (layer >= 0)
                    snprintf(name, sizeof name, "blk.%d.ffn_down.weight", layer);
                assert_int_equal(gguf_tensor(g, name, &s, &st), PLM_OK);
                assert_int_equal(s.type, layer < 0 || more[layer] ? DTYPE_Q6_K : DTYPE_Q4_K);
            }
            gguf_close(g);
        }
        remove("test.gguf");
    }
    remove_model(dir);
    free(want);
    free(got);
}

static struct plm_model *open_or_fail(const char *path)
{
    struct plm_status st = {0};
    struct plm_model *m;
    if (plm_model_open(&m, path, &st))
        fail_msg("%s", st.message);
    return m;
}

/* Every weight of two models is the same number. */
static void assert_same_weights(const char *path, const char *other)
{
    struct plm_model *a = open_or_fail(path), *b = open_or_fail(other);
    assert_int_equal(a->table.n_tensors, b->table.n_tensors);
    for (int i = 0; i < a->table.n_tensors; i++) {
        const struct weight *x = weights_slot(&a->weights, &a->table.tensors[i]), *y = weights_slot(&b->weights, &b->table.tensors[i]);
        float *row[2] = {malloc((size_t)x->cols * sizeof(float)), malloc((size_t)x->cols * sizeof(float))};
        for (int64_t r = 0; r < x->rows; r++) {
            dtype_to_f32(x->type, row[0], (const char *)x->data + (size_t)r * dtype_row_bytes(x->type, x->cols), x->cols);
            dtype_to_f32(y->type, row[1], (const char *)y->data + (size_t)r * dtype_row_bytes(y->type, y->cols), y->cols);
            assert_memory_equal(row[0], row[1], (size_t)x->cols * sizeof(float));
        }
        free(row[0]);
        free(row[1]);
    }
    plm_model_close(a);
    plm_model_close(b);
}

/* Export as a directory; the number of its files. */
static int write_hf(const char *from, enum dtype type, int64_t shard_bytes, const char *to)
{
    struct plm_status st = {0};
    struct plm_model *m = open_or_fail(from);
    struct model_card card;
    struct export_summary summary;
    assert_int_equal(model_card_read(&card, m, from, &st), PLM_OK);
    if (export_hf(m, &card, type, shard_bytes, to, &summary, &st))
        fail_msg("%s", st.message);
    const int n = summary.n_files;
    int64_t bytes = 0;
    int tensors = 0;
    for (int i = 0; i < n; i++) {
        bytes += summary.files[i].bytes;
        tensors += summary.files[i].n_tensors;
        assert_int_equal(strlen(summary.files[i].sha256), 64);
    }
    assert_int_equal(bytes, summary.bytes);
    assert_int_equal(tensors, m->table.n_tensors);
    assert_int_equal(summary.n_of_type[type], tensors);
    assert_int_equal(summary.bytes_of_type[type], m->table.parameters * dtype_info(type)->block_bytes);
    export_summary_free(&summary);
    model_card_free(&card);
    plm_model_close(m);
    return n;
}

static void directories_hold_the_same_weights(void **state)
{
    (void)state;
    const struct model_config c = small_config();
    const size_t n = N * (size_t)c.vocab_size;
    char dir[64];
    struct plm_status st = {0};
    struct plm_model *m;
    struct export_summary summary;
    struct export_type type;
    const struct model_card none = {.eos = -1, .turn_end = -1};
    write_random_model(&c, DTYPE_BF16, dir, sizeof dir);

    assert_int_equal(write_hf(dir, DTYPE_F32, 0, "hf"), 4); /* without a tokenizer: two of JSON, one of weights, README.md */
    assert_same_weights(dir, "hf");
    assert_int_equal(write_hf("hf", DTYPE_BF16, 0, "hf-bf16"), 4);
    assert_same_weights(dir, "hf-bf16");
    const int files = write_hf("hf", DTYPE_F32, 40000, "hf-shards");
    assert_true(files > 3 + 2); /* shards, and the index */
    assert_same_weights(dir, "hf-shards");
    assert_int_equal(write_hf("hf-shards", DTYPE_F32, 1, "hf-single"), 4 + c.num_hidden_layers * 9 + 2); /* a file for every tensor */
    assert_same_weights("hf-shards", "hf-single");

    /* What training starts from. */
    m = open_or_fail("hf-shards");
    float *params = calloc((size_t)m->table.padded, sizeof *params);
    if (checkpoint_load_weights("hf-shards", &m->table, params, &st))
        fail_msg("%s", st.message);
    for (int i = 0; i < m->table.n_tensors; i++)
        assert_memory_equal(params + m->table.tensors[i].offset, weights_slot(&m->weights, &m->table.tensors[i])->data,
                            (size_t)tensor_elements(&m->table.tensors[i]) * sizeof *params);
    free(params);

    /* Quantised, imported: the same function. */
    assert_true(export_type_by_name(&type, "q4_0"));
    assert_int_equal(export_gguf(m, &none, &type, "test", "test.gguf", &summary, &st), PLM_OK);
    export_summary_free(&summary);
    assert_int_equal(write_hf("test.gguf", DTYPE_F32, 0, "hf-q4_0"), 4);
    assert_same_weights("test.gguf", "hf-q4_0");
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    logits_of("test.gguf", want);
    logits_of("hf-q4_0", got);
    assert_true(relative_error(got, want, n) < 3e-2); /* activations are rounded where weights are quantised */
    free(want);
    free(got);

    assert_int_equal(export_hf(m, &none, DTYPE_Q8_0, 0, "hf-q8_0", &summary, &st), PLM_EUNSUPPORTED);
    assert_int_equal(export_hf(m, &none, DTYPE_F32, 0, "hf", &summary, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "'hf' is there and not an empty directory"));
    assert_int_equal(export_hf(m, &none, DTYPE_F32, 0, "test.gguf", &summary, &st), PLM_EINVAL);
    assert_int_equal(export_hf(m, &none, DTYPE_F32, 0, "nowhere/hf", &summary, &st), PLM_EIO);
    plm_model_close(m);
    static const char *const made[] = {"hf", "hf-bf16", "hf-shards", "hf-single", "hf-q4_0"};
    for (int i = 0; i < 5; i++)
        assert_int_equal(directory_remove(made[i], &st), PLM_OK);
    remove("test.gguf");
    remove_model(dir);
}

/* What cannot be stored is not written. */
static void weights_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const struct {
        float value;
        const char *type, *want;
    } cases[] = {{NAN, "f32", "tensor 'blk.1.ffn_down.weight': row 63, column 95 is"}, {NAN, "q8_0", "is"}, {INFINITY, "q4_0", "is inf"},
                 {1e5f, "f16", "column 95 is too large for type f16"}, {3e38f, "q8_0", "too large for type q8_0"}, {1e5f, "bf16", NULL}, {1e5f, "q8_0", NULL}};
    const struct model_config c = small_config();
    const struct model_card none = {.eos = -1, .turn_end = -1};
    char dir[64];
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    struct plm_model *m = open_or_fail(dir);
    struct weight *w = &m->weights.layers[1].at[TENSOR_DOWN];
    const size_t elements = (size_t)(w->rows * w->cols);
    float *changed = malloc(elements * sizeof *changed);
    memcpy(changed, w->data, elements * sizeof *changed);
    w->data = changed;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct export_summary summary;
        struct export_type type;
        changed[elements - 1] = cases[i].value;
        assert_true(export_type_by_name(&type, cases[i].type));
        const int code = export_gguf(m, &none, &type, "test", "test.gguf", &summary, &st);
        if (code != (cases[i].want ? PLM_EFORMAT : PLM_OK) || (cases[i].want && !strstr(st.message, cases[i].want)))
            fail_msg("%s: expected '%s', got %d, '%s'", cases[i].type, cases[i].want ? cases[i].want : "success", code, st.message);
        assert_int_equal(access("test.gguf", F_OK), cases[i].want ? -1 : 0);
        assert_int_equal(access("test.gguf.tmp", F_OK), -1);
        export_summary_free(&summary);
        remove("test.gguf");
    }
    changed[elements - 1] = NAN;
    struct plm_status st = {0};
    struct export_summary summary;
    assert_int_equal(export_hf(m, &none, DTYPE_F32, 100000, "hf", &summary, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "model.layers.1.mlp.down_proj.weight"));
    assert_int_equal(access("hf", F_OK), -1);
    assert_int_equal(access("hf.tmp", F_OK), -1);
    export_summary_free(&summary);
    plm_model_close(m);
    free(changed);
    remove_model(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exported_models_compute_the_same), cmocka_unit_test(odd_rows_fall_back_and_say_so),
                                       cmocka_unit_test(mixtures_give_some_matrices_more_bits),
                                       cmocka_unit_test(directories_hold_the_same_weights), cmocka_unit_test(weights_that_do_not_fit_are_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
