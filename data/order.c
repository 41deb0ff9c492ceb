#include "data/order.h"

#include <stdlib.h>

#include "data/mixture.h"
#include "data/permutation.h"
#include "infer/base/random.h"

/* The order of the windows in one epoch. */
struct epoch {
    int64_t number;   /* -1: not computed */
    uint64_t key;
    int64_t *window;  /* (n_windows) */
    int64_t *before;  /* (n_windows + 1): rows before the i-th window of the epoch */
};

struct source_order {
    const int64_t *window_rows;
    int64_t n_windows, n_rows;
    struct epoch epochs[2]; /* an epoch and the next: several threads read around the border */
};

struct order {
    uint64_t seed;
    uint32_t phase;
    struct mixture *mixture;
    struct source_order *sources;
    int n_sources;
};

static int source_create(struct source_order *s, const struct order_source *from, int number, struct plm_status *st)
{
    size_t n = (size_t)from->n_windows;
    s->window_rows = from->window_rows;
    s->n_windows = from->n_windows;
    for (size_t i = 0; i < n; i++)
        s->n_rows += from->window_rows[i];
    if (s->n_rows < 1)
        return status_set(st, PLM_EINVAL, "source %d has no rows: its documents hold nothing to predict", number);
    for (int e = 0; e < 2; e++) {
        s->epochs[e].number = -1;
        s->epochs[e].window = malloc(n * sizeof *s->epochs[e].window);
        s->epochs[e].before = malloc((n + 1) * sizeof *s->epochs[e].before);
        if (!s->epochs[e].window || !s->epochs[e].before)
            return status_no_memory(st, n * sizeof(int64_t), "the order of a source");
    }
    return PLM_OK;
}

int order_create(struct order **out, uint64_t seed, uint32_t phase, const struct order_source *sources, int n_sources,
                 struct plm_status *st)
{
    *out = NULL;
    struct order *o = calloc(1, sizeof *o);
    size_t n = n_sources > 0 ? (size_t)n_sources : 1;
    double *shares = malloc(n * sizeof *shares);
    int code = PLM_OK;
    if (!o || !shares || !(o->sources = calloc(n, sizeof *o->sources))) {
        code = status_no_memory(st, n * sizeof *o->sources, "the data order");
    } else {
        o->seed = seed;
        o->phase = phase;
        o->n_sources = n_sources;
        for (int i = 0; !code && i < n_sources; i++) {
            shares[i] = sources[i].row_share;
            code = source_create(&o->sources[i], &sources[i], i, st);
        }
        if (!code)
            code = mixture_create(&o->mixture, shares, n_sources, st);
    }
    free(shares);
    if (code)
        order_free(o);
    else
        *out = o;
    return code;
}

void order_free(struct order *o)
{
    if (!o)
        return;
    for (int i = 0; o->sources && i < o->n_sources; i++)
        for (int e = 0; e < 2; e++) {
            free(o->sources[i].epochs[e].window);
            free(o->sources[i].epochs[e].before);
        }
    mixture_free(o->mixture);
    free(o->sources);
    free(o);
}

static const struct epoch *epoch_get(const struct order *o, int source, int64_t number)
{
    struct source_order *s = &o->sources[source];
    struct epoch *e = &s->epochs[number & 1];
    if (e->number == number)
        return e;
    /* keys are chained, because seed, phase, source and epoch together are wider than one counter */
    uint64_t key = random_u64(o->seed, RANDOM_DATA_ORDER, (uint32_t)source, o->phase);
    e->key = random_u64(key, RANDOM_DATA_ORDER, 0, (uint64_t)number);
    e->number = number;
    e->before[0] = 0;
    for (int64_t i = 0; i < s->n_windows; i++) {
        e->window[i] = (int64_t)permutation_apply(e->key, (uint64_t)s->n_windows, (uint64_t)i);
        e->before[i + 1] = e->before[i] + s->window_rows[e->window[i]];
    }
    return e;
}

int order_locate(struct order *o, int64_t sample, struct order_place *place, struct plm_status *st)
{
    int64_t drawn;
    int code = mixture_locate(o->mixture, sample, &place->source, &drawn, st);
    if (code)
        return code;
    const struct source_order *s = &o->sources[place->source];
    place->epoch = drawn / s->n_rows;
    int64_t position = drawn % s->n_rows;
    const struct epoch *e = epoch_get(o, place->source, place->epoch);
    int64_t low = 0, high = (s->n_windows - 1) / ORDER_GROUP; /* the last group that begins at or before the position */
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (e->before[middle * ORDER_GROUP] <= position)
            low = middle;
        else
            high = middle - 1;
    }
    int64_t first = low * ORDER_GROUP, last = first + ORDER_GROUP < s->n_windows ? first + ORDER_GROUP : s->n_windows;
    int64_t begin = e->before[first], rows = e->before[last] - begin;
    uint64_t key = random_u64(e->key, RANDOM_DATA_ORDER, 1, (uint64_t)low);
    int64_t shuffled = begin + (int64_t)permutation_apply(key, (uint64_t)rows, (uint64_t)(position - begin));
    while (e->before[first + 1] <= shuffled)
        first++;
    place->window = e->window[first];
    place->row = shuffled - e->before[first];
    return PLM_OK;
}

int order_counts(struct order *o, int64_t n_samples, int64_t *counts, struct plm_status *st)
{
    return mixture_counts(o->mixture, n_samples, counts, st);
}
