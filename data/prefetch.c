#include "data/prefetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum state { EMPTY, FILLING, READY };

/* Block n of the plan goes through slots[n % n_slots]. */
struct slot {
    enum state state;
    int64_t block;
    struct batch batch;
    struct plm_status status;
};

struct prefetch {
    struct prefetch_plan plan;
    struct slot *slots;
    int64_t n_slots;
    int64_t next;      /* block that the reader takes next: all before are gone */
    int64_t claimed;   /* block that a thread fills next */
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t emptied, filled;
    pthread_t *threads;
    struct sampler_thread **samplers; /* (plan.n_threads) */
    int n_threads;
};

struct worker {
    struct prefetch *prefetch;
    struct sampler_thread *sampler;
};

static void *prefetch_main(void *arg)
{
    struct worker w = *(struct worker *)arg;
    free(arg);
    struct prefetch *p = w.prefetch;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && (p->claimed >= p->next + p->n_slots || p->slots[p->claimed % p->n_slots].state != EMPTY))
            pthread_cond_wait(&p->emptied, &p->lock);
        if (p->stop)
            break;
        int64_t block = p->claimed++;
        struct slot *slot = &p->slots[block % p->n_slots];
        slot->state = FILLING;
        slot->block = block;
        pthread_mutex_unlock(&p->lock);
        slot->status = (struct plm_status){0};
        int code = sampler_fill(w.sampler, p->plan.first + block * p->plan.stride, &slot->batch, &slot->status);
        slot->status.code = (enum plm_code)code;
        pthread_mutex_lock(&p->lock);
        slot->state = block < p->next ? EMPTY : READY; /* the reader may have skipped it */
        pthread_cond_broadcast(slot->state == READY ? &p->filled : &p->emptied);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int start_thread(struct prefetch *p, struct sampler *s, int i, struct plm_status *st)
{
    int code = sampler_thread_create(&p->samplers[i], s, st);
    if (code)
        return code;
    struct worker *w = malloc(sizeof *w);
    if (!w) {
        sampler_thread_free(p->samplers[i]);
        return status_no_memory(st, sizeof *w, "a data thread");
    }
    *w = (struct worker){p, p->samplers[i]};
    int error = pthread_create(&p->threads[i], NULL, prefetch_main, w);
    if (error) {
        free(w);
        sampler_thread_free(p->samplers[i]);
        return status_set(st, PLM_ENOMEM, "cannot start a data thread: %s", strerror(error));
    }
    p->n_threads++;
    return PLM_OK;
}

int prefetch_start(struct prefetch **out, struct sampler *s, const struct prefetch_plan *plan, struct plm_status *st)
{
    *out = NULL;
    struct prefetch *p = calloc(1, sizeof *p);
    if (!p)
        return status_no_memory(st, sizeof *p, "the data threads");
    p->plan = *plan;
    p->n_slots = plan->n_blocks > plan->n_threads ? plan->n_blocks : plan->n_threads + 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->emptied, NULL);
    pthread_cond_init(&p->filled, NULL);
    p->slots = calloc((size_t)p->n_slots, sizeof *p->slots);
    p->threads = calloc((size_t)plan->n_threads, sizeof *p->threads);
    p->samplers = calloc((size_t)plan->n_threads, sizeof *p->samplers);
    int code = p->slots && p->threads && p->samplers ? PLM_OK
                                                      : status_no_memory(st, (size_t)p->n_slots * sizeof *p->slots, "batches");
    for (int64_t i = 0; !code && i < p->n_slots; i++)
        code = batch_create(&p->slots[i].batch, plan->rows, plan->seq_len, st);
    for (int i = 0; !code && i < plan->n_threads; i++)
        code = start_thread(p, s, i, st);
    if (code)
        prefetch_stop(p);
    else
        *out = p;
    return code;
}

void prefetch_stop(struct prefetch *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->emptied);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++) {
        pthread_join(p->threads[i], NULL);
        sampler_thread_free(p->samplers[i]);
    }
    for (int64_t i = 0; p->slots && i < p->n_slots; i++)
        batch_free(&p->slots[i].batch);
    pthread_cond_destroy(&p->filled);
    pthread_cond_destroy(&p->emptied);
    pthread_mutex_destroy(&p->lock);
    free(p->slots);
    free(p->threads);
    free(p->samplers);
    free(p);
}

static void copy_batch(struct batch *to, const struct batch *from)
{
    size_t n = (size_t)from->rows * (size_t)from->seq_len;
    memcpy(to->tokens, from->tokens, n * sizeof *to->tokens);
    memcpy(to->targets, from->targets, n * sizeof *to->targets);
    memcpy(to->weight, from->weight, n * sizeof *to->weight);
    memcpy(to->doc_start, from->doc_start, n * sizeof *to->doc_start);
}

/* Block n is asked for: forget what is before it. */
static void skip_to(struct prefetch *p, int64_t block)
{
    for (int64_t i = 0; i < p->n_slots; i++)
        if (p->slots[i].state == READY && p->slots[i].block < block)
            p->slots[i].state = EMPTY;
    p->next = block;
    if (p->claimed < block)
        p->claimed = block;
    pthread_cond_broadcast(&p->emptied);
}

int prefetch_take(struct prefetch *p, int64_t first, struct batch *b, bool *found, struct plm_status *st)
{
    *found = false;
    int64_t ahead = first - p->plan.first, block = ahead / p->plan.stride;
    if (ahead < 0 || ahead % p->plan.stride || b->rows != p->plan.rows || block < p->next)
        return PLM_OK;
    *found = true;
    pthread_mutex_lock(&p->lock);
    skip_to(p, block);
    struct slot *slot = &p->slots[block % p->n_slots];
    while (slot->state != READY || slot->block != block)
        pthread_cond_wait(&p->filled, &p->lock);
    pthread_mutex_unlock(&p->lock);
    int code = slot->status.code; /* nobody else touches a READY slot */
    if (code)
        status_set(st, code, "%s", slot->status.message);
    else
        copy_batch(b, &slot->batch);
    pthread_mutex_lock(&p->lock);
    slot->state = EMPTY;
    p->next = block + 1;
    pthread_cond_broadcast(&p->emptied);
    pthread_mutex_unlock(&p->lock);
    return code;
}
