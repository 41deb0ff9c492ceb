/* policy_compress: victims, their nearest neighbours, the gate, the merge (d2o.md 1.4, 1.5 and 3.5). */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "infer/cache/policy.h"

#define TILE 32             /* victims compared with all targets at once: their cosines stay in the L2 cache */
#define LEAST_NORM 1e-12f   /* of a zero vector, which is similar to nothing */
#define EXCLUDED (-2.0f)    /* below every cosine: a sink is no target */

/* Scratch memory, and what the steps hand to each other. After partition() the survivors are slots 0 .. budget-1 and the victims
 * the rest; victim number v is slot budget + v. */
struct compression {
    const struct policy_options *o;
    struct kv_slots *s;
    const struct ops *ops;
    struct thread_pool *pool;
    int64_t budget, n_victim, n_sink;
    int32_t *heap;          /* (capacity) victims as they are selected */
    unsigned char *tail;    /* (capacity) 1 for a slot behind the budget that is a victim already */
    unsigned char *row;     /* (row_bytes) for swaps */
    float *inverse_norm;    /* (capacity) of the survivors */
    int32_t *sinks;         /* (capacity) slots of the surviving sinks */
    float *similarity;      /* (capacity) u of each victim */
    int32_t *pivot;         /* (capacity) target of each victim, -1: none */
    int32_t *next, *first;  /* (capacity) passing victims of a pivot as a list: first by pivot, next by victim */
    double *frequency;      /* (rotary / 2) */
    float *keys;            /* (TILE, similarity width) victims' vectors */
    float *cosine;          /* (TILE, capacity) */
    float *merged;          /* (content + rotary + value) */
    float *turned;          /* (rotary) */
    float *cos_sin;         /* (rotary): cosines, then sines */
};

/* h2o and streaming end with the partition. */
static void layout(struct compression *c, const struct policy_options *o, const struct kv_shape *shape, int64_t capacity,
                   struct arena *arena)
{
    const size_t n = (size_t)capacity;
    c->heap = arena_alloc(arena, n, sizeof *c->heap);
    c->tail = arena_alloc(arena, n, 1);
    c->row = arena_alloc(arena, 1, kv_row_bytes(shape));
    if (!policy_merges(o->policy))
        return;
    c->inverse_norm = arena_alloc(arena, n, sizeof *c->inverse_norm);
    c->sinks = arena_alloc(arena, n, sizeof *c->sinks);
    c->similarity = arena_alloc(arena, n, sizeof *c->similarity);
    c->pivot = arena_alloc(arena, n, sizeof *c->pivot);
    c->next = arena_alloc(arena, n, sizeof *c->next);
    c->first = arena_alloc(arena, n, sizeof *c->first);
    c->frequency = arena_alloc(arena, (size_t)shape->rotary / 2, sizeof *c->frequency);
    c->keys = arena_alloc(arena, TILE * (size_t)kv_similarity_width(shape), sizeof *c->keys);
    c->cosine = arena_alloc(arena, TILE * n, sizeof *c->cosine);
    c->merged = arena_alloc(arena, (size_t)(shape->content + shape->rotary + shape->value), sizeof *c->merged);
    c->turned = arena_alloc(arena, (size_t)shape->rotary, sizeof *c->turned);
    c->cos_sin = arena_alloc(arena, (size_t)shape->rotary, sizeof *c->cos_sin);
}

size_t policy_scratch_bytes(const struct policy_options *o, const struct kv_shape *shape, int64_t capacity)
{
    struct compression c;
    struct arena measure = {0};
    layout(&c, o, shape, capacity, &measure);
    return measure.used;
}

/* Is slot a evicted before slot b? Lowest score first, equal scores and streaming: lowest position. */
static bool evicted_before(const struct compression *c, int32_t a, int32_t b)
{
    const float *score = c->s->score;
    if (c->o->policy != POLICY_STREAMING && score[a] != score[b])
        return score[a] < score[b];
    return c->s->pos[a] < c->s->pos[b];
}

static void sift_down(const struct compression *c, int64_t i, int64_t n)
{
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && evicted_before(c, c->heap[child], c->heap[child + 1]))
            child++;
        if (!evicted_before(c, c->heap[i], c->heap[child]))
            return;
        const int32_t slot = c->heap[i];
        c->heap[i] = c->heap[child], c->heap[child] = slot;
    }
}

static int64_t count_from(const struct kv_slots *s, int32_t position)
{
    int32_t n = 0;
    for (int64_t i = 0; i < s->length; i++)
        n += s->pos[i] >= position;
    return n;
}

/* The lowest position among the `recent` latest slots, which lie anywhere: a bisection over positions, that ends at its first
 * guess when no slot is missing among them, as in every decoding step. */
static int32_t first_recent(const struct kv_slots *s, int64_t recent)
{
    if (recent == 0)
        return INT32_MAX;
    int32_t low = s->pos[0], last = s->pos[0];
    for (int64_t i = 1; i < s->length; i++) {
        low = s->pos[i] < low ? s->pos[i] : low;
        last = s->pos[i] > last ? s->pos[i] : last;
    }
    int32_t guess = (int32_t)(last - recent + 1), high = last;
    while (low < high) {
        const int64_t n = count_from(s, guess);
        if (n == recent)
            return guess;
        if (n > recent)
            low = guess;
        else
            high = guess - 1;
        guess = low + (high - low + 1) / 2;
    }
    return low;
}

/* The n_victim candidates to go first, in heap: a heap with the last of them on top, which every better candidate replaces. */
static void select_victims(struct compression *c)
{
    const struct kv_slots *s = c->s;
    const int32_t limit = c->o->policy == POLICY_STREAMING ? INT32_MAX : first_recent(s, policy_recent(c->budget));
    int64_t n = 0;
    for (int32_t i = 0; i < s->length; i++) {
        if (s->pos[i] < c->o->n_sink || s->pos[i] >= limit)
            continue;
        if (n < c->n_victim) {
            c->heap[n++] = i;
            if (n == c->n_victim)
                for (int64_t k = n / 2; k-- > 0;)
                    sift_down(c, k, n);
        } else if (evicted_before(c, i, c->heap[0])) {
            c->heap[0] = i;
            sift_down(c, 0, n);
        }
    }
}

static void swap_slots(struct compression *c, int64_t a, int64_t b)
{
    struct kv_slots *s = c->s;
    memcpy(c->row, kv_row(s, a), s->row_bytes);
    memcpy(kv_row(s, a), kv_row(s, b), s->row_bytes);
    memcpy(kv_row(s, b), c->row, s->row_bytes);
    const int32_t pos = s->pos[a];
    s->pos[a] = s->pos[b], s->pos[b] = pos;
    float *const columns[] = {s->score, s->count, s->bias, s->norm};
    for (int i = 0; i < 4 && columns[i]; i++) {
        const float value = columns[i][a];
        columns[i][a] = columns[i][b], columns[i][b] = value;
    }
}

/* Victims to the end: each one before it changes places with a survivor behind it. */
static void partition(struct compression *c)
{
    memset(c->tail, 0, (size_t)c->n_victim);
    for (int64_t v = 0; v < c->n_victim; v++)
        if (c->heap[v] >= c->budget)
            c->tail[c->heap[v] - c->budget] = 1;
    int64_t survivor = 0;
    for (int64_t v = 0; v < c->n_victim; v++)
        if (c->heap[v] < c->budget) {
            while (c->tail[survivor])
                survivor++;
            swap_slots(c, c->heap[v], c->budget + survivor++);
        }
}

static inline float inverse(float norm) { return 1 / (norm > LEAST_NORM ? norm : LEAST_NORM); }

static void prepare_targets(struct compression *c)
{
    const struct kv_slots *s = c->s;
    c->n_sink = 0;
    for (int64_t j = 0; j < c->budget; j++) {
        c->inverse_norm[j] = inverse(s->norm[j]);
        if (s->pos[j] < c->o->n_sink)
            c->sinks[c->n_sink++] = (int32_t)j;
    }
}

struct neighbours {
    struct compression *c;
    int64_t begin; /* first victim of the tile */
};

/* From products to cosines, u and pivot, for victims [begin, end) of a tile. The pivot is the lowest position within the slack of
 * the best, so that among equal slots the order in memory does not decide. */
static void find_neighbours(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct neighbours *tile = ctx;
    struct compression *c = tile->c;
    const int32_t *pos = c->s->pos;
    for (int64_t i = begin; i < end; i++) {
        float *cosine = c->cosine + i * c->budget;
        const float scale = inverse(c->s->norm[c->budget + tile->begin + i]);
        for (int64_t j = 0; j < c->budget; j++)
            cosine[j] *= c->inverse_norm[j] * scale;
        for (int64_t k = 0; k < c->n_sink; k++)
            cosine[c->sinks[k]] = EXCLUDED;
        const float best = c->ops->max(cosine, c->budget), edge = best - c->o->slack;
        int32_t pivot = -1;
        for (int64_t j = 0; j < c->budget; j++)
            if (cosine[j] >= edge && cosine[j] > EXCLUDED && (pivot < 0 || pos[j] < pos[pivot]))
                pivot = (int32_t)j;
        c->similarity[tile->begin + i] = best;
        c->pivot[tile->begin + i] = pivot;
    }
}

static void match(struct compression *c)
{
    const struct kv_slots *s = c->s;
    const struct kv_shape *shape = &s->shape;
    const int64_t width = kv_similarity_width(shape);
    /* Activations that come out of q8_0 blocks are 8-bit blocks: the fast product loses nothing. */
    const enum precision precision = shape->type == DTYPE_Q8_0 ? PRECISION_FAST : PRECISION_FULL;
    prepare_targets(c);
    for (int64_t begin = 0; begin < c->n_victim; begin += TILE) {
        const int64_t n = c->n_victim - begin < TILE ? c->n_victim - begin : TILE;
        for (int64_t i = 0; i < n; i++)
            c->ops->to_f32(c->keys + i * width, kv_row(s, c->budget + begin + i), shape->type, width);
        c->ops->gemm(&(struct gemm){.m = n, .n = c->budget, .k = width, .trans_b = true, .alpha = 1, .a = c->keys, .lda = width,
                                    .b = s->rows, .ldb = shape->content + shape->rotary + shape->value, .b_type = shape->type,
                                    .precision = precision, .c = c->cosine, .ldc = c->budget}, c->pool);
        pool_for(n > 1 ? c->pool : NULL, n, 1, find_neighbours, &(struct neighbours){c, begin});
    }
}

/* tau, then the lists of the victims that pass. */
static void gate(struct compression *c)
{
    struct kv_slots *s = c->s;
    double sum = 0;
    for (int64_t v = 0; v < c->n_victim; v++)
        sum += c->similarity[v];
    const double mean = sum / (double)c->n_victim;
    s->tau = (float)(s->has_tau ? c->o->beta * mean + (1 - (double)c->o->beta) * s->tau : mean);
    s->has_tau = true;
    for (int64_t v = 0; v < c->n_victim; v++) {
        if (c->o->gate && !(c->similarity[v] + c->o->slack >= s->tau))
            c->pivot[v] = -1;
        if (c->pivot[v] >= 0)
            c->first[c->pivot[v]] = -1;
    }
    for (int64_t v = c->n_victim; v-- > 0;)
        if (c->pivot[v] >= 0) {
            c->next[v] = c->first[c->pivot[v]];
            c->first[c->pivot[v]] = (int32_t)v;
        }
}

/* c->turned = R(delta) of a stored rotary key. */
static void turn(struct compression *c, const unsigned char *rotary, int32_t delta)
{
    const struct kv_shape *shape = &c->s->shape;
    const int half = shape->rotary / 2;
    c->ops->to_f32(c->turned, rotary, shape->type, shape->rotary);
    for (int i = 0; i < half; i++) {
        c->cos_sin[i] = (float)cos(delta * c->frequency[i]);
        c->cos_sin[half + i] = (float)sin(delta * c->frequency[i]);
    }
    c->ops->rope(c->turned, c->cos_sin, c->cos_sin + half, shape->rotary);
}

/* Merge the list of victims of pivot j into it; all of them are read before it is written. */
static void merge(struct compression *c, int32_t j)
{
    struct kv_slots *s = c->s;
    const struct kv_shape *shape = &s->shape;
    const enum dtype type = shape->type;
    const bool counted = c->o->policy == POLICY_D2O_COUNT;
    const int all = shape->content + shape->rotary + shape->value;
    const size_t rotary_at = dtype_row_bytes(type, shape->content), value_at = rotary_at + dtype_row_bytes(type, shape->rotary);
    float *content = c->merged, *rotary = content + shape->content, *value = rotary + shape->rotary;

    const double own = exp(1) * (counted ? s->count[j] : 1);
    double total = own;
    for (int32_t v = c->first[j]; v >= 0; v = c->next[v])
        total += exp(c->similarity[v]) * (counted ? s->count[c->budget + v] : 1);
    c->ops->to_f32(c->merged, kv_row(s, j), type, all);
    c->ops->scale(c->merged, (float)(own / total), all);
    for (int32_t v = c->first[j]; v >= 0; v = c->next[v]) {
        const int64_t e = c->budget + v;
        const unsigned char *row = kv_row(s, e);
        const float w = (float)(exp(c->similarity[v]) * (counted ? s->count[e] : 1) / total);
        c->ops->axpy(content, w, row, type, shape->content);
        turn(c, row + rotary_at, s->pos[j] - s->pos[e]);
        c->ops->axpy(rotary, w, c->turned, DTYPE_F32, shape->rotary);
        c->ops->axpy(value, w, row + value_at, type, shape->value);
        if (counted) {
            s->count[j] += s->count[e];
            s->score[j] += s->score[e];
        }
    }
    s->bias[j] = logf(s->count[j]);
    kv_write(s, j, content, rotary, value);
}

static void merge_victims(struct compression *c)
{
    const struct kv_shape *shape = &c->s->shape;
    for (int i = 0; i < shape->rotary / 2; i++)
        c->frequency[i] = rope_frequency(shape->rope_theta, shape->rotary, &shape->rope_scaling, i);
    for (int64_t v = 0; v < c->n_victim; v++)
        if (c->pivot[v] >= 0 && c->first[c->pivot[v]] == v)
            merge(c, c->pivot[v]);
}

int policy_compress(const struct policy_options *o, struct kv_slots *s, int64_t budget, const struct ops *ops,
                    struct thread_pool *pool, void *scratch, struct plm_status *st)
{
    if (o->policy == POLICY_FULL || s->length <= budget)
        return PLM_OK;
    if (budget < 1 || budget < o->n_sink + policy_recent(budget))
        return status_set(st, PLM_EINVAL, "cache budget of %lld slots cannot hold %d sinks and %lld recent slots",
                          (long long)budget, o->n_sink, (long long)policy_recent(budget));
    if (policy_needs_scores(o->policy) && !s->score)
        return status_set(st, PLM_EINVAL, "cache policy %s needs slots laid out with policy data", cache_policy_name(o->policy));
    struct compression c = {.o = o, .s = s, .ops = ops, .pool = pool, .budget = budget, .n_victim = s->length - budget};
    struct arena arena = {.base = scratch, .size = policy_scratch_bytes(o, &s->shape, s->capacity)};
    layout(&c, o, &s->shape, s->capacity, &arena);
    select_victims(&c);
    partition(&c);
    if (policy_merges(o->policy)) {
        match(&c);
        gate(&c);
        merge_victims(&c);
    }
    s->length = budget;
    return PLM_OK;
}
