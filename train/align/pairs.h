/* Preference pairs as files and as token sequences.
 *
 * pairs.jsonl has one row per pair in the field's usual form, so that any tool reads it: {"prompt": [messages], "chosen", "rejected"}, with what a rollout
 * knows beside it: {"task", "chosen_tokens", "rejected_tokens", "score_chosen", "score_rejected"}. Answers that were sampled are trained on as the very tokens
 * that were sampled. Rows {"prompt", "completion", "label"} are unpaired; {"prompt", "completion"} are answers to imitate. */
#ifndef TRAIN_ALIGN_PAIRS_H
#define TRAIN_ALIGN_PAIRS_H

#include "data/examples.h"
#include "infer/text/refine_template.h"
#include "train/align/selection.h"
#include "train/align/task.h"

struct sampled_tokens {
    int32_t *tokens; /* (n), NULL: the text is tokenised */
    int n;
};

struct pair_set {
    struct row_set rows;               /* ROW_PAIR, ROW_LABELLED, or ROW_CONVERSATION whose last message is the answer */
    struct sampled_tokens *first, *second; /* (rows.n) chosen (or the completion) and rejected */
};

/* Write the selected pairs of a rollout; rejected < 0: an answer to imitate. */
int pairs_write(const struct row_set *tasks, const struct answer_set *answers, const struct selected_pair *pairs, int64_t n, const char *path,
                struct plm_status *st);

/* Read a file of pairs: sampled tokens must be ids below vocab_size (PLM_EFORMAT with FILE:LINE). */
int pairs_read(struct pair_set *set, const char *path, enum row_kind wanted, int vocab_size, struct plm_status *st);

/* Pairs of an offline dataset: n sources with weights as in data/examples.h (each row weight times, by a hash of seed and row). The texts are tokenised: ids that
 * another run may have left in the rows mean something to its tokenizer only. */
int pairs_read_sources(struct pair_set *set, const struct example_source *sources, int n, enum row_kind wanted, bool skip_bad, uint64_t seed, struct plm_status *st);
void pair_set_free(struct pair_set *set);

/* The sequences of a pair, in this order; those that are not wanted are left out (aries.md 1.11). */
enum pair_part {
    PART_CHOSEN, PART_REJECTED,             /* x -> y_w, x -> y_l */
    PART_CHOSEN_GIVEN_L, PART_REJECTED_GIVEN_L, /* (x, y_l, z) -> y_w, y_l */
    PART_CHOSEN_GIVEN_W, PART_REJECTED_GIVEN_W, /* (x, y_w, z) -> y_w, y_l */
    PART_MISMATCHED,                        /* x_i -> y_(i-1): KTO's reference point */
    PAIR_PARTS
};

struct pair_sequences {
    struct examples e;
    int64_t n;                 /* pairs */
    int per_pair;              /* sequences of each */
    int at[PAIR_PARTS];        /* where a part is among them, -1: not wanted */
    int64_t *row;              /* (n) row of the pair set */
    int *lengths;              /* (n * per_pair) target tokens */
    bool *desirable;           /* (n) of unpaired answers */
    int64_t dropped_long;      /* pairs with a sequence of more than max_len tokens: left out whole, nothing is truncated */
};

struct pair_context {
    const struct chat_template *chat;
    const struct refine_template *refine;
    const struct tokenizer *tokenizer;
    int max_len;               /* most tokens of a sequence */
    bool refined, mismatched;  /* which parts */
};
int pair_sequences_build(struct pair_sequences *p, const struct pair_set *set, const struct pair_context *c, struct plm_status *st);
void pair_sequences_free(struct pair_sequences *p);

#endif
