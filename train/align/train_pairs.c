/* The second half of a round: training on its pairs (or on its best answers). */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/permutation.h"
#include "infer/base/clock.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/pair_objective.h"
#include "train/align/reference.h"
#include "train/align/round.h"

struct pair_training {
    struct align *a;
    int round;
    struct pair_set set;
    struct pair_sequences sequences;
    double *reference;            /* (sequences.e.n) */
    float *live;                  /* reference weights, when they run beside the policy */
    struct pair_objective objective;
    struct batch batch;
    float *log_probs, *coef;      /* (tokens) */
    float *known;                 /* (tokens) coefficients of a pass of their own; NULL: a pair's sequences fit a micro-batch, one pass does */
    int64_t *list, *group;        /* (batch_pairs * per_pair) */
    int64_t *used;                /* (n_used) sequences of the pairs that a part of an epoch comes to; NULL: it comes to all */
    int64_t n_used;
    int64_t total, steps;         /* pairs, counted as often as they are used, and updates */
    bool imitate;                 /* the answers themselves are learned: cross-entropy over their tokens */
};

static bool needs_reference(const struct align_config *c) { return c->method != METHOD_REJECTION_SFT && (c->loss->reference || c->alpha > 0); }

/* ---- opening ---- */

static int read_pairs(struct pair_training *p, struct plm_status *st)
{
    const struct align_config *c = p->a->c;
    const enum row_kind kind = align_row_kind(c, p->round);
    char path[PATH_MAX];
    if (round_offline(c, p->round))
        return pairs_read_sources(&p->set, c->offline, c->n_offline, kind, c->offline_skip_bad, c->seed, st);
    int code = round_path(p->a, p->round, "pairs.jsonl", path, st);
    return code ? code : pairs_read(&p->set, path, kind, p->a->t.step.config.vocab_size, st);
}

static void report(const struct pair_training *p)
{
    const struct align_config *c = p->a->c;
    const struct pair_sequences *s = &p->sequences;
    if (p->a->t.comm->rank != 0)
        return;
    if (p->set.rows.bad)
        log_warn("round %d: %lld malformed rows skipped; the first: %s", p->round + 1, (long long)p->set.rows.bad, p->set.rows.first_bad);
    if (s->dropped_long)
        log_warn("round %d: %lld of %lld pairs left out: one of their sequences is longer than seq_len (%d) allows", p->round + 1, (long long)s->dropped_long,
                 (long long)p->set.rows.n, c->seq_len);
    if (p->imitate)
        log_info("round %d: %lld answers to imitate, %lld steps", p->round + 1, (long long)s->n, (long long)p->steps);
    else
        log_info("round %d: %lld %s, %d sequences each, %lld tokens, %lld steps; loss %s (beta %g)%s", p->round + 1, (long long)s->n,
                 s->at[PART_REJECTED] >= 0 ? "pairs" : "answers", s->per_pair, (long long)s->e.begin[s->e.n], (long long)p->steps, c->loss->label, c->params.beta,
                 c->alpha > 0 ? " with ARIES' refinement loss" : "");
    if (p->known)
        log_info("round %d: the sequences of a pair do not all fit one micro-batch: log-probabilities take a pass of their own; a larger micro_batch saves it", p->round + 1);
    if (c->alpha > 0)
        log_info("round %d: %g x direct + %g x refinement (beta %g)", p->round + 1, 1 - c->alpha, c->alpha, c->beta_refine);
}

/* Pair number i of the round's passes over its pairs. */
static int64_t pair_at(const struct pair_training *p, int64_t i)
{
    const uint64_t n = (uint64_t)p->sequences.n, pass = (uint64_t)i / n;
    return (int64_t)permutation_apply(random_u64(p->a->c->seed, RANDOM_DATA_ORDER, (uint32_t)p->round + 1, pass), n, (uint64_t)i % n);
}

/* With a part of an epoch: the sequences that will be trained on, so that the reference reads no others. */
static int list_used(struct pair_training *p, struct plm_status *st)
{
    const int per_pair = p->sequences.per_pair;
    if (p->total >= p->sequences.n)
        return PLM_OK;
    p->used = malloc((size_t)(p->total * per_pair) * sizeof *p->used);
    if (!p->used)
        return status_no_memory(st, (size_t)(p->total * per_pair) * sizeof *p->used, "the list of pairs");
    for (int64_t i = 0; i < p->total; i++)
        for (int k = 0; k < per_pair; k++)
            p->used[p->n_used++] = pair_at(p, i) * per_pair + k;
    return PLM_OK;
}

/* The reference's weights: NULL for the trainer's own as they are at the beginning of the round. */
static int open_reference(struct pair_training *p, struct plm_status *st)
{
    struct align *a = p->a;
    struct trainer *t = &a->t;
    const struct align_config *c = a->c;
    char path[PATH_MAX];
    const float *weights = c->reference == REFERENCE_START ? align_start_weights(a) : NULL;
    const struct reference_wanted wanted = {&p->sequences.e, p->used, p->n_used};
    int64_t computed = 0;
    bool stopped = false;
    p->reference = calloc((size_t)p->sequences.e.n + 1, sizeof *p->reference);
    int code = p->reference ? PLM_OK : status_no_memory(st, (size_t)p->sequences.e.n * sizeof *p->reference, "reference log-probabilities");
    if (!code)
        code = round_path(a, p->round, c->reference_cache ? "reference.json" : "model", path, st);
    code = comm_agree(t->comm, code, st);
    if (code)
        return code;
    if (c->reference_cache) { /* a round that goes on has the file: the weights it was made with are gone */
        if (t->state.step_in_phase > 0 && !weights)
            code = reference_reload(t, &wanted, path, p->reference, st);
        else
            code = reference_cached(t, weights, &wanted, path, p->reference, &computed, &stopped, st);
        a->stopped = a->stopped || stopped;
        if (!code && t->comm->rank == 0)
            log_info("round %d: reference log-probabilities %s", p->round + 1, stopped ? "stopped by a signal, to go on later" : computed ? "computed" : "read");
        return code;
    }
    if (!weights && t->state.step_in_phase > 0)
        return status_set(st, PLM_EUNSUPPORTED, "a round with reference.cache false and reference.model \"previous\" cannot go on in the middle: the reference's weights "
                          "are gone; set reference.cache to true");
    p->live = malloc((size_t)t->step.table.padded * sizeof *p->live);
    if (p->live)
        memcpy(p->live, weights ? weights : t->step.weights, (size_t)t->step.table.padded * sizeof *p->live);
    return comm_agree(t->comm, p->live ? PLM_OK : status_no_memory(st, (size_t)t->step.table.padded * sizeof *p->live, "the reference's weights"), st);
}

/* Does every pair fit a micro-batch? Where one does not, its coefficients are made from log-probabilities of a pass before. */
static int choose_passes(struct pair_training *p, struct plm_status *st)
{
    const struct pair_sequences *s = &p->sequences;
    const struct step *step = &p->a->t.step;
    const int64_t group[PAIR_PARTS] = {0};
    int64_t list[PAIR_PARTS];
    struct micro_batches m;
    int code = PLM_OK;
    for (int64_t i = 0; i < s->n && !code && !p->imitate; i++) {
        int n = 0;
        for (int k = 0; k < s->per_pair; k++)
            if (k != s->at[PART_MISMATCHED])
                list[n++] = i * s->per_pair + k;
        code = micro_batches_pack(&m, &s->e, list, group, n, step->max_rows, step->max_len, st);
        micro_batches_free(&m);
    }
    if (code != PLM_ELIMIT)
        return code;
    *st = (struct plm_status){0};
    p->known = calloc((size_t)s->e.begin[s->e.n] + 1, sizeof *p->known);
    return p->known ? PLM_OK : status_no_memory(st, (size_t)s->e.begin[s->e.n] * sizeof *p->known, "the coefficients of the pairs");
}

static int open_training(struct pair_training *p, struct plm_status *st)
{
    struct align *a = p->a;
    const struct align_config *c = a->c;
    struct trainer *t = &a->t;
    p->imitate = c->method == METHOD_REJECTION_SFT;
    int code = read_pairs(p, st);
    const struct pair_context context = {.chat = a->templates.chat, .refine = a->templates.refine, .tokenizer = t->tokenizer, .max_len = c->seq_len + 1,
        .refined = c->alpha > 0, .mismatched = c->loss->single && strcmp(c->loss->name, "kto") == 0 && !p->imitate};
    if (!code)
        code = pair_sequences_build(&p->sequences, &p->set, &context, st);
    if (!code && p->sequences.n == 0)
        code = status_set(st, PLM_EINVAL, "nothing to learn from: %lld pairs were selected, %lld of them are too long for seq_len; when all tasks are tied, the "
                          "scorer may not understand the answers (plm score), or they are all right or all wrong; when the answers were filtered (counted above), "
                          "see rollout.max_tokens and \"selection\"", (long long)p->set.rows.n,
                          (long long)p->sequences.dropped_long);
    p->total = (int64_t)ceil(c->epochs * (double)p->sequences.n - 1e-9);
    p->total = p->total < 1 ? 1 : p->total;
    p->steps = (p->total + c->batch_pairs - 1) / c->batch_pairs;
    if (!code)
        code = list_used(p, st);
    const size_t tokens = code ? 0 : (size_t)p->sequences.e.begin[p->sequences.e.n] + 1, most = (size_t)c->batch_pairs * PAIR_PARTS + 1;
    p->log_probs = calloc(tokens + 1, sizeof *p->log_probs);
    p->coef = calloc(tokens + 1, sizeof *p->coef);
    p->list = malloc(most * sizeof *p->list);
    p->group = malloc(most * sizeof *p->group);
    if (!code && !(p->log_probs && p->coef && p->list && p->group))
        code = status_no_memory(st, tokens * 8, "the coefficients of the pairs");
    if (!code)
        code = batch_create(&p->batch, t->step.max_rows, t->step.max_len, st);
    if (!code)
        code = choose_passes(p, st);
    code = comm_agree(t->comm, code, st);
    if (!code)
        report(p);
    if (!code && needs_reference(c))
        code = open_reference(p, st);
    p->objective = (struct pair_objective){.loss = c->loss, .params = c->params, .alpha = c->alpha, .beta_refine = c->beta_refine, .pairs = &p->sequences,
        .reference = needs_reference(c) ? p->reference : NULL};
    return code;
}

static void close_training(struct pair_training *p)
{
    pair_sequences_free(&p->sequences);
    pair_set_free(&p->set);
    batch_free(&p->batch);
    free(p->reference);
    free(p->live);
    free(p->log_probs);
    free(p->coef);
    free(p->known);
    free(p->list);
    free(p->group);
    free(p->used);
}

/* ---- one step ---- */

/* Sequences of the step's pairs into list and group: those with gradients, or only the mismatched ones. */
static int64_t list_sequences(const struct pair_training *p, int64_t first, int64_t pairs, bool mismatched)
{
    const struct pair_sequences *s = &p->sequences;
    int64_t n = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t pair = pair_at(p, first + i);
        for (int k = 0; k < s->per_pair; k++)
            if ((k == s->at[PART_MISMATCHED]) == mismatched) {
                p->list[n] = pair * s->per_pair + k;
                p->group[n++] = i;
            }
    }
    return n;
}

/* KTO's reference point over the step, from the mismatched answers. */
static int set_reference_point(struct pair_training *p, int64_t first, int64_t pairs, struct plm_status *st)
{
    double *now = malloc(((size_t)p->sequences.e.n + 1) * sizeof *now), *policy = malloc(((size_t)pairs + 1) * 2 * sizeof *policy), *reference = policy + pairs;
    const int64_t n = list_sequences(p, first, pairs, true);
    int code = now && policy ? PLM_OK : status_no_memory(st, (size_t)pairs * 16, "the reference point");
    code = comm_agree(p->a->t.comm, code, st);
    if (!code)
        code = reference_compute(&p->a->t, NULL, &p->sequences.e, p->list, n, now, NULL, st);
    for (int64_t i = 0; i < n && !code; i++)
        policy[i] = now[p->list[i]], reference[i] = p->reference[p->list[i]];
    if (!code)
        p->objective.params.kl = kto_reference_point(policy, reference, n);
    free(now);
    free(policy);
    return code;
}

/* Cross-entropy of the answers: every target has the coefficient -1. */
struct imitation {
    const struct examples *e;
    double loss, targets;
};

static int imitation_coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    struct imitation *o = ctx;
    (void)st;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++)
        for (int64_t t = o->e->begin[m->placed[k].sequence]; t < o->e->begin[m->placed[k].sequence + 1]; t++)
            if (o->e->target.data[t]) {
                coef[t] = -1;
                o->loss -= log_probs[t];
                o->targets++;
            }
    return PLM_OK;
}

/* A pass forward over the step's sequences, wherever they lie, and from all log-probabilities all coefficients, the same on every rank. */
static int know_coefficients(struct pair_training *p, int64_t n, struct plm_status *st)
{
    struct trainer *t = &p->a->t;
    const struct examples *e = &p->sequences.e;
    struct micro_batches m = {0};
    int code = comm_agree(t->comm, micro_batches_pack(&m, e, p->list, NULL, n, t->step.max_rows, t->step.max_len, st), st);
    if (!code)
        code = sequences_log_probs(&t->step, e, &m, &p->batch, t->nll, p->log_probs, t->comm, st);
    for (int64_t i = 0; i < m.n && !code; i++)
        code = pair_coefficients(&p->objective, &m, i, p->log_probs, p->known, st);
    if (t->comm->rank != 0) /* they are summed over ranks */
        memset(p->objective.sums, 0, sizeof p->objective.sums);
    micro_batches_free(&m);
    return code;
}

static int known_coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    const struct pair_training *p = ctx;
    const struct examples *e = &p->sequences.e;
    (void)log_probs, (void)st;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t begin = e->begin[m->placed[k].sequence], length = example_length(e, m->placed[k].sequence);
        memcpy(coef + begin, p->known + begin, (size_t)length * sizeof *coef);
    }
    return PLM_OK;
}

static int train_step(struct pair_training *p, int64_t step, struct plm_status *st)
{
    struct align *a = p->a;
    const struct align_config *c = a->c;
    struct trainer *t = &a->t;
    const double start = seconds_now();
    const int64_t first = step * c->batch_pairs, left = p->total - first, pairs = left < c->batch_pairs ? left : c->batch_pairs;
    struct micro_batches m = {0};
    int code = p->sequences.at[PART_MISMATCHED] >= 0 ? set_reference_point(p, first, pairs, st) : PLM_OK;
    const int64_t n = list_sequences(p, first, pairs, false);
    if (!code && p->live)
        code = reference_compute(t, p->live, &p->sequences.e, p->list, n, p->reference, NULL, st);
    memset(p->objective.sums, 0, sizeof p->objective.sums);
    if (!code && p->known)
        code = know_coefficients(p, n, st);
    if (code)
        return code;
    code = micro_batches_pack(&m, &p->sequences.e, p->list, p->known ? NULL : p->group, n, t->step.max_rows, t->step.max_len, st);
    step_zero_gradients(&t->step);
    struct imitation imitation = {.e = &p->sequences.e};
    const struct sequence_objective objective = p->imitate ? (struct sequence_objective){imitation_coefficients, &imitation}
                                              : p->known ? (struct sequence_objective){known_coefficients, p}
                                                           : (struct sequence_objective){pair_coefficients, &p->objective};
    if (!code)
        code = sequences_backward(&t->step, &p->sequences.e, &m, &objective, &p->batch, t->nll, p->log_probs, p->coef, t->comm, st);
    const double inputs = (double)m.inputs;
    micro_batches_free(&m);
    if (code) {
        comm_abort(t->comm, st); /* the other ranks are on their way into the reduction */
        return code;
    }
    double *sums = p->objective.sums;
    struct step_control control = {.loss_sum = p->imitate ? imitation.loss : sums[SUM_LOSS], .weight_sum = p->imitate ? imitation.targets : sums[SUM_PAIRS]};
    control.nonfinite = !isfinite(control.loss_sum);
    code = comm_sum_doubles(t->comm, sums, PAIR_SUMS, st);
    struct update_outcome o;
    const double lr = round_learning_rate(c, p->round, step, p->steps);
    if (!code)
        code = trainer_update(t, lr, control, &o, st);
    if (code)
        return code;
    struct metric metrics[PAIR_METRICS];
    const double loss = o.control.weight_sum > 0 ? o.control.loss_sum / o.control.weight_sum : 0;
    const int n_metrics = p->imitate ? 0 : pair_metrics(&p->objective, sums, metrics);
    t->state.samples += pairs;
    return round_step_done(a, p->round, step, p->steps, &o, lr, loss, seconds_now() - start, inputs, metrics, n_metrics, st);
}

int round_train_pairs(struct align *a, int round, struct plm_status *st)
{
    struct pair_training p = {.a = a, .round = round};
    int code = open_training(&p, st);
    for (int64_t step = a->t.state.step_in_phase; !code && !a->stopped && step < p.steps; step++)
        code = train_step(&p, step, st);
    close_training(&p);
    return code ? status_prefix(st, "round %d", round + 1) : PLM_OK;
}
