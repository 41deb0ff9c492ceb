#include "train/align/rollout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/base/clock.h"
#include "infer/base/log.h"
#include "train/align/reference.h"
#include "train/signals.h"

static int chunk_path(char out[PATH_MAX], const struct rollout *r, const char *what, int64_t chunk, struct plm_status *st)
{
    return snprintf(out, PATH_MAX, "%s/%s-%05lld%s", r->dir, what, (long long)chunk, strcmp(what, "claim") ? ".jsonl" : "") < PATH_MAX
               ? PLM_OK : status_set(st, PLM_EINVAL, "path too long: '%s'", r->dir);
}

/* ---- one chunk ---- */

struct chunk {
    const struct rollout *r;
    const int64_t *list;     /* tasks of the chunk */
    struct answer_set set;
    bool stopped;
};

static int take(void *ctx, const struct strategy_answer *a, struct plm_status *st)
{
    struct chunk *c = ctx;
    if (signals_stop_requested()) {
        c->stopped = true;
        return status_set(st, PLM_EIO, "stopped");
    }
    struct answer copy = {.task = c->list[a->question], .chain = a->chain, .turn = a->turn, .n = (int)a->n, .ended = a->ended};
    const size_t n = (size_t)a->n;
    copy.text = malloc(a->bytes + 1);
    copy.tokens = malloc((n + 1) * sizeof *copy.tokens);
    copy.log_probs = malloc((n + 1) * sizeof *copy.log_probs);
    int code = copy.text && copy.tokens && copy.log_probs ? PLM_OK : status_no_memory(st, n * 8, "an answer");
    if (!code) {
        for (size_t i = 0; i < a->bytes; i++) /* no text holds a NUL: it becomes U+FFFD, as every byte that is no UTF-8 */
            copy.text[i] = (char)(a->text[i] ? a->text[i] : '\xff');
        copy.text[a->bytes] = 0;
        memcpy(copy.tokens, a->tokens, n * sizeof *copy.tokens);
        memcpy(copy.log_probs, a->log_probs, n * sizeof *copy.log_probs);
        code = answer_set_add(&c->set, &copy, st);
    }
    if (code)
        free(copy.text), free(copy.tokens), free(copy.log_probs);
    return code;
}

/* Answers come as they are ready: by place in the list, chain, turn they are the same whoever made them. The task's place is the order of the list. */
static int compare_answers(const void *a, const void *b)
{
    const struct answer *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    return x->chain != y->chain ? (x->chain > y->chain) - (x->chain < y->chain) : (x->turn > y->turn) - (x->turn < y->turn);
}

static int score(const struct rollout *r, struct answer_set *set, struct rollout_stats *stats, struct plm_status *st)
{
    struct scorer_stats s = {0};
    int code = PLM_OK;
    if (!r->scorer)
        return PLM_OK;
    if (scorer_needs_model(r->scorer))
        code = r->model_scorer->score(r->model_scorer->ctx, r->tasks, set->answers, set->n, &s, st);
    else
        code = scorer_score(r->scorer, r->tasks, set->answers, set->n, pool_size(r->t->pool), &s, st);
    stats->failed += s.failed;
    if (s.failed && !*stats->first_failure)
        snprintf(stats->first_failure, sizeof stats->first_failure, "%s", s.first_failure);
    return code;
}

static int make_chunk(const struct rollout *r, struct completer *completer, const int64_t *list, int64_t n, const char *path, struct rollout_stats *stats,
                      struct plm_status *st)
{
    struct chunk c = {.r = r, .list = list};
    const struct strategy strategy = {.chains = r->o->chains, .refinements = r->o->refinements, .max_tokens = r->o->max_tokens, .seed = r->seed, .chat = r->chat,
        .refine = r->refine};
    struct strategy_counts counts = {0};
    struct strategy_question *questions = calloc((size_t)n, sizeof *questions);
    int code = questions ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *questions, "questions");
    for (int64_t i = 0; i < n && !code; i++) {
        const struct row *row = &r->tasks->rows[list[i]];
        questions[i] = (struct strategy_question){row->messages, row->n_messages, (uint64_t)list[i]};
    }
    if (!code)
        code = strategy_run(completer, &r->t->view, &strategy, questions, n, take, NULL, &c, &counts, st);
    if (!code && c.set.n > 0)
        qsort(c.set.answers, (size_t)c.set.n, sizeof *c.set.answers, compare_answers);
    if (!code)
        code = score(r, &c.set, stats, st);
    if (!code)
        code = answer_set_write(&c.set, 0, c.set.n, path, st);
    for (int64_t i = 0; i < c.set.n; i++)
        stats->made += c.set.answers[i].n;
    stats->too_long += counts.too_long;
    if (c.stopped) {
        stats->stopped = true;
        code = PLM_OK;
    }
    free(questions);
    answer_set_free(&c.set);
    return code;
}

/* ---- all chunks ---- */

/* True when this rank is the one to make the chunk: the file system decides. */
static int claim(const struct rollout *r, int64_t chunk, bool *mine, struct plm_status *st)
{
    char path[PATH_MAX];
    int code = chunk_path(path, r, "claim", chunk, st);
    if (code)
        return code;
    const int fd = open(path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0666);
    *mine = fd >= 0;
    if (fd >= 0)
        close(fd);
    else if (errno != EEXIST)
        return status_set(st, PLM_EIO, "cannot create '%s': %s", path, strerror(errno));
    return PLM_OK;
}

/* The directory, without claims: those of an earlier session mean nothing. */
static int clear_claims(const struct rollout *r, int64_t chunks, struct plm_status *st)
{
    int code = directory_create_own(r->dir, st);
    for (int64_t i = 0; i < chunks && !code; i++) {
        char path[PATH_MAX];
        code = chunk_path(path, r, "claim", i, st);
        if (!code && unlink(path) != 0 && errno != ENOENT)
            code = status_set(st, PLM_EIO, "cannot remove '%s': %s", path, strerror(errno));
    }
    return code;
}

static int make_missing(const struct rollout *r, const int64_t *list, int64_t n, int64_t chunks, struct rollout_stats *stats, struct plm_status *st)
{
    struct end_tokens ends = {0};
    int32_t turn_end = -1;
    struct completer_options o = {.n_threads = pool_size(r->t->pool), .max_batch = r->o->batch,
                                  .sampling = r->o->sampling, .packed = true};
    struct completer *completer = NULL;
    int code = chat_template_end(r->chat, r->t->tokenizer, &turn_end, st);
    if (!code)
        code = end_tokens_with(&ends, &r->t->view.ends, turn_end, st);
    o.end_tokens = ends.ids, o.n_end_tokens = ends.n;
    for (int64_t i = 0; i < chunks && !code && !stats->stopped; i++) {
        char path[PATH_MAX];
        bool mine = false;
        const int64_t first = i * r->o->chunk, size = n - first < r->o->chunk ? n - first : r->o->chunk;
        code = chunk_path(path, r, "answers", i, st);
        if (code || access(path, F_OK) == 0)
            continue;
        code = claim(r, i, &mine, st);
        if (code || !mine)
            continue;
        if (!completer)
            code = completer_create(&completer, &r->t->view, &o, st);
        if (!code)
            code = make_chunk(r, completer, list + first, size, path, stats, st);
    }
    completer_destroy(completer);
    free(ends.ids);
    return code;
}

int rollout_run(const struct rollout *r, const int64_t *list, int64_t n, struct answer_set *all, struct rollout_stats *stats, struct plm_status *st)
{
    const int64_t chunks = (n + r->o->chunk - 1) / r->o->chunk;
    struct comm *comm = r->t->comm;
    const double begin = seconds_now();
    *stats = (struct rollout_stats){0};
    *all = (struct answer_set){0};
    int code = comm_agree(comm, comm->rank == 0 ? clear_claims(r, chunks, st) : PLM_OK, st);
    if (!code)
        code = comm_agree(comm, make_missing(r, list, n, chunks, stats, st), st); /* all chunks are there when all ranks have come here */
    double sums[4] = {(double)stats->made, (double)stats->too_long, (double)stats->failed, stats->stopped};
    if (!code)
        code = comm_sum_doubles(comm, sums, 4, st);
    if (code)
        return code;
    stats->made = (int64_t)sums[0], stats->too_long = (int64_t)sums[1], stats->failed = (int64_t)sums[2], stats->stopped = sums[3] > 0;
    stats->seconds = seconds_now() - begin;
    if (comm->rank == 0 && !stats->stopped)
        code = clear_claims(r, chunks, st); /* claims have done their work */
    for (int64_t i = 0; i < chunks && !stats->stopped && !code; i++) {
        char path[PATH_MAX];
        code = chunk_path(path, r, "answers", i, st);
        if (!code)
            code = answer_set_read(all, path, r->tasks->n, st);
    }
    stats->answers = all->n;
    for (int64_t i = 0; i < all->n; i++)
        stats->tokens += all->answers[i].n;
    code = comm_agree(comm, code, st);
    if (code)
        answer_set_free(all);
    return code;
}

/* ---- what they say ---- */

/* Does answer i refine the one before it? */
static bool follows(const struct answer_set *set, int64_t i)
{
    const struct answer *a = &set->answers[i], *b = i > 0 ? a - 1 : a;
    return a->turn > 0 && b->task == a->task && b->chain == a->chain && b->turn == a->turn - 1;
}

void rollout_turns(const struct answer_set *set, int n_turns, struct turn_stats *turns)
{
    double *wins = calloc(2 * (size_t)n_turns, sizeof *wins), *compared = wins + n_turns;
    memset(turns, 0, (size_t)n_turns * sizeof *turns);
    const struct answer *first = NULL;
    for (int64_t i = 0; i < set->n; i++) {
        const struct answer *a = &set->answers[i];
        if (a->turn == 0)
            first = a;
        if (a->turn >= n_turns)
            continue;
        struct turn_stats *t = &turns[a->turn];
        t->count++;
        t->length += a->n;
        t->ended += a->ended;
        if (follows(set, i))
            t->copied += strcmp(a->text, set->answers[i - 1].text) == 0;
        if (!a->scored)
            continue;
        t->scored++;
        t->score += a->score;
        if (wins && first && first->scored && first->task == a->task && first->chain == a->chain) {
            wins[a->turn] += a->score > first->score ? 1 : a->score == first->score ? 0.5 : 0;
            compared[a->turn]++;
        }
    }
    for (int k = 0; k < n_turns; k++) {
        struct turn_stats *t = &turns[k];
        const double count = t->count ? (double)t->count : 1, scored = t->scored ? (double)t->scored : 1;
        t->score /= scored;
        t->win_rate = wins && compared[k] > 0 ? wins[k] / compared[k] : 0;
        t->length /= count;
        t->ended /= count;
        t->copied /= count;
    }
    free(wins);
}

/* The bytes of an answer as the strategy gave them to its refinement; its text may differ where it was cut inside a character. malloc'ed. */
static char *draft_of(const struct trainer *t, const struct answer *a, size_t *bytes)
{
    const char *piece;
    *bytes = 0;
    for (int i = 0; i < a->n - a->ended; i++)
        *bytes += plm_token_bytes(&t->view, a->tokens[i], false, &piece);
    char *text = malloc(*bytes + 1), *end = text;
    for (int i = 0; i < a->n - a->ended && text; i++) {
        const size_t n = plm_token_bytes(&t->view, a->tokens[i], false, &piece);
        if (n)
            memcpy(end, piece, n);
        end += n;
    }
    if (text)
        *end = 0;
    return text;
}

int rollout_sequence(const struct rollout *r, struct encoder *e, const struct answer_set *set, int64_t index, struct examples *out, struct plm_status *st)
{
    const struct answer *a = &set->answers[index];
    const struct row *row = &r->tasks->rows[a->task];
    const struct strategy strategy = {.chains = 1, .refinements = r->o->refinements, .chat = r->chat, .refine = r->refine};
    struct token_list ids = {0};
    size_t bytes = 0;
    char *draft = NULL;
    if (a->turn > 0 && !follows(set, index))
        return status_set(st, PLM_EINVAL, "turn %d of chain %d of task %lld is there, but not the turn before it", a->turn, a->chain, (long long)a->task);
    if (a->turn > 0 && !(draft = draft_of(r->t, a - 1, &bytes)))
        return status_no_memory(st, bytes, "a draft");
    int code = strategy_prompt(&strategy, e, row->messages, row->n_messages, draft, bytes, &ids, st);
    free(draft);
    const size_t n = ids.length + (size_t)a->n;
    int32_t *tokens = malloc((n + 1) * sizeof *tokens);
    if (!code && !tokens)
        code = status_no_memory(st, n * sizeof *tokens, "an answer");
    if (!code) {
        memcpy(tokens, ids.data, ids.length * sizeof *tokens);
        memcpy(tokens + ids.length, a->tokens, (size_t)a->n * sizeof *tokens);
        code = examples_add(out, tokens, (int64_t)n, NULL, (int64_t)ids.length, st);
    }
    free(tokens);
    free(ids.data);
    return code;
}

int rollout_check(const struct rollout *r, const struct answer_set *set, int64_t count, const float *start, double *difference, double *kl, struct plm_status *st)
{
    struct examples e = {0};
    struct encoder *encoder = NULL;
    int64_t *index = malloc(((size_t)count + 1) * sizeof *index);
    int code = index ? encoder_create(&encoder, r->t->tokenizer, st) : status_no_memory(st, (size_t)count * sizeof *index, "answers");
    int64_t n = 0;
    for (int64_t i = 0; i < set->n && n < count && !code; i++) {
        if (set->answers[i].n == 0)
            continue;
        code = rollout_sequence(r, encoder, set, i, &e, st);
        if (!code && example_length(&e, e.n - 1) > r->t->step.max_len + 1) { /* longer than training's rows */
            e.tokens.length = e.target.length = (size_t)e.begin[e.n - 1];
            e.n--;
        } else if (!code) {
            index[n++] = i;
        }
    }
    encoder_free(encoder);
    const size_t tokens = n ? (size_t)e.begin[n] : 0;
    float *per_token = malloc((tokens + 1) * sizeof *per_token);
    double *now_sum = malloc(((size_t)n + 1) * sizeof *now_sum), *start_sum = malloc(((size_t)n + 1) * sizeof *start_sum);
    if (!code && !(per_token && now_sum && start_sum))
        code = status_no_memory(st, tokens * sizeof *per_token, "log-probabilities");
    code = comm_agree(r->t->comm, code, st);
    *difference = *kl = 0;
    if (!code && n)
        code = reference_compute(r->t, NULL, &e, NULL, n, now_sum, per_token, st);
    for (int64_t k = 0; k < n && !code; k++) {
        const struct answer *a = &set->answers[index[k]];
        const float *trained = per_token + e.begin[k + 1] - a->n;
        for (int i = 0; i < a->n; i++) {
            const double d = fabs((double)trained[i] - a->log_probs[i]);
            *difference = d <= *difference ? *difference : d; /* NaN stays */
        }
    }
    if (!code && n && start)
        code = reference_compute(r->t, start, &e, NULL, n, start_sum, NULL, st);
    for (int64_t k = 0; k < n && start && !code; k++)
        *kl += (now_sum[k] - start_sum[k]) / (double)n;
    examples_free(&e);
    free(index);
    free(per_token);
    free(now_sum);
    free(start_sum);
    return code;
}
