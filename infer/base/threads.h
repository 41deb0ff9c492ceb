/* A pool of worker threads for data-parallel loops. A NULL pool means "run in the calling thread". */
#ifndef INFER_BASE_THREADS_H
#define INFER_BASE_THREADS_H

#include <stdint.h>

#include "infer/base/status.h"

struct thread_pool;

/* n_threads counts the calling thread, which takes part; 0 means one per processor this process may run on. */
int pool_create(struct thread_pool **out, int n_threads, struct plm_status *st);
void pool_destroy(struct thread_pool *pool);

/* Threads that take part, the caller included; 1 for NULL. */
int pool_size(const struct thread_pool *pool);

/* Run fn(ctx, worker) for worker = 0 .. pool_size-1, one per thread, and wait for all. Not re-entrant: fn must not
 * call pool_run on the same pool. */
void pool_run(struct thread_pool *pool, void (*fn)(void *ctx, int worker), void *ctx);

/* Split [0, n) into ranges of at most `grain` and run fn(ctx, begin, end, worker) on them; which worker gets which
 * range is not determined, so fn's result must not depend on `worker` (it is there to pick scratch memory). */
void pool_for(struct thread_pool *pool, int64_t n, int64_t grain,
              void (*fn)(void *ctx, int64_t begin, int64_t end, int worker), void *ctx);

/* Processors this process may run on. */
int threads_available(void);

#endif
