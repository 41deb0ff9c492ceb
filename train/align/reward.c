#include "train/align/reward.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/permutation.h"
#include "infer/base/clock.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/reward_pairs.h"
#include "train/checkpoint.h"
#include "train/evaluations.h"
#include "train/model_keep.h"
#include "train/signals.h"
#include "train/templates.h"
#include "train/trainer.h"

struct run {
    const struct reward_config *c;
    struct trainer t;
    struct tokenizer *tokenizer;
    struct templates templates;
    struct extra_params head;
    struct reward_data data;
    struct batch batch;
    double *rewards, *d_rewards;  /* (sequences of the largest set) */
    int64_t *list, *group;        /* (the same) */
    int64_t steps;                /* of the whole run */
    struct evaluations evaluations; /* rank 0 */
    struct reward_statistics statistics;
    char statistics_text[1024];   /* what the next checkpoint's reward.json says */
    char model_path[PATH_MAX], checkpoint[PATH_MAX];
};

/* ---- opening ---- */

static int open_data(struct run *r, struct comm *comm, struct plm_status *st)
{
    const struct reward_config *c = r->c;
    int code = checkpoint_resolve_shared(c->model_path, comm, r->model_path, st);
    if (code)
        return code;
    int32_t end;
    code = tokenizer_open(&r->tokenizer, c->tokenizer ? c->tokenizer : r->model_path, st);
    if (!code)
        code = templates_open(&r->templates, c->template, NULL, r->model_path, st);
    if (!code)
        code = chat_template_end(r->templates.chat, r->tokenizer, &end, st);
    if (!code)
        code = reward_data_open(&r->data, c, r->templates.chat, r->tokenizer, comm->rank == 0, st);
    return comm_agree(comm, code, st);
}

/* The head of a reward model that goes on, or normal(0, 1 / sqrt(d + 1)) (Stiennon et al., arXiv 2009.01325): rewards of about 1 for normed states. */
static int open_head(struct run *r, struct plm_status *st)
{
    struct model_config model = {0};
    char path[PATH_MAX];
    int code = checkpoint_config(r->model_path, &model, st);
    if (!code)
        code = extra_params_create(&r->head, REWARD_HEAD, model.hidden_size, st);
    if (code)
        return code;
    if (snprintf(path, sizeof path, "%s/%s", r->model_path, r->head.file) < (int)sizeof path && access(path, F_OK) == 0)
        return extra_params_load(&r->head, r->model_path, false, st);
    for (int64_t i = 0; i < model.hidden_size; i++)
        r->head.params[i] = (float)(random_normal(r->c->seed, RANDOM_INIT, UINT32_MAX, (uint64_t)i) / sqrt(model.hidden_size + 1.0));
    return PLM_OK;
}

static int set_statistics(struct run *r, const struct reward_statistics *s, struct plm_status *st)
{
    char *text = reward_statistics_to_json(s);
    if (!text || strlen(text) >= sizeof r->statistics_text) {
        free(text);
        return status_no_memory(st, 0, "the statistics of the rewards");
    }
    r->statistics = *s;
    strcpy(r->statistics_text, text);
    free(text);
    return PLM_OK;
}

static int open_trainer(struct run *r, struct comm *comm, struct plm_status *st)
{
    const struct reward_config *c = r->c;
    const struct reward_statistics none = {.deviation = 1};
    struct trainer_options o = {.run_dir = c->run_dir, .tokenizer = c->tokenizer, .model_path = r->model_path, .settings = c->settings, .seed = c->seed,
        .threads = c->threads, .max_rows = c->micro_batch, .max_len = c->seq_len, .adamw = c->adamw, .clip = c->clip, .checkpoint_keep = c->checkpoint_keep,
        .log_every = c->log_every, .total_steps = r->steps, .lora = c->adapt ? &c->lora : NULL, .extra = &r->head,
        .identity = reward_config_identity, .max_skipped = c->max_skipped};
    int code = open_head(r, st);
    if (!code)
        code = reward_data_hash(&r->data, c, o.config_sha256, st);
    if (!code) {
        char what[96];
        snprintf(what, sizeof what, "%lld sequences, %.16s", (long long)r->data.train.e.n, o.config_sha256);
        o.data = json_pack("{s:s}", "pairs", what);
    }
    if (!code)
        code = set_statistics(r, &none, st);
    code = comm_agree(comm, code, st);
    if (!code)
        code = trainer_open(&r->t, &o, comm, st);
    json_decref(o.data);
    if (!code) {
        trainer_add_text(&r->t, CHAT_TEMPLATE_FILE, chat_template_json(r->templates.chat));
        trainer_add_text(&r->t, REWARD_FILE, r->statistics_text);
    }
    return code;
}

static int create_buffers(struct run *r, struct plm_status *st)
{
    int64_t most = r->data.train.e.n > 2 * (int64_t)r->c->batch_pairs ? r->data.train.e.n : 2 * (int64_t)r->c->batch_pairs;
    for (int i = 0; i < r->data.n_held_out; i++)
        most = r->data.held_out[i].e.n > most ? r->data.held_out[i].e.n : most;
    const size_t n = (size_t)most;
    r->rewards = malloc(n * sizeof *r->rewards);
    r->d_rewards = malloc(n * sizeof *r->d_rewards);
    r->list = malloc(n * sizeof *r->list);
    r->group = malloc(n * sizeof *r->group);
    return r->rewards && r->d_rewards && r->list && r->group ? batch_create(&r->batch, r->c->micro_batch, r->c->seq_len, st)
                                                             : status_no_memory(st, 32 * n, "the rewards of the pairs");
}

static void run_close(struct run *r)
{
    evaluations_close(&r->evaluations);
    trainer_close(&r->t);
    extra_params_free(&r->head);
    batch_free(&r->batch);
    reward_data_free(&r->data);
    templates_close(&r->templates);
    tokenizer_free(r->tokenizer);
    free(r->rewards);
    free(r->d_rewards);
    free(r->list);
    free(r->group);
}

/* ---- pairs through the model ---- */

enum { SUM_LOSS, SUM_PAIRS, SUM_RIGHT, SUM_CHOSEN, SUM_REJECTED, SUM_SQUARES, SUMS };

static int pack(const struct run *r, struct micro_batches *m, const struct reward_set *set, int64_t n, struct plm_status *st)
{
    return micro_batches_pack(m, &set->e, r->list, r->group, n, r->t.step.max_rows, r->t.step.max_len, st);
}

/* Micro-batch i forward: rewards, their derivatives, and what they add to the sums. */
static void forward(struct run *r, const struct reward_set *set, const struct micro_batches *m, int64_t i, double sums[SUMS])
{
    struct step *s = &r->t.step;
    micro_batch_fill(m, i, &set->e, &r->batch, s->max_rows, s->max_len);
    step_forward(s, &r->batch);
    reward_gather(m, i, &set->e, &r->batch, s->final_h, r->head.params, s->config.hidden_size, r->rewards);
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t w = m->placed[k].sequence, l = w + 1;
        if (w % 2)
            continue; /* with its chosen answer */
        sums[SUM_LOSS] += reward_pair_loss(&r->c->loss, r->rewards[w], r->rewards[l], &r->d_rewards[w], &r->d_rewards[l]);
        sums[SUM_PAIRS]++;
        sums[SUM_RIGHT] += r->rewards[w] > r->rewards[l];
        sums[SUM_CHOSEN] += r->rewards[w];
        sums[SUM_REJECTED] += r->rewards[l];
        sums[SUM_SQUARES] += r->rewards[w] * r->rewards[w] + r->rewards[l] * r->rewards[l];
    }
}

static struct reward_statistics statistics_of(const double sums[SUMS], int64_t step)
{
    const double n = sums[SUM_PAIRS], mean = (sums[SUM_CHOSEN] + sums[SUM_REJECTED]) / (2 * n), variance = sums[SUM_SQUARES] / (2 * n) - mean * mean;
    return (struct reward_statistics){.step = step, .pairs = (int64_t)n, .loss = sums[SUM_LOSS] / n, .accuracy = sums[SUM_RIGHT] / n,
        .margin = (sums[SUM_CHOSEN] - sums[SUM_REJECTED]) / n, .mean = mean, .deviation = variance > 1e-12 ? sqrt(variance) : 1};
}

/* ---- one step ---- */

/* Pair number i of the passes over the pairs. */
static int64_t pair_at(const struct run *r, int64_t i)
{
    const uint64_t n = (uint64_t)r->data.train.n;
    return (int64_t)permutation_apply(random_u64(r->c->seed, RANDOM_DATA_ORDER, 0, (uint64_t)i / n), n, (uint64_t)i % n);
}

static int64_t all_pairs(const struct run *r) { return (int64_t)ceil(r->c->epochs * (double)r->data.train.n - 1e-9); }

/* Gradients of this rank's share of the step's pairs. */
static int accumulate(struct run *r, int64_t step, double sums[SUMS], int64_t *inputs, struct plm_status *st)
{
    const struct reward_set *set = &r->data.train;
    const int64_t first = step * r->c->batch_pairs, left = all_pairs(r) - first, pairs = left < r->c->batch_pairs ? left : r->c->batch_pairs;
    const struct comm *comm = r->t.comm;
    struct micro_batches m = {0};
    for (int64_t i = 0; i < 2 * pairs; i++) {
        r->list[i] = 2 * pair_at(r, first + i / 2) + i % 2;
        r->group[i] = i / 2;
    }
    step_zero_gradients(&r->t.step);
    memset(r->head.grads, 0, (size_t)r->head.table.padded * sizeof *r->head.grads);
    int code = pack(r, &m, set, 2 * pairs, st);
    for (int64_t i = comm->rank; i < m.n && !code; i += comm->size) {
        forward(r, set, &m, i, sums);
        reward_backward(&r->t.step, &m, i, &set->e, &r->batch, r->head.params, r->head.grads, r->d_rewards);
    }
    *inputs = m.inputs;
    micro_batches_free(&m);
    r->t.state.samples += pairs;
    return code;
}

static int report_step(struct run *r, const struct update_outcome *o, const struct reward_statistics *s, const double sums[SUMS], double lr, int64_t inputs,
                       double seconds, struct plm_status *st)
{
    if (r->t.comm->rank != 0)
        return PLM_OK;
    const int64_t step = r->t.state.step;
    const double rate = (double)inputs / seconds, n = sums[SUM_PAIRS];
    const struct metric values[] = {{"loss", s->loss, NULL}, {"accuracy", s->accuracy, NULL}, {"margin", s->margin, NULL},
        {"rewards/chosen", sums[SUM_CHOSEN] / n, NULL}, {"rewards/rejected", sums[SUM_REJECTED] / n, NULL}, {"lr", lr, NULL}, {"grad_norm", o->grad_norm, NULL},
        {"tokens", (double)r->t.state.tokens, NULL}, {"epoch", (double)r->t.state.samples / (double)r->data.train.n, NULL}, {"tokens_per_s", rate, NULL},
        {"step_s", seconds, NULL}, {"skipped", o->applied ? 0 : 1, NULL}};
    const struct progress_status status = {.phase = "reward", .step = step, .total_steps = r->steps, .tokens = r->t.state.tokens, .total_tokens = r->t.state.tokens / step * r->steps,
        .loss = s->loss, .learning_rate = lr, .grad_norm = o->grad_norm, .tokens_per_second = rate};
    progress_update(&r->t.progress, &status);
    return run_log_write(r->t.log, step, values, sizeof values / sizeof *values, st);
}

static int train_step(struct run *r, struct update_outcome *out, struct plm_status *st)
{
    struct trainer *t = &r->t;
    const int64_t step = t->state.step;
    const double start = seconds_now(), lr = reward_learning_rate(r->c, step, r->steps);
    double sums[SUMS] = {0};
    int64_t inputs = 0;
    int code = accumulate(r, step, sums, &inputs, st);
    if (code) {
        comm_abort(t->comm, st); /* the other ranks are on their way into the reduction */
        return code;
    }
    const struct step_control control = {.loss_sum = sums[SUM_LOSS], .weight_sum = sums[SUM_PAIRS], .nonfinite = !isfinite(sums[SUM_LOSS])};
    code = comm_sum_doubles(t->comm, sums, SUMS, st);
    if (!code)
        code = trainer_update(t, lr, control, out, st);
    if (code)
        return code;
    const struct reward_statistics s = statistics_of(sums, step + 1);
    t->state.step = t->state.step_in_phase = step + 1;
    t->state.tokens += inputs;
    trainer_state_add_loss(&t->state, s.loss);
    code = report_step(r, out, &s, sums, lr, inputs, seconds_now() - start, st);
    if (code)
        comm_abort(t->comm, st); /* only rank 0 writes */
    return code;
}

/* ---- evaluation ---- */

static int hold_out(struct run *r, const struct reward_set *set, struct reward_statistics *s, struct plm_status *st)
{
    const struct comm *comm = r->t.comm;
    struct micro_batches m = {0};
    double sums[SUMS] = {0};
    for (int64_t i = 0; i < 2 * set->n; i++)
        r->list[i] = i, r->group[i] = i / 2;
    int code = comm_agree(r->t.comm, pack(r, &m, set, 2 * set->n, st), st);
    for (int64_t i = comm->rank; i < m.n && !code; i += comm->size)
        forward(r, set, &m, i, sums);
    micro_batches_free(&m);
    if (!code)
        code = comm_sum_doubles(r->t.comm, sums, SUMS, st);
    *s = statistics_of(sums, r->t.state.step);
    return code;
}

static json_t *statistics_json(const struct reward_statistics *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:I}", "loss", s->loss, "accuracy", s->accuracy, "margin", s->margin, "mean", s->mean, "deviation", s->deviation,
                     "pairs", (json_int_t)s->pairs);
}

static int report_held_out(struct run *r, const char *name, const struct reward_statistics *s, struct plm_status *st)
{
    const double p = s->accuracy, half = 1.96 * sqrt(p * (1 - p) / (double)s->pairs);
    const struct metric values[] = {{"eval", 0, name}, {"eval_loss", s->loss, NULL}, {"eval_accuracy", p, NULL}, {"eval_margin", s->margin, NULL},
        {"eval_rewards/mean", s->mean, NULL}, {"eval_rewards/deviation", s->deviation, NULL}, {"eval_pairs", (double)s->pairs, NULL}};
    progress_note(&r->t.progress, "step %lld: %s: loss %.4f, accuracy %.2f %% +- %.2f, margin %.4f over %lld pairs", (long long)s->step, name, s->loss, 100 * p,
                  100 * half, s->margin, (long long)s->pairs);
    return run_log_write(r->t.log, s->step, values, sizeof values / sizeof *values, st);
}

/* What all ranks must know about the evaluations, from rank 0. */
struct verdict {
    bool has, improved;
    int since;
    int64_t best_step;
    double best;
};

static int share(struct run *r, struct verdict *v, struct plm_status *st)
{
    const struct evaluations *e = &r->evaluations;
    if (r->t.comm->rank == 0)
        *v = (struct verdict){evaluations_has(e, r->t.state.step), v->improved, e->since, e->best_step, e->best};
    return comm_broadcast(r->t.comm, v, sizeof *v, 0, st);
}

/* Evaluate the model after state.step, once; the first set judges. *saved: the model is in a checkpoint now. */
static int evaluate(struct run *r, struct verdict *v, bool *saved, struct plm_status *st)
{
    const bool first = r->t.comm->rank == 0;
    *saved = false;
    *v = (struct verdict){0};
    int code = share(r, v, st);
    if (code || v->has || !r->data.n_held_out)
        return code;
    json_t *judged = json_object(), *others = json_object();
    for (int i = 0; i < r->data.n_held_out && !code; i++) {
        struct reward_statistics s;
        code = hold_out(r, &r->data.held_out[i], &s, st);
        if (!code && i == 0)
            code = set_statistics(r, &s, st);
        if (!code && first)
            code = report_held_out(r, r->data.held_out[i].name, &s, st);
        if (!code && first)
            json_object_set_new(i ? others : judged, r->data.held_out[i].name, statistics_json(&s));
        code = comm_agree(r->t.comm, code, st);
    }
    json_t *record = json_pack("{s:I, s:o, s:o}", "step", (json_int_t)r->t.state.step, "held_out", judged, "beside", others);
    if (!code && first)
        code = evaluations_add(&r->evaluations, r->t.state.step, record, &v->improved, st);
    else
        json_decref(record);
    code = comm_agree(r->t.comm, code, st);
    if (!code)
        code = share(r, v, st);
    if (code || !v->improved)
        return code;
    code = trainer_save(&r->t, r->checkpoint, st);
    *saved = true;
    return code ? code : comm_agree(r->t.comm, first ? model_keep(r->checkpoint, r->c->run_dir, "best", st) : PLM_OK, st);
}

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

/* What earlier sessions found: the newest evaluation's statistics are those of the next checkpoint. */
static int open_evaluations(struct run *r, struct plm_status *st)
{
    struct trainer *t = &r->t;
    struct reward_statistics s = r->statistics;
    int code = t->comm->rank == 0 ? evaluations_open(&r->evaluations, r->c->run_dir, METRIC_LOSS, t->state.step, st) : PLM_OK;
    const json_t *last = code ? NULL : json_array_get(r->evaluations.list, json_array_size(r->evaluations.list) - (json_array_size(r->evaluations.list) > 0));
    const json_t *found = r->data.n_held_out ? json_object_get(json_object_get(last, "held_out"), r->data.held_out[0].name) : NULL;
    if (found)
        s = (struct reward_statistics){.step = (int64_t)number(last, "step"), .pairs = (int64_t)number(found, "pairs"), .loss = number(found, "loss"),
            .accuracy = number(found, "accuracy"), .margin = number(found, "margin"), .mean = number(found, "mean"), .deviation = number(found, "deviation")};
    char path[PATH_MAX];
    if (!code && t->comm->rank == 0 && t->state.step > 0 && r->evaluations.best_step == t->state.step) /* killed between the checkpoint and RUN/best */
        code = checkpoint_latest(r->c->run_dir, path, st) || !*path ? PLM_OK : model_keep(path, r->c->run_dir, "best", st);
    code = comm_agree(t->comm, code, st);
    if (!code)
        code = comm_broadcast(t->comm, &s, sizeof s, 0, st);
    return code ? code : set_statistics(r, &s, st);
}

/* ---- the run ---- */

static bool evaluation_due(const struct run *r)
{
    const int64_t step = r->t.state.step, every = r->c->eval_every;
    return step == 0 ? r->c->eval_at_start : step >= r->steps || (every && step % every == 0);
}

static void report_end(const struct run *r, const struct verdict *v)
{
    if (r->t.comm->rank != 0 || v->best_step < 0)
        return;
    if (r->t.state.step < r->steps)
        log_info("stopped early after step %lld of %lld: no smaller held-out loss in %d evaluations", (long long)r->t.state.step, (long long)r->steps, v->since);
    log_info("smallest held-out loss %.6g after step %lld: %s/best", v->best, (long long)v->best_step, r->c->run_dir);
}

static int run_steps(struct run *r, struct reward_result *result, struct plm_status *st)
{
    const struct reward_config *c = r->c;
    struct verdict v = {.best_step = -1};
    bool saved;
    int code = evaluation_due(r) ? evaluate(r, &v, &saved, st) : share(r, &v, st);
    while (!code && r->t.state.step < r->steps && !(c->patience && v.since >= c->patience)) {
        struct update_outcome o;
        code = train_step(r, &o, st);
        if (code)
            return code;
        if (o.control.stop > 0) { /* an evaluation that is due is made when the run continues */
            result->stopped_by = signals_stop_requested() ? signals_stop_requested() : 15;
            return trainer_save(&r->t, NULL, st);
        }
        saved = false;
        if (evaluation_due(r))
            code = evaluate(r, &v, &saved, st);
        const bool last = r->t.state.step >= r->steps || (c->patience && v.since >= c->patience);
        if (!code && !saved && (last || (c->checkpoint_every && r->t.state.step % c->checkpoint_every == 0)))
            code = trainer_save(&r->t, NULL, st);
    }
    result->best_step = v.best_step;
    if (!code)
        report_end(r, &v);
    return code;
}

int reward_run(const struct reward_config *c, struct comm *comm, struct reward_result *result, struct plm_status *st)
{
    struct run r = {.c = c, .t.lock = -1};
    *result = (struct reward_result){.best_step = -1};
    int code = comm_agree(comm, signals_open(st), st);
    if (code)
        return code;
    code = open_data(&r, comm, st);
    if (!code) {
        r.steps = (all_pairs(&r) + c->batch_pairs - 1) / c->batch_pairs;
        code = open_trainer(&r, comm, st);
    }
    if (!code)
        code = comm_agree(comm, create_buffers(&r, st), st);
    if (!code)
        code = open_evaluations(&r, st);
    if (!code)
        code = run_steps(&r, result, st);
    result->steps = r.t.state.step;
    result->learned = r.t.state.learned > 0;
    result->held_out = r.statistics;
    run_close(&r);
    signals_close();
    return code;
}
