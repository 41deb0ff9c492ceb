#include "train/align/selection.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PER_TASK 4096 /* answers: all their pairs are held in memory */

static const char *const rule_names[] = {"best_worst", "refined", "all_pairs", NULL};

struct selection_options selection_read(struct section *s)
{
    struct selection_options o = {0};
    o.rule = (enum selection_rule)section_choice(s, "rule", SELECT_BEST_WORST, rule_names);
    o.min_margin = section_number(s, "min_margin", 0, 0, HUGE_VAL);
    o.max_pairs = (int)section_int(s, "max_pairs", 1, 1, INT_MAX);
    o.require_ended = section_bool(s, "require_ended", true);
    o.max_length_ratio = section_number(s, "max_length_ratio", 3, 0, HUGE_VAL);
    o.drop_repetitive = section_bool(s, "drop_repetitive", true);
    o.verifiable = section_bool(s, "verifiable", false);
    if (o.max_length_ratio > 0 && o.max_length_ratio < 1)
        section_error(s, "max_length_ratio", "expected 0 (off) or a number from 1, found %g", o.max_length_ratio);
    return o;
}

/* ---- texts ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static const char *skip_space(const char *p)
{
    while (is_space(*p))
        p++;
    return p;
}

static bool is_blank(const char *text)
{
    return !*skip_space(text);
}

/* Equal but for white space at the ends and the amount of it inside. */
static bool same_text(const char *a, const char *b)
{
    a = skip_space(a);
    b = skip_space(b);
    for (;;) {
        const bool gap_a = is_space(*a), gap_b = is_space(*b);
        if (gap_a || gap_b) {
            a = skip_space(a);
            b = skip_space(b);
            if (gap_a != gap_b && *a && *b)
                return false;
        }
        if (*a != *b)
            return false;
        if (!*a)
            return true;
        a++;
        b++;
    }
}

/* ---- repetition ---- */

enum { GRAM = 4, REPEATS = 4 };

struct gram {
    const int32_t *at;
};

static int gram_order(const void *a, const void *b)
{
    const struct gram *x = a, *y = b;
    for (int i = 0; i < GRAM; i++)
        if (x->at[i] != y->at[i])
            return x->at[i] < y->at[i] ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

bool answer_is_repetitive(const int32_t *tokens, int n)
{
    int run = 0; /* tokens in a row that are the one GRAM before them */
    for (int i = GRAM; i < n; i++) {
        run = tokens[i] == tokens[i - GRAM] ? run + 1 : 0;
        if (run == GRAM * (REPEATS - 1))
            return true;
    }
    const int grams = n - GRAM + 1;
    if (n < GRAM * REPEATS)
        return false;
    struct gram *g = malloc((size_t)grams * sizeof *g);
    if (!g)
        return false;
    for (int i = 0; i < grams; i++)
        g[i].at = tokens + i;
    qsort(g, (size_t)grams, sizeof *g, gram_order);
    bool found = false;
    for (int i = 0; i < grams && !found;) {
        const int32_t *first = g[i].at, *last = first;
        int count = 1; /* occurrences that do not overlap */
        for (i++; i < grams && !memcmp(g[i].at, first, GRAM * sizeof *first); i++)
            if (g[i].at - last >= GRAM) {
                last = g[i].at;
                count++;
            }
        found = count >= REPEATS && 2 * (int64_t)count * GRAM >= n;
    }
    free(g);
    return found;
}

/* ---- pairs ---- */

struct pair_list {
    struct selected_pair *pairs;
    int64_t n, capacity;
};

static int pair_add(struct pair_list *l, int64_t chosen, int64_t rejected, struct plm_status *st)
{
    if (l->n == l->capacity) {
        const int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct selected_pair *grown = realloc(l->pairs, (size_t)capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, (size_t)capacity * sizeof *grown, "pairs");
        l->pairs = grown;
        l->capacity = capacity;
    }
    l->pairs[l->n++] = (struct selected_pair){chosen, rejected};
    return PLM_OK;
}

/* May these two be a pair? What stands against it is counted. */
static bool pair_passes(const struct answer *chosen, const struct answer *rejected, const struct selection_options *o, struct selection_stats *stats)
{
    if (same_text(chosen->text, rejected->text)) {
        stats->equal++;
        return false;
    }
    const double a = chosen->n > 1 ? chosen->n : 1, b = rejected->n > 1 ? rejected->n : 1;
    if (o->max_length_ratio > 0 && (a > o->max_length_ratio * b || b > o->max_length_ratio * a)) {
        stats->length_ratio++;
        return false;
    }
    if (o->drop_repetitive && answer_is_repetitive(chosen->tokens, chosen->n)) {
        stats->repetitive++;
        return false;
    }
    return true;
}

/* May this answer be part of a pair at all? */
static bool answer_usable(const struct answer *a, bool needs_score, const struct selection_options *o, struct selection_stats *stats)
{
    if (needs_score && (!a->scored || !isfinite(a->score))) {
        stats->unscored++;
        return false;
    }
    if (is_blank(a->text)) {
        stats->empty++;
        return false;
    }
    if (o->require_ended && !a->ended) {
        stats->not_ended++;
        return false;
    }
    return true;
}

/* All scores of the task's answers alike (and there are at least two)? */
static bool all_tied(const struct answer *a, int64_t first, int64_t end)
{
    double low = HUGE_VAL, high = -HUGE_VAL;
    int64_t scored = 0;
    for (int64_t i = first; i < end; i++)
        if (a[i].scored) {
            low = fmin(low, a[i].score);
            high = fmax(high, a[i].score);
            scored++;
        }
    return scored > 1 && low == high;
}

struct candidate {
    double margin;
    int64_t chosen, rejected;
};

static int candidate_order(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->margin != y->margin)
        return x->margin > y->margin ? -1 : 1;
    if (x->chosen != y->chosen)
        return x->chosen < y->chosen ? -1 : 1;
    return (x->rejected > y->rejected) - (x->rejected < y->rejected);
}

/* best_worst and all_pairs: pairs by falling margin, of equal ones the lower indices first; best_worst takes only pairs of the largest. */
static int select_by_score(struct pair_list *l, const struct answer *a, int64_t first, int64_t end, const struct selection_options *o,
                           struct selection_stats *stats, struct plm_status *st)
{
    const int64_t n = end - first;
    int64_t *usable = malloc((size_t)n * sizeof *usable), n_usable = 0, n_candidates = 0;
    for (int64_t i = first; usable && i < end; i++)
        if (answer_usable(&a[i], true, o, stats))
            usable[n_usable++] = i;
    struct candidate *c = usable ? malloc((size_t)(n_usable * n_usable + 1) * sizeof *c) : NULL;
    if (!c) {
        free(usable);
        return status_no_memory(st, (size_t)(n * n) * sizeof *c, "the pairs of a task");
    }
    for (int64_t i = 0; i < n_usable; i++)
        for (int64_t j = 0; j < n_usable; j++) {
            const double margin = a[usable[i]].score - a[usable[j]].score;
            if (margin > o->min_margin)
                c[n_candidates++] = (struct candidate){margin, usable[i], usable[j]};
        }
    qsort(c, (size_t)n_candidates, sizeof *c, candidate_order);
    const int most = o->rule == SELECT_BEST_WORST ? 1 : o->max_pairs;
    int taken = 0, code = PLM_OK;
    for (int64_t i = 0; i < n_candidates && taken < most && !code; i++) {
        if (o->rule == SELECT_BEST_WORST && c[i].margin < c[0].margin)
            break;
        const struct answer *chosen = &a[c[i].chosen], *rejected = &a[c[i].rejected];
        if (o->verifiable && !(chosen->score == 1 && rejected->score == 0)) {
            stats->not_verified++;
            continue;
        }
        if (!pair_passes(chosen, rejected, o, stats))
            continue;
        code = pair_add(l, c[i].chosen, c[i].rejected, st);
        taken++;
    }
    stats->tied += n_usable > 1 && n_candidates == 0;
    free(c);
    free(usable);
    return code;
}

/* refined: of each chain the last turn against the first. */
static int select_refined(struct pair_list *l, const struct answer *a, int64_t first, int64_t end, const struct selection_options *o,
                          struct selection_stats *stats, struct plm_status *st)
{
    const bool tied = o->verifiable && all_tied(a, first, end);
    stats->tied += tied;
    for (int64_t i = first, next; i < end; i = next) {
        for (next = i + 1; next < end && a[next].chain == a[i].chain;)
            next++;
        if (next - i < 2 || a[i].turn != 0)
            continue;
        const struct answer *rejected = &a[i], *chosen = &a[next - 1];
        const bool usable_rejected = answer_usable(rejected, o->verifiable, o, stats), usable_chosen = answer_usable(chosen, o->verifiable, o, stats);
        if (!usable_rejected || !usable_chosen)
            continue;
        if (o->verifiable && !(chosen->score == 1 && rejected->score == 0)) {
            stats->not_verified += !tied;
            continue;
        }
        if (!pair_passes(chosen, rejected, o, stats))
            continue;
        const int code = pair_add(l, next - 1, i, st);
        if (code)
            return code;
    }
    return PLM_OK;
}

static int answer_order(const struct answer *x, const struct answer *y)
{
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    if (x->chain != y->chain)
        return x->chain < y->chain ? -1 : 1;
    return (x->turn > y->turn) - (x->turn < y->turn);
}

int selection_pairs(struct selected_pair **pairs, int64_t *n, const struct answer_set *answers, const struct selection_options *o,
                    struct selection_stats *stats, struct plm_status *st)
{
    const struct answer *a = answers->answers;
    struct pair_list l = {0};
    *pairs = NULL;
    *n = 0;
    *stats = (struct selection_stats){0};
    for (int64_t i = 1; i < answers->n; i++)
        if (answer_order(&a[i - 1], &a[i]) >= 0)
            return status_set(st, PLM_EINVAL, "answers %lld and %lld are out of order (task %lld, chain %d, turn %d, then task %lld, chain %d, turn %d); "
                              "expected each once, by task, chain and turn", (long long)i - 1, (long long)i, (long long)a[i - 1].task, a[i - 1].chain,
                              a[i - 1].turn, (long long)a[i].task, a[i].chain, a[i].turn);
    int code = PLM_OK;
    for (int64_t first = 0, end; first < answers->n && !code; first = end) {
        for (end = first + 1; end < answers->n && a[end].task == a[first].task;)
            end++;
        stats->tasks++;
        if (end - first > MAX_PER_TASK)
            code = status_set(st, PLM_ELIMIT, "task %lld has %lld answers, more than %d", (long long)a[first].task, (long long)(end - first), MAX_PER_TASK);
        else
            code = (o->rule == SELECT_REFINED ? select_refined : select_by_score)(&l, a, first, end, o, stats, st);
    }
    if (code) {
        free(l.pairs);
        return code;
    }
    stats->pairs = l.n;
    *pairs = l.pairs;
    *n = l.n;
    return PLM_OK;
}
