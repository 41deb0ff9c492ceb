/* Products with quantised and 16-bit weights in every precision, and the sparse rows, of every table against float64. The blocks
 * of the weights have random bits, so that every digit and scale occurs. */
#include "tests/ops/ops_check.h"

#include <math.h>
#include <string.h>

#include "infer/ops/cpu/narrow.h"
#include "infer/ops/neuron_major.h"

#define GUARD 12345.0f /* what C holds outside the m by n elements */

struct shape {
    int64_t m, n, k;
};

static const struct shape shapes[] = {
    {1, 1, 1},    {1, 7, 33},     {1, 40, 1024}, {2, 33, 544},   {3, 17, 256},  {4, 50, 1300}, {5, 31, 32},   {6, 33, 300},
    {7, 16, 512}, {13, 65, 1056}, {24, 15, 520}, {9, 33, 1600}, {130, 40, 96}, {12, 400, 64}, {1, 400, 1056},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_THREADS = 3 };

static struct thread_pool *pools[MAX_THREADS + 1];

static uint16_t random_scale(uint32_t stream, int64_t i)
{
    return f32_to_f16((float)random_normal(9, RANDOM_TEST, stream, (uint64_t)i) * 0.01f);
}

/* `rows` rows of ld elements: random bits where any bits are valid, random scales of moderate size elsewhere. */
static void *random_bits(enum dtype type, int64_t rows, int64_t ld, uint32_t stream, float **values)
{
    size_t row_bytes = dtype_row_bytes(type, ld), bytes = (size_t)rows * row_bytes;
    unsigned char *data = malloc(bytes);
    *values = malloc((size_t)(rows * ld) * sizeof **values);
    assert_true(data && *values);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t bits = random_u64(8, RANDOM_TEST, stream, i);
        memcpy(data + i, &bits, bytes - i < 8 ? bytes - i : 8);
    }
    if (!dtype_is_quantized(type)) {
        for (int64_t i = 0; i < rows * ld; i++)
            (*values)[i] = (float)random_normal(9, RANDOM_TEST, stream, (uint64_t)i);
        dtype_from_f32(type, data, *values, rows * ld);
    }
    int64_t block_bytes = dtype_info(type)->block_bytes;
    for (int64_t b = 0; dtype_is_quantized(type) && b < (int64_t)bytes / block_bytes; b++) {
        unsigned char *block = data + b * block_bytes;
        uint16_t d = random_scale(stream, 2 * b), dmin = random_scale(stream, 2 * b + 1);
        if (type == DTYPE_Q4_K)
            memcpy(block + 2, &dmin, 2);
        memcpy(type == DTYPE_Q6_K ? block + 208 : block, &d, 2);
    }
    dtype_to_f32(type, *values, data, rows * ld);
    return data;
}

static float largest(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* How far the element may be from its exact value: half a step of each block of A times the weights, and float32 sums, in which a
 * block's digits and minimum may be separate terms. */
static double allowed(const float *a, const float *w, int64_t k, enum dtype type, enum precision precision)
{
    double total = 1e-30;
    for (int64_t b = 0; b < k; b += 32) {
        int64_t n = k - b < 32 ? k - b : 32;
        double most = largest(a + b, n), step = precision == PRECISION_HIGH ? most / (127 * 128) : most / 127, size = 0,
               spread = largest(w + b, n);
        for (int64_t i = b; i < b + n; i++)
            size += fabs(w[i]);
        if (dtype_is_quantized(type) && precision != PRECISION_FULL)
            total += 0.501 * step * size;
        total += 2e-6 * most * (double)n * spread;
    }
    return total;
}

struct problem {
    struct gemm g;
    float *a, *weights, *start;
    void *b;
    double *expected, *tolerance, *size; /* size: sum of |a w|, which rounding to bf16 is relative to */
};

static struct problem problem_create(struct shape s, enum dtype type, enum precision precision, bool accumulate, bool positive)
{
    int64_t block = dtype_info(type)->block_elements, ldb = (s.k + block - 1) / block * block;
    struct problem p = {.a = random_floats(s.m * (s.k + 3), 1), .start = random_floats(s.m * (s.n + 3), 3)};
    p.b = random_bits(type, s.n, ldb, 2, &p.weights);
    p.expected = calloc((size_t)(s.m * s.n), sizeof *p.expected);
    p.tolerance = calloc((size_t)(s.m * s.n), sizeof *p.tolerance);
    p.size = calloc((size_t)(s.m * s.n), sizeof *p.size);
    assert_true(p.expected && p.tolerance && p.size);
    for (int64_t i = 0; positive && i < s.m * (s.k + 3); i++) /* as after the squared ReLU: sums of one sign, many zeros */
        p.a[i] = p.a[i] > 0 ? p.a[i] * p.a[i] : 0;
    p.g = (struct gemm){.m = s.m,
                        .n = s.n,
                        .k = s.k,
                        .trans_b = true,
                        .accumulate = accumulate,
                        .alpha = accumulate ? -0.7f : 1.0f,
                        .a = p.a,
                        .lda = s.k + 3,
                        .b = p.b,
                        .ldb = ldb,
                        .b_type = type,
                        .precision = precision,
                        .ldc = s.n + 3};
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            const float *a = p.a + i * p.g.lda, *w = p.weights + j * ldb;
            double sum = 0;
            for (int64_t q = 0; q < s.k; q++) {
                sum += (double)a[q] * w[q];
                p.size[i * s.n + j] += fabs((double)p.g.alpha * a[q] * w[q]);
            }
            p.expected[i * s.n + j] = p.g.alpha * sum + (accumulate ? p.start[i * p.g.ldc + j] : 0);
            p.tolerance[i * s.n + j] =
                fabsf(p.g.alpha) * allowed(a, w, s.k, type, precision) + 1e-6 * fabsf(p.start[i * p.g.ldc + j]);
        }
        for (int64_t j = s.n; j < p.g.ldc; j++)
            p.start[i * p.g.ldc + j] = GUARD;
    }
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->a);
    free(p->b);
    free(p->weights);
    free(p->start);
    free(p->expected);
    free(p->tolerance);
    free(p->size);
}

static float *start_copy(const struct problem *p)
{
    size_t bytes = (size_t)(p->g.m * p->g.ldc) * sizeof(float);
    float *c = malloc(bytes);
    assert_non_null(c);
    memcpy(c, p->start, bytes);
    return c;
}

static void check_values(const struct problem *p, const float *c, const struct ops *ops)
{
    const struct gemm *g = &p->g;
    const double rounding = g->b_type == DTYPE_BF16 && g->precision == PRECISION_FAST ? (double)ops->bf16_rounding : 0;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->ldc; j++) {
            float found = c[i * g->ldc + j];
            if (j >= g->n) {
                assert_true(found == GUARD);
                continue;
            }
            double expected = p->expected[i * g->n + j];
            double tolerance = p->tolerance[i * g->n + j] + rounding * p->size[i * g->n + j];
            if (!(fabs(found - expected) <= tolerance))
                fail_msg("%s: m %d n %d k %d type %s precision %d: C[%d][%d] is %.9g, expected %.9g within %.2g", ops->name,
                         (int)g->m, (int)g->n, (int)g->k, dtype_info(g->b_type)->name, (int)g->precision, (int)i, (int)j, found,
                         expected, tolerance);
        }
}

/* Right, and the same bits for any number of threads and for gemm_serial. */
static void check_product(const struct ops *ops, struct problem *p)
{
    size_t bytes = (size_t)(p->g.m * p->g.ldc) * sizeof(float);
    float *reference = start_copy(p);
    p->g.c = reference;
    ops->gemm(&p->g, NULL);
    check_values(p, reference, ops);
    void *scratch = checked_alloc(ops->gemm_scratch_bytes());
    memset(scratch, 0xFF, ops->gemm_scratch_bytes()); /* NaN: nothing left in the scratch may reach a result */
    for (int threads = 0; threads <= MAX_THREADS; threads++) {
        float *c = start_copy(p);
        p->g.c = c;
        if (threads)
            ops->gemm(&p->g, pools[threads]);
        else
            ops->gemm_serial(&p->g, scratch);
        assert_memory_equal(c, reference, bytes);
        free(c);
    }
    free(scratch);
    free(reference);
}

static struct problem current;

static void check_current(const struct ops *ops)
{
    check_product(ops, &current);
}

static void test_products(void **state)
{
    (void)state;
    for (int s = 0; s < N_SHAPES; s++)
        for (int type = DTYPE_F16; type < DTYPE_COUNT && shapes[s].m * shapes[s].n * shapes[s].k < OPS_CHECK_WORK; type++)
            for (int precision = PRECISION_FULL; precision <= PRECISION_FAST; precision++) {
                current = problem_create(shapes[s], (enum dtype)type, (enum precision)precision, s & 1, (s + type) % 3 == 0);
                for_each_table(check_current);
                problem_free(&current);
            }
}

/* A row's results do not depend on what else is in a matrix-vector product. */
static void check_rows_alone(const struct ops *ops)
{
    for (int type = DTYPE_Q8_0; type < DTYPE_COUNT; type++) {
        struct problem p = problem_create((struct shape){NARROW_MAX_M, 40, 700}, (enum dtype)type, PRECISION_HIGH, false, false);
        float *all = start_copy(&p), *one = start_copy(&p);
        p.g.c = all;
        ops->gemm(&p.g, NULL);
        p.g.m = 1;
        for (int i = 0; i < NARROW_MAX_M; i++) {
            p.g.a = p.a + i * p.g.lda;
            p.g.c = one + i * p.g.ldc;
            ops->gemm(&p.g, NULL);
        }
        assert_memory_equal(all, one, (size_t)(NARROW_MAX_M * p.g.ldc) * sizeof *all);
        free(all);
        free(one);
        problem_free(&p);
    }
}

static void test_rows_alone(void **state)
{
    (void)state;
    for_each_table(check_rows_alone);
}

/* NaN and infinity in a row of A spoil that row and no other; zeros and the smallest numbers do no harm. */
static void check_special(const struct ops *ops)
{
    static const float special[] = {NAN, INFINITY, 0x1p-149f};
    for (int type = DTYPE_Q8_0; type < DTYPE_COUNT; type++)
        for (int m = 3; m <= 8; m += 5)
            for (int v = 0; v < 3; v++) {
                struct problem p = problem_create((struct shape){m, 35, 512}, (enum dtype)type, PRECISION_FAST, false, false);
                for (int64_t q = 0; q < p.g.k; q++)
                    p.a[2 * p.g.lda + q] = 0;
                p.a[2 * p.g.lda + 300] = special[v];
                p.g.c = start_copy(&p);
                ops->gemm(&p.g, NULL);
                for (int i = 0; i < m; i++)
                    for (int j = 0; j < 35; j++) {
                        float c = p.g.c[i * p.g.ldc + j];
                        if (i == 2 && v < 2 &&
                            m <= NARROW_MAX_M) /* a weight may be zero, so with more rows some tables find none */
                            assert_false(isfinite(c));
                        else if (i == 2 && v == 2)
                            assert_true(fabsf(c) < 1e-30f);
                        else if (i != 2)
                            assert_true(isfinite(c));
                    }
                free(p.g.c);
                problem_free(&p);
            }
}

static void test_special(void **state)
{
    (void)state;
    for_each_table(check_special);
}

/* Sums that are too long for integers and large A in several pieces still come out right. */
static void check_large(const struct ops *ops)
{
    static const struct shape large[] = {{1, 3, NARROW_MAX_K + 256}, {5, 3, NARROW_MAX_K}, {250, 33, 8192}};
    for (int s = 0; s < 3 && large[s].m * large[s].n * large[s].k < OPS_CHECK_WORK; s++) {
        struct problem p = problem_create(large[s], s == 1 ? DTYPE_Q6_K : DTYPE_Q8_0, PRECISION_HIGH, true, false);
        check_product(ops, &p);
        problem_free(&p);
    }
}

static void test_large(void **state)
{
    (void)state;
    check_large(ops_select(OPS_BEST));
}

/* The largest magnitude of the weights that share a scale with neuron i in row j: what the error of x is relative to. */
static double group_size(const float *values, int64_t j, int64_t neurons, int64_t i, int64_t group)
{
    return largest(values + j * neurons + i / group * group, group);
}

static void check_sparse_shape(const struct ops *ops, enum dtype type, int64_t m, int64_t n, int64_t neurons, bool accumulate)
{
    if (m * n * neurons / 2 > OPS_CHECK_WORK)
        return;
    struct neuron_layout layout;
    const size_t bytes = neuron_major_layout(&layout, type, n, neurons);
    float *values, *x = random_floats(m * (neurons + 3), 30), *y = random_floats(m * (n + 5), 31), *reference = NULL;
    void *weights = random_bits(type, n, neurons, 32, &values), *scratch = malloc(sparse_rows_scratch(m, neurons)), *packed = aligned_alloc(64, bytes);
    int64_t n_active = 0;
    assert_true(bytes > 0 && scratch && packed);
    memset(packed, 0x5a, bytes);
    neuron_major_pack(packed, weights, type, n, neurons, pools[2]);
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < neurons; i++) {
            float *at = &x[r * (neurons + 3) + i];
            *at = i % 5 == 1 || i / 64 % 3 == r % 3 ? 0.0f : fmaxf(*at, 0) * *at; /* whole groups too */
            n_active += *at != 0;
        }
    for (int threads = 0; threads <= MAX_THREADS; threads++) {
        float *out = random_floats(m * (n + 5), 31);
        const struct sparse_rows s = {.m = m, .n_rows = neurons, .n = n, .x = x, .ldx = neurons + 3, .rows = packed, .type = type, .y = out,
            .ldy = n + 5, .accumulate = accumulate, .scratch = scratch};
        assert_int_equal(ops->sparse_rows(&s, pools[threads]), n_active);
        for (int64_t r = 0; r < m && !reference; r++)
            for (int64_t j = 0; j < n; j++) {
                double sum = accumulate ? y[r * (n + 5) + j] : 0, size = fabs(sum), narrow = 0;
                for (int64_t i = 0; i < neurons; i++) {
                    const double value = x[r * (neurons + 3) + i];
                    sum += value * values[j * neurons + i];
                    size += value * fmax(fabs(values[j * neurons + i]), type == DTYPE_Q4_K ? group_size(values, j, neurons, i, 32) : 0);
                    if (layout.group > 1)
                        narrow += largest(x + r * (neurons + 3) + i / layout.group * layout.group, layout.group) * fabs(values[j * neurons + i]) / 65534;
                }
                if (!(fabs(out[r * (n + 5) + j] - sum) <= 2e-6 * size + narrow))
                    fail_msg("%s: type %d n %d: y[%d][%d] is %.9g, expected %.9g", ops->name, (int)type, (int)n, (int)r, (int)j, out[r * (n + 5) + j], sum);
            }
        for (int64_t r = 0; r < m && !reference; r++) { /* alone as beside others */
            float *alone = random_floats(m * (n + 5), 31);
            struct sparse_rows one = s;
            one.m = 1, one.x += r * (neurons + 3), one.y = alone + r * (n + 5);
            ops->sparse_rows(&one, pools[threads]);
            assert_memory_equal(alone + r * (n + 5), out + r * (n + 5), (size_t)n * sizeof *out);
            free(alone);
        }
        if (reference)
            assert_memory_equal(out, reference, (size_t)(m * (n + 5)) * sizeof *out);
        if (reference)
            free(out);
        else
            reference = out;
    }
    x[neurons - 1] = NAN;
    const struct sparse_rows s = {.m = 1, .n_rows = neurons, .n = n, .x = x, .ldx = neurons, .rows = packed, .type = type, .y = reference, .ldy = n, .scratch = scratch};
    ops->sparse_rows(&s, NULL);
    assert_true(isnan(reference[0]));
    free(reference);
    free(values);
    free(weights);
    free(scratch);
    free(packed);
    free(x);
    free(y);
}

static void check_sparse(const struct ops *ops)
{
    for (int type = 0; type < DTYPE_COUNT; type++) {
        check_sparse_shape(ops, (enum dtype)type, 1, 256, 256, false);
        check_sparse_shape(ops, (enum dtype)type, 6, 512, 512, true);
        check_sparse_shape(ops, (enum dtype)type, 2, 768, 256, true);
    }
    struct neuron_layout layout;
    assert_int_equal(neuron_major_layout(&layout, DTYPE_Q8_0, 63, 256), 0);
    assert_int_equal(neuron_major_layout(&layout, DTYPE_Q8_0, 64, 48), 0);
    assert_int_equal(neuron_major_layout(&layout, DTYPE_Q6_K, 128, 256), 0);
    assert_int_equal(neuron_major_layout(&layout, DTYPE_Q4_K, 128, 32), 0);
    assert_int_equal(neuron_major_layout(&layout, DTYPE_F16, 0, 32), 0);
}

static void test_sparse(void **state)
{
    (void)state;
    for_each_table(check_sparse);
}

static int create_pools(void **state)
{
    (void)state;
    for (int threads = 1; threads <= MAX_THREADS; threads++)
        if (pool_create(&pools[threads], threads, NULL))
            return -1;
    return 0;
}

static int destroy_pools(void **state)
{
    (void)state;
    for (int threads = 1; threads <= MAX_THREADS; threads++)
        pool_destroy(pools[threads]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_rows_alone), cmocka_unit_test(test_special),
        cmocka_unit_test(test_large),    cmocka_unit_test(test_sparse),
    };
    return cmocka_run_group_tests(tests, create_pools, destroy_pools);
}
