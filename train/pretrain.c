#include "train/pretrain.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus.h"
#include "infer/base/clock.h"
#include "infer/model/templates.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/signals.h"
#include "train/trainer.h"

struct run {
    const struct run_config *c;
    struct trainer t;
    struct stream *stream;     /* of phase `stream_phase` */
    int stream_phase;
    struct batch batch;
    char model_path[PATH_MAX]; /* what the configuration's stands for: a run's newest checkpoint, for one */
    struct model_templates templates; /* of that model: checkpoints carry them on */
};

static int longest_row(const struct run_config *c)
{
    int longest = 0;
    for (int i = 0; i < c->n_phases; i++)
        longest = c->phases[i].seq_len > longest ? c->phases[i].seq_len : longest;
    return longest;
}

/* What a phase or an evaluation would stumble over hours later: open every source that is still to come, once. */
static int check_data(const struct run *r, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct curriculum_point at;
    struct stream *stream = NULL;
    const int first = curriculum_at(c, r->t.state.step, &at) ? at.phase + 1 : c->n_phases; /* this phase's are opened next */
    int code = PLM_OK;
    for (int i = first; i < c->n_phases + c->n_eval && !code; i++) {
        const struct eval_source *eval = i < c->n_phases ? NULL : &c->eval[i - c->n_phases];
        const struct stream_source source = {eval ? eval->path : "", 1};
        const struct stream_options o = {.sources = eval ? &source : c->phases[i].mixture, .n_sources = eval ? 1 : c->phases[i].n_sources,
            .seq_len = eval ? longest_row(c) : c->phases[i].seq_len, .tokenizer_sha256 = r->t.tokenizer_sha256,
            .vocab_size = r->t.step.config.vocab_size};
        code = stream_open(&stream, &o, st);
        stream_close(stream);
        if (code)
            status_prefix(st, "%s '%s'", eval ? "eval source" : "phase", eval ? eval->name : c->phases[i].name);
    }
    return code;
}

/* What each source of each phase holds. */
static int describe_data(const struct run_config *c, json_t **out, struct plm_status *st)
{
    int code = (*out = json_object()) ? PLM_OK : status_no_memory(st, 0, "a description of the data");
    for (int i = 0; i < c->n_phases; i++)
        for (int k = 0; k < c->phases[i].n_sources && !code; k++) {
            char name[PATH_MAX + 128], what[96];
            snprintf(name, sizeof name, "phase '%s', %s", c->phases[i].name, c->phases[i].mixture[k].path);
            code = corpus_describe(c->phases[i].mixture[k].path, what, st);
            if (!code && json_object_set_new(*out, name, json_string(what)) != 0)
                code = status_set(st, PLM_EINVAL, "the path '%s' is not UTF-8", c->phases[i].mixture[k].path);
            if (code)
                status_prefix(st, "phase '%s'", c->phases[i].name);
        }
    return code;
}

/* More pretraining changes nothing about how a model is spoken to. */
static int carry_templates(struct run *r, struct plm_status *st)
{
    if (!r->c->model_path)
        return PLM_OK;
    int code = model_templates_read(&r->templates, r->model_path, st);
    const char *const texts[3] = {r->templates.chat, r->templates.refine, r->templates.brought.text};
    static const char *const names[3] = {CHAT_TEMPLATE_FILE, REFINE_TEMPLATE_FILE, "chat_template.jinja"};
    for (int i = 0; i < 3 && !code; i++)
        if (texts[i])
            trainer_add_text(&r->t, names[i], texts[i]);
    return code;
}

static int run_open(struct run *r, struct comm *comm, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct trainer_options o = {.run_dir = c->run_dir, .tokenizer = c->tokenizer, .model_path = c->model_path ? r->model_path : NULL, .model = &c->model,
        .settings = c->settings, .seed = c->seed, .threads = c->threads, .max_rows = c->micro_batch, .max_len = longest_row(c), .adamw = c->adamw,
        .clip = c->clip, .checkpoint_keep = c->checkpoint_keep, .log_every = c->log_every, .total_steps = c->total_steps,
        .identity = run_config_identity, .max_skipped = c->max_skipped};
    int code = run_config_check_world(c, comm->size, st);
    if (!code && c->model_path)
        code = checkpoint_resolve_shared(c->model_path, comm, r->model_path, st);
    if (!code)
        code = run_config_hash(c, o.config_sha256, st);
    if (!code)
        code = describe_data(c, &o.data, st);
    code = comm_agree(comm, code, st);
    if (!code)
        code = trainer_open(&r->t, &o, comm, st);
    json_decref(o.data);
    if (!code)
        code = comm_agree(comm, carry_templates(r, st), st);
    return code ? code : comm_agree(comm, comm->rank == 0 ? check_data(r, st) : PLM_OK, st);
}

static void run_close(struct run *r)
{
    stream_close(r->stream);
    batch_free(&r->batch);
    trainer_close(&r->t);
    model_templates_free(&r->templates);
}

/* How often the phase that ends went through each of its sources. */
static void report_epochs(const struct run *r)
{
    const struct phase *phase = r->stream ? &r->c->phases[r->stream_phase] : NULL;
    for (int k = 0; phase && r->t.comm->rank == 0 && k < phase->n_sources; k++) {
        struct stream_usage u;
        if (!stream_usage(r->stream, k, phase->steps * phase->batch_rows, &u, NULL))
            log_info("phase '%s': %.2f epochs of %s", phase->name, u.epochs, phase->mixture[k].path);
    }
}

/* Open the data of the phase at this point and tell the loader what this rank will ask for. */
static int enter_phase(struct run *r, const struct curriculum_point *at, struct plm_status *st)
{
    const struct phase *phase = &r->c->phases[at->phase];
    report_epochs(r);
    stream_close(r->stream);
    r->stream = NULL;
    batch_free(&r->batch);
    const struct stream_options o = {.sources = phase->mixture, .n_sources = phase->n_sources, .seq_len = phase->seq_len, .seed = r->c->seed,
        .phase = (uint32_t)at->phase, .tokenizer_sha256 = r->t.tokenizer_sha256, .vocab_size = r->t.step.config.vocab_size,
        .prefetch_rows = 4 * (int64_t)r->c->micro_batch};
    int code = stream_open(&r->stream, &o, st);
    if (!code)
        code = batch_create(&r->batch, r->c->micro_batch, phase->seq_len, st);
    if (!code)
        code = stream_schedule(r->stream, curriculum_micro_sample(r->c, at, r->t.comm->size, r->t.comm->rank, 0), r->c->micro_batch,
                               (int64_t)r->c->micro_batch * r->t.comm->size, st);
    r->stream_phase = at->phase;
    if (code)
        status_prefix(st, "phase '%s'", phase->name);
    return comm_agree(r->t.comm, code, st);
}

/* Gradients of this rank's micro-batches: control->loss_sum and weight_sum are its shares. */
static int accumulate(struct run *r, const struct curriculum_point *at, struct step_control *control, struct plm_status *st)
{
    const int n = curriculum_micro_batches(r->c, at->phase, r->t.comm->size);
    step_zero_gradients(&r->t.step);
    for (int j = 0; j < n; j++) {
        int code = stream_read(r->stream, curriculum_micro_sample(r->c, at, r->t.comm->size, r->t.comm->rank, j), &r->batch, st);
        if (code)
            return code;
        step_forward(&r->t.step, &r->batch);
        step_backward(&r->t.step, &r->batch, r->batch.weight, r->t.nll);
        for (int64_t i = 0; i < (int64_t)r->batch.rows * r->batch.seq_len; i++) {
            control->loss_sum += (double)r->batch.weight[i] * r->t.nll[i];
            control->weight_sum += r->batch.weight[i];
        }
    }
    return PLM_OK;
}

struct step_outcome {
    struct update_outcome update;
    double seconds, wait_seconds;
};

static int train_step(struct run *r, const struct curriculum_point *at, struct step_outcome *out, struct plm_status *st)
{
    *out = (struct step_outcome){0};
    struct step_control control = {0};
    const double start = seconds_now(), waited = stream_wait_seconds(r->stream);
    int code = accumulate(r, at, &control, st);
    if (code) {
        comm_abort(r->t.comm, st); /* the other ranks are on their way into the reduction */
        return code;
    }
    out->wait_seconds = stream_wait_seconds(r->stream) - waited;
    control.nonfinite = !isfinite(control.loss_sum);
    code = trainer_update(&r->t, at->learning_rate, control, &out->update, st);
    out->seconds = seconds_now() - start;
    return code;
}

/* Evaluate every source; into `results` ({name: {...}}) as well when the run is complete. */
static int evaluate_all(struct run *r, int64_t max_tokens, json_t *results, struct plm_status *st)
{
    for (int i = 0; i < r->c->n_eval; i++) {
        const struct eval_source *source = &r->c->eval[i];
        struct evaluation e;
        const struct evaluation_options o = {.path = source->path, .tokenizer_sha256 = r->t.tokenizer_sha256, .rows = r->c->micro_batch,
            .seq_len = longest_row(r->c), .max_tokens = max_tokens};
        int code = evaluate(&e, &r->t.step, &o, r->t.comm, st);
        if (code)
            return code;
        if (r->t.comm->rank != 0)
            continue;
        const struct metric values[] = {{"eval", 0, source->name}, {"eval_loss", e.loss, NULL}, {"eval_tokens", (double)e.tokens, NULL},
                                        {"bits_per_byte", e.bits_per_byte, NULL}};
        if (r->t.state.step > r->t.first_step || !run_log_evaluated(r->t.log, source->name))
            code = run_log_write(r->t.log, r->t.state.step, values, e.bits_per_byte > 0 ? 4 : 3, st);
        if (code) {
            comm_abort(r->t.comm, st);
            return code;
        }
        char whole[64] = "";
        if (e.bits_per_byte > 0)
            snprintf(whole, sizeof whole, ", %.3f bits per byte", e.bits_per_byte);
        progress_note(&r->t.progress, "step %lld: held-out %s: loss %.4f over %lld tokens%s", (long long)r->t.state.step, source->name, e.loss,
                      (long long)e.tokens, whole);
        if (results)
            json_object_set_new(results, source->name, json_pack("{s:f, s:I, s:f, s:I}", "loss", e.loss, "tokens", (json_int_t)e.tokens,
                                "bits_per_byte", e.bits_per_byte, "text_bytes", (json_int_t)e.text_bytes));
    }
    return PLM_OK;
}

static int report_step(struct run *r, const struct curriculum_point *at, const struct step_outcome *o, double loss, struct plm_status *st)
{
    if (r->t.comm->rank != 0)
        return PLM_OK;
    const struct phase *phase = &r->c->phases[at->phase];
    const double rate = (double)phase->step_tokens / o->seconds;
    const struct metric values[] = {{"phase", 0, phase->name}, {"loss", loss, NULL}, {"lr", at->learning_rate, NULL}, {"grad_norm", o->update.grad_norm, NULL},
        {"tokens", (double)at->tokens_after, NULL}, {"predicted", o->update.control.weight_sum, NULL}, {"tokens_per_s", rate, NULL}, {"step_s", o->seconds, NULL},
        {"data_wait_s", o->wait_seconds, NULL}, {"skipped", o->update.applied ? 0 : 1, NULL}};
    const struct progress_status status = {.phase = phase->name, .step = at->step + 1, .total_steps = r->c->total_steps, .tokens = at->tokens_after,
        .total_tokens = r->c->total_tokens, .loss = loss, .learning_rate = at->learning_rate, .grad_norm = o->update.grad_norm, .tokens_per_second = rate};
    progress_update(&r->t.progress, &status);
    return run_log_write(r->t.log, at->step + 1, values, sizeof values / sizeof *values, st);
}

/* A session that was stopped or killed after a checkpoint owes the evaluation of that step. */
static int evaluate_owed(struct run *r, struct plm_status *st)
{
    const struct run_config *c = r->c;
    const int64_t step = r->t.state.step;
    bool owed = false;
    if (step == 0 || step >= c->total_steps || !c->eval_every || step % c->eval_every != 0)
        return PLM_OK;
    for (int i = 0; i < c->n_eval; i++)
        owed |= r->t.comm->rank == 0 && !run_log_evaluated(r->t.log, c->eval[i].name);
    const int code = comm_broadcast(r->t.comm, &owed, sizeof owed, 0, st);
    return code || !owed ? code : evaluate_all(r, c->eval_max_tokens, NULL, st);
}

static int run_steps(struct run *r, struct pretrain_result *result, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct curriculum_point at;
    int code = evaluate_owed(r, st);
    r->stream_phase = -1;
    while (!code && curriculum_at(c, r->t.state.step, &at)) {
        if (at.phase != r->stream_phase && (code = enter_phase(r, &at, st)))
            return code;
        struct step_outcome o;
        code = train_step(r, &at, &o, st);
        if (code)
            return code;
        const double loss = o.update.control.weight_sum > 0 ? o.update.control.loss_sum / o.update.control.weight_sum : 0;
        r->t.state.step = at.step + 1;
        r->t.state.tokens = at.tokens_after;
        r->t.state.samples += c->phases[at.phase].batch_rows;
        struct curriculum_point next;
        bool more = curriculum_at(c, r->t.state.step, &next);
        r->t.state.phase = more ? next.phase : at.phase;
        r->t.state.step_in_phase = more ? next.step_in_phase : at.step_in_phase + 1;
        trainer_state_add_loss(&r->t.state, loss);
        result->final_loss = loss;
        code = report_step(r, &at, &o, loss, st);
        if (code) {
            comm_abort(r->t.comm, st); /* only rank 0 writes */
            return code;
        }
        const bool stop = o.update.control.stop > 0;
        if (stop || !more || (c->checkpoint_every && r->t.state.step % c->checkpoint_every == 0))
            code = trainer_save(&r->t, NULL, st);
        if (stop) {
            result->stopped_by = signals_stop_requested() ? signals_stop_requested() : 15;
            return code;
        }
        if (!code && more && c->eval_every && r->t.state.step % c->eval_every == 0)
            code = evaluate_all(r, c->eval_max_tokens, NULL, st);
    }
    return code;
}

static int finish(struct run *r, struct plm_status *st)
{
    json_t *results = json_object();
    int code = evaluate_all(r, 0, results, st);
    if (code) {
        json_decref(results);
        return code;
    }
    if (r->t.comm->rank == 0) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/evaluation.json", r->c->run_dir);
        char *text = json_dumps(results, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        code = text ? file_update(path, text, strlen(text), st) : status_no_memory(st, 0, "the evaluation as text");
        free(text);
    }
    json_decref(results);
    return comm_agree(r->t.comm, code, st);
}

int pretrain_run(const struct run_config *c, struct comm *comm, struct pretrain_result *result, struct plm_status *st)
{
    struct run r = {.c = c};
    *result = (struct pretrain_result){0};
    int code = comm_agree(comm, signals_open(st), st);
    if (code)
        return code;
    code = run_open(&r, comm, st);
    if (!code)
        code = run_steps(&r, result, st);
    if (!code && !result->stopped_by) {
        report_epochs(&r);
        code = finish(&r, st);
    }
    result->steps = r.t.state.step;
    result->learned = r.t.state.learned > 0;
    run_close(&r);
    signals_close();
    return code;
}
