/* The data of a fine-tuning run: token sequences of every phase, packed into rows, and which rows an optimizer step takes.
 *
 * A pure function of (files, configuration, seed, step): the rows of an epoch are packed anew (other neighbours, the same number of rows) and
 * shuffled; steps take the next batch_rows of them, epoch after epoch, the last step of a phase what is left. */
#ifndef TRAIN_SFT_DATA_H
#define TRAIN_SFT_DATA_H

#include <jansson.h>

#include "infer/text/refine_template.h"
#include "train/manifest.h"
#include "train/packed_examples.h"
#include "train/sft_config.h"

struct sft_phase_data {
    struct examples examples;
    int64_t epoch_rows, epoch_inputs; /* packed rows of one pass, and the positions used in them */
    int64_t rows;                     /* of the whole phase */
    int64_t first_step, steps;
    struct schedule schedule;         /* in steps of the phase, from 1 */
};

struct sft_data {
    const struct sft_config *c;
    struct sft_phase_data *phases; /* (c->n_phases) */
    int64_t total_steps, total_tokens;
    int packed_phase;              /* what `packed` holds; -1: nothing */
    int64_t packed_epoch;
    struct packed_examples packed;
};

/* What turns rows of files into sequences; everything is the caller's. */
struct sft_renderer {
    const struct tokenizer *tokenizer;
    const struct chat_template *chat;
    const struct refine_template *refine;
};

/* Append the sequences of n sources, at most seq_len + 1 tokens long: conversations first, then pairs. report: log the counts of every source, rows
 * dropped and why. */
int sft_read_sources(struct examples *out, const struct sft_source *sources, int n, const struct sft_renderer *r, const struct sft_phase *how, int seq_len,
                     uint64_t seed, bool report, struct plm_status *st);

/* Read everything. Free with sft_data_close, also after an error. */
int sft_data_open(struct sft_data *d, const struct sft_config *c, const struct sft_renderer *r, bool report, struct plm_status *st);
void sft_data_close(struct sft_data *d);

/* What each phase trains on, in words, as a new object of texts. */
int sft_data_describe(const struct sft_data *d, json_t **out, struct plm_status *st);

/* SHA-256 of the configuration's hash, another text, and all sequences and targets: what a run that continues must agree in. */
int sft_data_hash(const struct sft_data *d, const char *more, char hex[SHA256_HEX], struct plm_status *st);

/* Where an optimizer step is. */
struct sft_point {
    int phase;
    int64_t step, step_in_phase;
    int64_t first_row, n_rows; /* of the phase, counted through its epochs */
    double epoch;              /* passes of the phase that are over after the step */
    double learning_rate;
};

/* False when the run is over: step >= total_steps (or step < 0). */
bool sft_data_at(const struct sft_data *d, int64_t step, struct sft_point *out);

/* A packed row that a step takes. */
struct sft_row {
    int64_t i;               /* of the phase, as sft_data_row counts */
    int64_t inputs, targets; /* positions used, tokens to learn */
};

/* The rows of a step (at->n_rows), epoch after epoch, by falling length in each: rows of about one length meet in a micro-batch, which is computed no further
 * than its longest. */
int sft_data_step(struct sft_data *d, const struct sft_point *at, struct sft_row *rows, struct plm_status *st);

/* The packing that holds row i of a phase (valid until the next call), and its number there. Cheapest in rising order. */
int sft_data_row(struct sft_data *d, int phase, int64_t i, int64_t *row, struct plm_status *st);

#endif
