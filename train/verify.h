/* Run a reference case (a model, a batch, ten updates) and write what the trainer computes, under the reference's names. */
#ifndef TRAIN_VERIFY_H
#define TRAIN_VERIFY_H

#include "infer/base/status.h"

/* case_dir holds model/{config.json,model.safetensors}, batch.json {tokens, targets, mask, doc_start: [B][T]} and, optionally,
 * training.json {hyper: {betas, eps, weight_decay, clip, peak, floor, warmup, stable_end, decay_end, shape, steps}}. Writes to the
 * safetensors file `out`: logits (B,T,V), nll (B,T) (mask * nll), loss (1), grad.<tensor>, and from training.json losses, grad_norms
 * (before clipping), lrs (steps each). threads: 0 for one per processor. */
int verify_case(const char *case_dir, const char *out, int threads, struct plm_status *st);

#endif
