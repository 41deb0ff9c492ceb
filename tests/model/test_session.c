#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "infer/model/session.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

#define GOLDEN_VOCAB 61
#define TOLERANCE 1e-5 /* relative, of float32 logits */

static struct plm_model *open_or_fail(const char *path)
{
    struct plm_status st = {0};
    struct plm_model *m;
    if (plm_model_open(&m, path, &st))
        fail_msg("%s", st.message);
    return m;
}

static struct plm_session *session_or_fail(const struct plm_model *m, int threads)
{
    struct plm_status st = {0};
    struct plm_session *s;
    const struct plm_session_options o = {.n_threads = threads};
    if (plm_session_open(&s, m, &o, &st))
        fail_msg("%s", st.message);
    return s;
}

/* Prefill and decode against the float64 reference. */
static void logits_agree_with_the_reference(void **state)
{
    (void)state;
    struct safetensors expected;
    int32_t tokens[64];
    float *got = malloc(64 * GOLDEN_VOCAB * sizeof *got);
    assert_int_equal(safetensors_open(&expected, GOLDEN "/plain/expected.safetensors", NULL), PLM_OK);
    const struct stored_tensor *want = safetensors_find(&expected, "logits");
    assert_non_null(want);
    struct plm_model *m = open_or_fail(GOLDEN "/plain/model");
    for (int threads = 1; threads <= 2; threads++)
        for (int row = 0; row < 2; row++)
            for (int decode = 0; decode < 2; decode++) {
                const size_t n = read_integers(GOLDEN "/plain/batch.json", "tokens", row, tokens, 64);
                struct plm_session *s = session_or_fail(m, threads);
                assert_int_equal(n, 24);
                assert_int_equal(session_append_logits(s, tokens, n, decode, got, NULL), PLM_OK);
                assert_true(relative_error(got, (const float *)want->data + row * 24 * GOLDEN_VOCAB, n * GOLDEN_VOCAB) < TOLERANCE);
                assert_memory_equal(plm_session_logits(s), got + (n - 1) * GOLDEN_VOCAB, GOLDEN_VOCAB * sizeof *got);
                plm_session_close(s);
            }
    plm_model_close(m);
    safetensors_close(&expected);
    free(got);
}

static void greedy_tokens_equal_the_reference(void **state)
{
    (void)state;
    int32_t prompt[64], want[64];
    const size_t n_prompt = read_integers(GOLDEN "/plain/greedy.json", "prompt", -1, prompt, 64);
    const size_t n = read_integers(GOLDEN "/plain/greedy.json", "tokens", -1, want, 64);
    struct plm_sampling greedy = plm_sampling_default();
    greedy.temperature = 0;
    struct plm_model *m = open_or_fail(GOLDEN "/plain/model");
    struct plm_session *s = session_or_fail(m, 2);
    assert_int_equal(n, 32);
    assert_int_equal(plm_session_append(s, prompt, n_prompt, NULL), PLM_OK);
    for (size_t i = 0; i < n; i++) {
        int32_t token;
        assert_int_equal(plm_session_sample(s, &greedy, &token, NULL), PLM_OK);
        assert_int_equal(token, want[i]);
        assert_int_equal(plm_session_append(s, &token, 1, NULL), PLM_OK);
    }
    plm_session_close(s);
    plm_model_close(m);
}

/* 650 tokens: one at a time, in one prefill of three chunks, in two prefills, and after cutting back: the same logits. */
static void every_way_through_the_cache_gives_the_same(void **state)
{
    (void)state;
    enum { N = 650 };
    char path[64];
    const struct model_config c = small_config();
    const size_t vocab = (size_t)c.vocab_size;
    int32_t tokens[N];
    float *decode = malloc(N * vocab * sizeof *decode), *prefill = malloc(N * vocab * sizeof *prefill);
    for (int i = 0; i < N; i++)
        tokens[i] = (i * 37 + i / 7) % c.vocab_size;
    write_random_model(&c, DTYPE_F32, path, sizeof path);
    struct plm_model *m = open_or_fail(path);
    struct plm_session *s = session_or_fail(m, 2);
    assert_int_equal(session_append_logits(s, tokens, N, true, decode, NULL), PLM_OK);
    assert_int_equal(plm_session_length(s), N);
    assert_int_equal(plm_session_truncate(s, 0, NULL), PLM_OK);
    assert_null(plm_session_logits(s));
    assert_int_equal(session_append_logits(s, tokens, N, false, prefill, NULL), PLM_OK);
    assert_true(relative_error(prefill, decode, N * vocab) < TOLERANCE);
    assert_int_equal(plm_session_truncate(s, 100, NULL), PLM_OK);
    assert_int_equal(session_append_logits(s, tokens + 100, 50, true, prefill, NULL), PLM_OK);
    assert_int_equal(session_append_logits(s, tokens + 150, N - 150, false, prefill, NULL), PLM_OK);
    assert_true(relative_error(prefill, decode + 150 * vocab, (N - 150) * vocab) < TOLERANCE);
    plm_session_close(s);
    plm_model_close(m);
    remove_model(path);
    free(decode);
    free(prefill);
}

/* Scaled rotary embeddings: the cache's way and prefill's agree, beyond the original context too, and differ from the unscaled model. */
static void scaled_positions_agree(void **state)
{
    (void)state;
    enum { N = 200 };
    static const struct rope_scaling kinds[] = {{0}, {.type = ROPE_LINEAR, .factor = 4}, {.type = ROPE_YARN, .factor = 4, .original = 64, .beta_fast = 32,
        .beta_slow = 1, .mix = 1, .magnitude = 1.1386294f, .logit_factor = 1.2f}};
    int32_t tokens[N];
    float *logits[3];
    for (int i = 0; i < N; i++)
        tokens[i] = (i * 31 + 5) % 60;
    for (int k = 0; k < 3; k++) {
        struct model_config c = small_config();
        const size_t vocab = (size_t)c.vocab_size;
        char path[64];
        c.rope_scaling = kinds[k];
        write_random_model(&c, DTYPE_F32, path, sizeof path);
        struct plm_model *m = open_or_fail(path);
        struct plm_session *s = session_or_fail(m, 2);
        float *decoded = malloc(N * vocab * sizeof *decoded);
        logits[k] = malloc(N * vocab * sizeof *logits[k]);
        assert_int_equal(session_append_logits(s, tokens, N, false, logits[k], NULL), PLM_OK);
        assert_int_equal(plm_session_truncate(s, 0, NULL), PLM_OK);
        assert_int_equal(session_append_logits(s, tokens, N, true, decoded, NULL), PLM_OK);
        assert_true(relative_error(decoded, logits[k], N * vocab) < TOLERANCE);
        assert_true(k == 0 || relative_error(logits[k], logits[0], N * vocab) > 1e-3);
        free(decoded);
        plm_session_close(s);
        plm_model_close(m);
        remove_model(path);
    }
    for (int k = 0; k < 3; k++)
        free(logits[k]);
}

/* Weights in 16 bits compute what the same rounded weights compute in 32. Where prefill rounds activations to bf16 and decoding does
 * not, the two differ by some of these roundings, of two layers. */
static void sixteen_bit_weights(void **state)
{
    (void)state;
    enum { N = 40 };
    const struct model_config c = small_config();
    const size_t vocab = (size_t)c.vocab_size;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const double tolerance[] = {0, 2e-2, 1e-1};
    const double rounding[] = {0, 0, (double)ops_select(OPS_BEST)->bf16_rounding};
    int32_t tokens[N];
    float *logits[3];
    for (int i = 0; i < N; i++)
        tokens[i] = (i * 29 + 3) % c.vocab_size;
    for (int k = 0; k < 3; k++) {
        char path[64];
        logits[k] = malloc(2 * N * vocab * sizeof *logits[k]);
        write_random_model(&c, types[k], path, sizeof path);
        struct plm_model *m = open_or_fail(path);
        struct plm_session *s = session_or_fail(m, 1);
        assert_int_equal(session_append_logits(s, tokens, N, false, logits[k], NULL), PLM_OK);
        assert_int_equal(plm_session_truncate(s, 0, NULL), PLM_OK);
        assert_int_equal(session_append_logits(s, tokens, N, true, logits[k] + N * vocab, NULL), PLM_OK);
        assert_true(relative_error(logits[k] + N * vocab, logits[k], N * vocab) < TOLERANCE + 4 * rounding[k]);
        const double error = relative_error(logits[k], logits[0], N * vocab);
        assert_true(k == 0 || (error > 0 && error < tolerance[k]));
        plm_session_close(s);
        plm_model_close(m);
        remove_model(path);
    }
    for (int k = 0; k < 3; k++)
        free(logits[k]);
}

static void errors_leave_the_sequence_alone(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct plm_session *none;
    int32_t token, many[97] = {0};
    const int32_t good[] = {1, 2, 3}, bad[] = {1, GOLDEN_VOCAB};
    struct plm_model *m = open_or_fail(GOLDEN "/plain/model");
    struct plm_session *s = session_or_fail(m, 1);
    const struct plm_sampling sampling = plm_sampling_default();
    assert_int_equal(plm_session_sample(s, &sampling, &token, &st), PLM_EINVAL);
    assert_int_equal(plm_session_append(s, good, 0, &st), PLM_EINVAL);
    assert_int_equal(plm_session_append(s, good, 3, &st), PLM_OK);
    float before[GOLDEN_VOCAB];
    memcpy(before, plm_session_logits(s), sizeof before);
    assert_int_equal(plm_session_append(s, bad, 2, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "token 1 is 61"));
    assert_int_equal(plm_session_append(s, many, 94, &st), PLM_ELIMIT);
    assert_int_equal(plm_session_truncate(s, 4, &st), PLM_EINVAL);
    assert_int_equal(plm_session_length(s), 3);
    assert_memory_equal(before, plm_session_logits(s), sizeof before);
    assert_int_equal(plm_session_append(s, many, 93, &st), PLM_OK); /* exactly full */
    assert_int_equal(plm_session_append(s, many, 1, &st), PLM_ELIMIT);
    plm_session_close(s);
    assert_int_equal(plm_session_open(&none, m, &(struct plm_session_options){.context = 97}, &st), PLM_ELIMIT);
    assert_null(none);
    size_t n;
    assert_int_equal(plm_tokenize(m, "x", 1, false, many, 97, &n, &st), PLM_EUNSUPPORTED);
    plm_model_close(m);
    assert_int_equal(plm_model_open(&m, "no/such/model", &st), PLM_EIO);
    assert_non_null(strstr(st.message, "no/such/model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_agree_with_the_reference), cmocka_unit_test(greedy_tokens_equal_the_reference),
        cmocka_unit_test(every_way_through_the_cache_gives_the_same), cmocka_unit_test(sixteen_bit_weights), cmocka_unit_test(scaled_positions_agree),
        cmocka_unit_test(errors_leave_the_sequence_alone),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
