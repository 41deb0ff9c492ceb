/* Preference learning in rounds: ARIES (aries.md 1.7) and its baselines. A round collects pairs (from an offline file, or by rollouts, scoring and selection), caches the
 * reference's log-probabilities, trains, keeps the model and evaluates it. Everything a round makes is a file in RUN/round-N:
 *
 *     prompts.jsonl           the tasks of the round
 *     answers-NNNNN.jsonl     what the model answered, scored
 *     pairs.jsonl             what was selected
 *     collection.json         counts of all of that, and of what was left out and why
 *     manifest.json           sizes and checksums of these: the collection is complete
 *     reference.json          log-probabilities of the reference, with the key of what they depend on
 *     model/                  the model at the end of the round
 *     evaluation/, evaluation.json
 *
 * A run that was killed anywhere goes on there: what is complete is not made again. RUN/round-0 holds the evaluation of the model that the run begins with. */
#ifndef TRAIN_ALIGN_ALIGN_H
#define TRAIN_ALIGN_ALIGN_H

#include <stdbool.h>

#include "train/align/align_config.h"
#include "train/comm.h"

struct align_result {
    bool learned;        /* an update changed the weights, in this session or an earlier one */
    int rounds;          /* complete */
    int64_t steps;
    int stopped_by;      /* signal, or 0 */
};

int align_run(const struct align_config *c, struct comm *comm, struct align_result *result, struct plm_status *st);

#endif
