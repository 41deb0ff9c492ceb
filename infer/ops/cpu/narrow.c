#include "infer/ops/cpu/narrow.h"

#define CHUNK_BYTES ((int64_t)12 << 20) /* of A converted at a time: each time all of B is unpacked */
#define SERIAL_BYTES 32768             /* a product with fewer bytes of B is over before a second thread has woken up */
#define PART_ROWS 96                   /* of C: below this, unpacking the same panel twice does not pay */

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Some rows of A, converted, and the rows of C they give. */
struct chunk {
    const struct narrow_kernel *kernel;
    const struct gemm *g;
    struct narrow_format format;
    char *a;
    size_t a_bytes;
    int64_t first, rows; /* of A and C */
    int64_t part_rows, parts_down;
};

static void convert_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct chunk *c = ctx;
    for (int64_t i = begin; i < end; i++)
        c->kernel->convert_a(c->a + (size_t)i * c->a_bytes, c->g->a + (c->first + i) * c->g->lda, c->g->k, &c->format);
}

static void vectors_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct chunk *c = ctx;
    const struct gemm *g = c->g;
    size_t row_bytes = dtype_row_bytes(g->b_type, g->ldb);
    for (int64_t j = begin; j < end; j++) {
        float sum[NARROW_MAX_M];
        c->kernel->row_dot(sum, (const char *)g->b + (size_t)j * row_bytes, c->a, c->a_bytes, (int)g->m, g->k, &c->format);
        for (int64_t i = 0; i < g->m; i++) {
            float *to = g->c + i * g->ldc + j;
            *to = g->accumulate ? *to + g->alpha * sum[i] : g->alpha * sum[i];
        }
    }
}

/* Parts [begin, end) of C: a panel of columns by part_rows rows each. The terms are the outer loop: the piece of A that stays in the L2
 * cache meets all the panels. */
static void panels_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct chunk *c = ctx;
    const struct gemm *g = c->g;
    const struct narrow_kernel *kernel = c->kernel;
    _Alignas(64) char panel[NARROW_PANEL_BYTES];
    size_t row_bytes = dtype_row_bytes(g->b_type, g->ldb);
    for (int64_t p = 0; p < g->k; p += NARROW_KC)
        for (int64_t part = begin; part < end; part++) {
            int64_t j = part / c->parts_down * NARROW_NR, i0 = part % c->parts_down * c->part_rows;
            int64_t i1 = min_i64(c->rows, i0 + c->part_rows), n = min_i64(NARROW_KC, g->k - p);
            int columns = (int)min_i64(NARROW_NR, g->n - j);
            kernel->pack(panel, (const char *)g->b + (size_t)j * row_bytes, row_bytes, columns, p, n, &c->format);
            for (int64_t i = i0; i < i1; i += kernel->mr)
                kernel->tile(g->c + (c->first + i) * g->ldc + j, g->ldc, c->a + (size_t)i * c->a_bytes, c->a_bytes,
                             (int)min_i64(kernel->mr, i1 - i), panel, columns, p, n, g->k, g->alpha, g->accumulate || p > 0,
                             &c->format);
        }
}

static bool takes(const struct narrow_kernel *kernel, const struct gemm *g)
{
    return g->precision != PRECISION_FULL && g->trans_b && !g->trans_a && g->m > 0 && g->n > 0 && g->k > 0 &&
           g->k <= NARROW_MAX_K && kernel->takes(g);
}

/* How many rows of A fit into `bytes`: all, or a multiple of the tile's rows. */
static int64_t rows_that_fit(const struct chunk *c, int64_t bytes)
{
    int64_t rows = bytes / (int64_t)c->a_bytes;
    if (rows >= c->g->m)
        return c->g->m;
    return c->format.panels ? rows / c->kernel->mr * c->kernel->mr : 0;
}

static struct chunk chunk_begin(const struct narrow_kernel *kernel, const struct gemm *g)
{
    struct chunk c = {.kernel = kernel, .g = g, .format = {g->b_type, g->precision, g->m > NARROW_MAX_M}};
    c.a_bytes = kernel->a_bytes(g->k, &c.format);
    return c;
}

static void multiply(struct chunk *c, int64_t rows, struct thread_pool *pool)
{
    const struct gemm *g = c->g;
    int64_t threads = pool_size(pool);
    if (threads > 1 &&
        (double)g->n * (double)dtype_row_bytes(g->b_type, g->ldb) * (c->format.panels ? (double)g->m / 8 : 1) < SERIAL_BYTES)
        pool = NULL;
    threads = pool_size(pool);
    if (!c->format.panels) {
        convert_run(c, 0, g->m, 0);
        if (threads == 1)
            vectors_run(c, 0, g->n, 0);
        else
            pool_for(pool, g->n, ceil_div(ceil_div(g->n, 4 * threads), 16) * 16, vectors_run, c);
        return;
    }
    for (c->first = 0; c->first < g->m; c->first += rows) {
        c->rows = min_i64(rows, g->m - c->first);
        int64_t across = ceil_div(g->n, NARROW_NR), wanted = ceil_div(2 * threads, across), most = ceil_div(c->rows, PART_ROWS);
        c->parts_down = threads == 1 || wanted < 1 ? 1 : min_i64(wanted, most);
        c->part_rows = ceil_div(ceil_div(c->rows, c->parts_down), c->kernel->mr) * c->kernel->mr;
        c->parts_down = ceil_div(c->rows, c->part_rows);
        if (threads == 1) {
            convert_run(c, 0, c->rows, 0);
            panels_run(c, 0, across * c->parts_down, 0);
        } else {
            pool_for(pool, c->rows, 8, convert_run, c);
            pool_for(pool, across * c->parts_down, ceil_div(across * c->parts_down, 4 * threads), panels_run, c);
        }
    }
}

bool narrow_gemm(const struct narrow_kernel *kernel, const struct gemm *g, struct thread_pool *pool)
{
    if (!takes(kernel, g))
        return false;
    struct chunk c = chunk_begin(kernel, g);
    int64_t rows = rows_that_fit(&c, CHUNK_BYTES);
    c.a = rows ? gemm_workspace((size_t)rows * c.a_bytes) : NULL;
    if (!c.a)
        return false;
    multiply(&c, rows, pool);
    return true;
}

bool narrow_gemm_serial(const struct narrow_kernel *kernel, const struct gemm *g, void *scratch)
{
    if (!takes(kernel, g))
        return false;
    struct chunk c = chunk_begin(kernel, g);
    int64_t rows = rows_that_fit(&c, NARROW_SCRATCH);
    if (!rows)
        return false;
    c.a = scratch;
    multiply(&c, rows, NULL);
    return true;
}
