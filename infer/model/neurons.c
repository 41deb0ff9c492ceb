#include "infer/model/neurons.h"

#include <pthread.h>
#include <stdlib.h>

#include "infer/ops/neuron_major.h"

struct neurons {
    pthread_mutex_t lock;
    struct arena arena;
    const void **layers; /* (num_hidden_layers); NULL: not made yet */
};

int neurons_create(struct neurons **out, struct plm_status *st)
{
    struct neurons *n = *out = calloc(1, sizeof *n);
    if (!n)
        return status_no_memory(st, sizeof *n, "neuron-major copies");
    pthread_mutex_init(&n->lock, NULL);
    return PLM_OK;
}

void neurons_free(struct neurons *n)
{
    if (!n)
        return;
    pthread_mutex_destroy(&n->lock);
    arena_free(&n->arena);
    free(n->layers);
    free(n);
}

/* Measure the copies when `layers` is NULL, otherwise make them. */
static void lay_out(const struct plm_model *m, struct arena *arena, const void **layers, struct thread_pool *pool)
{
    for (int i = 0; i < m->config.num_hidden_layers; i++) {
        const struct weight *w = &m->weights.layers[i].at[TENSOR_DOWN];
        struct neuron_layout l;
        const size_t bytes = neuron_major_layout(&l, w->type, w->rows, w->cols);
        void *to = bytes ? arena_alloc(arena, bytes, 1) : NULL;
        if (!layers || !to)
            continue;
        neuron_major_pack(to, w->data, w->type, w->rows, w->cols, pool);
        if (w->mapped)
            mapped_release(w->data, (size_t)w->rows * dtype_row_bytes(w->type, w->cols));
        layers[i] = to;
    }
}

size_t neurons_bytes(const struct plm_model *m)
{
    struct arena measured = {0};
    lay_out(m, &measured, NULL, NULL);
    return measured.used;
}

static int make(struct neurons *n, const struct plm_model *m, struct thread_pool *pool, struct plm_status *st)
{
    const void **layers = calloc((size_t)m->config.num_hidden_layers, sizeof *layers);
    if (!layers)
        return status_no_memory(st, (size_t)m->config.num_hidden_layers * sizeof *layers, "the layer list");
    lay_out(m, &n->arena, NULL, NULL);
    int code = arena_commit(&n->arena, 0, "neuron-major copies of ffn_down (decoding works without them: choose dense)", st);
    if (code) {
        free(layers);
        return code;
    }
    lay_out(m, &n->arena, layers, pool);
    n->layers = layers;
    return PLM_OK;
}

int neurons_get(const struct plm_model *m, struct thread_pool *pool, const void *const **layers, struct plm_status *st)
{
    struct neurons *n = m->neurons;
    pthread_mutex_lock(&n->lock);
    int code = n->layers ? PLM_OK : make(n, m, pool, st);
    *layers = n->layers;
    pthread_mutex_unlock(&n->lock);
    return code;
}
