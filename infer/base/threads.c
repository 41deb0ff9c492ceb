#include "infer/base/threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#define SPIN_ROUNDS 2000 /* about 20 microseconds: long enough for back-to-back loops, short enough to sleep in between */

struct thread_pool {
    int n_threads;
    pthread_t *threads;         /* (n_threads - 1) */
    void (*fn)(void *, int);
    void *ctx;
    atomic_uint generation;     /* bumped once per pool_run */
    atomic_int running;         /* workers that have not finished this generation */
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
};

struct worker {
    struct thread_pool *pool;
    int index;
};

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Subnormal numbers (far tails of a softmax, moments of rare tokens) count as zero inside of loops: they mean nothing there and cost
 * a processor a hundred times as much. Returns what to restore in the caller's thread. */
static inline unsigned flush_subnormals(void)
{
#ifdef __SSE2__
    const unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040); /* flush results to zero, take operands as zero */
    return old;
#else
    return 0;
#endif
}

static inline void restore_subnormals(unsigned old)
{
#ifdef __SSE2__
    _mm_setcsr(old);
#else
    (void)old;
#endif
}

static void *worker_main(void *arg)
{
    struct worker w = *(struct worker *)arg;
    free(arg);
    struct thread_pool *p = w.pool;
    unsigned seen = 0;
    flush_subnormals();
    for (;;) {
        for (int i = 0; i < SPIN_ROUNDS && atomic_load_explicit(&p->generation, memory_order_acquire) == seen; i++)
            spin_pause();
        if (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->lock);
            while (atomic_load_explicit(&p->generation, memory_order_acquire) == seen)
                pthread_cond_wait(&p->start, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen++;
        if (p->stop)
            return NULL;
        p->fn(p->ctx, w.index);
        if (atomic_fetch_sub_explicit(&p->running, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

int threads_available(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static void publish(struct thread_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
}

int pool_create(struct thread_pool **out, int n_threads, struct plm_status *st)
{
    *out = NULL;
    if (n_threads < 0 || n_threads > 4096)
        return status_set(st, PLM_EINVAL, "number of threads is %d, expected 0 (all processors) to 4096", n_threads);
    if (n_threads == 0)
        n_threads = threads_available();
    struct thread_pool *p = calloc(1, sizeof *p);
    pthread_t *threads = calloc((size_t)n_threads, sizeof *threads);
    if (!p || !threads) {
        free(p);
        free(threads);
        return status_no_memory(st, sizeof *p, "a thread pool");
    }
    p->threads = threads;
    p->n_threads = 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t others, before; /* what is sent to the process is for its own threads; workers take only their faults */
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    int error = 0;
    for (int i = 1; i < n_threads && !error; i++) {
        struct worker *w = malloc(sizeof *w);
        if (w)
            *w = (struct worker){p, i};
        error = w ? pthread_create(&threads[i - 1], NULL, worker_main, w) : ENOMEM;
        if (error)
            free(w);
        else
            p->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        const int started = p->n_threads;
        pool_destroy(p);
        return status_set(st, PLM_ENOMEM, "cannot start worker thread %d of %d: %s", started, n_threads, strerror(error));
    }
    *out = p;
    return PLM_OK;
}

void pool_destroy(struct thread_pool *p)
{
    if (!p)
        return;
    p->stop = true;
    publish(p);
    for (int i = 1; i < p->n_threads; i++)
        pthread_join(p->threads[i - 1], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->start);
    pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}

int pool_size(const struct thread_pool *p)
{
    return p ? p->n_threads : 1;
}

void pool_run(struct thread_pool *p, void (*fn)(void *ctx, int worker), void *ctx)
{
    const unsigned old = flush_subnormals();
    if (!p || p->n_threads == 1) {
        fn(ctx, 0);
        restore_subnormals(old);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store_explicit(&p->running, p->n_threads - 1, memory_order_release);
    publish(p);
    fn(ctx, 0);
    for (int i = 0; i < SPIN_ROUNDS && atomic_load_explicit(&p->running, memory_order_acquire); i++)
        spin_pause();
    if (atomic_load_explicit(&p->running, memory_order_acquire)) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load_explicit(&p->running, memory_order_acquire))
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    restore_subnormals(old);
}

struct loop {
    void (*fn)(void *, int64_t, int64_t, int);
    void *ctx;
    int64_t n, grain;
    atomic_llong next;
};

static void loop_worker(void *arg, int worker)
{
    struct loop *l = arg;
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&l->next, l->grain, memory_order_relaxed);
        if (begin >= l->n)
            return;
        l->fn(l->ctx, begin, l->n - begin < l->grain ? l->n : begin + l->grain, worker);
    }
}

void pool_for(struct thread_pool *p, int64_t n, int64_t grain,
              void (*fn)(void *ctx, int64_t begin, int64_t end, int worker), void *ctx)
{
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    struct loop l = {.fn = fn, .ctx = ctx, .n = n, .grain = grain};
    if (n <= grain) {
        const unsigned old = flush_subnormals();
        fn(ctx, 0, n, 0);
        restore_subnormals(old);
    } else {
        pool_run(p, loop_worker, &l);
    }
}
