/* A model that only judges: packed batches forward, with the activations of one layer. Weights are mapped from their files, so that the ranks of a machine share them. */
#ifndef TRAIN_FROZEN_H
#define TRAIN_FROZEN_H

#include "data/stream.h"
#include "infer/model/forward.h"
#include "infer/model/model.h"
#include "train/matmul.h"

struct frozen {
    struct plm_model *model;
    struct matmul matmul;
    struct thread_pool *pool;     /* the caller's */
    int max_rows, max_len;        /* of a batch */
    struct arena arena;
    struct rope_table rope;
    struct layer_activations act; /* of every layer; x, mid and the layer's output are one buffer, as are u and m */
    void *attention_scratch;
    float *h;                     /* (R, d) normed last hidden states, after frozen_forward */
    float *head_h, *logits;       /* (logit_rows, d), (logit_rows, V) */
    int64_t logit_rows;
    int64_t *head_rows;           /* (logit_rows) */
};

/* Open a model directory or file. max_len 0: as long as the model's context; rows of a batch follow from it. PLM_EINVAL when the model takes less than max_len.
 * Zero-initialise; free with frozen_close, also after an error. */
int frozen_open(struct frozen *f, const char *path, int max_len, struct thread_pool *pool, struct plm_status *st);
void frozen_close(struct frozen *f);

/* Bytes of buffers, without the mapped weights. */
size_t frozen_bytes(const struct frozen *f);

/* b: at most max_rows x max_len, of tokens below the vocabulary's size. Positions as in step_forward. */
void frozen_forward(struct frozen *f, const struct batch *b);

/* After frozen_forward: nll (rows*len) = -log p(target) where the weight is not 0, in nats, and 0 elsewhere. */
void frozen_nll(struct frozen *f, const struct batch *b, float *nll);

#endif
