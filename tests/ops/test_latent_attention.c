/* Absorbed attention of every table against float64, for every row type, and its promises: the same bits with any number of
 * threads and in any company, no overflow, masked rows. */
#include "tests/ops/ops_check.h"

#include <math.h>
#include <string.h>

struct shape {
    int n_head, rank, rope;
};

enum { N_SHAPES = 6, N_LENGTHS = 10, N_TYPES = 3 };
static const struct shape shapes[N_SHAPES] = {{16, 512, 64}, {4, 128, 32}, {3, 40, 16}, {21, 96, 32}, {1, 8, 2}, {2, 32, 32}};
static const int64_t lengths[N_LENGTHS] = {1, 2, 47, 49, 63, 64, 65, 150, 1000, 5000};
static const enum dtype types[N_TYPES] = {DTYPE_F32, DTYPE_F16, DTYPE_Q8_0};

struct problem {
    struct latent_attention item;
    float *q, *values, *bias; /* values: what the rows hold, in f32 */
    void *rows;
};

static struct problem problem_new(struct shape s, enum dtype type, int64_t n, float spread, uint32_t stream)
{
    struct problem p;
    const int64_t dim = s.rank + s.rope;
    p.q = random_floats(s.n_head * dim, stream);
    p.rows = random_rows(type, n, dim, stream + 1, &p.values);
    p.bias = random_floats(n, stream + 2);
    for (int64_t i = 0; i < s.n_head * dim; i++)
        p.q[i] *= spread;
    p.item = (struct latent_attention){.n_head = s.n_head, .rank = s.rank, .rope = s.rope, .q = p.q, .rows = p.rows,
                                       .row_bytes = dtype_row_bytes(type, dim), .type = type, .n = n,
                                       .scale = 1 / sqrtf((float)dim)};
    p.item.z = random_floats(s.n_head * s.rank, stream + 3); /* overwritten */
    p.item.weight = random_floats(n, stream + 4);            /* added to */
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->q);
    free(p->rows);
    free(p->values);
    free(p->bias);
    free(p->item.z);
    free(p->item.weight);
}

static void attend(const struct ops *ops, const struct latent_attention *items, int n_items, int threads)
{
    int64_t total = 0;
    for (int i = 0; i < n_items; i++)
        total += items[i].n;
    struct thread_pool *pool = NULL;
    struct plm_status st = {0};
    if (threads)
        assert_int_equal(pool_create(&pool, threads, &st), PLM_OK);
    size_t bytes = ops->latent_attention_scratch_bytes(items->n_head, items->rank, items->rope, total, n_items, pool_size(pool));
    unsigned char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xff, bytes); /* not-a-numbers: nothing may rely on what the scratch memory holds */
    ops->latent_attention(items, n_items, pool, scratch);
    free(scratch);
    pool_destroy(pool);
}

/* The largest error of z relative to the head's largest |z|, and of the weights, against float64. */
static void errors_against_double(const struct problem *p, const float *weight_before, double *z_error, double *weight_error)
{
    const struct latent_attention *a = &p->item;
    const int64_t dim = a->rank + a->rope;
    double *s = malloc((size_t)a->n * sizeof *s), *weight = calloc((size_t)a->n, sizeof *weight), *z = malloc((size_t)a->rank * sizeof *z);
    assert_true(s && weight && z);
    *z_error = *weight_error = 0;
    for (int h = 0; h < a->n_head; h++) {
        double top = -INFINITY, sum = 0, size = 0, error = 0;
        for (int64_t j = 0; j < a->n; j++) {
            s[j] = 0;
            for (int64_t i = 0; i < dim; i++)
                s[j] += (double)a->q[h * dim + i] * p->values[j * dim + i];
            s[j] = s[j] * a->scale + (a->bias ? a->bias[j] : 0);
            top = fmax(top, s[j]);
        }
        for (int64_t j = 0; j < a->n; j++) {
            s[j] = exp(s[j] - top);
            sum += s[j];
        }
        memset(z, 0, (size_t)a->rank * sizeof *z);
        for (int64_t j = 0; j < a->n; j++) {
            weight[j] += s[j] / sum;
            for (int64_t i = 0; i < a->rank; i++)
                z[i] += s[j] / sum * p->values[j * dim + i];
        }
        for (int64_t i = 0; i < a->rank; i++) {
            size = fmax(size, fabs(z[i]));
            error = fmax(error, fabs(a->z[h * a->rank + i] - z[i]));
        }
        if (!(error / size <= *z_error))
            *z_error = error / size;
    }
    for (int64_t j = 0; j < a->n; j++)
        if (!(fabs(a->weight[j] - weight_before[j] - weight[j]) <= *weight_error))
            *weight_error = fabs(a->weight[j] - weight_before[j] - weight[j]);
    free(s);
    free(weight);
    free(z);
}

static void check_values(const struct ops *ops)
{
    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < N_SHAPES; i++)
            for (int l = 0; l < N_LENGTHS; l++) {
                const struct shape s = shapes[i];
                const int block = dtype_info(types[t])->block_elements;
                if (s.rank % block || s.rope % block || (int64_t)s.n_head * (s.rank + s.rope) * lengths[l] > (OPS_CHECK_WORK < 1500000 ? OPS_CHECK_WORK : 1500000))
                    continue; /* large shapes with few rows, small ones with many: the test is to take seconds */
                struct problem p = problem_new(s, types[t], lengths[l], 1, 100);
                float *before = random_floats(p.item.n, 104);
                p.item.bias = l % 2 ? p.bias : NULL;
                attend(ops, &p.item, 1, 0);
                double z_error, weight_error;
                errors_against_double(&p, before, &z_error, &weight_error);
                const double tolerance = types[t] == DTYPE_F32 ? 4e-6 : 1e-3;
                if (!(z_error < tolerance) || !(weight_error < tolerance))
                    fail_msg("%s %s heads %d rank %d rope %d n %d: error of z %.3g, of the weights %.3g, expected below %.3g", ops->name,
                             dtype_info(types[t])->name, s.n_head, s.rank, s.rope, (int)p.item.n, z_error, weight_error, tolerance);
                free(before);
                problem_free(&p);
            }
}

static void test_values(void **state)
{
    (void)state;
    for_each_table(check_values);
}

/* The largest number of threads is more than there are parts of the short items. */
static void check_threads_and_company(const struct ops *ops)
{
    enum { ITEMS = 4 };
    static const int64_t rows[ITEMS] = {300, 1, 241, 64};
    for (int t = 0; t < N_TYPES; t++) {
        struct problem p[ITEMS];
        struct latent_attention items[ITEMS];
        float *z[ITEMS], *weight[ITEMS];
        for (int i = 0; i < ITEMS; i++) {
            p[i] = problem_new(shapes[0], types[t], rows[i], 2, (uint32_t)(200 + 10 * i));
            p[i].item.bias = i == 1 ? NULL : p[i].bias;
            attend(ops, &p[i].item, 1, 0);
            z[i] = p[i].item.z;
            weight[i] = p[i].item.weight;
        }
        for (int threads = 1; threads <= 3; threads++) {
            for (int i = 0; i < ITEMS; i++) {
                items[i] = p[i].item;
                items[i].z = random_floats(items[i].n_head * items[i].rank, 300);
                items[i].weight = random_floats(items[i].n, (uint32_t)(200 + 10 * i + 4));
            }
            free(items[3].weight); /* one item without weights */
            items[3].weight = NULL;
            attend(ops, items, ITEMS, threads);
            for (int i = 0; i < ITEMS; i++) {
                assert_memory_equal(items[i].z, z[i], (size_t)(items[i].n_head * items[i].rank) * sizeof(float));
                if (items[i].weight)
                    assert_memory_equal(items[i].weight, weight[i], (size_t)items[i].n * sizeof(float));
                free(items[i].z);
                free(items[i].weight);
            }
        }
        for (int i = 0; i < ITEMS; i++)
            problem_free(&p[i]);
    }
}

static void test_threads_and_company(void **state)
{
    (void)state;
    for_each_table(check_threads_and_company);
}

/* Logits of some thousands: the softmax is one row, and the answer that row. */
static void check_large_logits(const struct ops *ops)
{
    for (int t = 0; t < N_TYPES; t++) {
        struct problem p = problem_new(shapes[1], types[t], 500, 3e4f, 400);
        float *before = random_floats(p.item.n, 404);
        attend(ops, &p.item, 1, 0);
        double z_error, weight_error;
        errors_against_double(&p, before, &z_error, &weight_error);
        assert_true(z_error < 1e-3 && weight_error < 1e-3);
        free(before);
        problem_free(&p);
    }
}

static void test_large_logits(void **state)
{
    (void)state;
    for_each_table(check_large_logits);
}

/* Rows with a bias of -inf take no part: not the first of a tile, not a whole tile or part, not all but one. */
static void check_masked(const struct ops *ops)
{
    enum { ROWS = 600 };
    for (int t = 0; t < N_TYPES; t++) {
        struct problem p = problem_new(shapes[0], types[t], ROWS, 1, 500);
        float *before = random_floats(ROWS, 504);
        for (int j = 0; j < ROWS; j++)
            p.bias[j] = j < 260 || j == 300 || j > 590 ? -INFINITY : 0;
        p.item.bias = p.bias;
        attend(ops, &p.item, 1, 2);
        double z_error, weight_error;
        errors_against_double(&p, before, &z_error, &weight_error);
        assert_true(z_error < 1e-3 && weight_error < 1e-3);
        for (int j = 0; j < ROWS; j++)
            if (p.bias[j] < 0)
                assert_true(p.item.weight[j] == before[j]);
        for (int j = 0; j < ROWS; j++)
            p.bias[j] = j == 555 ? 0 : -INFINITY;
        attend(ops, &p.item, 1, 2);
        for (int h = 0; h < p.item.n_head; h++)
            for (int i = 0; i < p.item.rank; i++)
                assert_true(fabsf(p.item.z[h * p.item.rank + i] - p.values[555 * 576 + i]) < 1e-3f * 5);
        p.bias[555] = -INFINITY; /* nothing left: nothing, not a not-a-number */
        memcpy(p.item.weight, before, ROWS * sizeof *before);
        attend(ops, &p.item, 1, 0);
        for (int i = 0; i < p.item.n_head * p.item.rank; i++)
            assert_true(p.item.z[i] == 0);
        assert_memory_equal(p.item.weight, before, ROWS * sizeof *before);
        free(before);
        problem_free(&p);
    }
}

static void test_masked(void **state)
{
    (void)state;
    for_each_table(check_masked);
}

/* One row with half of the attention and thousands with next to nothing each, which together must not get lost in rounding. */
static void check_long_tail(const struct ops *ops)
{
    enum { ROWS = 3000 };
    for (int t = 0; t < N_TYPES; t++) {
        struct problem p = problem_new(shapes[5], types[t], ROWS, 0.3f, 700);
        float *before = random_floats(ROWS, 704);
        memset(p.bias, 0, ROWS * sizeof *p.bias);
        p.bias[100] = logf(ROWS);
        p.item.bias = p.bias;
        attend(ops, &p.item, 1, 0);
        double z_error, weight_error, sum = 0, tail = 0;
        errors_against_double(&p, before, &z_error, &weight_error);
        assert_true(z_error < 2e-3 && weight_error < 2e-3);
        for (int j = 0; j < ROWS; j++) {
            const double weight = (double)p.item.weight[j] - before[j];
            sum += weight;
            tail += j == 100 ? 0 : weight;
        }
        assert_true(fabs(sum - p.item.n_head) < 1e-3 * p.item.n_head);
        assert_true(tail > 0.4 * p.item.n_head);
        free(before);
        problem_free(&p);
    }
}

static void test_long_tail(void **state)
{
    (void)state;
    for_each_table(check_long_tail);
}

/* Rows may lie further apart than they are long. */
static void check_stride(const struct ops *ops)
{
    const struct shape s = shapes[1];
    for (int t = 0; t < N_TYPES; t++) {
        struct problem p = problem_new(s, types[t], 100, 1, 600);
        const size_t packed = p.item.row_bytes, apart = packed + 64;
        attend(ops, &p.item, 1, 0);
        float *z = p.item.z;
        unsigned char *rows = malloc(99 * apart + packed); /* nothing behind the last row */
        assert_non_null(rows);
        for (size_t j = 0; j < 100; j++)
            memcpy(rows + j * apart, (unsigned char *)p.rows + j * packed, packed);
        struct latent_attention item = p.item;
        item.rows = rows;
        item.row_bytes = apart;
        item.z = random_floats(s.n_head * s.rank, 603);
        item.weight = NULL;
        attend(ops, &item, 1, 0);
        assert_memory_equal(item.z, z, (size_t)(s.n_head * s.rank) * sizeof *z);
        free(item.z);
        free(rows);
        problem_free(&p);
    }
}

static void test_stride(void **state)
{
    (void)state;
    for_each_table(check_stride);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_threads_and_company), cmocka_unit_test(test_large_logits),
        cmocka_unit_test(test_masked), cmocka_unit_test(test_stride), cmocka_unit_test(test_long_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
