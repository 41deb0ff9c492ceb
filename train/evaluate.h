/* Held-out loss of the model in training, spread over the ranks. */
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include "train/comm.h"
#include "train/step.h"

struct evaluation {
    double loss;           /* mean nll per predicted token, nats */
    int64_t tokens;        /* predicted */
    /* Bits per byte of the raw text: every predicted token at its cost, and the first token of each document, which nothing
     * predicts, at log2(vocab_size) bits. 0 unless the whole source was evaluated. */
    double bits_per_byte;
    int64_t text_bytes;    /* of the source */
};

struct evaluation_options {
    const char *path;             /* a shard, or a directory of shards */
    const char *tokenizer_sha256; /* NULL: not checked */
    int rows, seq_len;            /* micro-batch and context */
    int64_t max_tokens;           /* 0: all */
};

/* Collective. The rows of the source in stored order of sample index, cut into micro-batches that the ranks take in turn. */
int evaluate(struct evaluation *out, struct step *step, const struct evaluation_options *o, struct comm *comm, struct plm_status *st);

#endif
