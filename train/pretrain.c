#include "train/pretrain.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/model/model.h"
#include "optim/clip.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/matmul.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/signals.h"

#define TOKENIZER_LIMIT ((size_t)256 << 20)

struct run {
    const struct run_config *c;
    struct comm *comm;
    struct matmul matmul;
    struct thread_pool *pool;
    struct step step;
    struct arena moments;
    float *m, *v;              /* (table.padded) */
    double *norm_partials;
    char *tokenizer;           /* text of tokenizer.json */
    size_t tokenizer_bytes;
    char tokenizer_sha256[SHA256_HEX];
    struct trainer_state state;
    int64_t first_step;        /* where this session began */
    int64_t skipped;           /* steps not applied in this session because something was not finite */
    struct stream *stream;     /* of phase `stream_phase` */
    int stream_phase;
    struct batch batch;
    float *nll;                /* (micro_batch * longest seq_len) */
    struct metrics *metrics;   /* rank 0 */
    int lock;                  /* rank 0: run_dir/.lock, or -1 */
    struct progress progress;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int longest_row(const struct run_config *c)
{
    int longest = 0;
    for (int i = 0; i < c->n_phases; i++)
        longest = c->phases[i].seq_len > longest ? c->phases[i].seq_len : longest;
    return longest;
}

/* The run's own tokenizer, by content: the path in the configuration may hold another one by now. */
static int check_tokenizer(const struct run *r, const char *checkpoint, struct plm_status *st)
{
    char path[PATH_MAX], hash[SHA256_HEX];
    if (snprintf(path, sizeof path, "%s/tokenizer.json", checkpoint) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", checkpoint);
    int code = sha256_file(path, hash, NULL, st);
    if (!code && strcmp(hash, r->tokenizer_sha256) != 0)
        code = status_set(st, PLM_EINVAL, "'%s' was trained with another tokenizer than '%s' is now; give this run another run_dir", checkpoint,
                          r->c->tokenizer);
    return code;
}

/* One trainer at a time in a run directory. The lock goes with the process, however it ends. */
static int lock_run_dir(struct run *r, struct plm_status *st)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.lock", r->c->run_dir) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", r->c->run_dir);
    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (r->lock < 0)
        return status_set(st, PLM_EIO, "cannot create '%s': %s", path, strerror(errno));
    if (flock(r->lock, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? status_set(st, PLM_EINVAL, "another process is training in '%s'; wait for it, or stop it", r->c->run_dir)
                                    : status_set(st, PLM_EIO, "cannot lock '%s': %s", path, strerror(errno));
    return PLM_OK;
}

/* Where to start: the newest checkpoint of the run, model.path, or random weights. Each rank reads for itself, from the path
 * that rank 0 found. */
static int load_state(struct run *r, struct plm_status *st)
{
    char path[PATH_MAX] = "", hash[SHA256_HEX];
    int code = r->comm->rank == 0 ? checkpoint_latest(r->c->run_dir, path, st) : PLM_OK;
    code = comm_agree(r->comm, code, st);
    if (!code)
        code = comm_broadcast(r->comm, path, sizeof path, 0, st);
    if (!code)
        code = comm_agree(r->comm, run_config_hash(r->c, hash, st), st);
    if (code)
        return code;
    memcpy(r->state.config_sha256, hash, sizeof hash);
    r->state.seed = r->c->seed;
    r->state.world_size = r->comm->size;
    const struct optimizer_slot slots[] = {{"m", r->m}, {"v", r->v}};
    const struct checkpoint checkpoint = {.config = &r->step.config, .table = &r->step.table, .params = r->step.weights, .slots = slots, .n_slots = 2};
    if (*path) {
        struct trainer_state state;
        code = checkpoint_load(path, &checkpoint, &state, st);
        if (!code && strcmp(state.config_sha256, hash) != 0)
            code = status_set(st, PLM_EINVAL, "'%s' belongs to a run with another configuration (model, data, schedule or seed differ); "
                              "give this run another run_dir, or remove that one", path);
        if (!code)
            code = check_tokenizer(r, path, st);
        if (!code) {
            r->state = state;
            r->state.world_size = r->comm->size;
            if (r->comm->rank == 0)
                log_info("continuing from %s (step %lld of %lld)", path, (long long)state.step, (long long)r->c->total_steps);
            if (r->comm->rank == 0 && state.world_size != r->comm->size)
                log_info("it was saved by %d ranks, now there are %d: the same samples, but sums may differ in the last bits", state.world_size,
                         r->comm->size);
        }
    } else if (r->c->model_path) {
        code = checkpoint_load_weights(r->c->model_path, &r->step.table, r->step.weights, st);
    }
    return comm_agree(r->comm, code, st);
}

/* What a phase or an evaluation would stumble over hours later: open every source that is still to come, once. */
static int check_data(const struct run *r, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct curriculum_point at;
    struct stream *stream = NULL;
    const int first = curriculum_at(c, r->state.step, &at) ? at.phase + 1 : c->n_phases; /* this phase's are opened next */
    int code = PLM_OK;
    for (int i = first; i < c->n_phases + c->n_eval && !code; i++) {
        const struct eval_source *eval = i < c->n_phases ? NULL : &c->eval[i - c->n_phases];
        const struct stream_source source = {eval ? eval->path : "", 1};
        const struct stream_options o = {.sources = eval ? &source : c->phases[i].mixture, .n_sources = eval ? 1 : c->phases[i].n_sources,
            .seq_len = eval ? longest_row(c) : c->phases[i].seq_len, .tokenizer_sha256 = r->tokenizer_sha256,
            .vocab_size = r->step.config.vocab_size};
        code = stream_open(&stream, &o, st);
        stream_close(stream);
        if (code)
            status_prefix(st, "%s '%s'", eval ? "eval source" : "phase", eval ? eval->name : c->phases[i].name);
    }
    return code;
}

static int run_open(struct run *r, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct model_config model = c->model;
    int code = file_read_text(&r->tokenizer, &r->tokenizer_bytes, c->tokenizer, TOKENIZER_LIMIT, st);
    struct tokenizer *tokenizer = NULL;
    if (!code)
        code = tokenizer_from_json(&tokenizer, r->tokenizer, r->tokenizer_bytes, c->tokenizer, st);
    if (!code)
        code = sha256_bytes(r->tokenizer, r->tokenizer_bytes, r->tokenizer_sha256, st);
    if (!code && c->model_path)
        code = checkpoint_config(c->model_path, &model, st);
    if (!code && tokenizer_vocab_size(tokenizer) > model.vocab_size)
        code = status_set(st, PLM_EINVAL, "tokenizer '%s' has %d tokens, model.vocab_size is %d", c->tokenizer,
                          (int)tokenizer_vocab_size(tokenizer), model.vocab_size);
    tokenizer_free(tokenizer);
    if (!code)
        code = run_config_check_world(c, r->comm->size, st);
    if (!code)
        code = pool_create(&r->pool, c->threads, st);
    matmul_select(&r->matmul);
    const int longest = longest_row(c);
    if (!code)
        code = step_create(&r->step, &model, c->micro_batch, longest, r->comm->size, c->seed, &r->matmul.ops, r->pool, st);
    for (int pass = 0; pass < 2 && !code; pass++) {
        r->m = arena_alloc(&r->moments, (size_t)r->step.table.padded, sizeof *r->m);
        r->v = arena_alloc(&r->moments, (size_t)r->step.table.padded, sizeof *r->v);
        r->norm_partials = arena_alloc(&r->moments, (size_t)norm_partials(r->step.table.padded), sizeof *r->norm_partials);
        r->nll = arena_alloc(&r->moments, (size_t)c->micro_batch * (size_t)longest, sizeof *r->nll);
        if (pass == 0)
            code = arena_commit(&r->moments, 0, "optimizer state", st);
    }
    if (!code && r->comm->rank == 0)
        code = directory_create(c->run_dir, st);
    if (!code && r->comm->rank == 0)
        code = lock_run_dir(r, st);
    code = comm_agree(r->comm, code, st);
    if (!code)
        code = load_state(r, st);
    if (code)
        return code;
    r->first_step = r->state.step;
    char path[PATH_MAX];
    if (r->comm->rank == 0) {
        code = check_data(r, st);
        snprintf(path, sizeof path, "%s/run.json", c->run_dir);
        if (!code)
            code = settings_save(c->settings, path, st);
        snprintf(path, sizeof path, "%s/metrics.jsonl", c->run_dir);
        if (!code)
            code = metrics_open(&r->metrics, path, r->state.step, st);
    }
    progress_open(&r->progress, r->comm->rank == 0 ? stderr : NULL, c->log_every);
    return comm_agree(r->comm, code, st);
}

static void run_close(struct run *r)
{
    progress_close(&r->progress);
    metrics_close(r->metrics);
    stream_close(r->stream);
    batch_free(&r->batch);
    arena_free(&r->moments);
    step_destroy(&r->step);
    pool_destroy(r->pool);
    free(r->tokenizer);
    if (r->lock >= 0)
        close(r->lock);
}

/* How often the phase that ends went through each of its sources. */
static void report_epochs(const struct run *r)
{
    const struct phase *phase = r->stream ? &r->c->phases[r->stream_phase] : NULL;
    for (int k = 0; phase && r->comm->rank == 0 && k < phase->n_sources; k++) {
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
        .phase = (uint32_t)at->phase, .tokenizer_sha256 = r->tokenizer_sha256, .vocab_size = r->step.config.vocab_size,
        .prefetch_rows = 4 * (int64_t)r->c->micro_batch};
    int code = stream_open(&r->stream, &o, st);
    if (!code)
        code = batch_create(&r->batch, r->c->micro_batch, phase->seq_len, st);
    if (!code)
        code = stream_schedule(r->stream, curriculum_micro_sample(r->c, at, r->comm->size, r->comm->rank, 0), r->c->micro_batch,
                               (int64_t)r->c->micro_batch * r->comm->size, st);
    r->stream_phase = at->phase;
    if (code)
        status_prefix(st, "phase '%s'", phase->name);
    return comm_agree(r->comm, code, st);
}

struct step_outcome {
    struct step_control control;
    double grad_norm, seconds, wait_seconds;
    bool applied;
};

/* Gradients of this rank's micro-batches: control->loss_sum and weight_sum are its shares. */
static int accumulate(struct run *r, const struct curriculum_point *at, struct step_control *control, struct plm_status *st)
{
    const int n = curriculum_micro_batches(r->c, at->phase, r->comm->size);
    step_zero_gradients(&r->step);
    for (int j = 0; j < n; j++) {
        int code = stream_read(r->stream, curriculum_micro_sample(r->c, at, r->comm->size, r->comm->rank, j), &r->batch, st);
        if (code)
            return code;
        step_forward(&r->step, &r->batch);
        step_backward(&r->step, &r->batch, r->batch.weight, r->nll);
        for (int64_t i = 0; i < (int64_t)r->batch.rows * r->batch.seq_len; i++) {
            control->loss_sum += (double)r->batch.weight[i] * r->nll[i];
            control->weight_sum += r->batch.weight[i];
        }
    }
    return PLM_OK;
}

static int train_step(struct run *r, const struct curriculum_point *at, struct step_outcome *out, struct plm_status *st)
{
    *out = (struct step_outcome){0};
    const double start = now(), waited = stream_wait_seconds(r->stream);
    int code = accumulate(r, at, &out->control, st);
    if (code) {
        comm_abort(r->comm, st); /* the other ranks are on their way into the reduction */
        return code;
    }
    out->wait_seconds = stream_wait_seconds(r->stream) - waited;
    out->control.stop = signals_stop_requested() != 0;
    out->control.nonfinite = !isfinite(out->control.loss_sum);
    code = comm_sum_floats(r->comm, r->step.grads, r->step.table.padded, st);
    if (!code)
        code = comm_step_control(r->comm, &out->control, st);
    if (code)
        return code;
    /* Rank 0's norm, so that ranks on different processors, whose last bits may differ, apply the same factor. */
    double sum = norm_sum_squares(r->step.grads, r->step.table.padded, r->norm_partials, r->pool);
    code = comm_broadcast(r->comm, &sum, sizeof sum, 0, st);
    if (code)
        return code;
    const double weight = out->control.weight_sum;
    out->grad_norm = weight > 0 ? sqrt(sum) / weight : 0;
    out->applied = weight > 0 && isfinite(sum) && out->control.nonfinite == 0;
    if (out->applied) {
        const struct adamw_range all = {0, r->step.table.padded, r->step.weights, r->step.grads, r->m, r->v};
        adamw_update(&r->c->adamw, &r->step.table, &all, ++r->state.updates, at->learning_rate, clip_factor(out->grad_norm, r->c->clip) / weight,
                     r->pool);
    }
    out->seconds = now() - start;
    return PLM_OK;
}

static int save(struct run *r, struct plm_status *st)
{
    int code = PLM_OK;
    if (r->comm->rank == 0) {
        char path[PATH_MAX];
        const struct optimizer_slot slots[] = {{"m", r->m}, {"v", r->v}};
        const struct checkpoint checkpoint = {.config = &r->step.config, .table = &r->step.table, .params = r->step.weights, .slots = slots,
            .n_slots = 2, .tokenizer = r->tokenizer, .tokenizer_bytes = r->tokenizer_bytes};
        code = checkpoint_save(r->c->run_dir, &checkpoint, &r->state, r->c->checkpoint_keep, path, st);
        if (!code)
            progress_note(&r->progress, "step %lld: saved %s", (long long)r->state.step, path);
    }
    return comm_agree(r->comm, code, st);
}

/* Evaluate every source; into `results` ({name: {...}}) as well when the run is complete. */
static int evaluate_all(struct run *r, int64_t max_tokens, json_t *results, struct plm_status *st)
{
    for (int i = 0; i < r->c->n_eval; i++) {
        const struct eval_source *source = &r->c->eval[i];
        struct evaluation e;
        const struct evaluation_options o = {.path = source->path, .tokenizer_sha256 = r->tokenizer_sha256, .rows = r->c->micro_batch,
            .seq_len = longest_row(r->c), .max_tokens = max_tokens};
        int code = evaluate(&e, &r->step, &o, r->comm, st);
        if (code)
            return code;
        if (r->comm->rank != 0)
            continue;
        const struct metric values[] = {{"eval", 0, source->name}, {"eval_loss", e.loss, NULL}, {"eval_tokens", (double)e.tokens, NULL},
                                        {"bits_per_byte", e.bits_per_byte, NULL}};
        if (r->state.step > r->first_step) /* a finished run, started once more, has them already */
            code = metrics_write(r->metrics, r->state.step, values, e.bits_per_byte > 0 ? 4 : 3, st);
        if (code) {
            comm_abort(r->comm, st);
            return code;
        }
        char whole[64] = "";
        if (e.bits_per_byte > 0)
            snprintf(whole, sizeof whole, ", %.3f bits per byte", e.bits_per_byte);
        progress_note(&r->progress, "step %lld: held-out %s: loss %.4f over %lld tokens%s", (long long)r->state.step, source->name, e.loss,
                      (long long)e.tokens, whole);
        if (results)
            json_object_set_new(results, source->name, json_pack("{s:f, s:I, s:f, s:I}", "loss", e.loss, "tokens", (json_int_t)e.tokens,
                                "bits_per_byte", e.bits_per_byte, "text_bytes", (json_int_t)e.text_bytes));
    }
    return PLM_OK;
}

static int report_step(struct run *r, const struct curriculum_point *at, const struct step_outcome *o, double loss, struct plm_status *st)
{
    if (r->comm->rank != 0)
        return PLM_OK;
    const struct phase *phase = &r->c->phases[at->phase];
    const double rate = (double)phase->step_tokens / o->seconds;
    const struct metric values[] = {{"phase", 0, phase->name}, {"loss", loss, NULL}, {"lr", at->learning_rate, NULL}, {"grad_norm", o->grad_norm, NULL},
        {"tokens", (double)at->tokens_after, NULL}, {"predicted", o->control.weight_sum, NULL}, {"tokens_per_s", rate, NULL}, {"step_s", o->seconds, NULL},
        {"data_wait_s", o->wait_seconds, NULL}, {"skipped", o->applied ? 0 : 1, NULL}};
    const struct progress_status status = {.phase = phase->name, .step = at->step + 1, .total_steps = r->c->total_steps, .tokens = at->tokens_after,
        .total_tokens = r->c->total_tokens, .loss = loss, .learning_rate = at->learning_rate, .grad_norm = o->grad_norm, .tokens_per_second = rate};
    progress_update(&r->progress, &status);
    return metrics_write(r->metrics, at->step + 1, values, sizeof values / sizeof *values, st);
}

static int run_steps(struct run *r, struct pretrain_result *result, struct plm_status *st)
{
    const struct run_config *c = r->c;
    struct curriculum_point at;
    int code = PLM_OK;
    r->stream_phase = -1;
    while (!code && curriculum_at(c, r->state.step, &at)) {
        if (at.phase != r->stream_phase && (code = enter_phase(r, &at, st)))
            return code;
        struct step_outcome o;
        code = train_step(r, &at, &o, st);
        if (code)
            return code;
        const double loss = o.control.weight_sum > 0 ? o.control.loss_sum / o.control.weight_sum : 0;
        if (!o.applied) {
            r->skipped++;
            if (r->comm->rank == 0)
                log_warn("step %lld skipped: %s", (long long)at.step + 1, o.control.weight_sum > 0 ? "loss or gradient is not finite" : "no token to predict");
        }
        r->state.step = at.step + 1;
        r->state.tokens = at.tokens_after;
        r->state.samples += c->phases[at.phase].batch_rows;
        struct curriculum_point next;
        bool more = curriculum_at(c, r->state.step, &next);
        r->state.phase = more ? next.phase : at.phase;
        r->state.step_in_phase = more ? next.step_in_phase : at.step_in_phase + 1;
        trainer_state_add_loss(&r->state, loss);
        result->final_loss = loss;
        code = report_step(r, &at, &o, loss, st);
        if (code) {
            comm_abort(r->comm, st); /* only rank 0 writes */
            return code;
        }
        const bool stop = o.control.stop > 0;
        if (stop || !more || (c->checkpoint_every && r->state.step % c->checkpoint_every == 0))
            code = save(r, st);
        if (stop) {
            result->stopped_by = signals_stop_requested() ? signals_stop_requested() : 15;
            return code;
        }
        if (!code && more && c->eval_every && r->state.step % c->eval_every == 0)
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
    if (r->comm->rank == 0) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/evaluation.json", r->c->run_dir);
        char *text = json_dumps(results, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        code = text ? file_replace(path, text, strlen(text), st) : status_no_memory(st, 0, "the evaluation as text");
        free(text);
    }
    json_decref(results);
    return comm_agree(r->comm, code, st);
}

int pretrain_run(const struct run_config *c, struct comm *comm, struct pretrain_result *result, struct plm_status *st)
{
    struct run r = {.c = c, .comm = comm, .lock = -1};
    *result = (struct pretrain_result){0};
    int code = comm_agree(comm, signals_open(st), st);
    if (code)
        return code;
    code = run_open(&r, st);
    if (!code && comm->rank == 0) {
        log_info("%.2f M parameters, %lld steps, %.2f M tokens; %d ranks x %d threads, %s kernels, %s matrix products",
                 (double)r.step.table.parameters / 1e6, (long long)c->total_steps, (double)c->total_tokens / 1e6, comm->size, pool_size(r.pool),
                 r.matmul.ops.name, r.matmul.library);
        log_set_sink(progress_log_sink, &r.progress);
    }
    if (!code)
        code = run_steps(&r, result, st);
    if (!code && !result->stopped_by) {
        report_epochs(&r);
        code = finish(&r, st);
    }
    result->steps = r.state.step;
    if (r.skipped && comm->rank == 0)
        log_warn("%lld of %lld steps were skipped because something was not finite", (long long)r.skipped, (long long)(r.state.step - r.first_step));
    if (comm->rank == 0)
        log_set_sink(NULL, NULL);
    run_close(&r);
    signals_close();
    return code;
}
