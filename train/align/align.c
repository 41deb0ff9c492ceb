#include "train/align/align.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/round.h"
#include "train/checkpoint.h"
#include "train/files.h"
#include "train/model_keep.h"
#include "train/signals.h"

int round_path(const struct align *a, int round, const char *name, char out[PATH_MAX], struct plm_status *st)
{
    return snprintf(out, PATH_MAX, "%s/round-%d%s%s", a->c->run_dir, round + 1, name ? "/" : "", name ? name : "") < PATH_MAX
               ? PLM_OK : status_set(st, PLM_EINVAL, "path too long: '%s'", a->c->run_dir);
}

const float *align_start_weights(const struct align *a) { return a->t.adapted ? a->t.lora.frozen : a->start; }

int align_load_start_weights(struct align *a, const float **weights, struct plm_status *st)
{
    *weights = align_start_weights(a);
    if (*weights)
        return PLM_OK;
    *weights = a->t.step.grads;
    return comm_agree(a->t.comm, checkpoint_load_weights(a->model_path, &a->t.step.table, a->t.step.grads, st), st);
}

double round_learning_rate(const struct align_config *c, int round, int64_t step, int64_t steps)
{
    const double factor = pow(c->round_factor, round), warmup = schedule_warmup(c->warmup, (double)steps);
    const double end = (double)steps + 1; /* the last update is above the floor */
    const struct schedule s = {.peak = c->peak * factor, .floor = c->floor * factor, .warmup = fmin(warmup, end), .stable_end = fmin(warmup, end), .decay_end = end,
        .shape = c->shape};
    return schedule_rate(&s, (double)(step + 1));
}

/* ---- what is said ---- */

bool round_log_was_cut(const struct align *a, bool at_start)
{
    const int64_t step = a->t.state.step;
    return step == 0 || (!at_start && step > a->t.first_step);
}

int round_log_turns(struct align *a, int round, const char *eval, const struct answer_set *set, int n_turns, struct plm_status *st)
{
    struct turn_stats turns[65];
    int code = PLM_OK;
    rollout_turns(set, n_turns, turns);
    for (int k = 0; k < n_turns && !code; k++) {
        const struct turn_stats *t = &turns[k];
        if (t->count == 0) { /* no prompt left room for it */
            log_info("round %d%s%s: turn %d: no answers", round + 1, eval ? ", " : "", eval ? eval : "", k);
            continue;
        }
        struct metric values[12] = {{"round", round + 1, NULL}, {"turn", k, NULL}};
        int n = 2;
        if (eval)
            values[n++] = (struct metric){"eval", 0, eval};
        values[n++] = (struct metric){"score", t->score, NULL};
        if (eval) { /* Wilson's interval at 95 %, for scores of 0 and 1 */
            const double count = t->scored ? (double)t->scored : 1, z = 1.96, p = t->score, centre = (p + z * z / (2 * count)) / (1 + z * z / count);
            const double half = p >= 0 && p <= 1 ? z / (1 + z * z / count) * sqrt(p * (1 - p) / count + z * z / (4 * count * count)) : 0;
            values[n++] = (struct metric){"low", p >= 0 && p <= 1 ? centre - half : p, NULL};
            values[n++] = (struct metric){"high", p >= 0 && p <= 1 ? centre + half : p, NULL};
        }
        values[n++] = (struct metric){"win_rate", t->win_rate, NULL};
        values[n++] = (struct metric){"length", t->length, NULL};
        values[n++] = (struct metric){"ended_rate", t->ended, NULL};
        values[n++] = (struct metric){"copy_rate", t->copied, NULL};
        values[n++] = (struct metric){"count", (double)t->count, NULL};
        log_info("round %d%s%s: turn %d: score %.3f, win rate %.3f, %.1f tokens, %.1f %% ended, %.1f %% copied", round + 1, eval ? ", " : "", eval ? eval : "", k, t->score,
                 t->win_rate, t->length, 100 * t->ended, 100 * t->copied);
        code = run_log_write(a->t.log, a->t.state.step, values, n, st);
    }
    return code;
}

int round_log_samples(struct align *a, int round, const char *eval, const struct row_set *tasks, const struct answer_set *set, int n_tasks, struct plm_status *st)
{
    int code = PLM_OK;
    for (int64_t i = 0; i < set->n && n_tasks > 0 && !code; n_tasks--) {
        const int64_t task = set->answers[i].task;
        const int chain = set->answers[i].chain;
        const struct row *row = &tasks->rows[task];
        json_t *answers = json_array();
        for (; i < set->n && set->answers[i].task == task; i++) {
            const struct answer *x = &set->answers[i];
            json_t *one = x->chain == chain ? json_pack("{s:i, s:s}", "turn", x->turn, "text", x->text) : NULL;
            if (one && x->scored)
                json_object_set_new(one, "score", json_real(x->score));
            if (one)
                json_array_append_new(answers, one);
        }
        json_t *object = json_pack("{s:i, s:s%, s:O}", "round", round + 1, "prompt", row->messages[row->n_messages - 1].content,
                                   row->messages[row->n_messages - 1].content_bytes, "answers", answers);
        if (eval)
            json_object_set_new(object, "eval", json_string(eval));
        if (row->answer)
            json_object_set_new(object, "reference", json_string(row->answer));
        char *text = object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
        code = text ? run_log_sample(a->t.log, a->t.state.step, text, st) : status_no_memory(st, 0, "a sample");
        free(text);
        json_decref(object);
        json_decref(answers);
    }
    return code;
}

int round_step_done(struct align *a, int round, int64_t step, int64_t steps, const struct update_outcome *o, double lr, double loss, double seconds, double tokens,
                    const struct metric *more, int n_more, struct plm_status *st)
{
    struct trainer *t = &a->t;
    const double rate = seconds > 0 ? tokens / seconds : 0;
    char name[32];
    t->state.step++;
    t->state.phase = round;
    t->state.step_in_phase = step + 1;
    t->state.tokens += (int64_t)tokens;
    trainer_state_add_loss(&t->state, loss);
    int code = PLM_OK;
    if (t->comm->rank == 0) {
        struct metric values[40] = {{"phase", 0, name}, {"round", round + 1, NULL}, {"lr", lr, NULL}, {"grad_norm", o->grad_norm, NULL}, {"tokens", (double)t->state.tokens, NULL},
            {"tokens_per_s", rate, NULL}, {"step_s", seconds, NULL}, {"skipped", o->applied ? 0 : 1, NULL}};
        int n = 8;
        bool has_loss = false;
        for (int i = 0; i < n_more && n < 39; i++) {
            values[n++] = more[i];
            has_loss = has_loss || strcmp(more[i].name, "loss") == 0;
        }
        if (!has_loss)
            values[n++] = (struct metric){"loss", loss, NULL};
        snprintf(name, sizeof name, "round %d", round + 1);
        const struct progress_status status = {.phase = name, .step = step + 1, .total_steps = steps, .tokens = t->state.tokens,
            .total_tokens = t->state.tokens + (int64_t)tokens * (steps - step - 1), .loss = loss,
            .learning_rate = lr, .grad_norm = o->grad_norm, .tokens_per_second = rate};
        progress_update(&t->progress, &status);
        code = run_log_write(t->log, t->state.step, values, n, st);
        if (code)
            comm_abort(t->comm, st); /* only rank 0 writes */
    }
    const bool stop = o->control.stop > 0;
    if (!code && step + 1 < steps && (stop || (a->c->checkpoint_every && t->state.step % a->c->checkpoint_every == 0)))
        code = trainer_save(t, NULL, st);
    a->stopped = a->stopped || (stop && step + 1 < steps); /* after the last step the round is closed first */
    return code;
}

/* ---- evaluation ---- */

static int write_evaluation(const struct answer_set *set, int n_turns, int64_t step, const char *path, struct plm_status *st)
{
    struct turn_stats turns[65];
    rollout_turns(set, n_turns, turns);
    json_t *list = json_array();
    for (int k = 0; k < n_turns; k++)
        if (turns[k].count)
            json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:I}", "turn", k, "score", turns[k].score, "win_rate", turns[k].win_rate, "length",
                                              turns[k].length, "ended_rate", turns[k].ended, "copy_rate", turns[k].copied, "count", (json_int_t)turns[k].count));
    json_t *root = json_pack("{s:I, s:O}", "step", (json_int_t)step, "turns", list);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    int code = text ? file_replace(path, text, strlen(text), st) : status_no_memory(st, 0, "an evaluation");
    free(text);
    json_decref(root);
    json_decref(list);
    return code;
}

/* Is the evaluation of a round still to be made? It is when its file is not there, and once more (from the answers that are kept) when the log lacks it. */
static int wants_evaluation(struct align *a, int round, const char *path, int *wanted, struct plm_status *st)
{
    const bool there = a->t.comm->rank == 0 && access(path, F_OK) == 0;
    *wanted = !there || round_log_was_cut(a, round < 0);
    if (a->t.comm->rank == 0 && !there && a->t.state.step_in_phase > 0) {
        log_warn("round %d: not evaluated: its model has been trained on, and '%s' is not there", round + 1, path);
        *wanted = 0;
    }
    return comm_broadcast(a->t.comm, wanted, sizeof *wanted, 0, st);
}

int round_evaluate(struct align *a, int round, struct plm_status *st)
{
    const struct align_config *c = a->c;
    struct comm *comm = a->t.comm;
    char dir[PATH_MAX], path[PATH_MAX];
    if (!c->eval.path)
        return PLM_OK;
    int code = round_path(a, round, "evaluation", dir, st);
    if (!code)
        code = round_path(a, round, "evaluation.json", path, st);
    int wanted = 0;
    code = comm_agree(comm, code, st);
    if (!code)
        code = wants_evaluation(a, round, path, &wanted, st);
    if (code || !wanted)
        return code;
    const int64_t n = c->eval.count && c->eval.count < a->eval_tasks.n ? c->eval.count : a->eval_tasks.n;
    const struct rollout r = {.t = &a->t, .tasks = &a->eval_tasks, .chat = a->templates.chat, .refine = a->templates.refine, .scorer = c->scorer,
        .model_scorer = a->scorer_model, .o = &c->eval.rollout, .seed = random_u64(c->seed, RANDOM_ROLLOUT, 0, 1), .dir = dir};
    struct answer_set set = {0};
    struct rollout_stats stats;
    int64_t *list = malloc(((size_t)n + 1) * sizeof *list);
    for (int64_t i = 0; i < n && list; i++)
        list[i] = i;
    code = comm_agree(comm, list ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *list, "an evaluation"), st);
    if (!code)
        code = rollout_run(&r, list, n, &set, &stats, st);
    if (!code && stats.stopped)
        a->stopped = true;
    const int turns = c->eval.rollout.refinements + 1;
    if (!code && !a->stopped && comm->rank == 0) {
        if (stats.failed)
            log_warn("round %d: the scorer failed on %lld held-out answers%s%s", round + 1, (long long)stats.failed, *stats.first_failure ? "; the first: " : "",
                     stats.first_failure);
        code = round_log_turns(a, round, "held-out", &set, turns, st);
        if (!code)
            code = round_log_samples(a, round, "held-out", &a->eval_tasks, &set, c->eval.samples, st);
        if (!code)
            code = write_evaluation(&set, turns, a->t.state.step, path, st);
    }
    answer_set_free(&set);
    free(list);
    return comm_agree(comm, code, st);
}

/* ---- the run ---- */

static int read_tasks(struct row_set *set, const char *path, const json_t *fields, const char *what, struct plm_status *st)
{
    const struct row_options o = {.wanted = ROW_TASK, .fields = fields};
    int code = row_set_read(set, path, &o, false, st);
    if (!code && set->n == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has no %s", path, what);
    return code;
}

/* What lies in round-N was made by the run whose checkpoints lie beside it. */
static int check_run_dir(const struct align *a, struct plm_status *st)
{
    char newest[PATH_MAX], first[PATH_MAX];
    int code = round_path(a, 0, NULL, first, st);
    if (!code)
        code = checkpoint_latest(a->c->run_dir, newest, st);
    if (!code && !*newest && access(first, F_OK) == 0)
        code = status_set(st, PLM_EINVAL, "'%s' is there, but no checkpoint of the run that made it; give this run another run_dir, or remove that one", first);
    return code;
}

static int open_inputs(struct align *a, struct comm *comm, struct plm_status *st)
{
    const struct align_config *c = a->c;
    int code = comm_agree(comm, comm->rank == 0 ? check_run_dir(a, st) : PLM_OK, st);
    if (!code)
        code = checkpoint_resolve_shared(c->model_path, comm, a->model_path, st);
    if (!code)
        code = templates_open(&a->templates, c->template, c->refine_template, a->model_path, st);
    if (!code && c->prompts_path)
        code = read_tasks(&a->tasks, c->prompts_path, c->prompts_fields, "tasks", st);
    if (!code && c->eval.path)
        code = read_tasks(&a->eval_tasks, c->eval.path, c->eval.fields, "held-out tasks", st);
    return comm_agree(comm, code, st);
}

/* The model's own tokenizer, where it has one: with other ids for the same text neither the model nor its reference would understand a word. */
static int check_tokenizer(const struct align *a, struct plm_status *st)
{
    char path[PATH_MAX], hash[SHA256_HEX];
    if (!a->c->tokenizer || snprintf(path, sizeof path, "%s/tokenizer.json", a->model_path) >= (int)sizeof path || access(path, F_OK) != 0)
        return PLM_OK;
    int code = sha256_file(path, hash, NULL, st);
    if (!code && strcmp(hash, a->t.tokenizer_sha256) != 0)
        code = status_set(st, PLM_EINVAL, "'%s' is another tokenizer than '%s', which the model and its reference were trained with; leave \"tokenizer\" out",
                          a->c->tokenizer, path);
    return code;
}

/* Offline pairs that cannot be read are found before the run has a checkpoint. */
static int check_offline(const struct align *a, struct plm_status *st)
{
    const struct align_config *c = a->c;
    struct pair_set set = {0};
    const int code = c->n_offline ? pairs_read_sources(&set, c->offline, c->n_offline, align_row_kind(c, 0), c->offline_skip_bad, c->seed, st) : PLM_OK;
    pair_set_free(&set);
    return code;
}

/* Everything the file says that decides what is learned, the templates it names, and the model: a run that model.path names may have gone on since. */
static int run_hash(const struct align *a, char hex[SHA256_HEX], struct plm_status *st)
{
    char config[SHA256_HEX], model[SHA256_HEX] = "", scorer[SHA256_HEX] = "", path[PATH_MAX];
    int code = align_config_hash(a->c, config, st);
    if (!code && a->c->scorer && scorer_needs_model(a->c->scorer))
        code = score_model_hash(a->c->scorer, scorer, st);
    if (snprintf(path, sizeof path, "%s/manifest.json", a->model_path) < (int)sizeof path && access(path, F_OK) == 0 && !code)
        code = sha256_file(path, model, NULL, st);
    char *text = NULL;
    if (!code && asprintf(&text, "%s\n%s%s\n%s\n%s", config, model, scorer, chat_template_json(a->templates.chat), refine_template_text(a->templates.refine)) < 0)
        code = status_no_memory(st, 0, "the configuration as text");
    if (!code)
        code = sha256_bytes(text, strlen(text), hex, st);
    free(text);
    return code;
}

/* The files of tasks and pairs, by their content. */
static int describe_data(const struct align_config *c, json_t **out, struct plm_status *st)
{
    int code = (*out = json_object()) ? PLM_OK : status_no_memory(st, 0, "a description of the data");
    for (int i = -1; i < c->n_offline && !code; i++) {
        const char *path = i < 0 ? c->prompts_path : c->offline[i].path;
        char hex[SHA256_HEX];
        struct stat info;
        if (!path || stat(path, &info) != 0 || !S_ISREG(info.st_mode)) /* what reads it says so */
            continue;
        code = sha256_file(path, hex, NULL, st);
        if (!code && json_object_set_new(*out, path, json_string(hex)) != 0)
            code = status_set(st, PLM_EINVAL, "the path '%s' is not UTF-8", path);
    }
    return code;
}

static int open_trainer(struct align *a, struct comm *comm, struct plm_status *st)
{
    const struct align_config *c = a->c;
    struct trainer_options o = {.run_dir = c->run_dir, .tokenizer = c->tokenizer, .model_path = a->model_path, .settings = c->settings, .seed = c->seed,
        .threads = c->threads, .max_rows = c->micro_batch, .max_len = c->seq_len, .adamw = c->adamw, .clip = c->clip, .checkpoint_keep = c->checkpoint_keep,
        .log_every = c->log_every, .lora = c->adapt ? &c->lora : NULL,
        .identity = align_config_identity, .max_skipped = c->max_skipped};
    int code = run_hash(a, o.config_sha256, st);
    code = comm_agree(comm, code ? code : describe_data(c, &o.data, st), st);
    if (!code)
        code = trainer_open(&a->t, &o, comm, st);
    json_decref(o.data);
    if (code)
        return code;
    templates_keep(&a->templates, &a->t);
    int32_t end;
    code = check_tokenizer(a, st);
    if (!code && a->t.state.step == 0 && a->t.state.phase == 0)
        code = check_offline(a, st);
    if (!code)
        code = chat_template_end(a->templates.chat, a->t.tokenizer, &end, st);
    if (!code && (c->reference == REFERENCE_START || c->policy.kl_beta > 0) && !a->t.adapted) {
        a->start = malloc((size_t)a->t.step.table.padded * sizeof *a->start);
        code = a->start ? checkpoint_load_weights(a->model_path, &a->t.step.table, a->start, st)
                        : status_no_memory(st, (size_t)a->t.step.table.padded * sizeof *a->start, "the weights at the start");
    }
    return comm_agree(comm, code, st);
}

/* The model that judges, when it is one: on every rank. */
static int open_scorer(struct align *a, struct plm_status *st)
{
    const struct score_model_options o = {.pool = a->t.pool, .tokenizer_sha256 = a->t.tokenizer_sha256, .chat = a->templates.chat, .report = a->t.comm->rank == 0};
    int code = PLM_OK;
    if (a->c->scorer && scorer_needs_model(a->c->scorer))
        code = score_model_open(&a->score_model, a->c->scorer, &o, st);
    if (!code && a->score_model) {
        a->hook = (struct model_scorer){score_model_score, a->score_model};
        a->scorer_model = &a->hook;
    }
    return comm_agree(a->t.comm, code, st);
}

static void align_close(struct align *a)
{
    score_model_close(a->score_model);
    trainer_close(&a->t);
    free(a->start);
    row_set_free(&a->tasks);
    row_set_free(&a->eval_tasks);
    templates_close(&a->templates);
}

/* RUN/round-N/model from the checkpoint at the end of the round. */
static int keep_model(struct align *a, int round, const char *saved, struct plm_status *st)
{
    char dir[PATH_MAX];
    int code = round_path(a, round, NULL, dir, st);
    if (!code && a->t.comm->rank == 0) {
        code = directory_create_own(dir, st);
        if (!code)
            code = model_keep(saved, dir, "model", st);
    }
    return comm_agree(a->t.comm, code, st);
}

static int close_round(struct align *a, int round, struct plm_status *st)
{
    char saved[PATH_MAX];
    a->t.state.phase = round + 1;
    a->t.state.step_in_phase = 0;
    int code = trainer_save(&a->t, saved, st);
    return code ? code : keep_model(a, round, saved, st);
}

/* A run that was killed after the last checkpoint of a round, before its model was kept. */
static int finish_round(struct align *a, int round, struct plm_status *st)
{
    char saved[PATH_MAX], path[PATH_MAX];
    int code = round_path(a, round, "model", path, st);
    int missing = !code && round >= 0 && a->t.state.step_in_phase == 0 && a->t.comm->rank == 0 && access(path, F_OK) != 0;
    if (missing)
        code = checkpoint_latest(a->c->run_dir, saved, st);
    code = comm_agree(a->t.comm, code, st);
    if (!code)
        code = comm_broadcast(a->t.comm, &missing, sizeof missing, 0, st);
    return code || !missing ? code : keep_model(a, round, saved, st);
}

static int run_round(struct align *a, int round, struct plm_status *st)
{
    const struct align_config *c = a->c;
    int code = PLM_OK;
    /* pairs of the starting model for all rounds, before anything is trained */
    const int last = c->method == METHOD_DPO && round == 0 && a->t.state.step_in_phase == 0 ? c->rounds - 1 : round;
    for (int i = round; i <= last && c->method != METHOD_GRPO && !code && !a->stopped; i++)
        code = round_collect(a, i, st);
    if (code || a->stopped)
        return code;
    if (a->t.state.step_in_phase == 0)
        trainer_reset_optimizer(&a->t);
    code = c->method == METHOD_GRPO ? round_train_policy(a, round, st) : round_train_pairs(a, round, st);
    return code || a->stopped ? code : close_round(a, round, st);
}

/* Between rounds: has a signal reached any rank? */
static int agree_to_stop(struct align *a, bool more, struct plm_status *st)
{
    double stop = signals_stop_requested() != 0;
    int code = comm_sum_doubles(a->t.comm, &stop, 1, st);
    a->stopped = a->stopped || (stop > 0 && more);
    return code;
}

static int run_rounds(struct align *a, struct align_result *result, struct plm_status *st)
{
    const int last = a->t.state.phase - 1; /* -1: the model at the start */
    if (a->t.comm->rank == 0 && a->t.state.phase >= a->c->rounds)
        log_info("the run '%s' is complete: all %d rounds are done", a->c->run_dir, a->c->rounds);
    int code = finish_round(a, last, st);
    if (!code)
        code = round_evaluate(a, last, st);
    for (int round = a->t.state.phase; round < a->c->rounds && !code && !a->stopped; round++) {
        code = run_round(a, round, st);
        if (!code && !a->stopped)
            code = round_evaluate(a, round, st);
        if (!code)
            code = agree_to_stop(a, round + 1 < a->c->rounds, st);
        result->rounds = round + !a->stopped;
    }
    return code;
}

int align_run(const struct align_config *c, struct comm *comm, struct align_result *result, struct plm_status *st)
{
    struct align a = {.c = c};
    *result = (struct align_result){0};
    int code = comm_agree(comm, signals_open(st), st);
    if (code)
        return code;
    code = open_inputs(&a, comm, st);
    if (!code)
        code = open_trainer(&a, comm, st);
    if (!code)
        code = open_scorer(&a, st);
    if (!code && a.t.state.step == 0 && a.t.state.phase == 0)
        code = trainer_save(&a.t, NULL, st); /* from here on another configuration is told from this one */
    if (!code)
        code = run_rounds(&a, result, st);
    result->steps = a.t.state.step;
    result->learned = a.t.state.learned > 0;
    if (!code && a.stopped)
        result->stopped_by = signals_stop_requested() ? signals_stop_requested() : 15;
    if (comm->rank == 0 && !code && !a.stopped)
        log_info("%d rounds, %lld steps; models in %s/round-N/model", c->rounds, (long long)a.t.state.step, c->run_dir);
    align_close(&a);
    signals_close();
    return code;
}
