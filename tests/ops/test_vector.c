/* The vector entries of every table against float64, for every length around the widths of the registers. */
#include "tests/ops/ops_check.h"

#include <math.h>
#include <string.h>

enum { N_LENGTHS = 14 };
static const int64_t lengths[N_LENGTHS] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129, 1003};

static void check_close(const char *table, const char *entry, int64_t n, int64_t i, double found, double expected,
                        double tolerance)
{
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%s %s n %d: element %d is %.9g, expected %.9g", table, entry, (int)n, (int)i, found, expected);
}

static void check_complete(const struct ops *ops)
{
    assert_non_null(ops->name);
    assert_true(ops->gemm && ops->gemm_serial && ops->gemm_scratch_bytes && ops->sparse_rows && ops->dot && ops->axpy && ops->scale && ops->add);
    assert_true(ops->max && ops->exp_sum && ops->to_f32 && ops->rms_norm && ops->relu2 && ops->rope);
}

static void test_complete(void **state)
{
    (void)state;
    for_each_table(check_complete);
}

static void check_named(const struct ops *ops)
{
    assert_int_equal(setenv("PLM_OPS", ops->name, 1), 0);
    assert_ptr_equal(ops_select(OPS_BEST), ops);
    assert_int_equal(unsetenv("PLM_OPS"), 0);
}

/* Levels of another architecture are those before them. */
static void check_levels(void)
{
#if defined(__x86_64__)
    assert_ptr_equal(ops_select(OPS_NEON_I8MM), ops_select(OPS_AVX512FP16));
    const struct ops *best = ops_select(OPS_BEST); /* a processor may have bf16 products and be slower with them */
    assert_true(best == ops_select(OPS_AVX512FP16) || best == ops_select(OPS_AVX512VNNI));
#elif defined(__aarch64__)
    assert_ptr_equal(ops_select(OPS_AVX512BF16), ops_select(OPS_PORTABLE));
    assert_string_equal(ops_select(OPS_NEON)->name, "neon");
    assert_ptr_equal(ops_select(OPS_BEST), ops_select(OPS_NEON_I8MM));
#endif
}

static void test_environment(void **state)
{
    (void)state;
    const char *set = getenv("PLM_OPS");
    char *before = set ? strdup(set) : NULL;
    assert_int_equal(unsetenv("PLM_OPS"), 0);
    assert_string_equal(ops_select(OPS_PORTABLE)->name, "portable");
    for_each_table(check_named);
    check_levels();
    if (before)
        assert_int_equal(setenv("PLM_OPS", before, 1), 0);
    free(before);
}

static void check_elementwise(const struct ops *ops)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        int64_t n = lengths[l];
        float *x = random_floats(n, 10), *y = random_floats(n, 11), *out = random_floats(n, 11);
        double sum = 0, size = 0, most = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)x[i] * y[i];
            size += fabs((double)x[i] * y[i]);
            most = fmax(most, x[i]);
        }
        check_close(ops->name, "dot", n, 0, ops->dot(x, y, n), sum, 1e-6 * size);
        assert_true(ops->max(x, n) == (float)most);
        ops->add(out, x, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(out[i] == y[i] + x[i]);
        memcpy(out, x, (size_t)n * sizeof *out);
        ops->scale(out, -1.7f, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(out[i] == x[i] * -1.7f);
        ops->relu2(out, x, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(out[i] == (x[i] > 0 ? x[i] * x[i] : 0));
        ops->relu2(x, x, n); /* in place */
        assert_memory_equal(x, out, (size_t)n * sizeof *x);
        x[n - 1] = NAN;
        ops->relu2(out, x, n);
        assert_true(isnan(out[n - 1]));
        free(x);
        free(y);
        free(out);
    }
    float low[3] = {-INFINITY, -5, -7};
    assert_true(ops->max(low, 3) == -5);
    assert_true(isinf(ops->max(low, 1)));
}

static void test_elementwise(void **state)
{
    (void)state;
    for_each_table(check_elementwise);
}

static void check_rows(const struct ops *ops)
{
    for (int type = 0; type < DTYPE_COUNT; type++)
        for (int l = 0; l < N_LENGTHS; l++) {
            int64_t n = lengths[l], block = dtype_info((enum dtype)type)->block_elements, whole = (n + block - 1) / block * block;
            float *values, *y = random_floats(n, 21), *out = random_floats(n, 21);
            void *row = random_rows((enum dtype)type, 1, whole, 20, &values);
            ops->axpy(out, 0.3f, row, (enum dtype)type, n);
            float most = 0; /* a q4_K value is a difference of larger numbers */
            for (int64_t i = 0; i < whole; i++)
                most = fmaxf(most, type == DTYPE_Q4_K ? fabsf(values[i]) : 0);
            for (int64_t i = 0; i < n; i++)
                check_close(ops->name, "axpy", n, i, out[i], y[i] + (double)0.3f * values[i],
                            2e-7 * (fabs(y[i]) + fabs(0.3 * values[i]) + most));
            ops->to_f32(out, row, (enum dtype)type, n);
            for (int64_t i = 0; i < n; i++)
                check_close(ops->name, "to_f32", n, i, out[i], values[i], 2e-7 * most);
            free(values);
            free(row);
            free(y);
            free(out);
        }
}

static void test_rows(void **state)
{
    (void)state;
    for_each_table(check_rows);
}

/* Every 16-bit pattern: denormals, infinities and NaN too. */
static void check_all_halves(const struct ops *ops)
{
    uint16_t *half = malloc(65536 * sizeof *half);
    float *out = malloc(65536 * sizeof *out);
    assert_true(half && out);
    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    for (int pass = 0; pass < 2; pass++) {
        ops->to_f32(out, half, pass ? DTYPE_BF16 : DTYPE_F16, 65536);
        for (int i = 0; i < 65536; i++) {
            float expected = pass ? bf16_to_f32((uint16_t)i) : f16_to_f32((uint16_t)i);
            assert_true(isnan(expected) ? isnan(out[i]) != 0 : !memcmp(&out[i], &expected, sizeof expected));
        }
    }
    free(half);
    free(out);
}

static void test_all_halves(void **state)
{
    (void)state;
    for_each_table(check_all_halves);
}

static void check_exp(const struct ops *ops)
{
    enum { N = 20011 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    assert_true(x && y);
    for (int64_t i = 0; i < N; i++) /* -87.3 to 88.7: results are normal numbers */
        x[i] = -87.3f + 176.0f * (float)i / N;
    ops->exp_sum(y, x, N, 1.0f, 0.0f);
    for (int64_t i = 0; i < N; i++)
        check_close(ops->name, "exp", N, i, y[i], exp((double)x[i]), 3e-7 * exp((double)x[i]));
    for (int l = 0; l < N_LENGTHS; l++) {
        int64_t n = lengths[l];
        float *z = random_floats(n, 30);
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += exp((double)fmaf(0.5f, z[i], -2.0f));
        check_close(ops->name, "exp_sum", n, 0, ops->exp_sum(z, z, n, 0.5f, 2.0f), sum, 1e-6 * sum);
        free(z);
    }
    float edge[8] = {-INFINITY, -1e30f, -104.5f, -95.0f, 0.0f, 89.5f, NAN, INFINITY};
    ops->exp_sum(edge, edge, 8, 1.0f, 0.0f);
    assert_true(edge[0] == 0 && edge[1] == 0 && edge[2] == 0 && edge[4] == 1);
    assert_true(isinf(edge[5]) && isnan(edge[6]) && isinf(edge[7]));
    assert_true(edge[3] >= 0 && edge[3] < 1e-40f);
    float masked[3] = {-INFINITY, 3, -INFINITY};
    assert_true(ops->exp_sum(masked, masked, 3, 0.25f, 0.75f) == 1);
    free(x);
    free(y);
}

static void test_exp(void **state)
{
    (void)state;
    for_each_table(check_exp);
}

static void check_rms_norm(const struct ops *ops)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        int64_t n = lengths[l], rows = 3, ldx = n + 2, ldy = n + 1;
        float *x = random_floats(rows * ldx, 40), *weight = random_floats(n, 41), *y = random_floats(rows * ldy, 42), rstd[3];
        ops->rms_norm(y, ldy, rstd, x, ldx, weight, rows, n, 1e-6f);
        for (int64_t r = 0; r < rows; r++) {
            double squares = 0;
            for (int64_t i = 0; i < n; i++)
                squares += (double)x[r * ldx + i] * x[r * ldx + i];
            double expected = 1 / sqrt(squares / (double)n + 1e-6);
            check_close(ops->name, "rstd", n, r, rstd[r], expected, 1e-6 * expected);
            for (int64_t i = 0; i < n; i++) {
                double value = weight[i] * x[r * ldx + i] * expected;
                check_close(ops->name, "rms_norm", n, i, y[r * ldy + i], value, 2e-6 * fabs(value));
            }
        }
        ops->rms_norm(x, ldx, NULL, x, ldx, weight, rows, n, 1e-6f); /* in place */
        for (int64_t r = 0; r < rows; r++)
            assert_memory_equal(x + r * ldx, y + r * ldy, (size_t)n * sizeof *x);
        free(x);
        free(y);
        free(weight);
    }
}

static void test_rms_norm(void **state)
{
    (void)state;
    for_each_table(check_rms_norm);
}

static void check_rope(const struct ops *ops)
{
    for (int64_t n = 2; n <= 70; n += 2) {
        float *x = random_floats(n, 50), *out = random_floats(n, 50);
        float *c = random_floats(n / 2, 51), *s = random_floats(n / 2, 52);
        ops->rope(out, c, s, n);
        for (int64_t i = 0; i < n / 2; i++) {
            double a = x[2 * i], b = x[2 * i + 1], tolerance = 3e-7 * (fabs(a) + fabs(b)) * (fabs(c[i]) + fabs(s[i]));
            check_close(ops->name, "rope", n, 2 * i, out[2 * i], a * c[i] - b * s[i], tolerance);
            check_close(ops->name, "rope", n, 2 * i + 1, out[2 * i + 1], a * s[i] + b * c[i], tolerance);
        }
        free(x);
        free(out);
        free(c);
        free(s);
    }
}

static void test_rope(void **state)
{
    (void)state;
    for_each_table(check_rope);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete), cmocka_unit_test(test_environment), cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_all_halves),  cmocka_unit_test(test_exp),
        cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
