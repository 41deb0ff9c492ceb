/* The angles of rotary embeddings (Su et al., arXiv 2104.09864), also of models whose context was extended: linear
 * (Chen et al., arXiv 2306.15595) and YaRN (Peng et al., arXiv 2309.00071). One place for tables, decoding beyond them,
 * and the cache's merges. */
#ifndef INFER_OPS_ROPE_H
#define INFER_OPS_ROPE_H

enum rope_scaling_type { ROPE_UNSCALED, ROPE_LINEAR, ROPE_YARN, ROPE_SCALING_TYPES };

/* Zeroed: none. All fields have 4 bytes, so that two of them can be compared and hashed as memory. */
struct rope_scaling {
    int type;
    float factor;               /* >= 1: how many times longer the context is */
    float magnitude;            /* of rotated vectors, both queries and keys; 0: 1 */
    float logit_factor;         /* on all attention logits (DeepSeek's mscale_all_dim squared); 0: 1 */
    int original;               /* YaRN: the context that the model was trained with before */
    float beta_fast, beta_slow; /* YaRN: turns within the original context between which both frequencies are mixed */
    float mix;                  /* YaRN: how much of the unscaled frequency is mixed in (1; llama.cpp's ext_factor) */
    int untruncated;            /* YaRN: the ends of the mixed range are not rounded to whole pairs */
};

/* Radians per position of pair i of `width` values. */
double rope_frequency(float theta, int width, const struct rope_scaling *s, int i);

/* What cosines and sines are multiplied by. */
double rope_magnitude(const struct rope_scaling *s);

/* "linear", "yarn"; "none". */
const char *rope_scaling_name(const struct rope_scaling *s);

#endif
