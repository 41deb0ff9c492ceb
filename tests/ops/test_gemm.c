/* Matrix products of every table against float64, over shapes around every block size; the same bits for any number of
 * threads and for gemm_serial. */
#include "tests/ops/ops_check.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"

#define GUARD 12345.0f /* what C holds outside the m by n elements */

struct shape {
    int64_t m, n, k;
};

static const struct shape shapes[] = {
    {1, 1, 1},    {1, 7, 5},     {1, 33, 100},  {2, 40, 64},     {3, 17, 31},   {4, 16, 129},  {5, 31, 96},  {7, 65, 33},
    {8, 24, 70},  {9, 15, 3},    {13, 32, 17},  {14, 32, 256},   {15, 33, 257}, {28, 64, 40},  {29, 31, 64}, {64, 256, 96},
    {64, 64, 256}, {97, 95, 7},  {100, 1, 50},  {225, 47, 300},  {31, 1040, 9}, {60, 72, 520}, {1, 1040, 64},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_THREADS = 3 };

struct problem {
    struct gemm g;
    float *a, *b_values, *c_start;
    double *expected, *tolerance; /* of C */
    void *b;
    int64_t c_size;
};

/* C in float64, and what float32 sums of k terms may differ from it. */
static void problem_expect(struct problem *p)
{
    const struct gemm *g = &p->g;
    p->expected = calloc((size_t)p->c_size, sizeof *p->expected);
    p->tolerance = calloc((size_t)p->c_size, sizeof *p->tolerance);
    assert_true(p->expected && p->tolerance);
    for (int64_t i = 0; i < g->m; i++) {
        double *sum = p->expected + i * g->ldc, *size = p->tolerance + i * g->ldc;
        for (int64_t q = 0; q < g->k; q++) {
            double a = (double)g->alpha * (g->trans_a ? p->a[q * g->lda + i] : p->a[i * g->lda + q]);
            for (int64_t j = 0; j < g->n; j++) {
                double b = g->trans_b ? p->b_values[j * g->ldb + q] : p->b_values[q * g->ldb + j];
                sum[j] += a * b;
                size[j] += fabs(a * b);
            }
        }
        for (int64_t j = 0; j < g->n; j++) {
            double before = g->accumulate ? p->c_start[i * g->ldc + j] : 0;
            sum[j] += before;
            size[j] = 1e-6 * (size[j] + fabs(before)) + 1e-30;
        }
    }
}

/* pad: how much wider than needed the leading dimensions are. */
static struct problem problem_create(struct shape s, bool trans_a, bool trans_b, enum dtype type, float alpha, bool accumulate,
                                     int pad)
{
    int64_t block = dtype_info(type)->block_elements;
    struct problem p = {0};
    int64_t a_rows = trans_a ? s.k : s.m, lda = (trans_a ? s.m : s.k) + pad;
    int64_t b_rows = trans_b ? s.n : s.k, ldb = ((trans_b ? s.k : s.n) + pad + block - 1) / block * block;
    int64_t ldc = s.n + pad;
    p.a = random_floats(a_rows * lda, 1);
    p.b = random_rows(type, b_rows, ldb, 2, &p.b_values);
    p.c_size = s.m * ldc;
    p.c_start = random_floats(p.c_size, 3);
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = s.n; j < ldc; j++)
            p.c_start[i * ldc + j] = GUARD;
    p.g = (struct gemm){.m = s.m, .n = s.n, .k = s.k, .trans_a = trans_a, .trans_b = trans_b, .accumulate = accumulate,
                        .alpha = alpha, .a = p.a, .lda = lda, .b = p.b, .ldb = ldb, .b_type = type, .ldc = ldc};
    problem_expect(&p);
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->a);
    free(p->b);
    free(p->b_values);
    free(p->c_start);
    free(p->expected);
    free(p->tolerance);
}

static float *problem_result(const struct problem *p)
{
    float *c = malloc((size_t)p->c_size * sizeof *c);
    assert_non_null(c);
    memcpy(c, p->c_start, (size_t)p->c_size * sizeof *c);
    return c;
}

static void check_result(const struct problem *p, const float *c, const char *table)
{
    const struct gemm *g = &p->g;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->ldc; j++) {
            float found = c[i * g->ldc + j];
            if (j >= g->n) {
                assert_true(found == GUARD);
                continue;
            }
            double expected = p->expected[i * g->ldc + j], tolerance = p->tolerance[i * g->ldc + j];
            if (!(fabs(found - expected) <= tolerance))
                fail_msg("%s: m %d n %d k %d ta %d tb %d type %d: C[%d][%d] is %.9g, expected %.9g", table, (int)g->m, (int)g->n,
                         (int)g->k, g->trans_a, g->trans_b, (int)g->b_type, (int)i, (int)j, found, expected);
        }
}

static struct thread_pool *pools[MAX_THREADS + 1]; /* by number of threads */

/* B packed by two threads into memory of not-numbers. */
static float *pack_panels(const struct ops *ops, const struct gemm *g)
{
    const size_t bytes = gemm_panels_bytes(ops->kernel, g->n, g->k);
    float *panels = checked_alloc(bytes);
    memset(panels, 0xFF, bytes);
    gemm_panels_pack(ops->kernel, g, panels, pools[2]);
    return panels;
}

static void check_table(const struct ops *ops, struct problem *p)
{
    p->g.c = problem_result(p);
    ops->gemm(&p->g, NULL);
    float *reference = p->g.c;
    check_result(p, reference, ops->name);
    void *scratch = checked_alloc(ops->gemm_scratch_bytes());
    memset(scratch, 0xFF, ops->gemm_scratch_bytes()); /* NaN: nothing left in the scratch may reach a result */
    float *panels = p->g.b_type == DTYPE_F32 ? pack_panels(ops, &p->g) : NULL;
    for (int panelled = 0; panelled <= (panels != NULL); panelled++)
        for (int threads = 0; threads <= MAX_THREADS; threads++) { /* 0: gemm_serial */
            p->g.c = problem_result(p);
            p->g.b_panels = panelled ? panels : NULL;
            if (threads)
                ops->gemm(&p->g, pools[threads]);
            else
                ops->gemm_serial(&p->g, scratch);
            assert_memory_equal(p->g.c, reference, (size_t)p->c_size * sizeof *reference);
            free(p->g.c);
        }
    p->g.b_panels = NULL;
    free(panels);
    free(scratch);
    free(reference);
}

static struct problem current;

static void check_current(const struct ops *ops)
{
    check_table(ops, &current);
}

static void check_problem(struct problem p)
{
    current = p;
    for_each_table(check_current);
    problem_free(&p);
}

static void test_products(void **state)
{
    (void)state;
    for (int s = 0; s < N_SHAPES; s++)
        for (int variant = 0; variant < 8 && shapes[s].m * shapes[s].n * shapes[s].k < OPS_CHECK_WORK; variant++) {
            bool trans_a = variant & 1, trans_b = variant & 2, accumulate = variant & 4;
            for (int type = 0; type < (trans_b ? DTYPE_COUNT : 1); type++)
                check_problem(problem_create(shapes[s], trans_a, trans_b, (enum dtype)type, accumulate ? -0.7f : 1.0f, accumulate,
                                             (s + variant) % 3 * 3));
        }
}

/* Large enough for several blocks in every loop of every kernel. */
static void test_blocks(void **state)
{
    (void)state;
    static const struct shape large[] = {{100, 20, 300}, {13, 300, 300}, {260, 1100, 270}, {237, 40, 600}};
    for (int s = 0; s < (OPS_CHECK_WORK < INT64_MAX ? 2 : 4); s++)
        for (int variant = 0; variant < 4; variant++)
            check_problem(problem_create(large[s], variant & 1, variant & 2, DTYPE_F32, 1.5f, variant == 1, variant));
}

static void check_empty(const struct ops *ops)
{
    float c[6] = {1, 2, GUARD, 4, 5, GUARD}, one = 1;
    struct gemm g = {.m = 2, .n = 2, .k = 0, .accumulate = true, .alpha = 1,
                     .a = &one, .lda = 1, .b = &one, .ldb = 2, .c = c, .ldc = 3};
    void *scratch = checked_alloc(ops->gemm_scratch_bytes());
    ops->gemm(&g, pools[2]);
    ops->gemm_serial(&g, scratch);
    assert_true(c[0] == 1 && c[1] == 2 && c[3] == 4 && c[4] == 5);
    g.accumulate = false;
    g.n = 0;
    ops->gemm(&g, pools[2]);
    g.n = 2;
    g.m = 0;
    ops->gemm_serial(&g, scratch);
    assert_true(c[0] == 1 && c[4] == 5);
    g.m = 1;
    ops->gemm(&g, pools[2]);
    g.m = 2;
    ops->gemm_serial(&g, scratch);
    assert_true(c[0] == 0 && c[1] == 0 && c[2] == GUARD && c[3] == 0 && c[4] == 0 && c[5] == GUARD);
    free(scratch);
}

static void test_empty(void **state)
{
    (void)state;
    for_each_table(check_empty);
}

/* A NaN in either operand reaches exactly the elements that depend on it. */
static void check_nan(const struct ops *ops)
{
    struct problem p = problem_create((struct shape){20, 40, 30}, false, false, DTYPE_F32, 1, false, 0);
    p.a[3 * p.g.lda + 5] = NAN;
    p.g.c = problem_result(&p);
    ops->gemm(&p.g, NULL);
    for (int i = 0; i < 20; i++)
        for (int j = 0; j < 40; j++)
            assert_int_equal(isnan(p.g.c[i * p.g.ldc + j]) != 0, i == 3);
    free(p.g.c);
    problem_free(&p);
}

static void test_nan(void **state)
{
    (void)state;
    for_each_table(check_nan);
}

/* Stands in for the C library's, so that a test can take the memory away. */
static bool no_memory;

void *aligned_alloc(size_t alignment, size_t size)
{
    void *p;
    return no_memory || posix_memalign(&p, alignment, size) ? NULL : p;
}

struct starved {
    const struct ops *ops;
    struct gemm g;
};

static void *run_starved(void *arg)
{
    struct starved *s = arg;
    s->ops->gemm(&s->g, NULL);
    return NULL;
}

/* Without memory for a workspace the result is the same, bit for bit. A new thread has no workspace yet. */
static void check_no_memory(const struct ops *ops)
{
    for (int variant = 0; variant < 4; variant++) {
        struct problem p = problem_create((struct shape){150, 90, 530}, variant & 1, variant & 2,
                                          variant & 2 ? DTYPE_F16 : DTYPE_F32, 1.0f, true, 0);
        struct starved s = {ops, p.g};
        p.g.c = problem_result(&p);
        s.g.c = problem_result(&p);
        ops->gemm(&p.g, NULL);
        check_result(&p, p.g.c, ops->name);
        pthread_t thread;
        no_memory = true;
        int error = pthread_create(&thread, NULL, run_starved, &s) || pthread_join(thread, NULL);
        no_memory = false;
        assert_false(error);
        assert_memory_equal(s.g.c, p.g.c, (size_t)p.c_size * sizeof *p.g.c);
        free(p.g.c);
        free(s.g.c);
        problem_free(&p);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    for_each_table(check_no_memory);
}

static void test_block_sizes(void **state)
{
    (void)state;
    assert_true(gemm_kernel_valid(&gemm_kernel_portable));
#ifdef __x86_64__
    assert_true(gemm_kernel_valid(&gemm_kernel_avx2));
    assert_true(gemm_kernel_valid(&gemm_kernel_avx512));
#elif defined(__aarch64__)
    assert_true(gemm_kernel_valid(&gemm_kernel_neon));
#endif
    struct gemm_kernel broken = gemm_kernel_portable;
    broken.mc++;
    assert_false(gemm_kernel_valid(&broken));
    broken = gemm_kernel_portable;
    broken.kc = GEMM_MAX_KC * 2;
    assert_false(gemm_kernel_valid(&broken));
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
        cmocka_unit_test(test_block_sizes), cmocka_unit_test(test_products), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_nan),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, create_pools, destroy_pools);
}
