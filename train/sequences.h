/* Token sequences through the step: packed into micro-batches without padding (documents isolated, positions from 0), forward for log-probabilities, backward with one
 * coefficient per token. Micro-batches are the same whatever the number of ranks, which take them in turn. */
#ifndef TRAIN_SEQUENCES_H
#define TRAIN_SEQUENCES_H

#include "data/examples.h"
#include "train/comm.h"
#include "train/step.h"

/* Where the tokens of sequences lie in micro-batches of up to `rows` rows of `len` inputs. A sequence of n tokens has n - 1 inputs. */
struct placed_sequence {
    int64_t sequence;  /* index in the examples */
    int row, column;
};

struct micro_batches {
    int64_t n;
    int64_t *begin;                 /* (n + 1) into placed */
    struct placed_sequence *placed; /* ordered by micro-batch, row, column */
    int64_t inputs, capacity;       /* positions used, and those of all micro-batches */
};

/* Pack sequences list[0, n): group[i] (non-decreasing) ties those together that must lie in one micro-batch. Best fit over the newest micro-batches (256). Every
 * sequence must have 2 to len + 1 tokens and a group must fit (PLM_EINVAL otherwise, naming the sequence). */
int micro_batches_pack(struct micro_batches *m, const struct examples *e, const int64_t *list, const int64_t *group, int64_t n, int rows, int len,
                       struct plm_status *st);
void micro_batches_free(struct micro_batches *m);

/* Fill a batch (of at least rows x len, its rows and seq_len are set) with micro-batch i; weight 1 on targets. rows_used and the longest row decide its size. */
void micro_batch_fill(const struct micro_batches *m, int64_t i, const struct examples *e, struct batch *b, int rows, int len);

/* Log-probabilities of targets: log_probs of sequence s's token j at [e->begin[s] + j] (0 where it is no target), for the list's sequences; all ranks have all of
 * them afterwards. Any of `log_probs` (per token) may be summed by the caller. Collective. */
int sequences_log_probs(struct step *s, const struct examples *e, const struct micro_batches *m, struct batch *scratch, float *nll, float *log_probs,
                        struct comm *comm, struct plm_status *st);

/* What a loss makes of one micro-batch: from log_probs (as above, of its sequences) coef, d loss / d log-probability of every target token (it is zeroed before). */
struct sequence_objective {
    int (*coefficients)(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st);
    void *ctx;
};

/* This rank's micro-batches: forward, log-probabilities, coefficients, backward; gradients accumulate in s->grads. log_probs and coef: per token of e. */
int sequences_backward(struct step *s, const struct examples *e, const struct micro_batches *m, const struct sequence_objective *objective, struct batch *scratch,
                       float *nll, float *log_probs, float *coef, const struct comm *comm, struct plm_status *st);

#endif
