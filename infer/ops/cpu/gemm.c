#include "infer/ops/cpu/gemm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SCRATCH_ALIGN 64
#define LINE 16               /* floats of a cache line */
#define LARGE_PAGE ((int64_t)2 << 20)
#define SERIAL_MADDS 100000   /* below this a product is over before a second thread has woken up */
#define SERIAL_BYTES 65536    /* the same for a matrix-vector product, in bytes of B */
#define PACKING_COST 24       /* multiply-adds in the time one element takes to pack; guides the partition only */

static int64_t round_up(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The block size for n that is at most `limit` and leaves no small remainder block. */
static int64_t even_block(int64_t n, int64_t limit, int64_t multiple)
{
    int64_t blocks = (n + limit - 1) / limit;
    return blocks <= 1 ? limit : min_i64(limit, round_up((n + blocks - 1) / blocks, multiple));
}

bool gemm_kernel_valid(const struct gemm_kernel *k)
{
    return k->mr >= 1 && k->mr <= GEMM_MAX_MR && k->nr >= 1 && k->nr <= GEMM_MAX_NR && k->kc >= GEMM_CONVERT &&
           k->kc <= GEMM_MAX_KC && k->kc % GEMM_MAX_BLOCK == 0 && k->mc >= k->mr && k->mc % k->mr == 0 && k->nc >= k->nr &&
           k->nc % k->nr == 0;
}

/* A workspace: packed A (mc, kc), packed B (kc, nc), rows of B converted to f32 (nr, GEMM_MAX_BLOCK). */
struct workspace {
    int64_t mc, nc;
    float *a, *b, *rows;
};

static size_t workspace_floats(const struct gemm_kernel *kernel, int64_t mc, int64_t nc)
{
    return (size_t)(round_up(mc * kernel->kc, 16) + round_up(nc * kernel->kc, 16) + kernel->nr * GEMM_MAX_BLOCK);
}

static struct workspace workspace_layout(const struct gemm_kernel *kernel, int64_t mc, int64_t nc, float *memory)
{
    float *b = memory + round_up(mc * kernel->kc, 16);
    return (struct workspace){.mc = mc, .nc = nc, .a = memory, .b = b, .rows = b + round_up(nc * kernel->kc, 16)};
}

static void pack_a(const struct gemm_kernel *kernel, const struct gemm *g, float *to, int64_t i0, int64_t m, int64_t p0,
                   int64_t k)
{
    for (int64_t i = 0; i < m; i += kernel->mr, to += kernel->mr * k) {
        int rows = (int)min_i64(kernel->mr, m - i);
        if (g->trans_a)
            kernel->pack_columns(to, kernel->mr, g->a + p0 * g->lda + i0 + i, g->lda, rows, k);
        else
            kernel->pack_rows(to, kernel->mr, g->a + (i0 + i) * g->lda + p0, g->lda, rows, k);
    }
}

/* How many elements of a row are converted at a time: as many as keep the rows of a panel in L1, in whole blocks. */
static int64_t convert_step(enum dtype type)
{
    int64_t block = dtype_info(type)->block_elements;
    return block > GEMM_CONVERT ? block : GEMM_CONVERT;
}

/* One panel of a B that is not f32: a few rows by a few columns at a time, so that the converted values stay in L1. */
static void pack_b_converted(const struct gemm_kernel *kernel, const struct gemm *g, float *to, float *rows, int64_t j0,
                             int columns, int64_t p0, int64_t k)
{
    size_t row_bytes = dtype_row_bytes(g->b_type, g->ldb);
    int64_t block = dtype_info(g->b_type)->block_elements, step = convert_step(g->b_type);
    for (int64_t p = 0; p < k; p += step) {
        int64_t n = min_i64(step, k - p);
        size_t offset = dtype_row_bytes(g->b_type, p0 + p);
        for (int j = 0; j < columns; j++)
            kernel->to_f32(rows + j * step, (const char *)g->b + (size_t)(j0 + j) * row_bytes + offset, g->b_type,
                           round_up(n, block));
        kernel->pack_rows(to + p * kernel->nr, kernel->nr, rows, step, columns, n);
    }
}

static void pack_b(const struct gemm_kernel *kernel, const struct gemm *g, float *to, float *rows, int64_t j0, int64_t n,
                   int64_t p0, int64_t k)
{
    const float *b = g->b;
    for (int64_t j = 0; j < n; j += kernel->nr, to += kernel->nr * k) {
        int columns = (int)min_i64(kernel->nr, n - j);
        if (g->b_type != DTYPE_F32)
            pack_b_converted(kernel, g, to, rows, j0 + j, columns, p0, k);
        else if (g->trans_b)
            kernel->pack_rows(to, kernel->nr, b + (j0 + j) * g->ldb + p0, g->ldb, columns, k);
        else
            kernel->pack_columns(to, kernel->nr, b + p0 * g->ldb + j0 + j, g->ldb, columns, k);
    }
}

/* Terms of a sum that are taken together; depends on k and the type alone: so does the order of sums. */
static int64_t block_k(const struct gemm_kernel *kernel, int64_t k, enum dtype type)
{
    return even_block(k, kernel->kc, convert_step(type));
}

/* Where the panels of b_panels begin that hold column j, a multiple of nr, and the terms [p, p + k). */
static const float *panels_at(const struct gemm_kernel *kernel, const struct gemm *g, int64_t j, int64_t p, int64_t k)
{
    return g->b_panels + p * round_up(g->n, kernel->nr) + j * k;
}

size_t gemm_panels_bytes(const struct gemm_kernel *kernel, int64_t n, int64_t k)
{
    return (size_t)round_up(n, kernel->nr) * (size_t)k * sizeof(float);
}

struct panels_job {
    const struct gemm_kernel *kernel;
    const struct gemm *g;
    float *to;
};

static void pack_panels(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct panels_job *j = ctx;
    const struct gemm *g = j->g;
    const int64_t nr = j->kernel->nr, columns = round_up(g->n, nr), kc = block_k(j->kernel, g->k, DTYPE_F32);
    for (int64_t i = begin; i < end; i++)
        for (int64_t p = 0; p < g->k; p += kc) {
            const int64_t k = min_i64(kc, g->k - p);
            pack_b(j->kernel, g, j->to + p * columns + i * nr * k, NULL, i * nr, min_i64(nr, g->n - i * nr), p, k);
        }
}

void gemm_panels_pack(const struct gemm_kernel *kernel, const struct gemm *g, float *to, struct thread_pool *pool)
{
    struct panels_job j = {kernel, g, to};
    pool_for(pool, (g->n + kernel->nr - 1) / kernel->nr, 4, pack_panels, &j);
}

/* What the loops share. */
struct product {
    const struct gemm_kernel *kernel;
    const struct gemm *g;
    bool direct_a, direct_b; /* read in place, not packed */
};

/* The two innermost loops: C (m, n) at (i, j) from the terms [p, p + k). packed_a, packed_b: the panels of these rows and
 * columns. */
static void multiply_panels(const struct product *product, const float *packed_a, const float *packed_b, int64_t i, int64_t m,
                            int64_t j, int64_t n, int64_t p, int64_t k)
{
    const struct gemm_kernel *kernel = product->kernel;
    const struct gemm *g = product->g;
    int mr = kernel->mr, nr = kernel->nr;
    int64_t lda = product->direct_a ? g->lda : mr, ldb = product->direct_b ? g->ldb : nr;
    for (int64_t jr = 0; jr < n; jr += nr) {
        const float *b = product->direct_b ? (const float *)g->b + p * g->ldb + j + jr : packed_b + jr * k;
        for (int64_t ir = 0; ir < m; ir += mr) {
            const float *a = product->direct_a ? g->a + p * g->lda + i + ir : packed_a + ir * k;
            float *c = g->c + (i + ir) * g->ldc + j + jr;
            const int64_t fetched = ir / mr * k * LINE; /* floats of the next panel */
            if (g->b_panels && kernel->tile_ahead && !product->direct_a && fetched < nr * k && jr + 2 * nr <= n && ir + mr <= m) {
                kernel->tile_ahead(k, a, b, b + nr * k + fetched, c, g->ldc, &g->alpha, g->accumulate || p > 0);
                continue;
            }
            kernel->tile(k, a, lda, b, ldb, c, g->ldc, (int)min_i64(mr, m - ir), (int)min_i64(nr, n - jr), &g->alpha, g->accumulate || p > 0);
        }
    }
}

/* The block of C with rows [i0, i0 + m) and columns [j0, j0 + n): the three outer loops. An operand that is stored as its panels
 * would be (A transposed, B not) and is used only once or twice is read in place instead of being packed. Where the
 * workspace can hold the columns of B for all terms, the terms become the inner loop: C is then written while it is in cache. */
static void multiply_block(const struct gemm_kernel *kernel, const struct gemm *g, const struct workspace *w, int64_t i0,
                           int64_t m, int64_t j0, int64_t n)
{
    struct product product = {kernel, g, g->trans_a && n <= 2 * kernel->nr, !g->trans_b && !g->b_panels && m <= 2 * kernel->mr};
    int64_t kc = block_k(kernel, g->k, g->b_type);
    int64_t mc = even_block(m, w->mc, kernel->mr), nc = even_block(n, w->nc, kernel->nr);
    for (int64_t j = 0; j < n; j += nc) {
        int64_t nb = min_i64(nc, n - j), columns = round_up(nb, kernel->nr);
        const bool in_place = product.direct_b || g->b_panels;
        bool whole_b = in_place || columns * g->k <= w->nc * kernel->kc;
        for (int64_t p = 0; whole_b && !in_place && p < g->k; p += kc)
            pack_b(kernel, g, w->b + p * columns, w->rows, j0 + j, nb, p, min_i64(kc, g->k - p));
        int64_t m_step = whole_b ? mc : m; /* rows per sweep over the terms */
        for (int64_t i_outer = 0; i_outer < m; i_outer += m_step)
            for (int64_t p = 0; p < g->k; p += kc) {
                int64_t kb = min_i64(kc, g->k - p), end = min_i64(m, i_outer + m_step);
                if (!whole_b)
                    pack_b(kernel, g, w->b, w->rows, j0 + j, nb, p, kb);
                for (int64_t i = i_outer; i < end; i += mc) {
                    int64_t mb = min_i64(mc, end - i);
                    if (!product.direct_a)
                        pack_a(kernel, g, w->a, i0 + i, mb, p, kb);
                    const float *b = g->b_panels ? panels_at(kernel, g, j0 + j, p, kb) : whole_b ? w->b + p * columns : w->b;
                    multiply_panels(&product, w->a, b, i0 + i, mb, j0 + j, nb, p, kb);
                }
            }
    }
}

/* k = 0: an empty sum. */
static void multiply_nothing(const struct gemm *g)
{
    for (int64_t i = 0; i < g->m && !g->accumulate; i++)
        memset(g->c + i * g->ldc, 0, (size_t)g->n * sizeof *g->c);
}

static bool takes_vector_path(const struct gemm *g)
{
    return g->m <= GEMV_MAX_M && g->trans_b && !g->trans_a;
}

/* Columns [j0, j1) of C, one row of B at a time. */
static void multiply_vectors(const struct gemm_kernel *kernel, const struct gemm *g, int64_t j0, int64_t j1)
{
    size_t row_bytes = dtype_row_bytes(g->b_type, g->ldb);
    for (int64_t j = j0; j < j1; j++) {
        float sum[GEMV_MAX_M];
        kernel->row_dot(sum, (const char *)g->b + (size_t)j * row_bytes, g->b_type, g->a, g->lda, (int)g->m, g->k);
        for (int64_t i = 0; i < g->m; i++) {
            float *c = g->c + i * g->ldc + j;
            *c = g->accumulate ? *c + g->alpha * sum[i] : g->alpha * sum[i];
        }
    }
}

size_t gemm_scratch_bytes(const struct gemm_kernel *kernel)
{
    return workspace_floats(kernel, kernel->mc, kernel->nc) * sizeof(float);
}

void gemm_serial(const struct gemm_kernel *kernel, const struct gemm *g, void *scratch)
{
    if (g->m <= 0 || g->n <= 0)
        return;
    if (g->k <= 0) {
        multiply_nothing(g);
    } else if (takes_vector_path(g)) {
        multiply_vectors(kernel, g, 0, g->n);
    } else {
        struct workspace w = workspace_layout(kernel, kernel->mc, kernel->nc, scratch);
        multiply_block(kernel, g, &w, 0, g->m, 0, g->n);
    }
}

/* The calling thread's workspace. */
static _Thread_local struct {
    void *memory;
    size_t bytes;
} cached;
static pthread_once_t cached_once = PTHREAD_ONCE_INIT;
static pthread_key_t cached_key; /* its destructor frees the workspace when the thread ends */
static bool cached_key_valid;

static void cached_create_key(void)
{
    cached_key_valid = pthread_key_create(&cached_key, free) == 0;
}

void *gemm_workspace(size_t bytes)
{
    if (cached.bytes >= bytes)
        return cached.memory;
    pthread_once(&cached_once, cached_create_key);
    if (!cached_key_valid)
        return NULL;
    const int64_t align = (int64_t)bytes >= LARGE_PAGE ? LARGE_PAGE : SCRATCH_ALIGN, rounded = round_up((int64_t)bytes, align);
    void *memory = aligned_alloc((size_t)align, (size_t)rounded);
    if (!memory)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (align == LARGE_PAGE) /* converted rows lie kilobytes apart */
        madvise(memory, (size_t)rounded, MADV_HUGEPAGE);
#endif
    if (pthread_setspecific(cached_key, memory)) {
        free(memory);
        return NULL;
    }
    free(cached.memory);
    cached.memory = memory;
    cached.bytes = bytes;
    return memory;
}

/* The last resort when there is no memory for a workspace. */
static __attribute__((noinline)) void multiply_block_on_stack(const struct gemm_kernel *kernel, const struct gemm *g, int64_t i0,
                                                              int64_t m, int64_t j0, int64_t n)
{
    _Alignas(SCRATCH_ALIGN) float memory[GEMM_MAX_KC * (GEMM_MAX_MR + GEMM_MAX_NR) + GEMM_MAX_NR * GEMM_MAX_BLOCK];
    struct workspace w = workspace_layout(kernel, kernel->mr, kernel->nr, memory);
    multiply_block(kernel, g, &w, i0, m, j0, n);
}

static void multiply_part(const struct gemm_kernel *kernel, const struct gemm *g, int64_t i0, int64_t m, int64_t j0, int64_t n)
{
    float *memory = gemm_workspace(gemm_scratch_bytes(kernel));
    if (!memory) {
        multiply_block_on_stack(kernel, g, i0, m, j0, n);
        return;
    }
    struct workspace w = workspace_layout(kernel, kernel->mc, kernel->nc, memory);
    multiply_block(kernel, g, &w, i0, m, j0, n);
}

/* A grid of parts of C, each (part_m, part_n) or less at the edges. */
struct grid {
    const struct gemm_kernel *kernel;
    const struct gemm *g;
    int64_t part_m, part_n;
    int64_t columns; /* parts side by side */
};

static void grid_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct grid *grid = ctx;
    for (int64_t part = begin; part < end; part++) {
        int64_t i = part / grid->columns * grid->part_m, j = part % grid->columns * grid->part_n;
        multiply_part(grid->kernel, grid->g, i, min_i64(grid->part_m, grid->g->m - i), j, min_i64(grid->part_n, grid->g->n - j));
    }
}

/* Cut C into one part per thread so that the largest part, with the packing of its operands, is done soonest. */
static struct grid grid_choose(const struct gemm_kernel *kernel, const struct gemm *g, int threads)
{
    struct grid best = {kernel, g, g->m, g->n, 1};
    double best_cost = -1;
    for (int64_t rows = 1; rows <= threads; rows++) {
        int64_t columns = threads / rows;
        int64_t m = round_up((g->m + rows - 1) / rows, kernel->mr), n = round_up((g->n + columns - 1) / columns, kernel->nr);
        double cost = (double)m * (double)n + PACKING_COST * ((double)m + (double)n);
        if (best_cost < 0 || cost < best_cost) {
            best_cost = cost;
            best = (struct grid){kernel, g, m, n, (g->n + n - 1) / n};
        }
    }
    return best;
}

struct vectors {
    const struct gemm_kernel *kernel;
    const struct gemm *g;
};

static void vectors_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct vectors *v = ctx;
    multiply_vectors(v->kernel, v->g, begin, end);
}

void gemm_parallel(const struct gemm_kernel *kernel, const struct gemm *g, struct thread_pool *pool)
{
    if (g->m <= 0 || g->n <= 0)
        return;
    if (g->k <= 0) {
        multiply_nothing(g);
        return;
    }
    int threads = pool_size(pool);
    if (takes_vector_path(g)) {
        struct vectors v = {kernel, g};
        size_t bytes = (size_t)g->n * dtype_row_bytes(g->b_type, g->ldb);
        if (threads == 1 || bytes < SERIAL_BYTES)
            multiply_vectors(kernel, g, 0, g->n);
        else
            pool_for(pool, g->n, round_up((g->n + 4 * threads - 1) / (4 * threads), 16), vectors_run, &v);
        return;
    }
    if (threads == 1 || (double)g->m * (double)g->n * (double)g->k < SERIAL_MADDS) {
        multiply_part(kernel, g, 0, g->m, 0, g->n);
        return;
    }
    struct grid grid = grid_choose(kernel, g, threads);
    pool_for(pool, (g->m + grid.part_m - 1) / grid.part_m * grid.columns, 1, grid_run, &grid);
}
