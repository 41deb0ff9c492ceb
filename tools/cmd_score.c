/* plm score: is the reward what it should be? */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/output.h"
#include "infer/base/threads.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/result.h"
#include "tools/score_rows.h"
#include "tools/text_list.h"
#include "train/align/score_model.h"

enum { OPT_CONFIG = 256, OPT_SET, OPT_TASKS, OPT_TEXT, OPT_FIELD, OPT_LIMIT, OPT_SHOW, OPT_ITEMS, OPT_JSON };

struct arguments {
    const char *file, *kind, *config, *items;
    struct text_list set;
    struct score_rows_options rows;
    json_t *fields;
    int threads, show;
    bool json;
};

static const struct argp_option options[] = {
    {"scorer", 's', "KIND", 0, "gsm8k, number, boxed, choice, exact, regex, tests, file, command, reward or implicit", 0},
    {"set", OPT_SET, "KEY=VALUE", 0, "a setting of the scorer, such as pattern='#### (.*)', command='[\"python3\", \"judge.py\"]', timeout_s=5; may be "
                                     "given several times", 0},
    {"config", OPT_CONFIG, "FILE", 0, "read the scorer from a JSON file, written as under \"scorer\" of a run's configuration", 0},
    {"tasks", OPT_TASKS, "FILE", 0, "FILE holds answers as a rollout writes them, to the tasks of this one", 0},
    {"text", OPT_TEXT, "TEXT", 0, "the answer to score, with {field} for a field of the row; " ESCAPES_HELP " (default: completion, response or output, else the row's "
                                  "own answer, which should pass)", 0},
    {"field", OPT_FIELD, "NAME=FIELD", 0, "read the standard field NAME (prompt, answer, tests ...) from FIELD; may be given several times", 0},
    {"limit", OPT_LIMIT, "N", 0, "the first N rows; 0: all (default)", 0},
    {"show", OPT_SHOW, "N", 0, "print the N answers of the lowest scores, those without one first", 0},
    {"items", OPT_ITEMS, "FILE", 0, "write {\"task\", \"chain\", \"turn\", \"score\"} rows, as the scorer of kind file reads them", 0},
    {"threads", 't', "N", 0, "programs that run side by side (tests); 0: one per processor (default)", 0},
    {"json", OPT_JSON, 0, 0, "print the result as JSON", 0},
    {0},
};

static void add_field(struct arguments *a, const char *arg, struct argp_state *state)
{
    const char *equals = strchr(arg, '=');
    char name[64];
    if (!equals || equals == arg || !equals[1] || (size_t)(equals - arg) >= sizeof name)
        argp_error(state, "--field: expected NAME=FIELD, found '%s'", arg);
    snprintf(name, sizeof name, "%.*s", (int)(equals - arg), arg);
    if (json_object_set_new(a->fields, name, json_string(equals + 1)))
        argp_error(state, "--field: '%s' is not UTF-8", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 's': a->kind = arg; return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case OPT_SET: text_list_argument(&a->set, arg, "set", TEXT_ANY, state); return 0;
    case OPT_CONFIG: a->config = arg; return 0;
    case OPT_TASKS: a->rows.tasks = arg; return 0;
    case OPT_TEXT: a->rows.text = text_unescape(arg); return 0;
    case OPT_FIELD: add_field(a, arg, state); return 0;
    case OPT_LIMIT: a->rows.limit = argument_range(state, "limit", arg, 0, INT64_MAX); return 0;
    case OPT_SHOW: a->show = argument_whole(state, "show", arg); return 0;
    case OPT_ITEMS: a->items = arg; return 0;
    case OPT_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: argument_only(state, "FILE", arg, &a->file); return 0;
    case ARGP_KEY_END:
        if (!a->file)
            argp_error(state, "FILE is required");
        if (!a->kind == !a->config)
            argp_error(state, "give the scorer with --scorer or with --config");
        if (a->rows.tasks && (a->rows.text || a->rows.limit))
            argp_error(state, "--text and --limit are for rows without --tasks");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "FILE",
    "Score answers by a rule, by unit tests in a sandbox, by a command or from a file, as `plm align` does: what the reward is before it is trained "
    "on. FILE has lines with a prompt, an answer and what it is checked against, or with --tasks the answers of a rollout.\v"
    "Examples:\n"
    "  plm score gsm8k_train.jsonl --scorer gsm8k      (every solution passes its own check)\n"
    "  plm score run/round-1/answers.jsonl --tasks tasks.jsonl --scorer gsm8k --show 5\n"
    "  plm score humaneval.jsonl --scorer tests --text '{prompt}{canonical_solution}'", 0, 0, 0};

/* ---- the scorer ---- */

static int open_settings(struct settings **settings, const struct arguments *a, struct plm_status *st)
{
    char kind[64];
    int code = a->config ? settings_open(settings, a->config, st) : settings_parse(settings, "{}", 2, "--scorer", st);
    if (!code && a->kind) {
        snprintf(kind, sizeof kind, "kind=\"%.40s\"", a->kind);
        code = settings_override(*settings, kind, st);
    }
    for (int i = 0; i < a->set.n && !code; i++)
        code = settings_override(*settings, a->set.items[i], st);
    return code;
}

static int open_scorer(struct scorer **s, struct settings *settings, struct plm_status *st)
{
    struct section root = settings_root(settings);
    int code = scorer_open(s, &root, st);
    return code ? code : settings_finish(settings, st);
}

/* Scores all answers. */
static int score(struct scorer *s, struct score_input *in, int threads, struct scorer_stats *stats, double *seconds, struct plm_status *st)
{
    struct thread_pool *pool = NULL;
    struct score_model *model = NULL;
    const bool by_model = scorer_needs_model(s);
    int code = by_model ? pool_create(&pool, threads, st) : PLM_OK;
    const struct score_model_options o = {.pool = pool, .report = true};
    if (!code && by_model)
        code = score_model_open(&model, s, &o, st);
    const double start = seconds_now();
    if (!code && by_model)
        code = score_model_score(model, &in->tasks, in->answers.answers, in->answers.n, stats, st);
    else if (!code)
        code = scorer_score(s, &in->tasks, in->answers.answers, in->answers.n, threads ? threads : threads_available(), stats, st);
    *seconds = seconds_now() - start;
    score_model_close(model);
    pool_destroy(pool);
    return code;
}

/* ---- what came out ---- */

/* Groups are the answers to one task: nothing is learnt from those whose scores are all alike. */
struct groups {
    int64_t n, all_zero, all_equal;
};

static struct groups count_groups(const struct answer_set *set)
{
    struct groups g = {0};
    for (int64_t i = 0, next; i < set->n; i = next) {
        bool zero = true, equal = true;
        int64_t scored = 0;
        const struct answer *first = NULL;
        for (next = i; next < set->n && set->answers[next].task == set->answers[i].task; next++) {
            const struct answer *a = &set->answers[next];
            if (!a->scored)
                continue;
            first = first ? first : a;
            scored++;
            zero &= a->score == 0;
            equal &= a->score == first->score;
        }
        g.n += scored > 1;
        g.all_zero += scored > 1 && zero;
        g.all_equal += scored > 1 && equal;
    }
    return g;
}

static json_t *summary(const struct scorer *s, const struct answer_set *set, const struct scorer_stats *stats, double seconds, struct plm_status *st)
{
    double sum = 0;
    int64_t ones = 0;
    bool binary = true;
    for (int64_t i = 0; i < set->n; i++)
        if (set->answers[i].scored) {
            sum += set->answers[i].score;
            ones += set->answers[i].score == 1;
            binary &= set->answers[i].score == 0 || set->answers[i].score == 1;
        }
    const struct groups g = count_groups(set);
    json_t *r = json_pack("{s:s, s:I, s:I, s:I, s:o}", "scorer", scorer_kind(s), "answers", (json_int_t)set->n, "scored", (json_int_t)stats->scored, "failed",
                          (json_int_t)stats->failed, "mean", stats->scored ? json_real(sum / (double)stats->scored) : json_null());
    bool ok = r != NULL;
    if (ok && binary && result_add_accuracy(r, ones, stats->scored, st))
        ok = false;
    const struct {
        const char *name;
        int64_t n;
        bool show;
    } counts[] = {
        {"timeouts", stats->timeouts, stats->timeouts > 0}, {"crashes", stats->crashes, stats->crashes > 0}, {"malformed", stats->malformed, stats->malformed > 0},
        {"missing", stats->missing, stats->missing > 0}, {"groups", g.n, g.n > 0}, {"groups_all_zero", g.all_zero, g.n > 0}, {"groups_all_equal", g.all_equal, g.n > 0},
    };
    for (size_t i = 0; ok && i < sizeof counts / sizeof *counts; i++)
        if (counts[i].show)
            ok = json_object_set_new(r, counts[i].name, json_integer(counts[i].n)) == 0;
    if (ok && *stats->first_failure)
        ok = json_object_set_new(r, "first_failure", json_string(stats->first_failure)) == 0;
    if (ok)
        ok = json_object_set_new(r, "seconds", json_real(seconds)) == 0;
    if (!ok) {
        json_decref(r);
        result_failed(st);
        return NULL;
    }
    return r;
}

/* ---- examples ---- */

static int lowest_first(const void *a, const void *b)
{
    const struct answer *x = *(const struct answer *const *)a, *y = *(const struct answer *const *)b;
    if (x->scored != y->scored)
        return x->scored ? 1 : -1;
    if (x->scored && x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return (x > y) - (x < y);
}

/* Its end, where the answer is, with what would move the cursor made visible. */
static void print_text(const char *label, const char *text, size_t n, size_t most)
{
    const size_t from = n > most ? n - most : 0;
    printf("    %-9s %s", label, from ? "..." : "");
    for (size_t i = from; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (i == from && (c & 0xC0) == 0x80 && from)
            continue;
        if (c == '\n')
            printf("\n              ");
        else
            putchar(c < ' ' || c == 0x7F ? ' ' : c);
    }
    putchar('\n');
}

static int show_examples(struct scorer *s, const struct score_input *in, int show, struct plm_status *st)
{
    const int64_t n = in->answers.n;
    const struct answer **order = malloc((size_t)n * sizeof *order);
    if (!order)
        return status_no_memory(st, (size_t)n * sizeof *order, "the order of answers");
    for (int64_t i = 0; i < n; i++)
        order[i] = &in->answers.answers[i];
    qsort(order, (size_t)n, sizeof *order, lowest_first);
    for (int64_t i = 0; i < n && i < show; i++) {
        const struct answer *a = order[i];
        const struct row *task = &in->tasks.rows[a->task];
        const struct chat_message *last = task->n_messages ? &task->messages[task->n_messages - 1] : NULL;
        struct plm_status bad = {0};
        char why[512];
        printf("task %lld (line %lld), chain %d, turn %d: ", (long long)a->task, (long long)task->line, a->chain, a->turn);
        if (a->scored)
            printf("score %g\n", a->score);
        else
            printf("no score\n");
        if (last)
            print_text("prompt", last->content, last->content_bytes, 200);
        print_text("answer", a->text, strlen(a->text), 300);
        if (scorer_explain(s, task, a->text, why, sizeof why, &bad))
            print_text("failed", bad.message, strlen(bad.message), 300);
        else if (*why)
            print_text("found", why, strlen(why), 300);
    }
    free(order);
    return PLM_OK;
}

static int write_items(const char *path, const struct answer_set *set, struct plm_status *st)
{
    FILE *f;
    const int code = output_create_stream(&f, path, st);
    for (int64_t i = 0; f && i < set->n; i++) {
        const struct answer *a = &set->answers[i];
        if (a->scored)
            fprintf(f, "{\"task\": %lld, \"chain\": %d, \"turn\": %d, \"score\": %.17g}\n", (long long)a->task, a->chain, a->turn, a->score);
    }
    if (f && (ferror(f) | fclose(f)))
        return status_set(st, PLM_EIO, "cannot write '%s': %s", path, strerror(errno));
    return code;
}

int command_score(int argc, char **argv)
{
    struct arguments a = {.fields = json_object()};
    struct plm_status st = {0};
    struct settings *settings = NULL;
    struct scorer *s = NULL;
    struct score_input in = {0};
    struct scorer_stats stats;
    json_t *result = NULL;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    a.rows.fields = a.fields;
    int code = open_settings(&settings, &a, &st);
    if (!code)
        code = open_scorer(&s, settings, &st);
    if (!code)
        code = score_rows_read(&in, a.file, &a.rows, &st);
    double seconds = 0;
    if (!code)
        code = score(s, &in, a.threads, &stats, &seconds, &st);
    if (!code && !(result = summary(s, &in.answers, &stats, seconds, &st)))
        code = st.code;
    if (!code && a.show && !a.json)
        code = show_examples(s, &in, a.show, &st);
    if (!code)
        code = result_print(stdout, result, a.json, &st);
    if (!code && a.items)
        code = write_items(a.items, &in.answers, &st);
    json_decref(result);
    json_decref(a.fields);
    score_input_free(&in);
    scorer_close(s);
    settings_close(settings);
    text_list_free(&a.set);
    return code ? command_fail(&st) : 0;
}
