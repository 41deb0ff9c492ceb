#include "tools/answer_turns.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/strategy.h"
#include "tools/result.h"

enum { KEY_BYTES = 256 };

static int compare(const void *a, const void *b)
{
    const struct answer *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    return x->chain != y->chain ? (x->chain < y->chain ? -1 : 1) : (x->turn > y->turn) - (x->turn < y->turn);
}

void answers_sort(struct answer_set *set)
{
    if (set->n)
        qsort(set->answers, (size_t)set->n, sizeof *set->answers, compare);
}

static bool same_chain(const struct answer *a, const struct answer *b) { return a->task == b->task && a->chain == b->chain; }

struct turn {
    int64_t answers, tokens, ended, copied, scored, compared, better, worse;
    double score;
};

/* first: turn 0 of the chain; before: the answer before, or NULL. */
static void count(struct turn *t, const struct answer *a, const struct answer *first, const struct answer *before)
{
    t->answers++;
    t->tokens += a->n;
    t->ended += a->ended;
    t->copied += before && !strcmp(a->text, before->text);
    t->scored += a->scored;
    t->score += a->scored ? a->score : 0;
    if (a->scored && first->scored) {
        t->compared++;
        t->better += a->score > first->score;
        t->worse += a->score < first->score;
    }
}

static json_t *share(int64_t k, int64_t n) { return n ? json_real((double)k / (double)n) : json_null(); }

static json_t *turn_json(const struct turn *t, int turn, bool scored)
{
    json_t *row = json_pack("{s:i, s:I, s:o, s:o, s:o}", "turn", turn, "answers", (json_int_t)t->answers, "tokens", share(t->tokens, t->answers), "ended",
                            share(t->ended, t->answers), "copied", share(t->copied, t->answers));
    if (!row || !scored)
        return row;
    json_object_set_new(row, "score", t->scored ? json_real(t->score / (double)t->scored) : json_null());
    json_object_set_new(row, "scored", json_integer((json_int_t)t->scored));
    json_object_set_new(row, "better", share(t->better, t->compared));
    json_object_set_new(row, "worse", share(t->worse, t->compared));
    return row;
}

int answers_by_turn(json_t *root, const struct answer_set *set, bool scored, struct plm_status *st)
{
    int turns = 1;
    for (int64_t i = 0; i < set->n; i++)
        turns = set->answers[i].turn >= turns ? set->answers[i].turn + 1 : turns;
    struct turn *t = calloc((size_t)turns, sizeof *t);
    json_t *rows = json_array();
    bool ok = t && rows;
    const struct answer *first = NULL;
    for (int64_t i = 0; i < set->n && ok; i++) {
        const struct answer *a = &set->answers[i];
        const bool begins = !first || !same_chain(a, first);
        first = begins ? a : first;
        count(&t[a->turn], a, first, begins ? NULL : a - 1);
    }
    for (int k = 0; k < turns && ok; k++)
        ok = json_array_append_new(rows, turn_json(&t[k], k, scored)) == 0;
    free(t);
    ok = json_object_set_new(root, "answers", json_integer((json_int_t)set->n)) == 0 && ok;
    ok = json_object_set_new(root, "turns", rows) == 0 && ok;
    return ok ? PLM_OK : result_failed(st);
}

/* What the last answers of a task vote with; NULL: nothing could be read out of it. */
static const char *vote_key(const struct answer *a, const struct scorer *verifier, char *key)
{
    if (!verifier)
        return a->text;
    return scorer_extract(verifier, a->text, key, KEY_BYTES) ? key : NULL;
}

int answers_choose(int64_t *chosen, int64_t n_tasks, const struct answer_set *set, const struct scorer *verifier, struct plm_status *st)
{
    for (int64_t i = 0; i < n_tasks; i++)
        chosen[i] = -1;
    const size_t n = (size_t)set->n + 1;
    const char **keys = malloc(n * sizeof *keys);
    int64_t *last = malloc(n * sizeof *last);
    char(*memory)[KEY_BYTES] = malloc(n * sizeof *memory);
    int code = keys && last && memory ? PLM_OK : status_no_memory(st, n * KEY_BYTES, "votes");
    for (int64_t i = 0; i < set->n && !code;) {
        const int64_t begin = i, task = set->answers[begin].task;
        int candidates = 0;
        for (; i < set->n && set->answers[i].task == task; i++) {
            if (i + 1 < set->n && same_chain(&set->answers[i], &set->answers[i + 1]))
                continue;
            keys[candidates] = vote_key(&set->answers[i], verifier, memory[candidates]);
            last[candidates++] = i;
        }
        const int winner = majority_vote(keys, candidates);
        chosen[task] = last[winner < 0 ? 0 : winner];
    }
    free(keys);
    free(last);
    free(memory);
    return code;
}
