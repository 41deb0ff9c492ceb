/* From logits to a token. */
#ifndef INFER_TEXT_SAMPLING_H
#define INFER_TEXT_SAMPLING_H

#include "infer/plm.h"

/* Check ranges: temperature >= 0 and finite, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1, repetition_penalty > 0. */
int sampling_check(const struct plm_sampling *s, struct plm_status *st);

/* Draw the token at `position` (tokens so far) of a sequence whose tokens are history (n_history). logits (vocab) are read
 * only; scratch: vocab * 8 bytes. Order: repetition penalty, temperature, top-k, top-p, min-p, draw; ties in probability go
 * to the lower id. stream tells parallel sequences of one seed apart. Non-finite logits are PLM_EINVAL. */
int sampling_draw(const struct plm_sampling *s, const float *logits, int vocab, const int32_t *history, size_t n_history,
                  uint64_t position, uint32_t stream, void *scratch, int32_t *token, struct plm_status *st);

#endif
