#include "train/matmul.h"

#include <stdlib.h>
#include <string.h>

#include "data/memory_room.h"

#ifdef HAVE_DNNL
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

static const struct ops *own; /* set once by matmul_select, before any thread uses it; the same value every time */

struct dnnl_job {
    const struct gemm *g;
    int parts;
};

/* Part `worker` of the output. oneDNN is told to use one OpenMP thread: the pool's own threads do the splitting, so that two
 * runtimes never compete for the processors. */
static void dnnl_part(void *ctx, int worker)
{
    const struct dnnl_job *j = ctx;
    const struct gemm *g = j->g;
    const bool by_rows = g->m >= g->n;
    const int64_t extent = by_rows ? g->m : g->n, unit = 16;
    const int64_t blocks = (extent + unit - 1) / unit;
    const int64_t begin = blocks * worker / j->parts * unit;
    int64_t end = blocks * (worker + 1) / j->parts * unit;
    end = end < extent ? end : extent;
    if (begin >= end)
        return;
    if (omp_get_max_threads() != 1)
        omp_set_num_threads(1); /* a per-thread setting */
    const float *a = g->a, *b = g->b;
    if (by_rows)
        a += begin * (g->trans_a ? 1 : g->lda);
    else
        b += begin * (g->trans_b ? g->ldb : 1);
    const dnnl_status_t status = dnnl_sgemm(g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', by_rows ? end - begin : g->m, by_rows ? g->n : end - begin, g->k, g->alpha,
               a, g->lda, b, g->ldb, g->accumulate ? 1.0f : 0.0f, g->c + (by_rows ? begin * g->ldc : begin), g->ldc);
    if (status != dnnl_success) { /* out of memory: nothing was written, and the own kernels need less */
        struct gemm part = *g;
        part.m = by_rows ? end - begin : g->m, part.n = by_rows ? g->n : end - begin;
        part.a = a, part.b = b, part.c = g->c + (by_rows ? begin * g->ldc : begin);
        own->gemm(&part, NULL);
    }
}

static void gemm_by_dnnl(const struct gemm *g, struct thread_pool *pool)
{
    if (g->b_type != DTYPE_F32 || g->m < 16 || g->n < 16 || g->k == 0) { /* what oneDNN does not know, or not better */
        own->gemm(g, pool);
        return;
    }
    struct dnnl_job j = {g, pool_size(pool)};
    pool_run(pool, dnnl_part, &j);
}

/* oneDNN writes its machine code at the first product, and ends with a signal when there is no memory for that. So that comes first,
 * while a run has taken little, and only where it fits; later a product that finds no memory says so (dnnl_part). False: it does
 * not fit. */
static bool write_kernels(void)
{
    enum { SIDE = 64, ROOM = 64 << 20 }; /* ROOM: many times what was seen */
    static float a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];
    static bool written;
    if (written)
        return true;
    if (memory_room(ROOM, "oneDNN", NULL))
        return false;
    omp_set_num_threads(1);
    for (int kind = 0; kind < 8; kind++)
        dnnl_sgemm(kind & 1 ? 'T' : 'N', kind & 2 ? 'T' : 'N', SIDE, SIDE, SIDE, 1.0f, a, SIDE, b, SIDE, kind & 4 ? 1.0f : 0.0f, c, SIDE);
    return written = true;
}
#endif

void matmul_select(struct matmul *m)
{
    const struct ops *best = ops_select(OPS_BEST);
    *m = (struct matmul){*best, "own"};
#ifdef HAVE_DNNL
    const char *wish = getenv("PLM_MATMUL");
    if ((!wish || strcmp(wish, "own") != 0) && write_kernels()) {
        own = best;
        m->ops.gemm = gemm_by_dnnl;
        m->library = "oneDNN";
    }
#endif
}
