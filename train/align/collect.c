/* The first half of a round: pairs, from a file or from rollouts. */
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files.h"
#include "data/permutation.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/round.h"
#include "train/files.h"
#include "train/manifest.h"

#define CHECKED_ANSWERS 64   /* of a rollout, whose log-probabilities are compared with the trainer's */
#define LARGEST_DIFFERENCE 0.01 /* nats per token; float32 rounding is a thousand times smaller */
#define SHOWN_TASKS 4

bool round_offline(const struct align_config *c, int round) { return c->n_offline > 0 && round < c->offline_rounds; }

enum row_kind align_row_kind(const struct align_config *c, int round)
{
    if (c->method == METHOD_REJECTION_SFT)
        return ROW_CONVERSATION;
    return round_offline(c, round) && c->offline_unpaired ? ROW_LABELLED : ROW_PAIR;
}

static int compare_ids(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int round_tasks(const struct align *a, int round, int64_t **list, int64_t *n, struct plm_status *st)
{
    const int64_t all = a->tasks.n, wanted = a->c->per_round && a->c->per_round < all ? a->c->per_round : all;
    *n = 0;
    *list = malloc(((size_t)wanted + 1) * sizeof **list);
    if (!*list)
        return status_no_memory(st, (size_t)wanted * sizeof **list, "the tasks of a round");
    for (int64_t i = 0; i < wanted; i++) { /* rounds go on through one shuffled list after the other */
        const uint64_t at = (uint64_t)round * (uint64_t)wanted + (uint64_t)i, pass = at / (uint64_t)all;
        (*list)[(*n)++] = (int64_t)permutation_apply(random_u64(a->c->seed, RANDOM_DATA_ORDER, 0, pass), (uint64_t)all, at % (uint64_t)all);
    }
    qsort(*list, (size_t)*n, sizeof **list, compare_ids);
    int64_t distinct = 0; /* where a window spans two lists a task may come twice: once is enough */
    for (int64_t i = 0; i < *n; i++)
        if (i == 0 || (*list)[i] != (*list)[i - 1])
            (*list)[distinct++] = (*list)[i];
    *n = distinct;
    return PLM_OK;
}

static int write_prompts(const struct align *a, const int64_t *list, int64_t n, const char *path, struct plm_status *st)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    int code = out ? PLM_OK : status_no_memory(st, 0, "the prompts as text");
    for (int64_t i = 0; i < n && !code; i++) {
        const struct row *row = &a->tasks.rows[list[i]];
        json_t *messages = json_array();
        for (int k = 0; k < row->n_messages; k++)
            json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", row->messages[k].role, "content", row->messages[k].content,
                                                      row->messages[k].content_bytes));
        json_t *object = json_pack("{s:I, s:o}", "task", (json_int_t)list[i], "prompt", messages);
        if (row->answer)
            json_object_set_new(object, "answer", json_string(row->answer));
        if (!object || json_dumpf(object, out, JSON_COMPACT | JSON_PRESERVE_ORDER) || fputc('\n', out) == EOF)
            code = status_no_memory(st, 0, "the prompts as text");
        json_decref(object);
    }
    if (out && fclose(out) != 0 && !code)
        code = status_no_memory(st, bytes, "the prompts as text");
    if (!code)
        code = file_replace(path, text, bytes, st);
    free(text);
    return code;
}

/* For rejection sampling: of every task the best answer, when its score is above min_margin. */
static int best_answers(struct selected_pair **pairs, int64_t *n, const struct answer_set *set, const struct selection_options *o, struct selection_stats *stats,
                        struct plm_status *st)
{
    *pairs = malloc(((size_t)set->n + 1) * sizeof **pairs);
    *n = 0;
    if (!*pairs)
        return status_no_memory(st, (size_t)set->n * sizeof **pairs, "the selection");
    for (int64_t i = 0; i < set->n;) {
        int64_t best = -1;
        const int64_t task = set->answers[i].task;
        for (; i < set->n && set->answers[i].task == task; i++) {
            const struct answer *x = &set->answers[i];
            const bool blank = x->text[strspn(x->text, " \t\r\n\v\f")] == 0, cut = o->require_ended && !x->ended;
            stats->unscored += !x->scored;
            stats->empty += x->scored && blank;
            stats->not_ended += x->scored && !blank && cut;
            if (!x->scored || blank || cut || !(x->score > o->min_margin))
                continue;
            if (best < 0 || x->score > set->answers[best].score)
                best = i;
        }
        stats->tasks++;
        stats->tied += best < 0;
        if (best >= 0)
            (*pairs)[(*n)++] = (struct selected_pair){best, -1};
    }
    stats->pairs = *n;
    return PLM_OK;
}

struct collection {
    struct rollout_stats rollout;
    struct selection_stats selection;
    double difference, kl;
};

static int write_collection(const struct align *a, int round, const struct collection *x, const char *path, struct plm_status *st)
{
    const struct selection_stats *s = &x->selection;
    json_t *root = json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "round", round + 1, "method", align_method_names[a->c->method], "tasks",
        (json_int_t)s->tasks, "answers", (json_int_t)x->rollout.answers, "generated_tokens", (json_int_t)x->rollout.tokens, "pairs", (json_int_t)s->pairs, "tied",
        (json_int_t)s->tied, "too_long", (json_int_t)x->rollout.too_long, "scorer_failed", (json_int_t)x->rollout.failed, "log_prob_difference", x->difference, "kl",
        x->kl);
    json_t *filtered = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "not_ended", (json_int_t)s->not_ended, "empty", (json_int_t)s->empty, "equal",
        (json_int_t)s->equal, "length_ratio", (json_int_t)s->length_ratio, "repetitive", (json_int_t)s->repetitive, "unscored", (json_int_t)s->unscored,
        "not_verified", (json_int_t)s->not_verified);
    if (root && filtered)
        json_object_set(root, "filtered", filtered);
    char *text = root && filtered ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    int code = text ? file_replace(path, text, strlen(text), st) : status_no_memory(st, 0, "the counts of a collection");
    free(text);
    json_decref(filtered);
    json_decref(root);
    return code;
}

static int64_t filtered(const struct selection_stats *s)
{
    return s->not_ended + s->empty + s->equal + s->length_ratio + s->repetitive + s->unscored + s->not_verified;
}

static int log_collection(struct align *a, int round, const struct collection *x, const struct answer_set *set, struct plm_status *st)
{
    const struct selection_stats *s = &x->selection;
    const double rate = x->rollout.seconds > 0 ? (double)x->rollout.made / x->rollout.seconds : 0;
    log_info("round %d: %lld answers to %lld tasks, %lld tokens (%.0f tokens/s); %lld pairs; %lld tasks tied, %lld candidates filtered (%lld not ended, %lld empty, "
             "%lld equal, %lld by length, %lld repetitive, %lld not scored, %lld not verified)", round + 1, (long long)x->rollout.answers, (long long)s->tasks,
             (long long)x->rollout.tokens, rate, (long long)s->pairs, (long long)s->tied, (long long)filtered(s), (long long)s->not_ended, (long long)s->empty,
             (long long)s->equal, (long long)s->length_ratio, (long long)s->repetitive, (long long)s->unscored, (long long)s->not_verified);
    if (x->rollout.too_long)
        log_warn("round %d: %lld answers were not made: their prompts leave no room for rollout.max_tokens in the context", round + 1, (long long)x->rollout.too_long);
    if (x->rollout.failed)
        log_warn("round %d: the scorer failed on %lld answers%s%s", round + 1, (long long)x->rollout.failed, *x->rollout.first_failure ? "; the first: " : "",
                 x->rollout.first_failure);
    log_info("round %d: log-probabilities while sampling and in training differ by at most %.2g", round + 1, x->difference);
    const struct metric values[] = {{"round", round + 1, NULL}, {"pairs", (double)s->pairs, NULL}, {"tied", (double)s->tied, NULL},
        {"tied_share", s->tasks ? (double)s->tied / (double)s->tasks : 0, NULL}, {"filtered", (double)filtered(s), NULL}, {"kl", x->kl, NULL},
        {"generated_tokens", (double)x->rollout.tokens, NULL}, {"rollout_tokens_per_s", rate, NULL}, {"log_prob_difference", x->difference, NULL},
        {"scorer_failed", (double)x->rollout.failed, NULL}};
    int code = run_log_write(a->t.log, a->t.state.step, values, sizeof values / sizeof *values, st);
    if (!code)
        code = round_log_turns(a, round, NULL, set, a->c->rollout.refinements + 1, st);
    return code ? code : round_log_samples(a, round, NULL, &a->tasks, set, SHOWN_TASKS, st);
}

/* Pairs or best answers of the scored answers, and everything that is to be kept about them. Rank 0. */
static int select_and_write(struct align *a, int round, const char *dir, const int64_t *list, int64_t n_tasks, const struct answer_set *set, struct collection *x,
                            struct plm_status *st)
{
    char path[PATH_MAX];
    const struct align_config *c = a->c;
    struct selected_pair *pairs = NULL;
    int64_t n = 0;
    int code = c->method == METHOD_REJECTION_SFT ? best_answers(&pairs, &n, set, &c->selection, &x->selection, st)
                                                 : selection_pairs(&pairs, &n, set, &c->selection, &x->selection, st);
    if (!code)
        code = round_path(a, round, "prompts.jsonl", path, st);
    if (!code)
        code = write_prompts(a, list, n_tasks, path, st);
    if (!code)
        code = round_path(a, round, "pairs.jsonl", path, st);
    if (!code)
        code = pairs_write(&a->tasks, set, pairs, n, path, st);
    free(pairs);
    if (!code)
        code = round_path(a, round, "collection.json", path, st);
    if (!code)
        code = write_collection(a, round, x, path, st);
    if (!code)
        code = log_collection(a, round, x, set, st);
    if (code)
        return code;
    const int64_t chunks = (n_tasks + c->rollout.chunk - 1) / c->rollout.chunk;
    const char **names = malloc(((size_t)chunks + 3) * sizeof *names);
    char *text = malloc(((size_t)chunks + 1) * 32);
    if (names && text) {
        for (int64_t i = 0; i < chunks; i++) {
            snprintf(text + 32 * i, 32, "answers-%05lld.jsonl", (long long)i);
            names[i] = text + 32 * i;
        }
        names[chunks] = "prompts.jsonl", names[chunks + 1] = "pairs.jsonl", names[chunks + 2] = "collection.json";
        code = manifest_write(dir, names, (int)chunks + 3, st);
    } else {
        code = status_no_memory(st, (size_t)chunks * 32, "a manifest");
    }
    free(names);
    free(text);
    return code;
}

static int collect_rollouts(struct align *a, int round, const char *dir, struct plm_status *st)
{
    struct collection x = {0};
    struct answer_set set = {0};
    int64_t *list = NULL, n = 0;
    const struct rollout r = {.t = &a->t, .tasks = &a->tasks, .chat = a->templates.chat, .refine = a->templates.refine, .scorer = a->c->scorer,
        .model_scorer = a->scorer_model, .o = &a->c->rollout, .seed = random_u64(a->c->seed, RANDOM_ROLLOUT, (uint32_t)round + 1, 0), .dir = dir};
    int code = round_tasks(a, round, &list, &n, st);
    code = comm_agree(a->t.comm, code, st);
    if (!code && a->t.comm->rank == 0)
        log_info("round %d: %lld tasks, %d chains of %d answers each", round + 1, (long long)n, a->c->rollout.chains, a->c->rollout.refinements + 1);
    if (!code)
        code = rollout_run(&r, list, n, &set, &x.rollout, st);
    if (!code && x.rollout.stopped) {
        a->stopped = true;
    } else if (!code) {
        const float *start = NULL; /* dpo samples from the model at the start */
        if (a->c->method != METHOD_DPO && align_load_start_weights(a, &start, st)) {
            if (a->t.comm->rank == 0)
                log_warn("round %d: no KL to the model at the start, which cannot be read: %s", round + 1, st->message);
            *st = (struct plm_status){0};
            start = NULL; /* the figure is for the log alone */
        }
        code = rollout_check(&r, &set, CHECKED_ANSWERS, start, &x.difference, &x.kl, st);
        if (!code && !(x.difference < LARGEST_DIFFERENCE))
            code = status_set(st, PLM_EINTERNAL, "round %d: a log-probability recorded while sampling and the trainer's differ by %g nats: sampling and training do not "
                              "compute the same model", round + 1, x.difference);
        if (!code)
            code = comm_agree(a->t.comm, a->t.comm->rank == 0 ? select_and_write(a, round, dir, list, n, &set, &x, st) : PLM_OK, st);
    }
    answer_set_free(&set);
    free(list);
    return code;
}

int round_collect(struct align *a, int round, struct plm_status *st)
{
    char dir[PATH_MAX], path[PATH_MAX];
    const bool offline = round_offline(a->c, round);
    int code = round_path(a, round, NULL, dir, st);
    if (!code)
        code = round_path(a, round, "manifest.json", path, st);
    int there = 0;
    if (!code && offline && a->t.comm->rank == 0)
        code = directory_create_own(dir, st); /* for what training adds */
    if (!code && !offline && a->t.comm->rank == 0) {
        there = access(path, F_OK) == 0;
        if (there && (code = manifest_verify(dir, st)))
            status_prefix(st, "round %d cannot go on; remove '%s' to make it anew", round + 1, dir);
        if (!code && !there)
            code = directory_create_own(dir, st);
    }
    code = comm_agree(a->t.comm, code, st);
    if (!code)
        code = comm_broadcast(a->t.comm, &there, sizeof there, 0, st);
    if (code || offline || (there && !round_log_was_cut(a, a->c->method == METHOD_DPO)))
        return code;
    if (there) /* all is made, and is told once more */
        return collect_rollouts(a, round, dir, st);
    if (a->c->method == METHOD_DPO && a->t.state.step > 0)
        return status_set(st, PLM_EINVAL, "'%s' is gone: with method \"dpo\" all pairs are those of the starting model, which has learned since", path);
    if (a->t.state.step_in_phase > 0 && a->t.state.phase == round)
        return status_set(st, PLM_EINVAL, "round %d has been trained for %lld steps, but '%s' is gone: its pairs cannot be made again by a model that has learned from "
                          "them", round + 1, (long long)a->t.state.step_in_phase, path);
    return collect_rollouts(a, round, dir, st);
}
