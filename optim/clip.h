/* Clipping by the global norm (Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013). */
#ifndef OPTIM_CLIP_H
#define OPTIM_CLIP_H

#include "infer/base/threads.h"

#define NORM_BLOCK 8192 /* elements per partial sum: part of the result, because it fixes the order of additions */

/* Doubles of scratch memory that norm_sum_squares needs for n elements. */
static inline int64_t norm_partials(int64_t n)
{
    return (n + NORM_BLOCK - 1) / NORM_BLOCK;
}

/* Sum of squares of x (n), in double: NORM_BLOCK elements at a time into partial (norm_partials(n)), then those in order,
 * so that the number of threads does not matter. x is a gradient arena, or a rank's part of it (padding is zero and
 * counts nothing). Squares of floats cannot overflow a double: the sum is finite exactly when every element is. The norm
 * is the root of the sum over all parts. */
double norm_sum_squares(const float *x, int64_t n, double *partial, struct thread_pool *pool);

/* min(1, clip / norm), without epsilon; 1 when norm is 0, or when clip is 0 (clipping is off). */
double clip_factor(double norm, double clip);

#endif
