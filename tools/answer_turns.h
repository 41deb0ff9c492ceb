/* What became of answers turn by turn: the numbers that show whether refinement refines (aries.md 1.11). */
#ifndef TOOLS_ANSWER_TURNS_H
#define TOOLS_ANSWER_TURNS_H

#include <jansson.h>

#include "train/align/scorer.h"

/* Order answers by task, chain and turn. */
void answers_sort(struct answer_set *set);

/* {"answers", "turns": [{"turn", "answers", "tokens", "ended", "copied"[, "score", "scored", "better", "worse"]}]} of sorted answers added to `root`: shares of
 * answers that ended by themselves and that repeat the turn before; score: the mean of those that were scored; better and worse: shares of the
 * scored answers that beat turn 0 of their chain, or lose to it. */
int answers_by_turn(json_t *root, const struct answer_set *set, bool scored, struct plm_status *st);

/* The answer given to each task, of sorted answers: the last of its chains, and of several chains the one most of them agree with, by what the
 * verifier reads out of an answer (verifier NULL: by its text). Answers that nothing can be read out of do not vote, unless there are no others;
 * where votes are equal, the first chain wins. chosen (n_tasks): indices into the set, -1 where a task has no answer. */
int answers_choose(int64_t *chosen, int64_t n_tasks, const struct answer_set *set, const struct scorer *verifier, struct plm_status *st);

#endif
