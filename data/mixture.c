#include "data/mixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ONE ((int64_t)1 << 30) /* the whole, and one sample */

enum { CHECKPOINT = 4096 };    /* samples between saved states */

/* The state before a sample: how much of a sample each source is owed (negative: it had too much), and what it got. */
struct account {
    int64_t owed, drawn;
};

struct mixture {
    int n;
    int64_t *share;           /* (n), sum ONE */
    int64_t k;                /* the cursor */
    struct account *now;      /* (n), before sample k */
    struct account *saved;    /* (n_saved, n): before samples 0, CHECKPOINT, 2 CHECKPOINT, ... */
    int64_t n_saved, capacity;
};

static int fix_shares(struct mixture *m, const double *shares, struct plm_status *st)
{
    double sum = 0;
    for (int i = 0; i < m->n; i++) {
        if (!(shares[i] > 0) || !isfinite(shares[i]))
            return status_set(st, PLM_EINVAL, "weight of source %d is %g, expected a positive number", i, shares[i]);
        sum += shares[i];
    }
    int64_t rest = ONE;
    int largest = 0;
    for (int i = 0; i < m->n; i++) {
        double exact = shares[i] / sum * (double)ONE;
        m->share[i] = exact < 1 ? 1 : (int64_t)exact;
        rest -= m->share[i];
        if (shares[i] > shares[largest])
            largest = i;
    }
    m->share[largest] += rest;
    return PLM_OK;
}

int mixture_create(struct mixture **out, const double *shares, int n_sources, struct plm_status *st)
{
    *out = NULL;
    if (n_sources < 1 || n_sources > 65536)
        return status_set(st, PLM_EINVAL, "a mixture of %d sources, expected 1 to 65536", n_sources);
    struct mixture *m = calloc(1, sizeof *m);
    size_t n = (size_t)n_sources;
    if (m) {
        m->n = n_sources;
        m->capacity = 16;
        m->n_saved = 1;
        m->share = calloc(n, sizeof *m->share);
        m->now = calloc(n, sizeof *m->now);
        m->saved = calloc(n * (size_t)m->capacity, sizeof *m->saved);
    }
    int code = m && m->share && m->now && m->saved ? fix_shares(m, shares, st)
                                                   : status_no_memory(st, n * 32 * sizeof *m->saved, "a mixture");
    if (code)
        mixture_free(m);
    else
        *out = m;
    return code;
}

void mixture_free(struct mixture *m)
{
    if (!m)
        return;
    free(m->share);
    free(m->now);
    free(m->saved);
    free(m);
}

/* Tijdeman's rule: every source is owed its share; among those that are owed at least 1 / (2n - 2) the one whose debt would
 * first reach 1 - 1 / (2n - 2) is served. */
static int choose(const struct mixture *m)
{
    int64_t margin = m->n > 1 ? ONE / (2 * (int64_t)m->n - 2) : 0;
    int best = -1;
    for (int i = 0; i < m->n; i++) {
        int64_t owed = m->now[i].owed + m->share[i];
        if (owed < margin)
            continue;
        /* compare (ONE - margin - owed) / share without dividing: the products stay below 2^62 */
        if (best < 0 || (ONE - margin - owed) * m->share[best] <
                            (ONE - margin - (m->now[best].owed + m->share[best])) * m->share[i])
            best = i;
    }
    return best;
}

static int step(struct mixture *m, struct plm_status *st)
{
    int source = choose(m);
    for (int i = 0; i < m->n; i++)
        m->now[i].owed += m->share[i];
    m->now[source].owed -= ONE;
    m->now[source].drawn++;
    m->k++;
    if (m->k % CHECKPOINT == 0 && m->k / CHECKPOINT == m->n_saved) {
        size_t n = (size_t)m->n;
        if (m->n_saved == m->capacity) {
            struct account *grown = realloc(m->saved, 2 * (size_t)m->capacity * n * sizeof *grown);
            if (!grown)
                return status_no_memory(st, 2 * (size_t)m->capacity * n * sizeof *grown, "the states of a mixture");
            m->saved = grown;
            m->capacity *= 2;
        }
        memcpy(m->saved + (size_t)m->n_saved++ * n, m->now, n * sizeof *m->now);
    }
    return PLM_OK;
}

/* Move the cursor before sample k. */
static int seek(struct mixture *m, int64_t k, struct plm_status *st)
{
    if (k < 0)
        return status_set(st, PLM_EINVAL, "sample number %lld is negative", (long long)k);
    int64_t nearest = k / CHECKPOINT < m->n_saved ? k / CHECKPOINT : m->n_saved - 1;
    if (k < m->k || nearest * CHECKPOINT > m->k) {
        memcpy(m->now, m->saved + nearest * m->n, (size_t)m->n * sizeof *m->now);
        m->k = nearest * CHECKPOINT;
    }
    int code = PLM_OK;
    while (!code && m->k < k)
        code = step(m, st);
    return code;
}

int mixture_locate(struct mixture *m, int64_t k, int *source, int64_t *drawn, struct plm_status *st)
{
    int code = seek(m, k, st);
    if (code)
        return code;
    *source = choose(m);
    *drawn = m->now[*source].drawn;
    return PLM_OK;
}

int mixture_counts(struct mixture *m, int64_t k, int64_t *counts, struct plm_status *st)
{
    int code = seek(m, k, st);
    for (int i = 0; !code && i < m->n; i++)
        counts[i] = m->now[i].drawn;
    return code;
}
