/* Reference log-probabilities: computed once by the reference model, kept in a file, and trusted only when everything they depend on is the same. */
#ifndef TRAIN_ALIGN_REFERENCE_H
#define TRAIN_ALIGN_REFERENCE_H

#include "data/examples.h"
#include "train/trainer.h"

/* Log-probabilities of sequences list[0, n) (NULL: all n of e) under `weights` (table.padded; NULL: the trainer's own, as they are) into log_probs, at the place of
 * each sequence in e. Collective; needs no more memory than a step has. per_token (NULL: not wanted): of every token of e, as sequences_log_probs gives them. */
int reference_compute(struct trainer *t, const float *weights, const struct examples *e, const int64_t *list, int64_t n, double *log_probs, float *per_token,
                      struct plm_status *st);

/* The sequences of a round's pairs whose log-probabilities are wanted. */
struct reference_wanted {
    const struct examples *e;
    const int64_t *list;          /* n of them; NULL: all, e->n. The others' log-probabilities are left 0 */
    int64_t n;
};

/* The same by way of `path`: what the file has under the same key is read, the rest computed, and written by rank 0, about every minute and at the end. The key hashes the
 * reference weights, the tokenizer, all tokens and targets of the sequences, which the templates and the data have become, and the list. log_probs: (e->n).
 * *computed: how many were. *stopped: a signal asked to stop (train/signals.h), and the file has what was known. */
int reference_cached(struct trainer *t, const float *weights, const struct reference_wanted *wanted, const char *path, double *log_probs, int64_t *computed,
                     bool *stopped, struct plm_status *st);

/* Only read: for a round that goes on with weights that have changed since. PLM_EFORMAT when the file is not there, not complete, or belongs to other sequences. Collective. */
int reference_reload(struct trainer *t, const struct reference_wanted *wanted, const char *path, double *log_probs, struct plm_status *st);

#endif
