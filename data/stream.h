/* The streaming mixture: which tokens make up training sample number i of a phase.
 *
 * The data order is a pure function of (seed, phase, global sample index): the world size, a restart or the number of
 * loader threads cannot change what is learned. A sample is one row of seq_len input positions, packed from whole
 * documents (data.md 1.4: documents longer than a row are split, the pieces are placed best-fit-decreasing; no token is
 * dropped; what stays empty is masked). */
#ifndef DATA_STREAM_H
#define DATA_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"

/* Rows of training data, all (rows, seq_len), owned by whoever created it. */
struct batch {
    int rows, seq_len;
    int32_t *tokens;    /* inputs */
    int32_t *targets;   /* next tokens; 0 where weight is 0 */
    float *weight;      /* weight of the position's loss: 1, or 0 where there is nothing to predict */
    int32_t *doc_start; /* index in the row of the first token of the position's document */
};
int batch_create(struct batch *b, int rows, int seq_len, struct plm_status *st);
void batch_free(struct batch *b);

struct stream_source {
    const char *path;  /* a shard file, or a directory: all its *.h5 in name order */
    double weight;     /* share of the mixture, in tokens; > 0, normalised over the sources */
};

struct stream_options {
    const struct stream_source *sources;
    int n_sources;
    int seq_len;
    uint64_t seed;
    uint32_t phase;               /* number of the phase in the curriculum: part of the key */
    const char *tokenizer_sha256; /* every shard must carry this one; NULL: not checked */
    int vocab_size;               /* every token must be below; checked when chunks are decoded */
    int n_threads;                /* decoding threads; 0: one */
    int64_t prefetch_rows;        /* how far ahead the background thread prepares */
};

struct stream;

int stream_open(struct stream **out, const struct stream_options *o, struct plm_status *st);
void stream_close(struct stream *s);

/* Fill b with the samples [first, first + b->rows) of the phase. Samples requested in rising order with the stride of
 * stream_schedule come from the background thread; any other request is served too, only slower. */
int stream_read(struct stream *s, int64_t first, struct batch *b, struct plm_status *st);

/* Tell the background thread what will be asked: blocks of `rows` samples starting at first, first + stride, ... */
int stream_schedule(struct stream *s, int64_t first, int rows, int64_t stride, struct plm_status *st);

/* Totals: of source i, the tokens drawn by samples [0, n_samples), the rows of one epoch, and the tokens in it. */
struct stream_usage {
    int64_t rows_per_epoch, tokens_per_epoch;
    int64_t rows_drawn;
    double epochs;      /* rows_drawn / rows_per_epoch */
};
int stream_usage(struct stream *s, int source, int64_t n_samples, struct stream_usage *out, struct plm_status *st);

/* Seconds that stream_read spent waiting for data so far (a step should never wait). */
double stream_wait_seconds(const struct stream *s);

#endif
