/* From scored answers to preference pairs (aries.md 1.5, filters of 1.11). */
#ifndef TRAIN_ALIGN_SELECTION_H
#define TRAIN_ALIGN_SELECTION_H

#include "train/align/task.h"
#include "train/settings.h"

enum selection_rule {
    SELECT_BEST_WORST, /* per task: highest against lowest score over all chains and turns, margin above min_margin */
    SELECT_REFINED,    /* per chain: the last refinement against the first answer (rule mode; with a verifier: correct against wrong) */
    SELECT_ALL_PAIRS,  /* per task: up to max_pairs pairs of different scores, largest margins first */
};

struct selection_options {
    enum selection_rule rule;
    double min_margin;        /* score(chosen) - score(rejected) must exceed it; default 0 (strict) */
    int max_pairs;            /* per task; default 1 */
    bool require_ended;       /* both end by themselves; default true */
    double max_length_ratio;  /* tokens, either way; default 3; 0: off */
    bool drop_repetitive;     /* a 4-gram loop in the chosen one; default true */
    bool verifiable;          /* scores are 0/1: require score(chosen) = 1 and score(rejected) = 0 (rule "refined") */
};
struct selection_options selection_read(struct section *s);

struct selected_pair {
    int64_t chosen, rejected; /* indices into the answers */
};

struct selection_stats {
    int64_t tasks, pairs;
    int64_t tied;             /* tasks whose scores are all equal (or margins too small) */
    int64_t unscored, empty, not_ended; /* answers that take part in no pair, each counted once, for the first of these reasons */
    int64_t not_verified, equal, length_ratio, repetitive; /* pairs that were passed over, each for the first of these reasons */
};

/* answers ordered by task, chain and turn, each once (else PLM_EINVAL). *pairs malloc'ed, the caller frees; NULL when there are none.
 * Deterministic: pairs of the same margin are tried with the lower chosen index first, then lower rejected index; best_worst takes the
 * first pair of the largest margin that passes the filters, all_pairs the first max_pairs that do. Scores of rule "refined" count only when
 * verifiable. Texts are compared after normalising white space. */
int selection_pairs(struct selected_pair **pairs, int64_t *n, const struct answer_set *answers, const struct selection_options *o,
                    struct selection_stats *stats, struct plm_status *st);

/* A 4-gram of tokens that follows itself at least three times in a row (four copies), or that occurs at least four times without overlap and
 * makes up half of the text or more. */
bool answer_is_repetitive(const int32_t *tokens, int n);

#endif
