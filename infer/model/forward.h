/* The forward pass of the model, written once for training and prefill (plm.md 1.3).
 *
 * The caller owns the activations. A trainer gives every layer its own buffers and hands them to the backward pass; an
 * inference session points all layers at the same ones, except `latent`, which lies in its cache. */
#ifndef INFER_MODEL_FORWARD_H
#define INFER_MODEL_FORWARD_H

#include "infer/base/arena.h"
#include "infer/model/attention.h"
#include "infer/model/weights.h"

#define FORWARD_MLP_ROWS 512 /* rows of the MLP taken together */

/* cos, sin and -sin of position * theta^(-2i/rope), each (positions, rope/2), computed in double. */
struct rope_table {
    int64_t positions;
    int half; /* rope / 2 */
    float *cos, *sin, *minus_sin; /* minus_sin rotates back: the transpose, for gradients */
};
void rope_table_layout(struct rope_table *r, const struct model_config *c, int64_t positions, struct arena *arena);
void rope_table_fill(struct rope_table *r, const struct model_config *c);

/* Buffers of one layer for R = n_seq * q_len rows. d: hidden, L: kv_lora_rank + rope, H: heads. */
struct layer_activations {
    float *x;         /* (R, d) residual stream before the layer */
    float *attn_rstd; /* (R) */
    float *a;         /* (R, d) normed input of attention */
    float *q;         /* (R, H*(nope+rope)), rotated */
    float *kv_a;      /* (R, L): raw latent and unrotated shared key */
    float *kv_rstd;   /* (R) */
    float *latent;    /* (R, L): normed latent and rotated shared key; what the cache holds */
    float *kv;        /* (keys, H*(nope+v)): expanded keys and values */
    float *attn;      /* (R, H*v) */
    float *lse;       /* (R, H), or NULL when no backward pass follows */
    float *mid;       /* (R, d) residual stream after attention */
    float *ffn_rstd;  /* (R) */
    float *b;         /* (R, d) normed input of the MLP */
    float *u;         /* (R, ff) before the activation; (min(R, FORWARD_MLP_ROWS), ff) when it is also m */
    float *m;         /* (R, ff) max(u,0)^2; the layers share it, the backward pass recomputes it */
};

/* What all layers of one pass share. */
struct forward_pass {
    const struct model_config *config;
    const struct model_weights *weights;
    const struct ops *ops;
    struct thread_pool *pool;
    const struct rope_table *rope;
    enum precision precision;   /* of activations against quantised and 16-bit weights */
    enum precision squares;     /* of the squared ones that enter a quantised ffn_down: their range is wide (plm.md 6.3) */
    int64_t n_seq, q_len, past; /* as in struct attention */
    const void *const *neurons; /* (n_layer) neuron-major ffn_down, or NULL where there is none; NULL: no layer has one. For decode_batch */
    int64_t *active;            /* (n_layer) receives the number of active neurons of all rows, added; NULL: not wanted */
    const int32_t *doc_start;   /* (n_seq, q_len): attention and positions start there; NULL: at 0 */
    void *attention_scratch;
    int64_t max_keys;           /* that the scratch was sized for */
};

/* Lay out the buffers of one layer for `rows` rows; m is left alone. */
void layer_activations_layout(struct layer_activations *l, const struct model_config *c, int64_t rows, struct arena *arena);

/* Embedding rows of n tokens -> x (n, d). */
void forward_embed(const struct forward_pass *f, const int32_t *tokens, int64_t n, float *x);

/* The attention of one layer over what forward_layer has left in act; keys as there. */
struct attention forward_attention(const struct forward_pass *f, const struct layer_activations *act, const float *keys);

/* One layer: act->x -> out (R, d), filling the other buffers. `keys`: the latent rows of all past + q_len positions of the
 * one sequence when past > 0 (the last q_len of them are act->latent); act->latent itself otherwise. */
void forward_layer(const struct forward_pass *f, int layer, const struct layer_activations *act, const float *keys, float *out);

/* The parts of forward_layer, for a caller that attends in its own way: from act->x to act->q and act->latent; the keys and values
 * of `rows` latents; from act->attn to out by way of act->mid, act->b, act->u and act->m. */
void forward_project(const struct forward_pass *f, int layer, const struct layer_activations *act);
void forward_expand(const struct forward_pass *f, int layer, const float *latents, int64_t rows, float *kv);
void forward_output(const struct forward_pass *f, int layer, const struct layer_activations *act, float *out);

/* m (rows, ff) = max(u, 0)^2, in place too; counts into f->active. */
void forward_relu2(const struct forward_pass *f, int layer, float *m, const float *u, int64_t rows);

/* out (rows, d) += w_down m, m (rows, ff): forward_linear in the precision that squares need. */
void forward_down(const struct forward_pass *f, float *out, const float *m, const struct weight *w, int64_t rows);

/* y (rows, n) = norm of x with one weight vector; rstd (rows) may be NULL. Runs on the pool. */
void forward_rms_norm(const struct forward_pass *f, float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx,
                      const struct weight *w, int64_t rows);

/* y (rows, w->rows) = x (rows, w->cols) w^T [+ y] */
void forward_linear(const struct forward_pass *f, float *y, int64_t ldy, const float *x, int64_t ldx, const struct weight *w,
                    int64_t rows, bool accumulate);

/* Rotate rows of a (rows, ld) matrix: n_head vectors of the rope width, head_stride apart. Position of row r: its index in
 * its sequence + past - doc_start. `back`: rotate by the negative angle. */
void forward_rope(const struct forward_pass *f, float *x, int64_t ld, int n_head, int64_t head_stride, bool back);

#endif
