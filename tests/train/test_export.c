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
        enum dtype type;
        double low, high;
        int fallback;
    } cases[] = {{DTYPE_F32, -1, 1e-9, 0}, {DTYPE_F16, 0, 2e-2, 0}, {DTYPE_BF16, 0, 1e-1, 0}, {DTYPE_Q8_0, 0, 1e-1, 0}};
    char dir[64];
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    logits_of(dir, want);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct plm_model *m;
        struct export_summary summary;
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        if (export_gguf(m, cases[i].type, "test", "test.gguf", &summary, &st))
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
    assert_int_equal(export_gguf(m, DTYPE_Q8_0, "test", "test.gguf", &summary, NULL), PLM_OK);
    assert_int_equal(summary.n_fallback, 2);
    assert_string_equal(summary.first_fallback, "blk.0.attn_kv_b.weight");
    remove("test.gguf");
    assert_int_equal(export_gguf(m, DTYPE_F16, "test", "no/such/directory/test.gguf", &summary, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "no/such/directory"));
    plm_model_close(m);
    remove_model(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exported_models_compute_the_same), cmocka_unit_test(odd_rows_fall_back_and_say_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
