#include "infer/text/sampling.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/base/status.h"
#include "infer/ops/ops.h"

/* Weights are computed in single precision first, BLOCK logits at a time, and what a draw depends on is decided by these where that is
 * beyond doubt; otherwise it is computed anew in double precision, so that the token is always the one of the double computation. A weight
 * exp(-a) has a relative error of 3e-7 + a 2^-23 at most and the sum of a block 2e-6; weights beyond a = 30 do not count. The mean of a under the
 * distribution is its entropy less ln of the total, at most ln(vocab), 15 for three million tokens: a sum of weights is wrong by 4.1e-6 of the total
 * at most, and the two sums of a comparison agree within DOUBT of it. A factor that is common to all weights cancels. */
#define BLOCK 128
#define DOUBT 8.5e-6
#define LARGEST 5000 /* scaled logit: the common factor is 1 within 2^-24 of it */
#define WIDER 0.999  /* of a limit for single weights: they are not wrong by a thousandth */

struct candidate {
    float logit;
    int32_t id; /* ~id while a repetition penalty has been applied */
};

_Static_assert(sizeof(struct candidate) == 8, "the scratch memory is 8 bytes per token");

int sampling_check(const struct plm_sampling *s, struct plm_status *st)
{
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return status_set(st, PLM_EINVAL, "temperature is %g, expected a number from 0 (greedy)", (double)s->temperature);
    if (s->top_k < 0)
        return status_set(st, PLM_EINVAL, "top_k is %d, expected 0 (all) or more", s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return status_set(st, PLM_EINVAL, "top_p is %g, expected above 0 and up to 1 (all)", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return status_set(st, PLM_EINVAL, "min_p is %g, expected 0 (off) to 1", (double)s->min_p);
    if (!(s->repetition_penalty > 0) || !isfinite(s->repetition_penalty))
        return status_set(st, PLM_EINVAL, "repetition_penalty is %g, expected above 0 (1: off)",
                          (double)s->repetition_penalty);
    if (s->repetition_window < 0)
        return status_set(st, PLM_EINVAL, "repetition_window is %d, expected 0 (all) or more", s->repetition_window);
    return PLM_OK;
}

/* Each token of the window once, however often it occurs (Keskar et al., CTRL, arXiv 1909.05858, section 4.1). */
static int penalise(struct candidate *c, int vocab, const struct plm_sampling *s, const int32_t *history, size_t n_history,
                    struct plm_status *st)
{
    size_t window = s->repetition_window ? (size_t)s->repetition_window : n_history;
    size_t begin = n_history > window ? n_history - window : 0;
    for (size_t i = begin; i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= vocab)
            return status_set(st, PLM_EINVAL, "token %zu of the history is %d, the vocabulary has %d", i, id, vocab);
        if (c[id].id < 0)
            continue;
        c[id].logit = c[id].logit > 0 ? c[id].logit / s->repetition_penalty : c[id].logit * s->repetition_penalty;
        c[id].id = ~c[id].id;
        if (!isfinite(c[id].logit))
            return status_set(st, PLM_EINVAL, "repetition_penalty %g takes the logit of token %d out of range",
                              (double)s->repetition_penalty, id);
    }
    for (size_t i = begin; i < n_history; i++)
        c[history[i]].id = history[i];
    return PLM_OK;
}

static bool likelier(const struct candidate *a, const struct candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static void sift_down(struct candidate *heap, size_t i, size_t n)
{
    struct candidate c = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && likelier(&heap[child + 1], &heap[child]))
            child++;
        if (!likelier(&heap[child], &c))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = c;
}

/* Sort the likeliest to the end: after the k-th call with n = vocab - k + 1 it is at heap[n - 1]. */
static void pop(struct candidate *heap, size_t n)
{
    struct candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    if (n > 1)
        sift_down(heap, 0, n - 1);
}

/* Unnormalised probability; 1 for the likeliest. */
static double weight(const struct candidate *c, float best, float temperature)
{
    return exp(((double)c->logit - (double)best) / (double)temperature);
}

/* Keep the likeliest of c[0, vocab) until their weights reach `low`, `least` is left: the kept ones are c[*first ... vocab - 1], the likeliest
 * last. c[0, n) is a heap, those behind it are sorted. Returns the sum of the weights kept. */
static double keep_until(struct candidate *c, size_t vocab, size_t n, size_t least, double low, float best, float temperature, size_t *first)
{
    double reached = 0;
    size_t kept = vocab;
    while (kept > least && (kept == vocab || reached < low)) {
        if (kept == n)
            pop(c, n--);
        kept--;
        reached += weight(&c[kept], best, temperature);
    }
    *first = kept;
    return reached;
}

static void make_heap(struct candidate *c, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(c, i, n);
}

/* Top-k, then top-p among these: the kept ones are c[*first ... vocab - 1], the likeliest last. */
static void keep_likeliest(struct candidate *c, size_t vocab, const struct plm_sampling *s, float best, size_t *first)
{
    size_t most = s->top_k && (size_t)s->top_k < vocab ? (size_t)s->top_k : vocab, n = vocab;
    double total = 0;
    make_heap(c, vocab);
    if (most == vocab) {
        for (size_t i = 0; i < vocab; i++)
            total += weight(&c[i], best, s->temperature);
    } else {
        for (; vocab - n < most; n--) {
            pop(c, n);
            total += weight(&c[n - 1], best, s->temperature);
        }
        if (s->top_p >= 1) {
            *first = n;
            return;
        }
    }
    keep_until(c, vocab, n, vocab - most, (double)s->top_p * total, best, s->temperature, first);
}

/* Draw from c[first, n), the last first. */
static int32_t draw(const struct candidate *c, size_t first, size_t n, const struct plm_sampling *s, float best, double u, int32_t token)
{
    double total = 0, reached = 0;
    for (size_t i = first; i < n; i++) {
        double w = weight(&c[i], best, s->temperature);
        total += w >= (double)s->min_p ? w : 0;
    }
    for (size_t i = n; i-- > first && reached <= u * total;) {
        double w = weight(&c[i], best, s->temperature);
        if (w > 0 && w >= (double)s->min_p) {
            reached += w;
            token = c[i].id;
        }
    }
    return token;
}

/* The token at which the weights, summed from the last, pass `target`; -1 when that is in doubt. */
static int32_t find_passing(const float *w, const double *sums, int vocab, double target, double doubt)
{
    double reached = 0;
    int block = (vocab - 1) / BLOCK;
    while (block > 0 && reached + sums[block] <= target)
        reached += sums[block--];
    const int end = (block + 1) * BLOCK < vocab ? (block + 1) * BLOCK : vocab;
    for (int i = end; i-- > block * BLOCK;) {
        const double before = reached;
        reached += (double)w[i];
        if (reached > target)
            return target - before > doubt && reached - target > doubt ? i : -1;
    }
    return -1;
}

/* Draw without double-precision weights of the whole vocabulary; false when that leaves a doubt. Not for top-k and penalties. */
static bool draw_fast(const struct plm_sampling *s, const float *logits, int vocab, float best, double u, void *scratch, int32_t *token)
{
    const struct ops *ops = ops_select(OPS_BEST);
    const float factor = 1 / s->temperature;
    float *w = scratch;
    double *sums = (double *)scratch + (vocab + 1) / 2, total = 0;
    if (vocab < 4 * BLOCK || !(fabsf(factor * best) < LARGEST))
        return false;
    for (int i = 0; i < vocab; i += BLOCK) {
        const double sum = (double)ops->exp_sum(w + i, logits + i, vocab - i < BLOCK ? vocab - i : BLOCK, factor, factor * best);
        sums[i / BLOCK] = sum;
        total += sum;
    }
    if (s->top_p >= 1 && s->min_p <= 0) {
        const int32_t passing = find_passing(w, sums, vocab, u * total, DOUBT * total);
        *token = passing < 0 ? *token : passing;
        return passing >= 0;
    }
    /* No token of the smallest set with probability p is less likely than all tokens together would be that share the rest. The candidates
     * are gathered at the end of the scratch memory: they overtake no weight that is still to be read. */
    const double limit = WIDER * (s->top_p < 1 ? (1 - (double)s->top_p) * total / vocab : (double)s->min_p);
    struct candidate *all = scratch, *c = all + vocab;
    for (int i = vocab; i-- > 0;)
        if ((double)w[i] >= limit)
            *--c = (struct candidate){logits[i], i};
    const size_t n = (size_t)(all + vocab - c);
    size_t first = 0;
    if (s->top_p < 1) {
        const double target = (double)s->top_p * total, doubt = DOUBT * total;
        make_heap(c, n);
        if (keep_until(c, n, n, 0, target - doubt, best, s->temperature, &first) < target + doubt)
            return false;
    }
    *token = draw(c, first, n, s, best, u, *token);
    return true;
}

static int check_finite(const float *logits, int vocab, struct plm_status *st)
{
    unsigned bad = 0;
    for (int i = 0; i < vocab; i++) { /* no early end: it runs in vectors */
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    for (int i = 0; i < vocab && bad; i++)
        if (!isfinite(logits[i]))
            return status_set(st, PLM_EINVAL, "the logit of token %d is %g: the model's weights or input are damaged", i, (double)logits[i]);
    return PLM_OK;
}

static int32_t likeliest(const float *logits, int vocab)
{
    const float best = ops_select(OPS_BEST)->max(logits, vocab);
    for (int32_t i = 0; i < vocab; i += BLOCK) {
        const int32_t end = vocab - i < BLOCK ? vocab : i + BLOCK;
        unsigned here = 0;
        for (int32_t k = i; k < end; k++)
            here |= logits[k] == best;
        for (int32_t k = i; k < end && here; k++)
            if (logits[k] == best)
                return k;
    }
    return 0;
}

int sampling_draw(const struct plm_sampling *s, const float *logits, int vocab, const int32_t *history, size_t n_history,
                  uint64_t position, uint32_t stream, void *scratch, int32_t *token, struct plm_status *st)
{
    struct candidate *c = scratch;
    int code = sampling_check(s, st);
    if (!code && vocab < 1)
        code = status_set(st, PLM_EINVAL, "cannot draw from %d logits", vocab);
    if (!code)
        code = check_finite(logits, vocab, st);
    if (code)
        return code;
    const double u = s->temperature == 0 ? 0 : random_uniform(s->seed, RANDOM_SAMPLING, stream, position);
    if (s->repetition_penalty == 1) {
        *token = likeliest(logits, vocab);
        if (s->temperature == 0 || (!s->top_k && draw_fast(s, logits, vocab, logits[*token], u, scratch, token)))
            return PLM_OK;
    }
    for (int i = 0; i < vocab; i++)
        c[i] = (struct candidate){logits[i], i};
    if (s->repetition_penalty != 1 && (code = penalise(c, vocab, s, history, n_history, st)))
        return code;
    struct candidate best = c[0];
    for (int i = 1; i < vocab; i++)
        best = likelier(&c[i], &best) ? c[i] : best;
    *token = best.id;
    if (s->temperature == 0)
        return PLM_OK;
    size_t first = 0;
    if (s->top_k || s->top_p < 1)
        keep_likeliest(c, (size_t)vocab, s, best.logit, &first);
    *token = draw(c, first, (size_t)vocab, s, best.logit, u, best.id);
    return PLM_OK;
}
