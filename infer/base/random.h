/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * Every number is a pure function of (seed, purpose, stream, index); there is no state to save. */
#ifndef INFER_BASE_RANDOM_H
#define INFER_BASE_RANDOM_H

#include <stdint.h>

/* What a number is used for. The value is part of the key: never renumber. */
enum random_purpose {
    RANDOM_INIT = 1,      /* stream: tensor index;   index: element */
    RANDOM_DATA_ORDER,    /* stream: source; index: see data/order */
    RANDOM_SAMPLING,      /* stream: sequence;       index: position */
    RANDOM_SPLIT,         /* train/held-out split of documents */
    RANDOM_TEST,
    RANDOM_RECALL,        /* generated recall tasks: see data/recall.c */
    RANDOM_RESAMPLING,    /* bootstrap; stream: resample;  index: draw */
    RANDOM_ARITHMETIC,    /* generated word problems: see data/arithmetic.c */
    RANDOM_NEFTUNE,       /* noise on embeddings: see train/neftune.c */
    RANDOM_LORA,          /* stream: tensor of the adapter; index: element */
    RANDOM_ROLLOUT,       /* seeds of sampled answers: see infer/model/strategy.c */
    RANDOM_ROWS,          /* rows that a weight uses once more; stream: source; index: row */
};

/* One block: out = Philox4x32-10(counter, key). */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* 64 uniform bits. */
uint64_t random_u64(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index);

/* Uniform in [0, 1), 53 bits. */
double random_uniform(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index);

/* Standard normal (Box-Muller on one block). */
double random_normal(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index);

#endif
