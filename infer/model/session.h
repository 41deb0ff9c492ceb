/* struct plm_session: one sequence. The public calls are in infer/plm.h; these are for the program's own tools. */
#ifndef INFER_MODEL_SESSION_H
#define INFER_MODEL_SESSION_H

#include "infer/model/engine.h"

/* plm_session_append, but with the logits of every one of the n new positions in logits (n, V), or none for NULL.
 * decode: feed the tokens one at a time through the cache even when n > 1. */
int session_append_logits(struct plm_session *s, const int32_t *tokens, size_t n, bool decode, float *logits, struct plm_status *st);

/* The sequence options that the names in the public options mean. */
int sequence_options_by_name(struct sequence_options *so, const struct plm_session_options *o, struct plm_status *st);

/* Bytes the session holds: cache, buffers. */
size_t session_bytes(const struct plm_session *s);

#endif
