#include "infer/ops/cpu/sparse_rows.h"

#include <string.h>

enum {
    SERIAL_BYTES = 32768, /* of neurons: below this a second thread has nothing to gain */
    SERIAL_NEURONS = 4096, /* the same for the lists */
    AHEAD = 2,            /* neurons asked for in advance: active ones lie apart, which the processor cannot foresee */
    LINE = 64,
    LEVELS = 32767,
    NEAR_ROWS = 4,        /* rows of x that ask for the next group; to those after them it has come */
};

size_t sparse_rows_scratch(int64_t m, int64_t n_rows) { return (size_t)m * (size_t)(n_rows + 15) / 16 * sizeof(struct sparse_group); }

struct job {
    const struct sparse_rows *s;
    const struct sparse_kernel *kernel;
    struct neuron_layout layout;
    int64_t groups;             /* neurons / layout.group */
    struct sparse_group *active; /* (m, groups) */
    int64_t part;               /* rows of y per part: whole units */
};

/* What is active of a group of n neurons, quantised to 15 bits by the largest. */
static void group_begin(struct sparse_group *g, const float *x, int n)
{
    float most = 0, inverse = 0;
    for (int i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    g->n = g->sum = 0;
    g->d = most / LEVELS;
    for (int i = 0; i < n; i++)
        if (x[i] - x[i] != 0) /* infinite or NaN: the damage stays visible */
            g->d = __builtin_nanf("");
    if (most > 0x1p-100f) /* below, the reciprocal could overflow; the group counts as zero */
        inverse = LEVELS / most;
    for (int i = 0; i < n; i++) { /* without a branch, which would be mispredicted often */
        const int32_t q = g->d == g->d ? (int32_t)((x[i] > 0 ? x[i] : 0) * inverse + 0.5f) : x[i] != 0;
        g->at[g->n] = (uint8_t)i;
        g->hi[g->n] = (uint8_t)(q >> 8);
        g->lo[g->n] = (uint8_t)q;
        g->sum += q;
        g->n += q != 0;
    }
    for (; g->n & 3; g->n++)
        g->at[g->n] = g->at[0], g->hi[g->n] = g->lo[g->n] = 0;
}

/* Groups [begin, end) of all rows of x. */
static void groups_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *j = ctx;
    const int size = j->layout.group;
    for (int64_t i = begin; i < end; i++) {
        const int64_t r = i / j->groups, g = i % j->groups;
        group_begin(&j->active[i], j->s->x + r * j->s->ldx + g * size, size);
    }
}

static void prefetch(const char *p, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE)
        __builtin_prefetch(p + at);
}

/* Rows [first, last) of y for plain types: one neuron at a time. */
static void neurons_run(const struct job *j, int64_t first, int64_t last)
{
    const struct sparse_rows *s = j->s;
    const size_t offset = dtype_row_bytes(s->type, first), bytes = dtype_row_bytes(s->type, last) - offset;
    for (int64_t r = 0; r < s->m; r++) {
        const float *x = s->x + r * s->ldx;
        const char *from = (const char *)s->rows + offset;
        int64_t ahead = 0, asked = 0, done = 0;
        for (int64_t i = 0; i < s->n_rows; i++) {
            for (; ahead < s->n_rows && asked < done + AHEAD + 1; ahead++)
                if (x[ahead] != 0 && ++asked)
                    prefetch(from + (size_t)ahead * j->layout.row, bytes);
            if (x[i] != 0 && ++done)
                j->kernel->axpy(s->y + r * s->ldy + first, x[i], from + (size_t)i * j->layout.row, s->type, last - first);
        }
    }
}

static void groups_multiply(const struct job *j, int64_t first, int64_t last)
{
    const struct sparse_rows *s = j->s;
    const struct neuron_layout *l = &j->layout;
    const char *groups = (const char *)s->rows + l->groups;
    for (int64_t g = 0; g < j->groups; g++)
        for (int64_t r = 0; r < s->m; r++) {
            const struct sparse_group *active = &j->active[r * j->groups + g];
            const bool ask = r < NEAR_ROWS && g + 1 < j->groups;
            const struct sparse_product p = {l, s->type, s->n, (const char *)s->rows + (size_t)(g * l->group / 256) * l->super,
                                             groups + (size_t)g * l->per_group, active, ask ? groups + (size_t)(g + 1) * l->per_group : NULL, active + 1};
            if (active->n || ask)
                j->kernel->group(s->y + r * s->ldy + first, &p, first, last);
        }
}

/* Parts [begin, end) of the rows of y. */
static void parts_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *j = ctx;
    const struct sparse_rows *s = j->s;
    const int64_t first = begin * j->part, last = end * j->part < s->n ? end * j->part : s->n;
    for (int64_t r = 0; r < s->m && !s->accumulate; r++)
        memset(s->y + r * s->ldy + first, 0, (size_t)(last - first) * sizeof *s->y);
    if (j->layout.group > 1)
        groups_multiply(j, first, last);
    else
        neurons_run(j, first, last);
}

int64_t sparse_rows_run(const struct sparse_rows *s, struct thread_pool *pool, const struct sparse_kernel *kernel)
{
    struct job j = {.s = s, .kernel = kernel, .active = s->scratch};
    const size_t bytes = neuron_major_layout(&j.layout, s->type, s->n, s->n_rows);
    const int64_t units = s->n / j.layout.unit, threads = bytes * (size_t)s->m < SERIAL_BYTES ? 1 : pool_size(pool);
    int64_t active = 0;
    for (int64_t r = 0; r < s->m; r++)
        for (int64_t i = 0; i < s->n_rows; i++)
            active += s->x[r * s->ldx + i] != 0;
    j.groups = s->n_rows / j.layout.group;
    if (j.layout.group > 1) {
        if (threads == 1 || s->m * s->n_rows < SERIAL_NEURONS)
            groups_run(&j, 0, s->m * j.groups, 0);
        else
            pool_for(pool, s->m * j.groups, (s->m * j.groups + threads - 1) / threads, groups_run, &j);
    }
    j.part = (units + threads - 1) / threads * j.layout.unit;
    const int64_t parts = (s->n + j.part - 1) / j.part;
    if (threads == 1)
        parts_run(&j, 0, parts, 0);
    else
        pool_for(pool, parts, 1, parts_run, &j);
    return active;
}

/* 64 digits of a neuron, in the order of the bytes; `row`: the neuron's; `at`: the first row. */
static void unpack(int8_t *digits, const uint8_t *row, enum dtype type, int64_t n, int64_t at)
{
    if (type == DTYPE_Q8_0) {
        memcpy(digits, row + at, 64);
        return;
    }
    const uint8_t *q = row + at / 128 * 64, *upper = row + n / 2 + at / 256 * 64;
    const int shift = at & 64 ? 4 : 0, upper_shift = (int)(at & 192) / 32;
    for (int i = 0; i < 64; i++)
        digits[i] = (int8_t)(q[i] >> shift & 15);
    for (int i = 0; i < 64 && type == DTYPE_Q6_K; i++)
        digits[i] = (int8_t)(digits[i] | (upper[i] >> upper_shift & 3) << 4);
}

static float half_at(const char *halves, int64_t i)
{
    uint16_t h;
    memcpy(&h, halves + 2 * i, 2);
    return f16_to_f32(h);
}

void sparse_group_portable(float *y, const struct sparse_product *p, int64_t begin, int64_t end)
{
    const struct sparse_group *g = p->active;
    const uint8_t *digits = (const uint8_t *)p->data + p->layout->header;
    for (int64_t at = begin; at < end && g->n; at += 64) {
        int32_t total[64] = {0};
        for (int k = 0; k < g->n; k++) {
            int8_t q[64];
            const int32_t x = g->hi[k] << 8 | g->lo[k];
            unpack(q, digits + g->at[k] * p->layout->row, p->type, p->n, at);
            for (int i = 0; i < 64; i++)
                total[i] += x * q[i];
        }
        for (int64_t i = 0; i < 64; i++) {
            const int64_t r = at + i;
            float *to = &y[r - begin];
            const int32_t t = total[neuron_place(i)];
            switch (p->type) {
            case DTYPE_Q8_0: *to += (float)t * (half_at(p->data, r) * g->d); break;
            case DTYPE_Q4_0: *to += (float)(t - 8 * g->sum) * (half_at(p->data, r) * g->d); break;
            case DTYPE_Q4_K:
                *to += (float)t * (half_at(p->super, r) * (float)(uint8_t)p->data[r] * g->d);
                *to -= half_at(p->super, p->n + r) * (float)(uint8_t)p->data[p->n + r] * ((float)g->sum * g->d);
                break;
            default: *to += (float)(t - 32 * g->sum) * (half_at(p->super, r) * (float)(int8_t)p->data[r] * g->d); break;
            }
        }
    }
}
