#include "train/trainer.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/directory_lock.h"
#include "data/files.h"
#include "infer/base/log.h"
#include "optim/clip.h"
#include "train/checkpoint.h"
#include "train/files.h"
#include "train/run_identity.h"
#include "train/signals.h"

#define TOKENIZER_LIMIT ((size_t)256 << 20)

/* The tensors whose values the optimizer updates. */
static const struct tensor_table *trained_table(const struct trainer *t) { return t->adapted ? &t->lora.table : &t->step.table; }
static float *trained_params(struct trainer *t) { return t->adapted ? t->lora.params : t->step.weights; }
static float *trained_grads(struct trainer *t) { return t->adapted ? t->lora.grads : t->step.grads; }

/* ---- opening ---- */

/* The run's own tokenizer, by content: the path in the configuration may hold another one by now. */
static int check_tokenizer(const struct trainer *t, const char *checkpoint, struct plm_status *st)
{
    char path[PATH_MAX], hash[SHA256_HEX];
    if (snprintf(path, sizeof path, "%s/tokenizer.json", checkpoint) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", checkpoint);
    int code = sha256_file(path, hash, NULL, st);
    if (!code && strcmp(hash, t->tokenizer_sha256) != 0)
        code = status_set(st, PLM_EINVAL, "'%s' was trained with another tokenizer than '%s' is now; give this run another run_dir", checkpoint,
                          t->o.tokenizer ? t->o.tokenizer : t->o.model_path);
    return code;
}

static int load_tokenizer(struct trainer *t, struct plm_status *st)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s%s", t->o.tokenizer ? t->o.tokenizer : t->o.model_path, t->o.tokenizer ? "" : "/tokenizer.json") >=
        (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", t->o.model_path);
    int code = file_read_text(&t->tokenizer_text, &t->tokenizer_bytes, path, TOKENIZER_LIMIT, st);
    if (!code)
        code = tokenizer_from_json(&t->tokenizer, t->tokenizer_text, t->tokenizer_bytes, path, st);
    if (!code)
        code = tokenizer_read_config(t->tokenizer, path, st);
    return code ? code : sha256_bytes(t->tokenizer_text, t->tokenizer_bytes, t->tokenizer_sha256, st);
}

/* What ends a text of the model that the run begins with ends one of every checkpoint. */
static int load_ends(struct trainer *t, const struct model_config *model, struct plm_status *st)
{
    int code = end_tokens_read_directory(&t->view.ends, t->tokenizer, model->vocab_size, t->o.model_path, st);
    if (code)
        return code;
    t->generation_config = end_tokens_generation_config(&t->view.ends, t->tokenizer);
    t->tokenizer_config = end_tokens_tokenizer_config(t->tokenizer);
    if (!t->generation_config || !t->tokenizer_config)
        return status_no_memory(st, 0, "the ends of a text");
    trainer_add_text(t, "generation_config.json", t->generation_config);
    trainer_add_text(t, "tokenizer_config.json", t->tokenizer_config);
    return PLM_OK;
}

/* What a checkpoint of this run holds. With LoRA the optimizer's file has the adapters as well: they are what continues. */
static int checkpoint_slots(struct trainer *t, struct optimizer_slot slots[3])
{
    int n = 0;
    if (t->adapted)
        slots[n++] = (struct optimizer_slot){"adapter", t->lora.params};
    slots[n++] = (struct optimizer_slot){"m", t->m};
    slots[n++] = (struct optimizer_slot){"v", t->v};
    return n;
}

static int continue_from(struct trainer *t, const char *path, struct plm_status *st)
{
    struct optimizer_slot slots[3];
    struct trainer_state state;
    const struct checkpoint checkpoint = {.config = &t->step.config, .table = &t->step.table, .params = t->step.weights, .slots = slots,
        .n_slots = checkpoint_slots(t, slots), .slot_table = trained_table(t)};
    int code = checkpoint_load(path, &checkpoint, &state, st);
    if (!code)
        code = check_tokenizer(t, path, st);
    const bool same_data = !state.data || !t->o.data || json_equal(state.data, t->o.data);
    if (!code && (strcmp(state.config_sha256, t->o.config_sha256) != 0 || !same_data))
        code = run_identity_differs(path, t->o.run_dir, t->o.settings, t->o.identity, state.data, t->o.data, st);
    if (!code && t->o.extra)
        code = extra_params_load(t->o.extra, path, true, st);
    if (code) {
        trainer_state_free(&state);
        return code;
    }
    trainer_state_free(&t->state);
    t->state = state;
    t->state.world_size = t->comm->size;
    if (!state.data && t->o.data && t->comm->rank == 0)
        log_info("'%s' does not say what its data held: it is taken to be what is there now", path);
    if (!state.data)
        t->state.data = json_incref(t->o.data);
    char total[32] = "";
    if (t->o.total_steps)
        snprintf(total, sizeof total, " of %lld", (long long)t->o.total_steps);
    if (t->comm->rank == 0 && trainer_is_complete(t))
        log_info("the run '%s' is complete: all %lld steps are done, in %s", t->o.run_dir, (long long)state.step, path);
    else if (t->comm->rank == 0)
        log_info("continuing from %s (step %lld%s)", path, (long long)state.step, total);
    if (t->comm->rank == 0 && state.world_size != t->comm->size)
        log_info("it was saved by %d ranks, now there are %d: the same samples, but sums may differ in the last bits", state.world_size, t->comm->size);
    return PLM_OK;
}

/* Where to start: the newest checkpoint of the run, model_path, or random weights. Each rank reads for itself, from the path that rank 0 found. */
static int load_state(struct trainer *t, struct plm_status *st)
{
    char path[PATH_MAX] = "";
    int code = t->comm->rank == 0 ? checkpoint_latest(t->o.run_dir, path, st) : PLM_OK;
    code = comm_agree(t->comm, code, st);
    if (!code)
        code = comm_broadcast(t->comm, path, sizeof path, 0, st);
    if (code)
        return code;
    memcpy(t->state.config_sha256, t->o.config_sha256, sizeof t->state.config_sha256);
    t->state.seed = t->o.seed;
    t->state.data = json_incref(t->o.data);
    t->state.world_size = t->comm->size;
    if (t->o.model_path && (!*path || t->o.lora))
        code = checkpoint_load_weights(t->o.model_path, &t->step.table, t->step.weights, st);
    if (!code && t->o.lora) { /* around the weights that the run began from */
        code = lora_create(&t->lora, &t->step.table, t->o.lora, t->step.weights, t->o.seed, t->comm->size, st);
        t->adapted = !code;
    }
    for (int pass = 0; pass < 2 && !code; pass++) {
        const size_t trained = (size_t)trained_table(t)->padded;
        t->m = arena_alloc(&t->moments, trained, sizeof *t->m);
        t->v = arena_alloc(&t->moments, trained, sizeof *t->v);
        t->norm_partials = arena_alloc(&t->moments, (size_t)norm_partials((int64_t)trained), sizeof *t->norm_partials);
        t->nll = arena_alloc(&t->moments, (size_t)t->o.max_rows * (size_t)t->o.max_len, sizeof *t->nll);
        if (pass == 0)
            code = arena_commit(&t->moments, 0, "optimizer state", st);
    }
    if (!code && *path)
        code = continue_from(t, path, st);
    return comm_agree(t->comm, code, st);
}

bool trainer_is_complete(const struct trainer *t)
{
    return t->o.total_steps > 0 && t->state.step >= t->o.total_steps;
}

static int open_files(struct trainer *t, struct plm_status *st)
{
    char path[PATH_MAX];
    int code = PLM_OK;
    if (t->comm->rank == 0 && t->o.settings) {
        snprintf(path, sizeof path, "%s/run.json", t->o.run_dir);
        code = settings_save(t->o.settings, path, st);
    }
    if (t->comm->rank == 0 && !code)
        code = run_log_open(&t->log, t->o.run_dir, t->state.step, st);
    progress_open(&t->progress, t->comm->rank == 0 ? stderr : NULL, t->o.log_every);
    return code;
}

/* Each rank reads its own files: are they the same? */
static int ranks_compare(const struct trainer *t, struct plm_status *st)
{
    json_t *seen = json_pack("{s:s, s:s, s:O*}", "tokenizer_sha256", t->tokenizer_sha256, "configuration_sha256", t->o.config_sha256, "data",
                             t->o.data);
    char *text = seen ? json_dumps(seen, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(seen);
    int code = comm_agree(t->comm, text ? PLM_OK : status_no_memory(st, 0, "what the ranks have read"), st);
    if (!code)
        code = ranks_agree(t->comm, "tokenizer, model or data", text, NULL, st);
    free(text);
    return code;
}

int trainer_open(struct trainer *t, const struct trainer_options *o, struct comm *comm, struct plm_status *st)
{
    *t = (struct trainer){.o = *o, .comm = comm, .lock = -1};
    json_incref(t->o.data); /* the caller keeps its own reference */
    struct model_config model = {0};
    int code = load_tokenizer(t, st);
    if (!code && o->model_path)
        code = checkpoint_config(o->model_path, &model, st);
    else if (!code)
        model = *o->model;
    if (!code && tokenizer_vocab_size(t->tokenizer) > model.vocab_size)
        code = status_set(st, PLM_EINVAL, "tokenizer '%s' has %d tokens, model.vocab_size is %d", o->tokenizer ? o->tokenizer : o->model_path,
                          (int)tokenizer_vocab_size(t->tokenizer), model.vocab_size);
    if (!code)
        code = load_ends(t, &model, st);
    if (!code)
        code = pool_create(&t->pool, o->threads, st);
    matmul_select(&t->matmul);
    if (!code)
        code = step_create(&t->step, &model, o->max_rows, o->max_len, comm->size, o->seed, &t->matmul.ops, t->pool, st);
    code = comm_agree(comm, code, st);
    if (!code)
        code = ranks_compare(t, st);
    if (!code && comm->rank == 0)
        code = directory_create(o->run_dir, st);
    if (!code && comm->rank == 0)
        code = directory_lock(&t->lock, o->run_dir, DIRECTORY_LOCK_SECONDS, st);
    code = comm_agree(comm, code, st);
    if (!code)
        code = load_state(t, st);
    if (code)
        return code;
    t->first_step = t->state.step;
    t->view = (struct plm_model){.config = t->step.config, .table = t->step.table, .weights = t->step.bound, .tokenizer = t->tokenizer,
                                 .ends = t->view.ends};
    code = comm_agree(comm, open_files(t, st), st);
    if (code || comm->rank != 0)
        return code;
    char steps[32] = "";
    if (o->total_steps) /* preference learning does not know them before its data is there */
        snprintf(steps, sizeof steps, ", %lld steps", (long long)o->total_steps);
    log_info("%.2f M parameters%s; %d ranks x %d threads, %s kernels, %s matrix products", (double)t->step.table.parameters / 1e6, steps, comm->size,
             pool_size(t->pool), t->matmul.ops.name, t->matmul.library);
    if (t->adapted)
        log_info("LoRA of rank %d, alpha %g: %.3f M parameters are trained", o->lora->rank, o->lora->alpha, (double)t->lora.table.parameters / 1e6);
    log_set_sink(progress_log_sink, &t->progress);
    return PLM_OK;
}

void trainer_close(struct trainer *t)
{
    if (t->skipped && t->comm->rank == 0)
        log_warn("%lld of %lld steps were skipped: something was not finite, or there was no token to predict", (long long)t->skipped,
                 (long long)t->tried);
    if (t->comm && t->comm->rank == 0)
        log_set_sink(NULL, NULL);
    progress_close(&t->progress);
    run_log_close(t->log);
    if (t->adapted)
        lora_destroy(&t->lora);
    arena_free(&t->moments);
    step_destroy(&t->step);
    pool_destroy(t->pool);
    tokenizer_free(t->tokenizer);
    free(t->tokenizer_text);
    free(t->view.ends.ids);
    free(t->generation_config);
    free(t->tokenizer_config);
    if (t->comm)
        directory_unlock(t->lock);
    trainer_state_free(&t->state);
    json_decref(t->o.data);
    *t = (struct trainer){.lock = -1};
}

/* ---- updates ---- */

/* An update that is not applied. The weights stay as they are, so that a loss that is not finite stays so. */
static int skip(struct trainer *t, const char *why, struct plm_status *st)
{
    t->skipped++;
    t->state.skipped_in_row++;
    if (t->comm->rank == 0)
        log_warn("step %lld skipped: %s", (long long)t->state.step + 1, why);
    if (!t->o.max_skipped || t->state.skipped_in_row < t->o.max_skipped)
        return PLM_OK;
    return status_set(st, PLM_ELIMIT, "%lld steps in a row, up to step %lld, were skipped: %s. The checkpoints in '%s' from before are kept; "
                      "continue from one with a lower learning rate or other data, or raise max_skipped_steps", (long long)t->state.skipped_in_row,
                      (long long)t->state.step + 1, why, t->o.run_dir);
}

int trainer_update(struct trainer *t, double lr, struct step_control control, struct update_outcome *out, struct plm_status *st)
{
    const struct tensor_table *table = trained_table(t);
    t->tried++;
    struct extra_params *extra = t->o.extra;
    if (t->adapted)
        lora_gradients(&t->lora, t->step.grads, &t->matmul.ops, t->pool);
    float *grads = trained_grads(t);
    control.stop = signals_stop_requested() != 0;
    *out = (struct update_outcome){.control = control};
    int code = comm_sum_floats(t->comm, grads, table->padded, st);
    if (!code && extra)
        code = comm_sum_floats(t->comm, extra->grads, extra->table.padded, st);
    if (!code)
        code = comm_step_control(t->comm, &out->control, st);
    if (code)
        return code;
    /* Rank 0's norm, so that ranks on different processors, whose last bits may differ, apply the same factor. */
    double sum = norm_sum_squares(grads, table->padded, t->norm_partials, t->pool);
    if (extra)
        sum += norm_sum_squares(extra->grads, extra->table.padded, t->norm_partials, t->pool);
    code = comm_broadcast(t->comm, &sum, sizeof sum, 0, st);
    if (code)
        return code;
    const double weight = out->control.weight_sum;
    out->grad_norm = weight > 0 ? sqrt(sum) / weight : 0;
    out->applied = weight > 0 && isfinite(sum) && out->control.nonfinite == 0;
    if (!out->applied)
        return skip(t, weight > 0 ? "loss or gradient is not finite" : "no token to predict", st);
    t->state.skipped_in_row = 0;
    t->state.learned += sum > 0;
    const struct adamw_range all = {0, table->padded, trained_params(t), grads, t->m, t->v};
    const double scale = clip_factor(out->grad_norm, t->o.clip) / weight;
    adamw_update(&t->o.adamw, table, &all, ++t->state.updates, lr, scale, t->pool);
    if (extra) {
        const struct adamw_range beside = {0, extra->table.padded, extra->params, extra->grads, extra->m, extra->v};
        adamw_update(&t->o.adamw, &extra->table, &beside, t->state.updates, lr, scale, t->pool);
    }
    if (t->adapted)
        lora_merge(&t->lora, t->step.weights, &t->matmul.ops, t->pool);
    return PLM_OK;
}

void trainer_reset_optimizer(struct trainer *t)
{
    const size_t n = (size_t)trained_table(t)->padded;
    memset(t->m, 0, n * sizeof *t->m);
    memset(t->v, 0, n * sizeof *t->v);
    if (t->o.extra) {
        memset(t->o.extra->m, 0, (size_t)t->o.extra->table.padded * sizeof(float));
        memset(t->o.extra->v, 0, (size_t)t->o.extra->table.padded * sizeof(float));
    }
    t->state.updates = 0;
}

/* ---- checkpoints ---- */

void trainer_add_text(struct trainer *t, const char *name, const char *text)
{
    if (t->n_texts < TRAINER_TEXTS)
        t->texts[t->n_texts++] = (struct trainer_text){name, text};
}

static int write_more(void *ctx, const char *dir, const char **names, int *n_names, struct plm_status *st)
{
    struct trainer *t = ctx;
    char path[PATH_MAX];
    int code = PLM_OK;
    for (int i = 0; i < t->n_texts && !code; i++) {
        if (snprintf(path, sizeof path, "%s/%s", dir, t->texts[i].name) >= (int)sizeof path)
            return status_set(st, PLM_EINVAL, "path too long: '%s'", dir);
        code = file_write_synced(path, t->texts[i].text, strlen(t->texts[i].text), st);
        names[(*n_names)++] = t->texts[i].name;
    }
    if (!code && t->adapted) {
        code = lora_save(&t->lora, dir, t->o.model_path ? t->o.model_path : "", st);
        names[(*n_names)++] = "adapter_model.safetensors";
        names[(*n_names)++] = "adapter_config.json";
    }
    if (!code && t->o.extra) {
        code = extra_params_save(t->o.extra, dir, names + *n_names, st);
        *n_names += 2;
    }
    return code;
}

int trainer_save(struct trainer *t, char *path, struct plm_status *st)
{
    int code = PLM_OK;
    if (t->comm->rank == 0) {
        char saved[PATH_MAX];
        struct optimizer_slot slots[3];
        const struct checkpoint checkpoint = {.config = &t->step.config, .table = &t->step.table, .params = t->step.weights, .slots = slots,
            .n_slots = checkpoint_slots(t, slots), .slot_table = trained_table(t), .tokenizer = t->tokenizer_text,
            .tokenizer_bytes = t->tokenizer_bytes, .write_more = write_more, .ctx = t};
        code = checkpoint_save(t->o.run_dir, &checkpoint, &t->state, t->state.skipped_in_row ? 0 : t->o.checkpoint_keep, saved, st);
        if (!code)
            progress_note(&t->progress, "step %lld: saved %s", (long long)t->state.step, saved);
        if (!code && path)
            strcpy(path, saved);
    }
    return comm_agree(t->comm, code, st);
}
