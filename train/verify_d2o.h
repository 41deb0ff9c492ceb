/* Run a reference case of cache compression and write what the core computes, under the reference's names. */
#ifndef TRAIN_VERIFY_D2O_H
#define TRAIN_VERIFY_D2O_H

#include "infer/base/status.h"

/* case_dir holds model/; d2o_dir holds d2o.json {prompt, tokens, budget, options} and gqa.json {n_prefill, budget, theta} with
 * gqa.safetensors {q (T,H,d), k (T,G,d), v (T,G,dv)}. The tokens are forced, so that row k of the logits follows tokens[k-1].
 * Writes to the safetensors file `out`: logits.mla.<policy> and logits.mha.<policy> (n,V), out.<policy> (T,H,dv), and to the file
 * of that name with .json: {runs: {"<layout>.<policy>": {budgets, density, kept [step][layer][group]}}, gqa: {kept: {"<policy>":
 * [step][group]}}}, where kept lists positions in rising order. threads: 0 for one per processor. */
int verify_d2o(const char *case_dir, const char *d2o_dir, const char *out, int threads, struct plm_status *st);

#endif
