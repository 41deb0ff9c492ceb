#include "train/align/score_model.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "train/align/reward_model.h"
#include "train/align/scorer_kinds.h"
#include "train/checkpoint.h"
#include "train/frozen.h"
#include "train/templates.h"

struct score_model {
    bool reward;                /* else implicit */
    double beta, mean, deviation;
    struct frozen policy, reference; /* a reward model is `policy` alone */
    struct extra_params head;
    struct templates templates;
    struct encoder *encoder;
    struct batch batch;
    float *nll;                 /* (positions of a batch) */
};

/* ---- opening ---- */

/* A run's best model, when it has one. */
static int resolve(const char *model, char path[PATH_MAX], struct plm_status *st)
{
    char config[PATH_MAX];
    if (snprintf(config, sizeof config, "%s/best/config.json", model) < (int)sizeof config && access(config, F_OK) == 0) {
        snprintf(path, PATH_MAX, "%s/best", model);
        return PLM_OK;
    }
    return checkpoint_resolve(model, path, st);
}

static int tokenizer_hash(const char *dir, char hex[SHA256_HEX], struct plm_status *st)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/tokenizer.json", dir) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", dir);
    return sha256_file(path, hex, NULL, st);
}

int score_model_hash(const struct scorer *scorer, char hex[SHA256_HEX], struct plm_status *st)
{
    const char *models[] = {scorer_model(scorer), scorer_reference(scorer)};
    char dir[PATH_MAX], path[PATH_MAX], parts[2][SHA256_HEX] = {"", ""};
    int code = PLM_OK;
    *hex = 0;
    for (int i = 0; i < 2 && models[i] && !code; i++) {
        code = resolve(models[i], dir, st);
        if (!code && snprintf(path, sizeof path, "%s/manifest.json", dir) < (int)sizeof path && access(path, F_OK) == 0)
            code = sha256_file(path, parts[i], NULL, st);
    }
    return code || (!*parts[0] && !*parts[1]) ? code : sha256_bytes(parts, sizeof parts, hex, st);
}

static int open_reward(struct score_model *s, const char *dir, const struct scorer *scorer, bool report, struct plm_status *st)
{
    struct reward_statistics found;
    int code = reward_statistics_read(&found, dir, st);
    if (!code)
        code = frozen_open(&s->policy, dir, 0, s->policy.pool, st);
    if (!code)
        code = extra_params_create(&s->head, REWARD_HEAD, s->policy.model->config.hidden_size, st);
    if (!code)
        code = extra_params_load(&s->head, dir, false, st);
    if (code)
        return code;
    s->mean = scorer_normalise(scorer) ? found.mean : 0;
    s->deviation = scorer_normalise(scorer) ? found.deviation : 1;
    if (report && found.pairs)
        log_info("scorer: reward model '%s', %.2f M parameters, right on %.1f %% of %lld held-out pairs; %s %.3g +- %.3g", dir,
                 (double)s->policy.model->table.parameters / 1e6, 100 * found.accuracy, (long long)found.pairs,
                 scorer_normalise(scorer) ? "scores are normalised by" : "its rewards are", found.mean, found.deviation);
    else if (report)
        log_warn("scorer: reward model '%s' was never evaluated on held-out pairs; its rewards are not normalised", dir);
    return PLM_OK;
}

static int open_implicit(struct score_model *s, const char *dir, const char *hash, const struct scorer *scorer, bool report, struct plm_status *st)
{
    char reference[PATH_MAX], other[SHA256_HEX];
    struct thread_pool *pool = s->policy.pool;
    s->beta = scorer_beta(scorer);
    int code = resolve(scorer_reference(scorer), reference, st);
    if (!code)
        code = tokenizer_hash(reference, other, st);
    if (!code && strcmp(hash, other) != 0)
        code = status_set(st, PLM_EINVAL, "scorer: '%s' and its reference '%s' have different tokenizers; the reference must be the model it was trained from", dir,
                          reference);
    if (!code)
        code = frozen_open(&s->policy, dir, 0, pool, st);
    if (!code)
        code = frozen_open(&s->reference, reference, s->policy.max_len, pool, st);
    if (!code && report)
        log_info("scorer: %g (ln p of '%s' - ln p of '%s')", s->beta, dir, reference);
    return code;
}

static int open_text(struct score_model *s, const char *dir, const struct score_model_options *o, struct plm_status *st)
{
    const struct frozen *f = &s->policy;
    int code = templates_open(&s->templates, NULL, NULL, dir, st);
    if (!code)
        code = encoder_create(&s->encoder, f->model->tokenizer, st);
    if (!code)
        code = batch_create(&s->batch, f->max_rows, f->max_len, st);
    const size_t positions = (size_t)f->max_rows * (size_t)f->max_len;
    if (!code && !(s->nll = malloc(positions * sizeof *s->nll)))
        code = status_no_memory(st, positions * sizeof *s->nll, "log-probabilities");
    if (!code && o->report && o->chat && strcmp(chat_template_json(o->chat), chat_template_json(s->templates.chat)) != 0)
        log_warn("scorer: '%s' was trained with another chat template than this run's; prompts are put to it in its own", dir);
    if (!code && o->report)
        log_info("scorer: %.1f MiB of buffers per rank beside the weights, which are mapped", (double)(frozen_bytes(f) + frozen_bytes(&s->reference)) / (1 << 20));
    return code;
}

int score_model_open(struct score_model **out, const struct scorer *scorer, const struct score_model_options *o, struct plm_status *st)
{
    char dir[PATH_MAX], hash[SHA256_HEX];
    struct score_model *s = *out = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a scorer");
    s->reward = strcmp(scorer_kind(scorer), "reward") == 0;
    s->policy.pool = o->pool;
    int code = resolve(scorer_model(scorer), dir, st);
    if (!code)
        code = tokenizer_hash(dir, hash, st);
    if (!code && o->tokenizer_sha256 && strcmp(hash, o->tokenizer_sha256) != 0)
        code = status_set(st, PLM_EINVAL, "scorer: '%s' has another tokenizer than the model whose answers it shall score; train it from a model with the same tokenizer.json",
                          dir);
    if (!code)
        code = s->reward ? open_reward(s, dir, scorer, o->report, st) : open_implicit(s, dir, hash, scorer, o->report, st);
    if (!code)
        code = open_text(s, dir, o, st);
    if (code) {
        score_model_close(s);
        *out = NULL;
    }
    return code;
}

void score_model_close(struct score_model *s)
{
    if (!s)
        return;
    encoder_free(s->encoder);
    templates_close(&s->templates);
    extra_params_free(&s->head);
    frozen_close(&s->policy);
    frozen_close(&s->reference);
    batch_free(&s->batch);
    free(s->nll);
    free(s);
}

/* ---- scoring ---- */

struct scoring {
    struct score_model *s;
    struct examples e;
    int64_t *answer;         /* (e.n) which answer a sequence is */
    double *values;          /* (e.n) rewards, or log-probabilities */
    struct token_list ids;
};

/* x -> y of an answer as one more sequence, unless the model cannot take it. */
static int add_answer(struct scoring *w, const struct row *task, const struct answer *a, int64_t index, struct scorer_stats *stats, struct plm_status *st)
{
    struct score_model *s = w->s;
    const struct chat_template *chat = s->templates.chat;
    const int own = s->policy.model->config.vocab_size, others = s->reward ? own : s->reference.model->config.vocab_size, vocab = own < others ? own : others;
    char why[128];
    int32_t *tokens = NULL;
    w->ids.length = 0;
    for (int i = 0; i < a->n; i++)
        if (a->tokens[i] < 0 || a->tokens[i] >= vocab) {
            snprintf(why, sizeof why, "token %d: the scoring model has %d", (int)a->tokens[i], vocab);
            scorer_failed(stats, OUTCOME_MALFORMED, a, why);
            return PLM_OK;
        }
    int code = chat_template_render(chat, s->encoder, task->messages, task->n_messages, CHAT_BEGINS, true, &w->ids, NULL, st);
    const size_t context = w->ids.length;
    if (!code && !a->n)
        code = chat_template_answer(chat, s->encoder, a->text, strlen(a->text), true, &w->ids, NULL, st);
    const size_t n = w->ids.length + (size_t)a->n;
    if (!code && n > (size_t)s->policy.max_len) {
        snprintf(why, sizeof why, "prompt and answer have %zu tokens, the scoring model takes %d", n, s->policy.max_len);
        scorer_failed(stats, OUTCOME_MISSING, a, why);
        return PLM_OK;
    }
    if (!code && !(tokens = malloc((n + 1) * sizeof *tokens)))
        code = status_no_memory(st, n * sizeof *tokens, "an answer");
    if (code)
        return code;
    memcpy(tokens, w->ids.data, w->ids.length * sizeof *tokens);
    if (a->n)
        memcpy(tokens + w->ids.length, a->tokens, (size_t)a->n * sizeof *tokens);
    w->answer[w->e.n] = index;
    code = s->reward ? reward_sequence_add(&w->e, tokens, (int64_t)n, st) : examples_add(&w->e, tokens, (int64_t)n, NULL, (int64_t)context, st);
    free(tokens);
    return code;
}

/* ln p of the targets of micro-batch i's sequences, times `factor`, added to values. */
static void add_log_probs(struct scoring *w, struct frozen *f, const struct micro_batches *m, int64_t i, double factor)
{
    const struct batch *b = &w->s->batch;
    frozen_forward(f, b);
    frozen_nll(f, b, w->s->nll);
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const struct placed_sequence *p = &m->placed[k];
        const int64_t at = (int64_t)p->row * b->seq_len + p->column;
        double sum = 0;
        for (int64_t t = 0; t < example_length(&w->e, p->sequence) - 1; t++)
            sum -= w->s->nll[at + t];
        w->values[p->sequence] += factor * sum;
    }
}

static int run(struct scoring *w, struct plm_status *st)
{
    struct score_model *s = w->s;
    struct frozen *f = &s->policy;
    struct micro_batches m = {0};
    int64_t *all = malloc(((size_t)w->e.n + 1) * sizeof *all);
    int code = all ? PLM_OK : status_no_memory(st, (size_t)w->e.n * sizeof *all, "the answers to score");
    for (int64_t i = 0; i < w->e.n && !code; i++)
        all[i] = i;
    if (!code)
        code = micro_batches_pack(&m, &w->e, all, all, w->e.n, f->max_rows, f->max_len, st);
    for (int64_t i = 0; i < m.n && !code; i++) {
        micro_batch_fill(&m, i, &w->e, &s->batch, f->max_rows, f->max_len);
        if (s->reward) {
            frozen_forward(f, &s->batch);
            reward_gather(&m, i, &w->e, &s->batch, f->h, s->head.params, f->model->config.hidden_size, w->values);
        } else {
            add_log_probs(w, f, &m, i, s->beta);
            add_log_probs(w, &s->reference, &m, i, -s->beta);
        }
    }
    micro_batches_free(&m);
    free(all);
    return code;
}

int score_model_score(void *ctx, const struct row_set *tasks, struct answer *answers, int64_t n, struct scorer_stats *stats, struct plm_status *st)
{
    struct score_model *s = ctx;
    struct scoring w = {.s = s};
    *stats = (struct scorer_stats){0};
    w.answer = malloc(((size_t)n + 1) * sizeof *w.answer);
    w.values = calloc((size_t)n + 1, sizeof *w.values);
    int code = w.answer && w.values ? PLM_OK : status_no_memory(st, (size_t)n * 16, "the answers to score");
    for (int64_t i = 0; i < n && !code; i++) {
        struct answer *a = &answers[i];
        a->scored = false;
        if (a->task < 0 || a->task >= tasks->n)
            code = status_set(st, PLM_EINVAL, "answer %lld is to task %lld, there are %lld tasks", (long long)i, (long long)a->task, (long long)tasks->n);
        else
            code = add_answer(&w, &tasks->rows[a->task], a, i, stats, st);
    }
    if (!code && w.e.n)
        code = run(&w, st);
    for (int64_t i = 0; i < w.e.n && !code; i++) {
        struct answer *a = &answers[w.answer[i]];
        a->score = s->reward ? (w.values[i] - s->mean) / s->deviation : w.values[i];
        a->scored = isfinite(a->score);
        if (a->scored)
            stats->scored++;
        else
            scorer_failed(stats, OUTCOME_MALFORMED, a, "the scoring model gives no finite number; its weights are damaged, or training diverged");
    }
    examples_free(&w.e);
    free(w.answer);
    free(w.values);
    free(w.ids.data);
    return code;
}
