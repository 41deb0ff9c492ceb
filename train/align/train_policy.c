/* A round of grpo: groups of answers to one task after the other, each group's rewards against their mean, one update (or a few) for each rollout. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/clock.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/reference.h"
#include "train/align/round.h"
#include "train/sequences.h"
#include "train/signals.h"

struct policy_batch {
    const struct align_config *c;
    struct answer_set set;
    struct examples e;            /* the answers that have an advantage, after their prompts */
    int64_t *answer;              /* (e.n) in the set */
    double *advantage;            /* (e.n) */
    float *reference;             /* (tokens of e) NULL: no KL term */
    float *log_probs, *coef;      /* (tokens of e) */
    int64_t groups, tied;
    int64_t too_long, truncated;  /* answers with an advantage that were left out: longer than a row; cut off (mask_truncated) */
    double reward, reward_spread; /* means over groups */
    struct policy_stats stats;
    double normaliser;
};

static void batch_close(struct policy_batch *b)
{
    answer_set_free(&b->set);
    examples_free(&b->e);
    free(b->answer);
    free(b->advantage);
    free(b->reference);
    free(b->log_probs);
    free(b->coef);
}

/* Answers of one task that may teach something become sequences. */
static int add_group(struct policy_batch *b, const struct rollout *r, struct encoder *encoder, int64_t first, int64_t n, double *rewards, double *advantages,
                     int max_len, struct plm_status *st)
{
    double sum = 0, squares = 0;
    int counted = 0, code = PLM_OK;
    for (int64_t i = 0; i < n; i++) {
        const struct answer *a = &b->set.answers[first + i];
        rewards[i] = a->scored ? a->score : NAN;
        if (a->scored)
            sum += a->score, squares += a->score * a->score, counted++;
    }
    b->groups++;
    if (counted) {
        b->reward += sum / counted;
        b->reward_spread += sqrt(fmax(0, squares / counted - sum / counted * (sum / counted)));
    }
    if (!policy_advantages(&b->c->policy, rewards, (int)n, advantages)) {
        b->tied++;
        return PLM_OK;
    }
    for (int64_t i = 0; i < n && !code; i++) {
        const struct answer *a = &b->set.answers[first + i];
        if (!a->scored || a->n == 0)
            continue;
        if (b->c->policy.mask_truncated && !a->ended) {
            b->truncated++;
            continue;
        }
        code = rollout_sequence(r, encoder, &b->set, first + i, &b->e, st);
        if (!code && example_length(&b->e, b->e.n - 1) > max_len) { /* does not fit a row: it was made by a longer context */
            b->too_long++;
            b->e.n--;
            b->e.tokens.length = b->e.target.length = (size_t)b->e.begin[b->e.n];
        } else if (!code) {
            b->answer[b->e.n - 1] = first + i;
            b->advantage[b->e.n - 1] = advantages[i];
        }
    }
    return code;
}

static int make_batch(struct policy_batch *b, struct align *a, const struct rollout *r, struct plm_status *st)
{
    const size_t n = (size_t)b->set.n + 1;
    struct encoder *encoder = NULL;
    double *rewards = malloc(n * 2 * sizeof *rewards);
    b->answer = malloc(n * sizeof *b->answer);
    b->advantage = malloc(n * sizeof *b->advantage);
    int code = rewards && b->answer && b->advantage ? encoder_create(&encoder, a->t.tokenizer, st) : status_no_memory(st, n * 32, "a batch of answers");
    for (int64_t i = 0; i < b->set.n && !code;) {
        int64_t end = i;
        while (end < b->set.n && b->set.answers[end].task == b->set.answers[i].task)
            end++;
        code = add_group(b, r, encoder, i, end - i, rewards, rewards + n, a->c->seq_len + 1, st);
        i = end;
    }
    encoder_free(encoder);
    free(rewards);
    const size_t tokens = b->e.n ? (size_t)b->e.begin[b->e.n] : 0;
    b->log_probs = calloc(tokens + 1, sizeof *b->log_probs);
    b->coef = calloc(tokens + 1, sizeof *b->coef);
    if (a->c->policy.kl_beta > 0)
        b->reference = calloc(tokens + 1, sizeof *b->reference);
    if (!code && !(b->log_probs && b->coef && (b->reference || a->c->policy.kl_beta == 0)))
        code = status_no_memory(st, tokens * 12, "a batch of answers");
    return code;
}

/* Coefficients of one micro-batch of answers. */
static int coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    struct policy_batch *b = ctx;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t s = m->placed[k].sequence;
        const struct answer *a = &b->set.answers[b->answer[s]];
        const int64_t at = b->e.begin[s + 1] - a->n; /* its tokens end the sequence */
        double *d = malloc((size_t)a->n * sizeof *d);
        if (!d)
            return status_no_memory(st, (size_t)a->n * sizeof *d, "coefficients");
        const double weight = b->c->policy.normaliser == NORMALISE_SEQUENCES ? 1.0 / a->n : 1;
        policy_coefficients(&b->c->policy, b->advantage[s], weight, log_probs + at, a->log_probs, b->reference ? b->reference + at : NULL, a->n, d, &b->stats);
        for (int t = 0; t < a->n; t++)
            coef[at + t] = (float)d[t];
        free(d);
        b->normaliser += b->c->policy.normaliser == NORMALISE_TOKENS ? a->n : b->c->policy.normaliser == NORMALISE_SEQUENCES ? 1 : (double)b->c->rollout.max_tokens;
    }
    return PLM_OK;
}

static int update(struct align *a, int round, int64_t step, int64_t steps, struct policy_batch *b, const struct turn_stats *turn, struct plm_status *st)
{
    struct trainer *t = &a->t;
    const double start = seconds_now();
    struct micro_batches m = {0};
    struct batch batch = {0};
    int64_t *list = malloc(((size_t)b->e.n + 1) * sizeof *list);
    int code = list ? batch_create(&batch, t->step.max_rows, t->step.max_len, st) : status_no_memory(st, (size_t)b->e.n * sizeof *list, "a batch");
    for (int64_t i = 0; i < b->e.n && !code; i++)
        list[i] = i;
    if (!code)
        code = micro_batches_pack(&m, &b->e, list, list, b->e.n, t->step.max_rows, t->step.max_len, st);
    const struct sequence_objective objective = {coefficients, b};
    step_zero_gradients(&t->step);
    b->stats = (struct policy_stats){0};
    b->normaliser = 0;
    if (!code)
        code = sequences_backward(&t->step, &b->e, &m, &objective, &batch, t->nll, b->log_probs, b->coef, t->comm, st);
    const double inputs = (double)m.inputs;
    micro_batches_free(&m);
    batch_free(&batch);
    free(list);
    if (code) {
        comm_abort(t->comm, st);
        return code;
    }
    struct step_control control = {.loss_sum = b->stats.loss, .weight_sum = b->normaliser, .nonfinite = !isfinite(b->stats.loss)};
    double sums[4] = {b->stats.kl, b->stats.clipped, b->stats.tokens, b->stats.entropy};
    struct update_outcome o;
    const double lr = round_learning_rate(a->c, round, step, steps);
    code = comm_sum_doubles(t->comm, sums, 4, st);
    if (!code && b->e.n > 0) {
        code = trainer_update(t, lr, control, &o, st);
    } else if (!code) { /* all groups tied: nothing to learn from them */
        o = (struct update_outcome){.control.stop = signals_stop_requested() != 0};
        code = comm_sum_doubles(t->comm, &o.control.stop, 1, st);
    }
    if (code)
        return code;
    const double tokens = sums[2] > 0 ? sums[2] : 1, groups = b->groups ? (double)b->groups : 1;
    const double loss = o.control.weight_sum > 0 ? o.control.loss_sum / o.control.weight_sum : 0;
    const struct metric metrics[] = {{"loss", loss, NULL}, {"reward", b->reward / groups, NULL}, {"reward_std", b->reward_spread / groups, NULL},
        {"frac_reward_zero_std", (double)b->tied / groups, NULL}, {"kl", sums[0] / tokens, NULL}, {"clip_ratio", sums[1] / tokens, NULL}, {"entropy", sums[3] / tokens, NULL},
        {"completions/mean_length", turn->length, NULL}, {"completions/clipped_ratio", 1 - turn->ended, NULL}, {"num_tokens", sums[2], NULL}};
    return round_step_done(a, round, step, steps, &o, lr, loss, seconds_now() - start, inputs, metrics, sizeof metrics / sizeof *metrics, st);
}

struct round_totals {
    int64_t tokens, groups, tied, too_long, truncated, learned; /* learned: answers that taught something */
};

/* What rollouts before the one that this session goes on with were like, from their answers. Rank 0. */
static int add_earlier(struct align *a, int round, int64_t rollouts, struct round_totals *totals, struct plm_status *st)
{
    const struct align_config *c = a->c;
    const int64_t chunks = (c->policy_tasks + c->rollout.chunk - 1) / c->rollout.chunk;
    double *rewards = malloc(2 * (size_t)c->rollout.chains * sizeof *rewards);
    int code = rewards ? PLM_OK : status_no_memory(st, 2 * (size_t)c->rollout.chains * sizeof *rewards, "rewards");
    for (int64_t k = 0; k < rollouts * chunks && !code; k++) {
        char name[64], path[PATH_MAX];
        struct answer_set set = {0};
        snprintf(name, sizeof name, "rollout-%05lld/answers-%05lld.jsonl", (long long)(k / chunks), (long long)(k % chunks));
        code = round_path(a, round, name, path, st);
        if (!code && access(path, F_OK) == 0)
            code = answer_set_read(&set, path, a->tasks.n, st);
        for (int64_t i = 0, end; i < set.n && !code; i = end) {
            for (end = i; end < set.n && end < i + c->rollout.chains && set.answers[end].task == set.answers[i].task; end++)
                rewards[end - i] = set.answers[end].scored ? set.answers[end].score : NAN, totals->tokens += set.answers[end].n;
            totals->groups++;
            totals->tied += !policy_advantages(&c->policy, rewards, (int)(end - i), rewards + c->rollout.chains);
        }
        answer_set_free(&set);
    }
    free(rewards);
    return code;
}

static int log_first(struct align *a, int round, const struct answer_set *set, double difference, struct plm_status *st)
{
    const struct metric values[] = {{"round", round + 1, NULL}, {"log_prob_difference", difference, NULL}};
    int code = run_log_write(a->t.log, a->t.state.step, values, sizeof values / sizeof *values, st);
    return code || a->t.comm->rank != 0 ? code : round_log_samples(a, round, NULL, &a->tasks, set, 4, st);
}

/* One rollout and its updates. */
static int rollout_step(struct align *a, int round, int64_t rollout, int64_t rollouts, const int64_t *list, int64_t n, struct round_totals *totals,
                        struct plm_status *st)
{
    const struct align_config *c = a->c;
    char name[32], dir[PATH_MAX];
    snprintf(name, sizeof name, "rollout-%05lld", (long long)rollout);
    int code = round_path(a, round, name, dir, st);
    const struct rollout r = {.t = &a->t, .tasks = &a->tasks, .chat = a->templates.chat, .refine = a->templates.refine, .scorer = c->scorer,
        .model_scorer = a->scorer_model, .o = &c->rollout, .seed = random_u64(c->seed, RANDOM_ROLLOUT, (uint32_t)round + 1, (uint64_t)rollout), .dir = dir};
    struct policy_batch b = {.c = c};
    struct rollout_stats stats = {0};
    double kl, difference = 0;
    const bool compare = rollout == 0 && a->t.state.step_in_phase == 0; /* before anything is learned from it */
    if (!code)
        code = rollout_run(&r, list, n, &b.set, &stats, st);
    if (!code && stats.stopped) {
        a->stopped = true;
        return a->t.state.step_in_phase > 0 ? trainer_save(&a->t, NULL, st) : PLM_OK; /* the steps since the last checkpoint */
    }
    struct turn_stats turn;
    if (!code)
        rollout_turns(&b.set, 1, &turn);
    if (!code && compare)
        code = rollout_check(&r, &b.set, 64, NULL, &difference, &kl, st);
    if (!code && !(difference <= 0.01))
        code = status_set(st, PLM_EINTERNAL, "a log-probability recorded while sampling and the trainer's differ by %g nats: sampling and training do not compute the same "
                          "model", difference);
    if (!code)
        code = comm_agree(a->t.comm, make_batch(&b, a, &r, st), st);
    if (!code && compare)
        code = comm_agree(a->t.comm, log_first(a, round, &b.set, difference, st), st);
    double *sums = malloc(((size_t)b.e.n + 1) * sizeof *sums);
    if (!code && b.reference && b.e.n)
        code = sums ? reference_compute(&a->t, align_start_weights(a), &b.e, NULL, b.e.n, sums, b.reference, st)
                    : status_no_memory(st, (size_t)b.e.n * sizeof *sums, "reference log-probabilities");
    free(sums);
    totals->tokens += stats.tokens;
    totals->groups += b.groups;
    totals->tied += b.tied;
    totals->too_long += b.too_long;
    totals->truncated += b.truncated;
    totals->learned += b.e.n;
    const int64_t steps = rollouts * c->policy_updates;
    for (int64_t step = a->t.state.step_in_phase; step < (rollout + 1) * c->policy_updates && !code && !a->stopped; step++)
        code = update(a, round, step, steps, &b, &turn, st);
    batch_close(&b);
    return code;
}

/* What did not teach anything in this round, and what to do about it. A round of tied groups is ordinary near the end, so the next one
 * follows; the run's end says whether any of them taught something. */
static void warn_of_losses(const struct align *a, int round, const struct round_totals *t)
{
    if (t->too_long)
        log_warn("round %d: %lld answers were left out: with their prompts they are longer than seq_len (%d); raise it, or lower rollout.max_tokens",
                 round + 1, (long long)t->too_long, a->c->seq_len);
    if (t->truncated)
        log_warn("round %d: %lld answers were left out: they were cut off before they ended (policy.mask_truncated); raise rollout.max_tokens",
                 round + 1, (long long)t->truncated);
    if (t->groups > 0 && t->tied == t->groups)
        log_warn("round %d: all answers of every one of %lld groups had the same reward (frac_reward_zero_std is 1): nothing was learned in it; the "
                 "tasks are too hard or too easy, or the scorer does not understand the answers (plm score)", round + 1, (long long)t->groups);
    else if (t->learned == 0 && t->groups > 0)
        log_warn("round %d: no answer was left to learn from", round + 1);
}

int round_train_policy(struct align *a, int round, struct plm_status *st)
{
    const struct align_config *c = a->c;
    int64_t *list = NULL, n = 0;
    struct round_totals totals = {0};
    const double begin = seconds_now();
    int code = comm_agree(a->t.comm, round_tasks(a, round, &list, &n, st), st);
    const int64_t rollouts = (n + c->policy_tasks - 1) / c->policy_tasks;
    const int64_t first = a->t.state.step_in_phase / c->policy_updates;
    if (!code)
        code = comm_agree(a->t.comm, a->t.comm->rank == 0 ? add_earlier(a, round, first, &totals, st) : PLM_OK, st);
    if (!code)
        code = comm_broadcast(a->t.comm, &totals, sizeof totals, 0, st);
    for (int64_t i = first; i < rollouts && !code && !a->stopped; i++) {
        const int64_t at = i * c->policy_tasks;
        code = rollout_step(a, round, i, rollouts, list + at, n - at < c->policy_tasks ? n - at : c->policy_tasks, &totals, st);
    }
    free(list);
    if (!code && !a->stopped && a->t.comm->rank == 0)
        warn_of_losses(a, round, &totals);
    if (code || a->stopped || a->t.comm->rank != 0)
        return code ? status_prefix(st, "round %d", round + 1) : PLM_OK;
    const double seconds = seconds_now() - begin;
    const struct metric values[] = {{"round", round + 1, NULL}, {"generated_tokens", (double)totals.tokens, NULL}, {"tied", (double)totals.tied, NULL},
        {"tied_share", totals.groups ? (double)totals.tied / (double)totals.groups : 0, NULL}, {"too_long", (double)totals.too_long, NULL},
        {"truncated", (double)totals.truncated, NULL}, {"round_s", seconds, NULL}};
    return run_log_write(a->t.log, a->t.state.step, values, sizeof values / sizeof *values, st);
}
