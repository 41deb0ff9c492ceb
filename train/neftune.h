/* NEFTune (Jain et al., arXiv 2310.05914): uniform noise on the embeddings while fine-tuning. */
#ifndef TRAIN_NEFTUNE_H
#define TRAIN_NEFTUNE_H

#include "data/stream.h"

/* x (rows*len, d) += alpha / sqrt(L d) * u, u uniform in [-1, 1), L the length of the position's document in its row. Documents without a weight
 * (padding among them) stay as they are. The noise is a pure function of (seed, step, first_row + row, position in the row, column), so that it depends
 * neither on the micro-batch nor on the rank that computes the row: first_row is the number of the batch's first row within the step. d at most 2^24,
 * rows of at most 2^20 positions. */
void neftune_add(float *x, const struct batch *b, int d, double alpha, uint64_t seed, int64_t step, int64_t first_row);

#endif
