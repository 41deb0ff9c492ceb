#include "train/sft.h"

#include <math.h>
#include <stdlib.h>

#include "infer/base/clock.h"
#include "infer/base/log.h"
#include "train/checkpoint.h"
#include "train/evaluations.h"
#include "train/model_keep.h"
#include "train/run_log.h"
#include "train/sft_data.h"
#include "train/sft_eval.h"
#include "train/signals.h"
#include "train/templates.h"
#include "train/trainer.h"

struct run {
    const struct sft_config *c;
    struct trainer t;
    struct tokenizer *tokenizer;
    struct templates templates;
    struct sft_renderer renderer;
    struct sft_data data;
    struct batch batch;
    struct sft_row *rows;             /* (most batch_rows of a phase) of the step */
    struct sft_evaluator *evaluator;  /* NULL: nothing is evaluated */
    struct evaluations evaluations;   /* rank 0 */
    char model_path[PATH_MAX];
    char checkpoint[PATH_MAX];        /* rank 0: the newest one of this session */
};

/* ---- opening ---- */

static int open_data(struct run *r, struct comm *comm, struct plm_status *st)
{
    const struct sft_config *c = r->c;
    int code = checkpoint_resolve_shared(c->model_path, comm, r->model_path, st);
    if (code)
        return code;
    code = tokenizer_open(&r->tokenizer, c->tokenizer ? c->tokenizer : r->model_path, st);
    if (!code)
        code = templates_open(&r->templates, c->template, c->refine_template, r->model_path, st);
    r->renderer = (struct sft_renderer){.tokenizer = r->tokenizer, .chat = r->templates.chat, .refine = r->templates.refine};
    int32_t end;
    if (!code)
        code = chat_template_end(r->templates.chat, r->tokenizer, &end, st);
    if (!code)
        code = sft_data_open(&r->data, c, &r->renderer, comm->rank == 0, st);
    return comm_agree(comm, code, st);
}

static int open_trainer(struct run *r, struct comm *comm, struct plm_status *st)
{
    const struct sft_config *c = r->c;
    struct trainer_options o = {.run_dir = c->run_dir, .tokenizer = c->tokenizer, .model_path = r->model_path, .settings = c->settings, .seed = c->seed,
        .threads = c->threads, .max_rows = c->micro_batch, .max_len = c->seq_len, .adamw = c->adamw, .clip = c->clip,
        .checkpoint_keep = c->checkpoint_keep, .log_every = c->log_every, .total_steps = r->data.total_steps, .lora = c->adapt ? &c->lora : NULL,
        .identity = sft_config_identity, .max_skipped = c->max_skipped};
    int code = sft_data_describe(&r->data, &o.data, st);
    code = code ? code : sft_data_hash(&r->data, c->adapt ? r->model_path : "", o.config_sha256, st); /* adapters are made around that very checkpoint */
    code = comm_agree(comm, code, st);
    if (!code)
        code = trainer_open(&r->t, &o, comm, st);
    json_decref(o.data);
    if (!code)
        templates_keep(&r->templates, &r->t);
    return code;
}

/* A session may have been killed between the checkpoint of its best model and RUN/best. */
static int repair_best(const struct run *r, struct plm_status *st)
{
    char path[PATH_MAX];
    if (r->t.state.step == 0 || r->evaluations.best_step != r->t.state.step)
        return PLM_OK;
    int code = checkpoint_latest(r->c->run_dir, path, st);
    return code || !*path ? code : model_keep(path, r->c->run_dir, "best", st);
}

static int open_evaluation(struct run *r, struct plm_status *st)
{
    const bool first = r->t.comm->rank == 0;
    int code = sft_config_evaluates(r->c) ? sft_evaluator_open(&r->evaluator, r->c, &r->t, &r->renderer, first, st) : PLM_OK;
    if (!code && first)
        code = evaluations_open(&r->evaluations, r->c->run_dir, r->c->metric, r->t.state.step, st);
    if (!code && first)
        code = repair_best(r, st);
    return comm_agree(r->t.comm, code, st);
}

static int create_batch(struct run *r, struct plm_status *st)
{
    int most = 1;
    for (int i = 0; i < r->c->n_phases; i++)
        most = r->c->phases[i].batch_rows > most ? r->c->phases[i].batch_rows : most;
    r->rows = calloc((size_t)most, sizeof *r->rows);
    return r->rows ? batch_create(&r->batch, r->c->micro_batch, r->c->seq_len, st) : status_no_memory(st, (size_t)most * sizeof *r->rows, "the rows of a step");
}

/* What makes ranks wait for each other is no error, but is said. */
static void report_uneven(const struct run *r)
{
    for (int i = 0; i < r->c->n_phases && r->t.comm->rank == 0; i++) {
        const int64_t micro = ((int64_t)r->c->phases[i].batch_rows - 1) / r->c->micro_batch + 1;
        if (micro % r->t.comm->size)
            log_info("phase '%s': a step has %lld micro-batches for %d ranks, so that some ranks wait for others", r->c->phases[i].name, (long long)micro,
                     r->t.comm->size);
    }
}

static void run_close(struct run *r)
{
    sft_evaluator_close(r->evaluator);
    evaluations_close(&r->evaluations);
    trainer_close(&r->t);
    batch_free(&r->batch);
    free(r->rows);
    sft_data_close(&r->data);
    templates_close(&r->templates);
    tokenizer_free(r->tokenizer);
}

/* ---- one step ---- */

struct step_counts {
    int64_t inputs, targets; /* of all ranks */
};

/* Micro-batch j of the step: rows [j * micro_batch, ...) of its list. */
static int fill(struct run *r, const struct sft_point *at, int64_t j, struct plm_status *st)
{
    const int64_t micro = r->c->micro_batch, left = at->n_rows - j * micro;
    struct batch *b = &r->batch;
    int longest = 1;
    b->rows = (int)(left < micro ? left : micro);
    b->seq_len = r->c->seq_len;
    for (int i = 0; i < b->rows; i++) {
        int64_t row;
        int code = sft_data_row(&r->data, at->phase, r->rows[j * micro + i].i, &row, st);
        if (code)
            return code;
        const int used = packed_row_fill(&r->data.packed, &r->data.phases[at->phase].examples, row, i, b);
        longest = used > longest ? used : longest;
    }
    batch_shorten(b, longest);
    return PLM_OK;
}

/* Gradients of this rank's micro-batches; what the others take is only counted. */
static int accumulate(struct run *r, const struct sft_point *at, struct step_control *control, struct step_counts *counts, struct plm_status *st)
{
    const int64_t micro = r->c->micro_batch;
    const struct comm *comm = r->t.comm;
    const struct batch *b = &r->batch;
    step_zero_gradients(&r->t.step);
    int code = sft_data_step(&r->data, at, r->rows, st);
    for (int64_t k = 0; k < at->n_rows && !code; k++) {
        counts->inputs += r->rows[k].inputs;
        counts->targets += r->rows[k].targets;
    }
    for (int64_t j = comm->rank; j * micro < at->n_rows && !code; j += comm->size) {
        code = fill(r, at, j, st);
        if (code)
            break;
        r->t.step.noise = (struct step_noise){.alpha = r->c->neftune_alpha, .seed = r->c->seed, .step = at->step, .first_row = j * micro};
        step_forward(&r->t.step, b);
        step_backward(&r->t.step, b, b->weight, r->t.nll);
        for (int64_t i = 0; i < (int64_t)b->rows * b->seq_len; i++) {
            control->loss_sum += r->t.nll[i];
            control->weight_sum += b->weight[i];
        }
    }
    r->t.step.noise.alpha = 0; /* evaluations are made without */
    control->nonfinite = !isfinite(control->loss_sum);
    return code;
}

static int report_step(struct run *r, const struct sft_point *at, const struct update_outcome *o, const struct step_counts *counts, double loss,
                       double seconds, struct plm_status *st)
{
    if (r->t.comm->rank != 0)
        return PLM_OK;
    const char *phase = r->c->phases[at->phase].name;
    const double rate = (double)counts->inputs / seconds;
    const struct metric values[] = {{"phase", 0, phase}, {"loss", loss, NULL}, {"lr", at->learning_rate, NULL}, {"grad_norm", o->grad_norm, NULL},
        {"tokens", (double)r->t.state.tokens, NULL}, {"targets", (double)counts->targets, NULL}, {"epoch", at->epoch, NULL}, {"tokens_per_s", rate, NULL},
        {"step_s", seconds, NULL}, {"skipped", o->applied ? 0 : 1, NULL}};
    const struct progress_status status = {.phase = phase, .step = at->step + 1, .total_steps = r->data.total_steps, .tokens = r->t.state.tokens,
        .total_tokens = r->data.total_tokens, .loss = loss, .learning_rate = at->learning_rate, .grad_norm = o->grad_norm, .tokens_per_second = rate};
    progress_update(&r->t.progress, &status);
    return run_log_write(r->t.log, at->step + 1, values, sizeof values / sizeof *values, st);
}

static int train_step(struct run *r, const struct sft_point *at, struct update_outcome *out, double *loss, struct plm_status *st)
{
    struct trainer *t = &r->t;
    struct step_control control = {0};
    struct step_counts counts = {0};
    const double start = seconds_now();
    int code = accumulate(r, at, &control, &counts, st);
    if (code) {
        comm_abort(t->comm, st); /* the other ranks are on their way into the reduction */
        return code;
    }
    if (at->step_in_phase == 0 && at->phase > 0 && r->c->phases[at->phase].reset_optimizer)
        trainer_reset_optimizer(t);
    code = trainer_update(t, at->learning_rate, control, out, st);
    if (code)
        return code;
    *loss = out->control.weight_sum > 0 ? out->control.loss_sum / out->control.weight_sum : 0;
    t->state.step = at->step + 1;
    t->state.tokens += counts.inputs;
    t->state.samples += at->n_rows;
    struct sft_point next;
    const bool more = sft_data_at(&r->data, t->state.step, &next);
    t->state.phase = more ? next.phase : at->phase;
    t->state.step_in_phase = more ? next.step_in_phase : at->step_in_phase + 1;
    trainer_state_add_loss(&t->state, *loss);
    code = report_step(r, at, out, &counts, *loss, seconds_now() - start, st);
    if (code)
        comm_abort(t->comm, st); /* only rank 0 writes */
    return code;
}

/* ---- evaluation ---- */

static int save(struct run *r, struct plm_status *st) { return trainer_save(&r->t, r->checkpoint, st); }

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
    if (r->t.comm->rank == 0) {
        v->has = evaluations_has(e, r->t.state.step);
        v->since = e->since;
        v->best_step = e->best_step;
        v->best = e->best;
    }
    return comm_broadcast(r->t.comm, v, sizeof *v, 0, st);
}

static bool exhausted(const struct run *r, const struct verdict *v) { return r->c->patience && v->since >= r->c->patience; }

/* Evaluate the model after state.step, once, and keep it when it is the best so far. *saved: it is in a checkpoint now. */
static int evaluate(struct run *r, struct verdict *v, bool *saved, struct plm_status *st)
{
    const bool first = r->t.comm->rank == 0;
    *saved = false;
    *v = (struct verdict){0};
    int code = share(r, v, st);
    if (code || v->has || !r->evaluator)
        return code;
    json_t *record = first ? json_pack("{s:I}", "step", (json_int_t)r->t.state.step) : NULL;
    code = sft_evaluator_run(r->evaluator, record, st);
    if (code) {
        json_decref(record);
        return code;
    }
    if (first)
        code = evaluations_add(&r->evaluations, r->t.state.step, record, &v->improved, st);
    code = comm_agree(r->t.comm, code, st);
    if (!code)
        code = share(r, v, st);
    if (code || !v->improved)
        return code;
    code = save(r, st);
    *saved = true;
    return code ? code : comm_agree(r->t.comm, first ? model_keep(r->checkpoint, r->c->run_dir, "best", st) : PLM_OK, st);
}

/* ---- the run ---- */

static bool evaluation_due(const struct run *r, bool more)
{
    const int64_t step = r->t.state.step, every = r->c->eval_every;
    return step == 0 ? r->c->eval_at_start : !more || (every && step % every == 0);
}

static void report_end(const struct run *r, const struct verdict *v, bool early)
{
    if (r->t.comm->rank != 0 || v->best_step < 0)
        return;
    const char *metric = r->c->metric == METRIC_LOSS ? "held-out loss" : "score";
    if (early)
        log_info("stopped early after step %lld of %lld: no better %s in %d evaluations", (long long)r->t.state.step, (long long)r->data.total_steps, metric,
                 v->since);
    log_info("best %s %.6g after step %lld: %s/best", metric, v->best, (long long)v->best_step, r->c->run_dir);
}

static int run_steps(struct run *r, struct sft_result *result, struct plm_status *st)
{
    struct sft_point at;
    struct verdict verdict = {.best_step = -1};
    bool more = sft_data_at(&r->data, r->t.state.step, &at), saved;
    int code = evaluation_due(r, more) ? evaluate(r, &verdict, &saved, st) : share(r, &verdict, st);
    while (!code && more && !exhausted(r, &verdict)) {
        struct update_outcome o;
        code = train_step(r, &at, &o, &result->final_loss, st);
        if (code)
            return code;
        more = sft_data_at(&r->data, r->t.state.step, &at);
        if (o.control.stop > 0) { /* an evaluation that is due is made when the run continues */
            result->stopped_by = signals_stop_requested() ? signals_stop_requested() : 15;
            return save(r, st);
        }
        saved = false;
        if (evaluation_due(r, more))
            code = evaluate(r, &verdict, &saved, st);
        const bool due = r->c->checkpoint_every && r->t.state.step % r->c->checkpoint_every == 0;
        if (!code && !saved && (!more || due || exhausted(r, &verdict)))
            code = save(r, st);
    }
    result->best_step = verdict.best_step;
    result->best = verdict.best;
    if (!code)
        report_end(r, &verdict, more);
    return code;
}

int sft_run(const struct sft_config *c, struct comm *comm, struct sft_result *result, struct plm_status *st)
{
    struct run r = {.c = c, .t.lock = -1};
    *result = (struct sft_result){.best_step = -1};
    int code = comm_agree(comm, signals_open(st), st);
    if (code)
        return code;
    code = open_data(&r, comm, st);
    if (!code)
        code = open_trainer(&r, comm, st);
    if (!code)
        code = open_evaluation(&r, st);
    if (!code)
        code = comm_agree(comm, create_batch(&r, st), st);
    if (!code) {
        report_uneven(&r);
        code = run_steps(&r, result, st);
    }
    result->steps = r.t.state.step;
    result->learned = r.t.state.learned > 0;
    run_close(&r);
    signals_close();
    return code;
}
