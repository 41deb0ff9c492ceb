#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>

#include "infer/base/threads.h"

struct count {
    atomic_int *hits;
    int workers;
};

static void mark(void *ctx, int64_t begin, int64_t end, int worker)
{
    struct count *c = ctx;
    assert_true(worker >= 0 && worker < c->workers);
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&c->hits[i], 1);
}

/* Every index exactly once, for every pool and shape, many times in a row (workers asleep and awake). */
static void loops_cover_their_range_once(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        struct thread_pool *pool;
        assert_int_equal(pool_create(&pool, n_threads, NULL), PLM_OK);
        assert_int_equal(pool_size(pool), n_threads);
        for (int round = 0; round < 300; round++) {
            const int64_t n = round % 97, grain = 1 + round % 7;
            atomic_int *hits = calloc((size_t)n + 1, sizeof *hits);
            struct count c = {hits, n_threads};
            pool_for(pool, n, grain, mark, &c);
            for (int64_t i = 0; i < n; i++)
                assert_int_equal(hits[i], 1);
            free(hits);
        }
        pool_destroy(pool);
    }
}

static void worker_sum(void *ctx, int worker)
{
    atomic_fetch_add((atomic_int *)ctx, 1 << worker);
}

static void run_reaches_every_worker(void **state)
{
    (void)state;
    struct thread_pool *pool;
    atomic_int sum = 0;
    assert_int_equal(pool_create(&pool, 3, NULL), PLM_OK);
    pool_run(pool, worker_sum, &sum);
    assert_int_equal(sum, 7);
    pool_destroy(pool);
    sum = 0;
    pool_run(NULL, worker_sum, &sum);
    assert_int_equal(sum, 1);
    assert_int_equal(pool_create(&pool, -1, NULL), PLM_EINVAL);
    assert_null(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(loops_cover_their_range_once), cmocka_unit_test(run_reaches_every_worker)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
