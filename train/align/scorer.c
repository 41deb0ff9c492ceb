#include "train/align/scorer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/threads.h"
#include "train/align/child.h"
#include "train/align/scorer_kinds.h"

enum { KIND_GSM8K, KIND_NUMBER, KIND_BOXED, KIND_CHOICE, KIND_EXACT, KIND_REGEX, KIND_TESTS, KIND_FILE, KIND_COMMAND, KIND_REWARD, KIND_IMPLICIT };
static const char *const kind_names[] = {"gsm8k", "number", "boxed", "choice", "exact", "regex", "tests", "file", "command", "reward", "implicit", NULL};

static bool is_rule(const struct scorer *s)
{
    return s->kind <= KIND_REGEX;
}

/* ---- configuration ---- */

/* "command": an array of texts, or one text for the shell. `fallback` NULL: it must be there. */
static void read_command(struct scorer *s, struct section *config, const char *const *fallback)
{
    static const char expected[] = "expected an array of texts, [\"python3\", \"judge.py\"], or one text for /bin/sh";
    if (!section_has(config, "command")) {
        if (!fallback) {
            section_error(config, "command", "missing, %s", expected);
            return;
        }
        json_t *list = json_array();
        for (int i = 0; fallback[i]; i++)
            json_array_append_new(list, json_string(fallback[i]));
        json_object_set_new(config->object, "command", list);
    }
    const json_t *v = json_object_get(config->object, "command");
    const size_t n = json_array_size(v);
    s->program.argv = calloc(n + 4, sizeof *s->program.argv);
    if (!s->program.argv) {
        section_error(config, "command", "out of memory");
        return;
    }
    if (json_is_string(v) && *json_string_value(v)) {
        s->program.argv[0] = "/bin/sh";
        s->program.argv[1] = "-c";
        s->program.argv[2] = json_string_value(v);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *word = json_array_get(v, i);
        if (!json_is_string(word) || strlen(json_string_value(word)) != json_string_length(word) || (i == 0 && !json_string_length(word)))
            section_error(config, "command", "entry %zu is not a text, %s", i, expected);
        else
            s->program.argv[i] = json_string_value(word);
    }
    if (n == 0)
        section_error(config, "command", "%s", expected);
}

/* "paths": directories that programs may read beside the system's, made absolute and free of links. */
static void read_paths(struct scorer *s, struct section *config)
{
    if (!section_has(config, "paths"))
        return;
    const json_t *v = json_object_get(config->object, "paths");
    const size_t n = json_array_size(v);
    s->paths = calloc(n + 1, sizeof *s->paths);
    if (!s->paths || !json_is_array(v))
        section_error(config, "paths", s->paths ? "expected an array of directories" : "out of memory");
    for (size_t i = 0; s->paths && i < n; i++) {
        const char *path = json_string_value(json_array_get(v, i));
        s->paths[i] = path ? realpath(path, NULL) : NULL;
        if (!s->paths[i]) {
            section_error(config, "paths", "entry %zu, '%s', is no directory that is there", i, path ? path : "");
            return;
        }
    }
}

static void read_kind(struct scorer *s, struct section *config)
{
    static const char *const python[] = {"python3", "-s", "-", NULL};
    struct plm_status bad = {0};
    switch (s->kind) {
    case KIND_GSM8K: s->verifier.flexible = section_bool(config, "flexible", false); break;
    case KIND_EXACT:
        s->verifier.ignore_case = section_bool(config, "ignore_case", false);
        s->verifier.normalise = section_bool(config, "normalise", false);
        break;
    case KIND_REGEX: {
        const char *pattern = section_text(config, "pattern", setting_required_text);
        if (verifier_regex(&s->verifier, pattern ? pattern : "", &bad))
            section_error(config, "pattern", "%s", bad.message);
        break;
    }
    case KIND_TESTS: {
        const bool own = section_has(config, "command");
        read_command(s, config, python);
        s->timeout_s = section_number(config, "timeout_s", 10, 0.01, 3600);
        s->memory_bytes = section_int(config, "memory_mib", 1024, 16, 1 << 20) << 20;
        s->processes = (int)section_int(config, "processes", 64, 1, 100000);
        static const char *const confine[] = {"full", "weak", NULL};
        s->confine = section_choice(config, "confine", 0, confine) == 1 ? CHILD_WEAK : CHILD_CONFINED;
        read_paths(s, config);
        const char *program = s->program.argv && s->program.argv[0] ? s->program.argv[0] : "";
        const char *slash = strrchr(program, '/');
        s->judged = section_bool(config, "python", !own || !strncmp(slash ? slash + 1 : program, "python", 6));
        break;
    }
    case KIND_FILE: s->path = section_text(config, "path", setting_required_text); break;
    case KIND_COMMAND:
        read_command(s, config, NULL);
        s->timeout_s = section_number(config, "timeout_s", 60, 0.01, 86400);
        s->restarts = (int)section_int(config, "restarts", 10, 0, 1000000);
        break;
    case KIND_REWARD:
        s->model = section_text(config, "model", setting_required_text);
        s->normalise = section_bool(config, "normalise", true);
        break;
    case KIND_IMPLICIT:
        s->model = section_text(config, "model", setting_required_text);
        s->reference = section_text(config, "reference", setting_required_text);
        s->beta = section_number(config, "beta", 0.1, 0, 1e6);
        break;
    default: break;
    }
}

int scorer_open(struct scorer **out, struct section *config, struct plm_status *st)
{
    struct scorer *s = *out = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a scorer");
    s->kind = section_choice(config, "kind", -1, kind_names);
    if (s->kind < 0) { /* its other keys are not what is wrong */
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)config->object, key, value)
            section_has(config, key);
        s->kind = KIND_EXACT;
    } else {
        read_kind(s, config);
    }
    if (is_rule(s))
        s->verifier.kind = (enum verifier_kind)s->kind;
    return PLM_OK;
}

void scorer_close(struct scorer *s)
{
    if (!s)
        return;
    verifier_free(&s->verifier);
    free(s->program.argv);
    for (size_t i = 0; s->paths && s->paths[i]; i++)
        free((char *)(uintptr_t)s->paths[i]);
    free(s->paths);
    free(s);
}

const char *scorer_kind(const struct scorer *s)
{
    return kind_names[s->kind];
}

bool scorer_needs_model(const struct scorer *s)
{
    return s->kind == KIND_REWARD || s->kind == KIND_IMPLICIT;
}

const char *scorer_model(const struct scorer *s)
{
    return s->model;
}

const char *scorer_reference(const struct scorer *s)
{
    return s->reference;
}

double scorer_beta(const struct scorer *s)
{
    return s->beta;
}

bool scorer_normalise(const struct scorer *s)
{
    return s->normalise;
}

/* ---- one text ---- */

int scorer_check(struct scorer *s, const struct row *task, const char *text, double *score, struct plm_status *st)
{
    *score = 0;
    if (is_rule(s)) {
        bool correct;
        const int code = verifier_check(&s->verifier, task->answer, text, &correct, st);
        *score = !code && correct;
        return code;
    }
    if (s->kind == KIND_TESTS) {
        struct verdict v;
        struct judge judge = {0};
        const int code = scorer_run_tests(s, &judge, task, text, &v, st);
        judge_stop(&judge);
        *score = v.score;
        return code;
    }
    return status_set(st, PLM_EINVAL, "a scorer of kind \"%s\" does not check single texts", scorer_kind(s));
}

bool scorer_extract(const struct scorer *s, const char *text, char *key, size_t capacity)
{
    char *said = NULL;
    if (!is_rule(s) || verifier_extract(&s->verifier, text, &said, NULL) || !said)
        return false;
    const size_t n = strlen(said);
    const bool fits = n < capacity;
    if (fits)
        memcpy(key, said, n + 1);
    free(said);
    return fits;
}

int scorer_explain(struct scorer *s, const struct row *task, const char *text, char *why, size_t capacity, struct plm_status *st)
{
    *why = 0;
    if (s->kind == KIND_TESTS) {
        struct verdict v;
        struct judge judge = {0};
        const int code = scorer_run_tests(s, &judge, task, text, &v, st);
        judge_stop(&judge);
        snprintf(why, capacity, "%s", v.why);
        return code;
    }
    char *said, *right = NULL;
    if (!is_rule(s))
        return PLM_OK;
    int code = verifier_extract(&s->verifier, text, &said, st);
    if (!code && task->answer)
        code = verifier_reference(&s->verifier, task->answer, &right, st);
    if (!code)
        snprintf(why, capacity, "%s%.100s%s, the reference %s%.100s%s", said ? "says '" : "says nothing of this kind", said ? said : "", said ? "'" : "",
                 right ? "'" : "has none", right ? right : "", right ? "'" : "");
    free(said);
    free(right);
    return code;
}

/* ---- many answers ---- */

void scorer_failed(struct scorer_stats *stats, enum outcome why, const struct answer *a, const char *message)
{
    stats->failed++;
    stats->timeouts += why == OUTCOME_TIMEOUT;
    stats->crashes += why == OUTCOME_CRASH;
    stats->malformed += why == OUTCOME_MALFORMED;
    stats->missing += why == OUTCOME_MISSING;
    if (!*stats->first_failure)
        snprintf(stats->first_failure, sizeof stats->first_failure, "task %lld, chain %d, turn %d: %s", (long long)a->task, a->chain, a->turn, message);
}

/* What came of each answer, so that counting afterwards goes in order whatever the threads did. */
struct result {
    struct verdict verdict;
    struct plm_status st;
};

struct work {
    struct scorer *s;
    const struct row_set *tasks;
    struct answer *answers;
    struct result *results;
    struct judge *judges; /* one for each worker */
};

static void score_range(void *ctx, int64_t begin, int64_t end, int worker)
{
    struct work *w = ctx;
    for (int64_t i = begin; i < end; i++) {
        struct answer *a = &w->answers[i];
        struct result *r = &w->results[i];
        const struct row *task = &w->tasks->rows[a->task];
        int code;
        if (w->s->kind == KIND_TESTS) {
            code = scorer_run_tests(w->s, &w->judges[worker], task, a->text, &r->verdict, &r->st);
        } else {
            code = scorer_check(w->s, task, a->text, &r->verdict.score, &r->st);
            r->verdict.outcome = !code ? OUTCOME_SCORED : code == PLM_ELIMIT ? OUTCOME_MALFORMED : OUTCOME_MISSING;
        }
        a->score = r->verdict.score;
        a->scored = !code;
    }
}

static int score_each(struct scorer *s, const struct row_set *tasks, struct answer *answers, int64_t n, int threads, struct scorer_stats *stats,
                      struct plm_status *st)
{
    const int workers = s->kind == KIND_TESTS && threads > 1 && n > 1 ? threads < n ? threads : (int)n : 1;
    struct work w = {s, tasks, answers, calloc((size_t)(n ? n : 1), sizeof *w.results),
                     calloc((size_t)workers, sizeof *w.judges)};
    struct thread_pool *pool = NULL;
    int code =
        w.results && w.judges ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *w.results, "the verdicts on answers");
    if (!code && workers > 1)
        code = pool_create(&pool, workers, st);
    if (!code)
        pool_for(pool, n, 1, score_range, &w);
    for (int i = 0; w.judges && i < workers; i++)
        judge_stop(&w.judges[i]); /* while the threads that started them live: children end with the thread they were
                                     started by */
    pool_destroy(pool);
    free(w.judges);
    unsigned missing = 0;
    for (int64_t i = 0; i < n && !code; i++) {
        const struct result *r = &w.results[i];
        missing |= r->verdict.missing;
        if (r->st.code && r->st.code != PLM_EINVAL && r->st.code != PLM_ELIMIT) { /* the machine, not the answer */
            code = status_set(st, r->st.code, "%s", r->st.message);
        } else if (r->st.code) {
            scorer_failed(stats, r->verdict.outcome, &answers[i], r->st.message);
        } else {
            stats->scored++;
            stats->timeouts += r->verdict.outcome == OUTCOME_TIMEOUT;
            stats->crashes += r->verdict.outcome == OUTCOME_CRASH;
        }
    }
    for (unsigned guard = 1; guard <= CHILD_FILES; guard *= 2)
        if (!code && missing & guard)
            log_warn(
                "scorer \"tests\", \"confine\": \"weak\": programs run WITHOUT %s, which this machine does not give",
                child_guard_name((enum child_guard)guard));
    free(w.results);
    return code;
}

int scorer_score(struct scorer *s, const struct row_set *tasks, struct answer *answers, int64_t n, int threads, struct scorer_stats *stats,
                 struct plm_status *st)
{
    *stats = (struct scorer_stats){0};
    for (int64_t i = 0; i < n; i++) {
        answers[i].scored = false;
        if (answers[i].task < 0 || answers[i].task >= tasks->n)
            return status_set(st, PLM_EINVAL, "answer %lld is to task %lld, there are %lld tasks", (long long)i, (long long)answers[i].task,
                              (long long)tasks->n);
    }
    switch (s->kind) {
    case KIND_FILE: return scorer_file_score(s, answers, n, stats, st);
    case KIND_COMMAND: return scorer_command_score(s, tasks, answers, n, stats, st);
    case KIND_REWARD:
    case KIND_IMPLICIT: return status_set(st, PLM_EINVAL, "a scorer of kind \"%s\" needs its model: the caller scores", scorer_kind(s));
    default: return score_each(s, tasks, answers, n, threads, stats, st);
    }
}
