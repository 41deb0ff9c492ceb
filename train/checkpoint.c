#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/base/log.h"
#include "infer/format/safetensors_set.h"
#include "train/files.h"

static const char *const file_names[] = {"config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors",
                                         "trainer.json"};
enum { N_FILES = sizeof file_names / sizeof *file_names };

/* dir/name; false when it does not fit. */
static bool join(char out[PATH_MAX], const char *dir, const char *name)
{
    return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX;
}

static int too_long(const char *dir, struct plm_status *st)
{
    return status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", dir);
}

/* Writing */

static int write_text(const char *dir, const char *name, const char *text, size_t bytes, struct plm_status *st)
{
    char path[PATH_MAX];
    return join(path, dir, name) ? file_write_synced(path, text, bytes, st) : too_long(dir, st);
}

/* "m.model.norm.weight", or the tensor's own name without a prefix. */
static void stored_name(char *out, size_t size, const char *prefix, const struct tensor_desc *d)
{
    snprintf(out, size, "%s%s%s", prefix, *prefix ? "." : "", d->name);
}

static int write_tensors(const char *dir, const char *name, const struct tensor_table *t, const struct optimizer_slot *slots,
                         int n_slots, struct plm_status *st)
{
    char path[PATH_MAX], tensor[128];
    if (!join(path, dir, name))
        return too_long(dir, st);
    struct safetensors_writer *w;
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    code = safetensors_set_metadata(w, "format", "pt", st); /* what Hugging Face's loader insists on */
    for (int i = 0; i < n_slots * t->n_tensors && !code; i++) {
        const struct tensor_desc *d = &t->tensors[i % t->n_tensors];
        stored_name(tensor, sizeof tensor, slots[i / t->n_tensors].prefix, d);
        const int64_t shape[2] = {d->n_dims == 1 ? d->cols : d->rows, d->cols};
        code = safetensors_declare(w, tensor, DTYPE_F32, d->n_dims, shape, st);
    }
    for (int i = 0; i < n_slots * t->n_tensors && !code; i++) {
        const struct tensor_desc *d = &t->tensors[i % t->n_tensors];
        code = safetensors_write(w, slots[i / t->n_tensors].data + d->offset, sizeof(float) * (size_t)tensor_elements(d), st);
    }
    if (!code)
        return safetensors_finish(w, st);
    safetensors_discard(w);
    return code;
}

static const struct tensor_table *slot_table(const struct checkpoint *c) { return c->slot_table ? c->slot_table : c->table; }

static int write_all(const char *dir, const struct checkpoint *c, const struct trainer_state *state, struct plm_status *st)
{
    const struct optimizer_slot weights = {"", c->params};
    const char *names[N_FILES + CHECKPOINT_MORE];
    int n_more = 0;
    memcpy(names, file_names, sizeof file_names);
    char *config = model_config_to_json(c->config), *trainer = trainer_state_to_json(state);
    int code = config && trainer ? PLM_OK : status_no_memory(st, 0, "a checkpoint");
    if (!code)
        code = write_text(dir, "config.json", config, strlen(config), st);
    if (!code)
        code = write_text(dir, "tokenizer.json", c->tokenizer, c->tokenizer_bytes, st);
    if (!code)
        code = write_tensors(dir, "model.safetensors", c->table, &weights, 1, st);
    if (!code)
        code = write_tensors(dir, "optimizer.safetensors", slot_table(c), c->slots, c->n_slots, st);
    if (!code)
        code = write_text(dir, "trainer.json", trainer, strlen(trainer), st);
    if (!code && c->write_more)
        code = c->write_more(c->ctx, dir, names + N_FILES, &n_more, st);
    if (!code)
        code = manifest_write(dir, names, N_FILES + n_more, st);
    if (!code)
        code = directory_sync(dir, st);
    free(config);
    free(trainer);
    return code;
}

/* The step of a checkpoint's directory name, or -1. */
static int64_t step_of(const char *name)
{
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return -1;
    char *end;
    errno = 0;
    long long step = strtoll(name + 5, &end, 10);
    return *end || errno ? -1 : step;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Steps of the checkpoint directories of a run, newest first; malloc'ed. A missing run directory has none. */
static int list_steps(const char *run_dir, int64_t **steps, size_t *n, struct plm_status *st)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(run_dir);
    if (!d)
        return errno == ENOENT ? PLM_OK : status_set(st, PLM_EIO, "cannot open directory '%s': %s", run_dir, strerror(errno));
    int code = PLM_OK;
    size_t capacity = 0;
    for (struct dirent *e; !code && (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step < 0)
            continue;
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            int64_t *grown = realloc(*steps, capacity * sizeof *grown);
            if (!grown) {
                code = status_no_memory(st, capacity * sizeof *grown, "the list of checkpoints");
                break;
            }
            *steps = grown;
        }
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n)
        qsort(*steps, *n, sizeof **steps, descending);
    return code;
}

static bool step_path(char out[PATH_MAX], const char *run_dir, const char *before, int64_t step, const char *after)
{
    return snprintf(out, PATH_MAX, "%s/%sstep-%08lld%s", run_dir, before, (long long)step, after) < PATH_MAX;
}

/* What a killed run left behind. */
static void remove_temporaries(const char *run_dir)
{
    DIR *d = opendir(run_dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        char path[PATH_MAX];
        struct plm_status st = {0};
        if (strncmp(e->d_name, ".step-", 6) == 0 && n > 10 && strcmp(e->d_name + n - 4, ".tmp") == 0 &&
            join(path, run_dir, e->d_name) && directory_remove(path, &st))
            log_warn("%s", st.message);
    }
    closedir(d);
}

/* Remove the oldest up to and including `newest` so that `keep` of those stay. Later steps belong to a part of the run
 * that was given up: they neither count nor go. */
static void prune(const char *run_dir, int64_t newest, int keep)
{
    struct plm_status st = {0};
    int64_t *steps;
    size_t n;
    int kept = 0;
    if (list_steps(run_dir, &steps, &n, &st))
        log_warn("%s", st.message);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX], manifest[PATH_MAX];
        struct stat info;
        if (steps[i] > newest || !step_path(path, run_dir, "", steps[i], "") || lstat(path, &info) != 0 || !S_ISDIR(info.st_mode) ||
            !join(manifest, path, "manifest.json") || access(manifest, F_OK) != 0)
            continue; /* a link is somebody's own arrangement */
        if (++kept > keep && directory_remove(path, &st))
            log_warn("%s", st.message);
    }
    free(steps);
}

int checkpoint_save(const char *run_dir, const struct checkpoint *c, const struct trainer_state *state, int keep,
                    char *path, struct plm_status *st)
{
    char temporary[PATH_MAX], final[PATH_MAX];
    if (!step_path(temporary, run_dir, ".", state->step, ".tmp") || !step_path(final, run_dir, "", state->step, ""))
        return too_long(run_dir, st);
    int code = PLM_OK;
    remove_temporaries(run_dir);
    if (mkdir(temporary, 0777) != 0)
        code = status_set(st, PLM_EIO, "cannot create directory '%s': %s", temporary, strerror(errno));
    if (!code)
        code = write_all(temporary, c, state, st);
    if (!code)
        code = directory_publish(temporary, final, st);
    if (!code)
        code = directory_sync(run_dir, st);
    if (code) {
        directory_remove(temporary, NULL);
        if (access(run_dir, F_OK) != 0 && errno == ENOENT) /* it may go at any moment */
            code = status_set(st, PLM_EIO, "the run directory '%s' is gone", run_dir);
        return status_prefix(st, "checkpoint of step %lld not saved (earlier ones are untouched)", (long long)state->step);
    }
    if (keep > 0)
        prune(run_dir, state->step, keep);
    if (path)
        strcpy(path, final);
    return PLM_OK;
}

/* Reading */

static int open_tensors(struct safetensors_set *s, const char *dir, const char *name, struct plm_status *st)
{
    char path[PATH_MAX];
    return join(path, dir, name) ? safetensors_set_open_file(s, path, st) : too_long(dir, st);
}

static int read_text(struct mapped_file *m, const char *dir, const char *name, char path[PATH_MAX], struct plm_status *st)
{
    *m = (struct mapped_file){0};
    return join(path, dir, name) ? mapped_open(m, path, st) : too_long(dir, st);
}

/* Tensor `prefix.name` of a file, which must have the table's shape (and be F32 when exact). */
static int find_tensor(const struct safetensors_set *s, const char *where, const char *prefix, const struct tensor_desc *d,
                       bool exact, const struct stored_tensor **out, struct plm_status *st)
{
    char name[128];
    stored_name(name, sizeof name, prefix, d);
    const struct stored_tensor *t = *out = safetensors_set_find(s, name);
    if (!t)
        return status_set(st, PLM_EFORMAT, "%s: tensor '%s' is missing", where, name);
    if (exact && t->type != DTYPE_F32)
        return status_set(st, PLM_EFORMAT, "%s: tensor '%s' is %s, expected f32", where, name, dtype_info(t->type)->name);
    bool same = t->n_dims == d->n_dims && t->shape[t->n_dims - 1] == d->cols && (d->n_dims == 1 || t->shape[0] == d->rows);
    if (same)
        return PLM_OK;
    char found[96] = "";
    for (int i = 0, n = 0; i < t->n_dims; i++)
        n += snprintf(found + n, sizeof found - (size_t)n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    if (d->n_dims == 1)
        return status_set(st, PLM_EFORMAT, "%s: tensor '%s' has shape (%s), expected (%lld)", where, name, found,
                          (long long)d->cols);
    return status_set(st, PLM_EFORMAT, "%s: tensor '%s' has shape (%s), expected (%lld, %lld); is it of another model "
                      "configuration?", where, name, found, (long long)d->rows, (long long)d->cols);
}

static int check_tensors(const struct safetensors_set *s, const char *where, const struct tensor_table *t,
                         const struct optimizer_slot *slots, int n_slots, bool exact, struct plm_status *st)
{
    const struct stored_tensor *unused;
    int code = PLM_OK;
    for (int i = 0; i < n_slots * t->n_tensors && !code; i++)
        code = find_tensor(s, where, slots[i / t->n_tensors].prefix, &t->tensors[i % t->n_tensors], exact, &unused, st);
    if (!code && exact && s->n_tensors != n_slots * t->n_tensors)
        code = status_set(st, PLM_EFORMAT, "%s: %d tensors, expected %d", where, s->n_tensors, n_slots * t->n_tensors);
    return code;
}

/* After check_tensors. */
static void fill_arena(const struct safetensors_set *s, const struct tensor_table *t, const struct optimizer_slot *slot)
{
    for (int i = 0; i < t->n_tensors; i++) {
        const struct tensor_desc *d = &t->tensors[i];
        char name[128];
        stored_name(name, sizeof name, slot->prefix, d);
        const struct stored_tensor *from = safetensors_set_find(s, name);
        for (int64_t row = 0; row < d->rows; row++)
            dtype_to_f32(from->type, slot->data + d->offset + row * d->cols,
                         (const char *)from->data + (size_t)row * dtype_row_bytes(from->type, d->cols), d->cols);
    }
}

int checkpoint_verify(const char *dir, struct plm_status *st)
{
    int code = manifest_verify(dir, st);
    char path[PATH_MAX];
    for (int i = 0; i < N_FILES && !code; i++)
        if (!join(path, dir, file_names[i]))
            code = too_long(dir, st);
        else if (access(path, R_OK) != 0)
            code = status_set(st, errno == ENOENT ? PLM_EFORMAT : PLM_EIO, "'%s' is incomplete: %s: %s", dir, file_names[i], strerror(errno));
    return code;
}

static int read_state(const char *dir, struct trainer_state *state, struct plm_status *st)
{
    struct mapped_file text;
    char path[PATH_MAX];
    int code = read_text(&text, dir, "trainer.json", path, st);
    if (!code)
        code = trainer_state_from_json(state, (const char *)text.data, text.size, path, st);
    mapped_close(&text);
    return code;
}

int checkpoint_load(const char *dir, const struct checkpoint *c, struct trainer_state *state, struct plm_status *st)
{
    const struct optimizer_slot weights = {"", c->params};
    struct safetensors_set model = {0}, optimizer = {0};
    struct trainer_state read = {0};
    int code = checkpoint_verify(dir, st);
    if (!code)
        code = read_state(dir, &read, st);
    if (!code)
        code = open_tensors(&model, dir, "model.safetensors", st);
    if (!code)
        code = check_tensors(&model, "model.safetensors", c->table, &weights, 1, true, st);
    if (!code && c->n_slots > 0)
        code = open_tensors(&optimizer, dir, "optimizer.safetensors", st);
    if (!code && c->n_slots > 0)
        code = check_tensors(&optimizer, "optimizer.safetensors", slot_table(c), c->slots, c->n_slots, true, st);
    if (!code) {
        fill_arena(&model, c->table, &weights);
        for (int i = 0; i < c->n_slots; i++)
            fill_arena(&optimizer, slot_table(c), &c->slots[i]);
        if (state) {
            *state = read;
            read.data = NULL;
        }
    }
    trainer_state_free(&read);
    safetensors_set_close(&model);
    safetensors_set_close(&optimizer);
    return code ? status_prefix(st, "checkpoint '%s'", dir) : PLM_OK;
}

/* Damage is what a file says that cannot be right. Everything else (a disk that does not answer, no descriptors, no memory, no
 * permission) may be over in a minute, and says nothing about the checkpoint. */
static bool is_damage(int code)
{
    return code == PLM_EFORMAT;
}

int checkpoint_latest(const char *run_dir, char *path, struct plm_status *st)
{
    *path = 0;
    int64_t *steps;
    size_t n, damaged = 0;
    struct plm_status why = {0}, newest = {0};
    int code = list_steps(run_dir, &steps, &n, st);
    for (size_t i = 0; i < n && !code; i++) {
        if (!step_path(path, run_dir, "", steps[i], ""))
            code = too_long(run_dir, st);
        else if (!(code = checkpoint_verify(path, &why)))
            break;
        else if (is_damage(code)) {
            log_warn("checkpoint skipped: %s", why.message);
            newest = damaged++ ? newest : why;
            code = PLM_OK;
        } else {
            code = status_set(st, why.code, "checkpoint '%s' cannot be read: %s; nothing was changed, try again once it can be", path, why.message);
        }
        *path = 0;
    }
    free(steps);
    if (!code && damaged && damaged == n)
        code = status_set(st, PLM_EFORMAT, "'%s' has %zu checkpoint%s, and none can be used (the newest: %s); nothing was changed: restore one, or "
                          "remove the step-* directories to begin anew", run_dir, n, n == 1 ? "" : "s", newest.message);
    return code;
}

/* A directory that is named itself: what its manifest says of it, when it has one. */
static int verify_named(const char *dir, struct plm_status *st)
{
    char manifest[PATH_MAX];
    struct stat info;
    if (!join(manifest, dir, "manifest.json"))
        return too_long(dir, st);
    if (lstat(manifest, &info) != 0)
        return errno == ENOENT ? PLM_OK : status_set(st, PLM_EIO, "cannot look at '%s': %s", manifest, strerror(errno));
    return manifest_verify(dir, st);
}

int checkpoint_resolve(const char *model, char *path, struct plm_status *st)
{
    struct stat info;
    snprintf(path, PATH_MAX, "%s/config.json", model);
    const bool is_directory = stat(model, &info) == 0 && S_ISDIR(info.st_mode), is_run = is_directory && stat(path, &info) != 0;
    if (!is_run) {
        if (snprintf(path, PATH_MAX, "%s", model) >= PATH_MAX)
            return status_set(st, PLM_EINVAL, "path too long: '%s'", model);
        return is_directory ? verify_named(path, st) : PLM_OK;
    }
    int code = checkpoint_latest(model, path, st);
    if (!code && !*path)
        code = status_set(st, PLM_EINVAL, "'%s' holds neither a model (config.json) nor a complete checkpoint (step-*)", model);
    return code;
}

int checkpoint_resolve_shared(const char *model, struct comm *comm, char *path, struct plm_status *st)
{
    int code = comm_agree(comm, comm->rank == 0 ? checkpoint_resolve(model, path, st) : PLM_OK, st);
    return code ? code : comm_broadcast(comm, path, PATH_MAX, 0, st);
}

int checkpoint_config(const char *dir, struct model_config *config, struct plm_status *st)
{
    struct mapped_file text;
    char path[PATH_MAX];
    int code = read_text(&text, dir, "config.json", path, st);
    if (!code)
        code = model_config_from_json(config, (const char *)text.data, text.size, path, st);
    mapped_close(&text);
    return code;
}

/* Weights that no training can start from: one that is not a number makes every step so. */
static int check_finite(const struct tensor_table *t, const float *params, struct plm_status *st)
{
    for (int i = 0; i < t->n_tensors; i++) {
        const struct tensor_desc *d = &t->tensors[i];
        for (int64_t k = 0; k < tensor_elements(d); k++)
            if (!isfinite(params[d->offset + k]))
                return status_set(st, PLM_EFORMAT, "tensor '%s': row %lld, column %lld is %g; the weights are damaged, or training diverged", d->name,
                                  (long long)(k / d->cols), (long long)(k % d->cols), (double)params[d->offset + k]);
    }
    return PLM_OK;
}

int checkpoint_load_weights(const char *dir, const struct tensor_table *table, float *params, struct plm_status *st)
{
    const struct optimizer_slot weights = {"", params};
    struct safetensors_set model;
    int code = safetensors_set_open(&model, dir, st);
    if (!code)
        code = check_tensors(&model, "the weights", table, &weights, 1, false, st);
    const int n_left = code ? 0 : model.n_tensors + model.n_others - table->n_tensors;
    if (n_left > 0)
        log_warn("'%s': %d tensors are not part of a PLM and are left out", dir, n_left);
    if (!code && model.n_narrowed)
        log_info("'%s': %d tensors are F64 and were converted to float32", dir, model.n_narrowed);
    if (!code) {
        fill_arena(&model, table, &weights);
        code = check_finite(table, params, st);
    }
    safetensors_set_close(&model);
    return code ? status_prefix(st, "model '%s'", dir) : PLM_OK;
}
