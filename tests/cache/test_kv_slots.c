/* Slots: storage in every type, and attention over them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tests/cache/support.h"
#include "tests/ops/tables.h"

static const struct kv_shape latent = {.content = 64, .rotary = 32, .type = DTYPE_F32, .rope_theta = 10000};
static const struct kv_shape mha = {.content = 32, .rotary = 32, .value = 64, .type = DTYPE_F32, .rope_theta = 10000};
static const struct kv_shape gqa = {.rotary = 64, .value = 32, .type = DTYPE_F32, .rope_theta = 10000};

static struct kv_shape of_type(struct kv_shape shape, enum dtype type)
{
    shape.type = type;
    return shape;
}

/* What comes back is the vector within the type's rounding, and the norm is that of what came back. */
static void round_trip(struct kv_shape shape, double tolerance)
{
    struct group g;
    group_create(&g, &shape, true);
    group_fill(&g, 20);
    for (int64_t i = 0; i < 20; i++) {
        float parts[3][64];
        const int widths[] = {shape.content, shape.rotary, shape.value};
        double norm = 0;
        kv_read(&g.slots, i, parts[0], parts[1], parts[2]);
        for (int p = 0; p < 3; p++)
            for (int k = 0; k < widths[p]; k++) {
                const double want = normal((uint32_t)(100 + p), (uint64_t)(i * 256 + k));
                if (!(fabs(parts[p][k] - want) <= tolerance * 4)) /* numbers up to 4 */
                    fail_msg("%s: part %d of slot %d: %g, expected %g", dtype_info(shape.type)->name, p, (int)i,
                             (double)parts[p][k], want);
                if (p == 0 || (p == 1 && shape.value))
                    norm += (double)parts[p][k] * parts[p][k];
            }
        assert_float_equal(g.slots.norm[i], sqrt(norm), 1e-6 * sqrt(norm));
        assert_int_equal(g.slots.pos[i], i);
    }
    group_free(&g);
}

static void storage_keeps_vectors(void **state)
{
    (void)state;
    const struct kv_shape shapes[] = {latent, mha, gqa};
    for (int i = 0; i < 3; i++) {
        round_trip(of_type(shapes[i], DTYPE_F32), 0);
        round_trip(of_type(shapes[i], DTYPE_F16), ldexp(1, -11));
        round_trip(of_type(shapes[i], DTYPE_Q8_0), 0.6 / 127);
    }
}

static void rows_have_the_documented_size(void **state)
{
    (void)state;
    const struct kv_shape plm = {.content = 512, .rotary = 64, .type = DTYPE_F16};
    assert_int_equal(kv_row_bytes(&plm), 1152);
    const struct kv_shape q8 = of_type(plm, DTYPE_Q8_0);
    assert_int_equal(kv_row_bytes(&q8), 612);
    assert_int_equal(kv_similarity_width(&plm), 512);
    assert_int_equal(kv_similarity_width(&mha), 64);
    assert_int_equal(kv_similarity_width(&gqa), 64);
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    struct plm_status st = {0};
    const struct kv_shape bad[] = {of_type(latent, DTYPE_BF16),
                                   {.content = 40, .rotary = 32, .type = DTYPE_Q8_0},
                                   {.content = 8, .rotary = 3, .type = DTYPE_F32},
                                   {.content = -8, .rotary = 8, .type = DTYPE_F32},
                                   {.rotary = 8, .type = DTYPE_F32}};
    static const char *const says[] = {"bf16", "content width of the KV cache is 40", "rotary width of the KV cache is 3", "-8",
                                       "needs keys"};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(kv_shape_check(&bad[i], &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, says[i]));
    }
}

/* Attention over stored rows, in double, from what kv_read gives. */
static void attention_agrees(struct kv_shape shape, int n_head, bool use_bias)
{
    enum { N = 37 };
    struct group g;
    float q_content[4 * 64], q_rotary[4 * 64], out[4 * 64], scratch[4 * N], before[N];
    const int width = shape.value ? shape.value : shape.content;
    const float scale = 0.13f;
    group_create(&g, &shape, true);
    group_fill(&g, N);
    for (int i = 0; i < n_head * 64; i++)
        q_content[i] = normal(1, (uint64_t)i), q_rotary[i] = normal(2, (uint64_t)i);
    for (int i = 0; i < N; i++) {
        g.slots.count[i] = (float)(1 + i % 3);
        g.slots.bias[i] = logf(g.slots.count[i]);
        before[i] = g.slots.score[i];
    }
    kv_attend(&g.slots, ops_select(OPS_BEST), n_head, q_content, q_rotary, scale, use_bias, out, scratch);
    double added[N] = {0};
    for (int h = 0; h < n_head; h++) {
        double p[N], z[64] = {0}, sum = 0;
        for (int i = 0; i < N; i++) {
            float content[64], rotary[64], value[64];
            double logit = 0;
            kv_read(&g.slots, i, content, rotary, value);
            for (int k = 0; k < shape.content; k++)
                logit += (double)content[k] * q_content[h * shape.content + k];
            for (int k = 0; k < shape.rotary; k++)
                logit += (double)rotary[k] * q_rotary[h * shape.rotary + k];
            p[i] = exp(logit * scale + (use_bias ? log(1 + i % 3) : 0));
            sum += p[i];
            for (int k = 0; k < width; k++)
                z[k] += p[i] * (shape.value ? value[k] : content[k]);
        }
        for (int k = 0; k < width; k++)
            assert_float_equal(out[h * width + k], z[k] / sum, 1e-5);
        for (int i = 0; i < N; i++)
            added[i] += p[i] / sum;
    }
    for (int i = 0; i < N; i++)
        assert_float_equal(g.slots.score[i] - before[i], added[i], 1e-5);
    group_free(&g);
}

static void attention_over_slots(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_Q8_0};
    for (int i = 0; i < 3; i++) {
        attention_agrees(of_type(latent, types[i]), 4, i % 2 == 0);
        attention_agrees(of_type(mha, types[i]), 1, true);
        attention_agrees(of_type(gqa, types[i]), 3, false);
    }
}

static void without_a_policy_nothing_is_counted(void **state)
{
    (void)state;
    struct group g;
    float q[96], out[64], scratch[3];
    group_create(&g, &latent, false);
    group_fill(&g, 3);
    assert_null(g.slots.score);
    for (int i = 0; i < 96; i++)
        q[i] = normal(1, (uint64_t)i);
    kv_attend(&g.slots, ops_select(OPS_BEST), 1, q, q + 64, 0.1f, false, out, scratch);
    assert_true(isfinite(out[0]));
    group_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_keeps_vectors),
        cmocka_unit_test(rows_have_the_documented_size),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(attention_over_slots),
        cmocka_unit_test(without_a_policy_nothing_is_counted),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
