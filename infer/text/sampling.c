#include "infer/text/sampling.h"

#include <math.h>
#include <stdbool.h>

#include "infer/base/random.h"
#include "infer/base/status.h"

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

/* Top-k, then top-p among these: the kept ones are c[*first ... vocab - 1], the likeliest last. */
static void keep_likeliest(struct candidate *c, size_t vocab, const struct plm_sampling *s, float best, size_t *first)
{
    size_t most = s->top_k && (size_t)s->top_k < vocab ? (size_t)s->top_k : vocab, n = vocab;
    double total = 0, reached = 0;
    for (size_t i = vocab / 2; i-- > 0;)
        sift_down(c, i, vocab);
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
    /* The k likeliest lie sorted behind n; where k is everything, they are sorted only as far as top-p reaches. */
    size_t kept = vocab;
    while (kept > vocab - most && (kept == vocab || reached < (double)s->top_p * total)) {
        if (kept == n)
            pop(c, n--);
        kept--;
        reached += weight(&c[kept], best, s->temperature);
    }
    *first = kept;
}

int sampling_draw(const struct plm_sampling *s, const float *logits, int vocab, const int32_t *history, size_t n_history,
                  uint64_t position, uint32_t stream, void *scratch, int32_t *token, struct plm_status *st)
{
    struct candidate *c = scratch;
    int code = sampling_check(s, st);
    if (code)
        return code;
    if (vocab < 1)
        return status_set(st, PLM_EINVAL, "cannot draw from %d logits", vocab);
    for (int i = 0; i < vocab; i++) {
        if (!isfinite(logits[i]))
            return status_set(st, PLM_EINVAL, "the logit of token %d is %g: the model's weights or input are damaged", i,
                              (double)logits[i]);
        c[i] = (struct candidate){logits[i], i};
    }
    if (s->repetition_penalty != 1 && (code = penalise(c, vocab, s, history, n_history, st)))
        return code;
    struct candidate best = c[0];
    for (int i = 1; i < vocab; i++)
        best = likelier(&c[i], &best) ? c[i] : best;
    *token = best.id;
    if (s->temperature == 0)
        return PLM_OK;

    size_t first = 0, n = (size_t)vocab;
    if (s->top_k || s->top_p < 1)
        keep_likeliest(c, n, s, best.logit, &first);
    double total = 0, reached = 0;
    for (size_t i = first; i < n; i++) {
        double w = weight(&c[i], best.logit, s->temperature);
        total += w >= (double)s->min_p ? w : 0;
    }
    double u = random_uniform(s->seed, RANDOM_SAMPLING, stream, position) * total;
    for (size_t i = n; i-- > first && reached <= u;) {
        double w = weight(&c[i], best.logit, s->temperature);
        if (w > 0 && w >= (double)s->min_p) {
            reached += w;
            *token = c[i].id;
        }
    }
    return PLM_OK;
}
