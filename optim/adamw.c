#include "optim/adamw.h"

#include <math.h>

#define ADAMW_GRAIN 65536 /* elements per range handed to a thread: 1.75 MB of traffic */

struct adamw adamw_default(void)
{
    return (struct adamw){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
}

int adamw_check(const struct adamw *o, struct plm_status *st)
{
    if (!(o->beta1 >= 0 && o->beta1 < 1))
        return status_set(st, PLM_EINVAL, "beta1 is %g, expected 0 <= beta1 < 1", o->beta1);
    if (!(o->beta2 >= 0 && o->beta2 < 1))
        return status_set(st, PLM_EINVAL, "beta2 is %g, expected 0 <= beta2 < 1", o->beta2);
    if (!((float)o->eps > 0 && isfinite((float)o->eps)))
        return status_set(st, PLM_EINVAL, "eps is %g, expected a positive float32 number", o->eps);
    if (!(o->weight_decay >= 0 && isfinite(o->weight_decay)))
        return status_set(st, PLM_EINVAL, "weight_decay is %g, expected a finite number >= 0", o->weight_decay);
    return PLM_OK;
}

struct update {
    const struct tensor_table *table;
    const struct adamw_range *range;
    float grad_scale, beta1, beta2, rest1, rest2, eps, lr, weight_decay; /* rest = 1 - beta, rounded once */
    float correct1, correct2; /* 1 / (1 - beta^t) */
};

static void update_elements(const struct update *u, float weight_decay, float *restrict w, const float *restrict grad,
                            float *restrict m, float *restrict v, int64_t n)
{
    const float scale = u->grad_scale, b1 = u->beta1, b2 = u->beta2, a1 = u->rest1, a2 = u->rest2;
    const float c1 = u->correct1, c2 = u->correct2, eps = u->eps, lr = u->lr;
    for (int64_t i = 0; i < n; i++) {
        float g = scale * grad[i];
        m[i] = b1 * m[i] + a1 * g;
        v[i] = b2 * v[i] + a2 * g * g;
        float step = c1 * m[i] / (sqrtf(c2 * v[i]) + eps);
        w[i] -= lr * (step + weight_decay * w[i]);
    }
}

/* The first tensor that ends after arena element `at`; the table is in order of offsets. */
static int tensor_after(const struct tensor_table *t, int64_t at)
{
    int low = 0, high = t->n_tensors;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (t->tensors[middle].offset + tensor_elements(&t->tensors[middle]) <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void update_block(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct update *u = ctx;
    const struct adamw_range *r = u->range;
    begin += r->begin;
    end += r->begin;
    for (int i = tensor_after(u->table, begin); i < u->table->n_tensors; i++) {
        const struct tensor_desc *d = &u->table->tensors[i];
        int64_t from = d->offset > begin ? d->offset : begin;
        int64_t to = d->offset + tensor_elements(d) < end ? d->offset + tensor_elements(d) : end;
        if (from >= to)
            break;
        int64_t at = from - r->begin;
        update_elements(u, d->decay ? u->weight_decay : 0, r->params + at, r->grads + at, r->m + at, r->v + at, to - from);
    }
}

void adamw_update(const struct adamw *o, const struct tensor_table *table, const struct adamw_range *range, int64_t t,
                  double lr, double grad_scale, struct thread_pool *pool)
{
    struct update u = {
        .table = table, .range = range, .grad_scale = (float)grad_scale, .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2, .rest1 = (float)(1 - o->beta1), .rest2 = (float)(1 - o->beta2), .eps = (float)o->eps,
        .lr = (float)lr, .weight_decay = (float)o->weight_decay,
        .correct1 = (float)(1 / (1 - pow(o->beta1, (double)t))), .correct2 = (float)(1 / (1 - pow(o->beta2, (double)t))),
    };
    pool_for(pool, range->end - range->begin, ADAMW_GRAIN, update_block, &u);
}
