#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/session.h"
#include "tests/model/support.h"
#include "train/export.h"

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
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        struct export_type type;
        assert_true(export_type_by_name(&type, cases[i].type));
        if (export_gguf(m, &type, "test", "test.gguf", &summary, &st))
            fail_msg("%s", st.message);
        plm_model_close(m);
        assert_int_equal(summary.n_fallback, cases[i].fallback);
        assert_int_equal(strlen(summary.sha256), 64);
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
    struct plm_status st = {0};
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
    struct export_type type;
    assert_false(export_type_by_name(&type, "q4_1"));
    assert_true(export_type_by_name(&type, "q8_0"));
    assert_int_equal(export_gguf(m, &type, "test", "test.gguf", &summary, NULL), PLM_OK);
    assert_int_equal(summary.n_fallback, 2);
    assert_string_equal(summary.first_fallback, "blk.0.attn_kv_b.weight");
    assert_string_equal(summary.fallbacks, "attn_kv_b.weight (f16)");
    remove("test.gguf");
    assert_true(export_type_by_name(&type, "f16"));
    assert_int_equal(export_gguf(m, &type, "test", "no/such/directory/test.gguf", &summary, &st), PLM_EIO);
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
        struct export_type type;
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        assert_true(export_type_by_name(&type, cases[i].name));
        if (export_gguf(m, &type, "test", "test.gguf", &summary, &st))
            fail_msg("%s", st.message);
        plm_model_close(m);
        assert_int_equal(summary.n_fallback, 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exported_models_compute_the_same), cmocka_unit_test(odd_rows_fall_back_and_say_so),
                                       cmocka_unit_test(mixtures_give_some_matrices_more_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
