/* One training step's computation: forward, per-token log-probabilities, and a backward pass from one coefficient per token.
 *
 * Every objective is a weighting of token log-probabilities (design, idea 4): forward gives -log p(target) per position, the
 * objective chooses d loss / d nll, backward applies it. Gradients accumulate until step_zero_gradients. */
#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

#include "data/stream.h"
#include "infer/model/forward.h"
#include "train/ops/attention_backward.h"

struct step {
    struct model_config config;
    struct tensor_table table;
    const struct ops *ops;
    const struct train_ops *train_ops;
    struct thread_pool *pool;

    struct arena weight_arena, grad_arena;
    float *weights, *grads;         /* (table.padded) each */
    struct model_weights bound;     /* weights by tensor */
    struct model_weights bound_grads;

    /* Activations for at most max_rows sequences of at most max_len positions. */
    int max_rows, max_len;
    struct arena activation_arena;
    struct rope_table rope;
    struct layer_activations *layers; /* (num_hidden_layers) */
    float *final_x;                   /* (R, d) residual stream after the last layer */
    float *final_rstd;                /* (R) */
    float *final_h;                   /* (R, d) normed */
    float *logits;                    /* (logit_rows, V): a chunk of the head, never the whole batch */
    int64_t logit_rows;
    float *head_h, *d_head_h;         /* (logit_rows, d) rows of final_h that predict a target, side by side, and their gradient */
    int64_t *head_rows;               /* (R) which ones */
    float *shared_m;                  /* (R, ff) squared activations, recomputed per layer in the backward pass */
    void *attention_scratch;
    struct step_noise {               /* NEFTune (train/neftune.h) for the forward passes that follow; alpha 0: none */
        double alpha;
        uint64_t seed;
        int64_t step, first_row;
    } noise;
    /* Gradients of activations, shared by the layers. */
    float *d_residual, *d_normed, *d_attn, *d_q, *d_kv, *d_k_pe, *d_latent, *d_kv_a, *d_ff;
};

/* weights (random from seed: normal(0, initializer_range), norms 1) and activations for micro-batches of up to max_rows x
 * max_len. matmul: the operations to use, e.g. trainer_ops. The step owns its pool-independent memory; free with
 * step_destroy. */
int step_create(struct step *s, const struct model_config *config, int max_rows, int max_len, int world_size, uint64_t seed,
                const struct ops *ops, struct thread_pool *pool, struct plm_status *st);
void step_destroy(struct step *s);

/* Bytes step_create would allocate, by role, without allocating. */
struct step_memory {
    size_t weights, gradients, activations;
};
int step_measure(struct step_memory *m, const struct model_config *config, int max_rows, int max_len, int world_size,
                 const struct ops *ops, int threads, struct plm_status *st);

void step_zero_gradients(struct step *s);

/* Check that a batch fits (rows, length, token ranges), for batches that do not come from a checked stream. */
int step_check_batch(const struct step *s, const struct batch *b, struct plm_status *st);

/* Run the layers on b->tokens. */
void step_forward(struct step *s, const struct batch *b);

/* After step_forward: nll (rows*len) = -log p(target) of every position with a weight, in nats, and 0 elsewhere. correct (rows*len; NULL: not wanted): 1
 * where the target is the likeliest token. */
void step_nll(struct step *s, const struct batch *b, float *nll, uint8_t *correct);

/* After step_forward: nll of every position, whatever its weight, and logits (rows*len, V). */
void step_logits(struct step *s, const struct batch *b, float *nll, float *logits);

/* After step_forward: accumulate the gradients of sum(coef * nll) over positions, coef (rows*len); nll as above is a
 * by-product (positions with coef 0 give nll 0). One pass over the head serves both when the coefficients are known before the
 * losses, as in pretraining and SFT. */
void step_backward(struct step *s, const struct batch *b, const float *coef, float *nll);

/* A backward pass that begins at the hidden states instead, for objectives that are no function of token log-probabilities: after step_forward, fill in the
 * gradients of final_h (rows*len, d), which come zeroed, then go on from there. */
float *step_hidden_gradients(struct step *s, const struct batch *b);
void step_backward_hidden(struct step *s, const struct batch *b);

#endif
