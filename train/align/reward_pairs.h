/* The pairs a reward model learns from and is judged on, as sequences. */
#ifndef TRAIN_ALIGN_REWARD_PAIRS_H
#define TRAIN_ALIGN_REWARD_PAIRS_H

#include "infer/text/chat_template.h"
#include "train/align/reward_config.h"
#include "train/manifest.h"

struct reward_set {
    const char *name;    /* NULL: the pairs that are trained on */
    struct examples e;   /* pair i: sequence 2 i is x -> y_w, 2 i + 1 is x -> y_l (reward_sequence_add) */
    int64_t n;           /* pairs */
};

struct reward_data {
    struct reward_set train;
    struct reward_set *held_out; /* (n_held_out) the share that was held out, if any, then the sources of the evaluation */
    int n_held_out;
};

/* Read everything the configuration names; `report` says what was used and what was left out. PLM_EINVAL when there is nothing to learn from. Free with reward_data_free,
 * also after an error. */
int reward_data_open(struct reward_data *d, const struct reward_config *c, const struct chat_template *chat, const struct tokenizer *tokenizer, bool report,
                     struct plm_status *st);
void reward_data_free(struct reward_data *d);

/* SHA-256 of everything that decides what is learned: the configuration's hash and the sequences. */
int reward_data_hash(const struct reward_data *d, const struct reward_config *c, char hex[SHA256_HEX], struct plm_status *st);

#endif
