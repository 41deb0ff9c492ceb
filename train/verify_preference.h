/* Run a reference case of preference learning and write what the trainer computes, under the reference's names. */
#ifndef TRAIN_VERIFY_PREFERENCE_H
#define TRAIN_VERIFY_PREFERENCE_H

#include "infer/base/status.h"

/* case_dir holds model/ and reference/ {config.json, model.safetensors} and preference.json {prompt, chosen, rejected, refine_context_w,
 * refine_context_l: tokens; beta_dpo, beta_refine, alpha}. Writes to the JSON file `out` these and policy_logprobs and reference_logprobs (of the
 * answers w and l after the prompt, w_w and l_w after refine_context_w, w_l and l_l after refine_context_l), h_l, h_w, dpo_loss, refine_loss,
 * total_loss = (1 - alpha) dpo_loss + alpha refine_loss, total_loss_grad_of_logprob, refine_sft_loss, and of the policy's gradient of total_loss
 * grad_norm and grad_norms by tensor. The six sequences go through the step as they do in training: packed, two passes. threads: 0 for one per
 * processor. */
int verify_preference(const char *case_dir, const char *out, int threads, struct plm_status *st);

#endif
