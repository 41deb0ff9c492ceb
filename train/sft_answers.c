#include "train/sft_answers.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/strategy.h"
#include "train/align/task.h"

struct sft_answers {
    const struct sft_answers_config *c;
    struct trainer *t;
    struct row_set tasks;
    int64_t first, n;                     /* this rank's tasks */
    struct strategy strategy;
    struct strategy_question *questions;  /* (n) */
    struct completer *completer;
    int threads;
    bool warned;
};

static int create_completer(struct sft_answers *a, const struct sft_renderer *r, struct plm_status *st)
{
    struct end_tokens ends = {0};
    int32_t turn_end = -1;
    int code = chat_template_end(r->chat, r->tokenizer, &turn_end, st);
    if (!code)
        code = end_tokens_with(&ends, &a->t->view.ends, turn_end, st);
    struct plm_sampling sampling = plm_sampling_default();
    sampling.temperature = (float)a->c->temperature;
    sampling.top_p = 1;
    const struct completer_options o = {.n_threads = pool_size(a->t->pool), .max_batch = a->c->batch, .sampling = sampling,
        .end_tokens = ends.ids, .n_end_tokens = ends.n, .packed = true};
    if (!code)
        code = completer_create(&a->completer, &a->t->view, &o, st); /* copies the end tokens */
    free(ends.ids);
    return code;
}

/* A prompt and the answer have to fit the context: say so now, not at the first evaluation. */
static int check_lengths(const struct sft_answers *a, const struct sft_renderer *r, struct plm_status *st)
{
    struct encoder *encoder = NULL;
    struct token_list ids = {0};
    const int64_t context = a->t->step.config.max_position_embeddings;
    int code = encoder_create(&encoder, r->tokenizer, st);
    for (int64_t i = 0; i < a->tasks.n && !code; i++) {
        const struct row *row = &a->tasks.rows[i];
        ids.length = 0;
        code = chat_template_render(r->chat, encoder, row->messages, row->n_messages, CHAT_BEGINS, true, &ids, NULL, st);
        if (!code && (int64_t)ids.length + a->c->max_tokens > context)
            code = status_set(st, PLM_EINVAL, "%s:%lld: the prompt has %zu tokens; with eval.answers.max_tokens %lld that is more than the model's context "
                              "of %lld", a->c->path, (long long)row->line, ids.length, (long long)a->c->max_tokens, (long long)context);
    }
    free(ids.data);
    encoder_free(encoder);
    return code;
}

int sft_answers_open(struct sft_answers **out, const struct sft_config *c, struct trainer *t, const struct sft_renderer *r, bool report, struct plm_status *st)
{
    struct sft_answers *a = *out = calloc(1, sizeof *a);
    if (!a)
        return status_no_memory(st, sizeof *a, "the evaluation of answers");
    a->c = &c->answers;
    a->t = t;
    a->strategy = (struct strategy){.chains = 1, .refinements = a->c->refinements, .max_tokens = a->c->max_tokens, .seed = c->seed, .chat = r->chat,
        .refine = r->refine};
    const struct row_options o = {.wanted = ROW_TASK, .fields = a->c->fields};
    int code = row_set_read(&a->tasks, a->c->path, &o, false, st);
    const int64_t all = a->tasks.n;
    for (; !code && a->c->count && a->tasks.n > a->c->count; a->tasks.n--)
        row_free(&a->tasks.rows[a->tasks.n - 1]);
    if (!code)
        code = check_lengths(a, r, st);
    if (!code) {
        a->first = a->tasks.n * t->comm->rank / t->comm->size;
        a->n = a->tasks.n * (t->comm->rank + 1) / t->comm->size - a->first;
        a->questions = calloc((size_t)a->n + 1, sizeof *a->questions);
        code = a->questions ? PLM_OK : status_no_memory(st, (size_t)a->n * sizeof *a->questions, "the questions");
    }
    for (int64_t i = 0; i < a->n && !code; i++) {
        const struct row *row = &a->tasks.rows[a->first + i];
        a->questions[i] = (struct strategy_question){row->messages, row->n_messages, (uint64_t)(a->first + i)};
    }
    if (!code)
        code = create_completer(a, r, st);
    if (!code && report)
        log_info("%s: %lld of %lld tasks are answered in each evaluation, scored by '%s'", a->c->path, (long long)a->tasks.n, (long long)all,
                 scorer_kind(a->c->scorer));
    return code;
}

void sft_answers_close(struct sft_answers *a)
{
    if (!a)
        return;
    completer_destroy(a->completer);
    free(a->questions);
    row_set_free(&a->tasks);
    free(a);
}

struct taken {
    struct answer_set set;
    int64_t first_task;
};

static int take_answer(void *ctx, const struct strategy_answer *answer, struct plm_status *st)
{
    struct taken *taken = ctx;
    struct answer copy = {.task = taken->first_task + answer->question, .chain = answer->chain, .turn = answer->turn, .n = (int)answer->n,
        .ended = answer->ended};
    copy.text = strdup(answer->text);
    copy.tokens = malloc(((size_t)answer->n + 1) * sizeof *copy.tokens);
    copy.log_probs = malloc(((size_t)answer->n + 1) * sizeof *copy.log_probs);
    int code = copy.text && copy.tokens && copy.log_probs ? PLM_OK : status_no_memory(st, (size_t)answer->n * 8, "an answer");
    if (!code) {
        memcpy(copy.tokens, answer->tokens, (size_t)answer->n * sizeof *copy.tokens);
        memcpy(copy.log_probs, answer->log_probs, (size_t)answer->n * sizeof *copy.log_probs);
        code = answer_set_add(&taken->set, &copy, st);
    }
    if (code) {
        free(copy.text);
        free(copy.tokens);
        free(copy.log_probs);
    }
    return code;
}

/* Text that may have been cut inside a character. */
static json_t *loose_text(const char *text)
{
    json_t *v = json_string(text);
    for (size_t n = strlen(text); !v && n > 0; n--)
        v = json_stringn(text, n - 1);
    return v;
}

/* {"prompt", "answers": [{"turn", "text", "score"}], "reference"}: answers of one task are those with its number. */
static int write_sample(struct sft_answers *a, const struct answer_set *set, int64_t task, struct plm_status *st)
{
    const struct row *row = &a->tasks.rows[task];
    const struct chat_message *last = &row->messages[row->n_messages - 1];
    json_t *answers = json_array();
    for (int turn = 0; turn <= a->c->refinements; turn++)
        for (int64_t i = 0; i < set->n; i++)
            if (set->answers[i].task == task && set->answers[i].turn == turn)
                json_array_append_new(answers, json_pack("{s:i, s:o, s:o}", "turn", turn, "text", loose_text(set->answers[i].text), "score",
                                                         set->answers[i].scored ? json_real(set->answers[i].score) : json_null()));
    json_t *object = json_pack("{s:s%, s:o}", "prompt", last->content, last->content_bytes, "answers", answers);
    if (object && row->answer)
        json_object_set_new(object, "reference", json_string(row->answer));
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    int code = text ? run_log_sample(a->t->log, a->t->state.step, text, st) : status_no_memory(st, 0, "a sample");
    free(text);
    json_decref(object);
    return code;
}

/* Sums per turn: score, scored, length, ended, answers. */
enum { SCORE, SCORED, LENGTH, ENDED, ANSWERS, SUMS };

static int answer_share(struct sft_answers *a, double *sums, struct plm_status *st)
{
    struct taken taken = {.first_task = a->first};
    struct strategy_counts counts = {0};
    struct scorer_stats stats = {0};
    int code = strategy_run(a->completer, &a->t->view, &a->strategy, a->questions, a->n, take_answer, NULL, &taken, &counts, st);
    if (!code && taken.set.n)
        code = scorer_score(a->c->scorer, &a->tasks, taken.set.answers, taken.set.n, pool_size(a->t->pool), &stats, st);
    for (int64_t i = 0; i < taken.set.n && !code; i++) {
        const struct answer *answer = &taken.set.answers[i];
        double *turn = sums + answer->turn * SUMS;
        turn[SCORE] += answer->scored ? answer->score : 0;
        turn[SCORED] += answer->scored;
        turn[LENGTH] += answer->n;
        turn[ENDED] += answer->ended;
        turn[ANSWERS] += 1;
    }
    if (!code && (stats.failed || counts.too_long) && !a->warned) {
        a->warned = true; /* once: every evaluation has the same tasks */
        log_warn("answers: %lld could not be scored%s%s; %lld were not made because the prompt left no room", (long long)stats.failed,
                 stats.failed ? ", the first: " : "", stats.first_failure, (long long)counts.too_long);
    }
    for (int64_t task = 0; a->t->comm->rank == 0 && task < a->n && task < a->c->samples && !code; task++)
        code = write_sample(a, &taken.set, task, st);
    answer_set_free(&taken.set);
    return code;
}

int sft_answers_run(struct sft_answers *a, struct turn_result *turns, struct plm_status *st)
{
    const int n_turns = a->c->refinements + 1;
    double *sums = calloc((size_t)n_turns * SUMS, sizeof *sums);
    int code = sums ? PLM_OK : status_no_memory(st, (size_t)n_turns * SUMS * sizeof *sums, "sums of scores");
    if (!code && a->n)
        code = answer_share(a, sums, st);
    code = comm_agree(a->t->comm, code, st);
    if (!code)
        code = comm_sum_doubles(a->t->comm, sums, (int64_t)n_turns * SUMS, st);
    for (int k = 0; k < n_turns && !code; k++) {
        const double *s = sums + k * SUMS, n = s[ANSWERS] > 0 ? s[ANSWERS] : 1;
        turns[k] = (struct turn_result){.score = s[SCORED] > 0 ? s[SCORE] / s[SCORED] : 0, .length = s[LENGTH] / n, .ended_rate = s[ENDED] / n,
            .answers = (int64_t)s[ANSWERS], .scored = (int64_t)s[SCORED]};
    }
    free(sums);
    return code;
}
