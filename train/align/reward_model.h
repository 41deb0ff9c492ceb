/* A Bradley-Terry reward model (Ouyang et al., arXiv 2203.02155): r(x, y) = head . h, with h the model's normed last hidden state at the last token of x -> y, the one
 * that ends the turn. In a directory: the model, reward_head.safetensors (the vector) and reward.json (what the rewards of held-out answers are like). */
#ifndef TRAIN_ALIGN_REWARD_MODEL_H
#define TRAIN_ALIGN_REWARD_MODEL_H

#include "data/examples.h"
#include "train/extra_params.h"
#include "train/sequences.h"

#define REWARD_HEAD "reward_head"
#define REWARD_FILE "reward.json"

/* What a checkpoint's reward.json says, found by an evaluation on pairs that were not trained on. */
struct reward_statistics {
    int64_t step, pairs;        /* pairs 0: nothing was evaluated */
    double loss, accuracy;      /* accuracy: share of pairs whose chosen answer has the larger reward */
    double margin;              /* mean of r_w - r_l */
    double mean, deviation;     /* of the rewards of both answers; 0 and 1 when there are none */
};

/* As JSON text (malloc'ed, NULL when out of memory), and back from DIR/reward.json: PLM_EINVAL when that is no reward model, PLM_EFORMAT when it is damaged. */
char *reward_statistics_to_json(const struct reward_statistics *s);
int reward_statistics_read(struct reward_statistics *s, const char *dir, struct plm_status *st);

/* -log sigmoid(r_w - r_l - margin) + center (r_w + r_l)^2; *d_w and *d_l receive its derivatives. The second term (arXiv 2312.09244) keeps the mean near 0, which
 * the first one leaves open. */
struct reward_loss {
    double margin, center;
};
double reward_pair_loss(const struct reward_loss *l, double r_w, double r_l, double *d_w, double *d_l);

/* Append a sequence of n tokens, and one more that nothing reads and nobody predicts: of n tokens n - 1 are inputs, and the state at the last token
 * is wanted. */
int reward_sequence_add(struct examples *out, const int32_t *tokens, int64_t n, struct plm_status *st);

/* rewards[sequence] for the sequences of micro-batch i, whose hidden states are in h (rows * seq_len of the batch, d). */
void reward_gather(const struct micro_batches *m, int64_t i, const struct examples *e, const struct batch *b, const float *h, const float *head, int64_t d,
                   double *rewards);

/* After step_forward on micro-batch i: accumulate the gradients of a function of its rewards, given its derivatives d_rewards[sequence], in s->grads and in
 * head_grads (d). */
void reward_backward(struct step *s, const struct micro_batches *m, int64_t i, const struct examples *e, const struct batch *b, const float *head, float *head_grads,
                     const double *d_rewards);

#endif
