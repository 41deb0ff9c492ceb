/* The parts of a tokenizer.json around its vocabulary: what is implemented is applied, what is not is refused by name.
 */
#ifndef INFER_TEXT_TOKENIZER_JSON_PIPELINE_H
#define INFER_TEXT_TOKENIZER_JSON_PIPELINE_H

#include "infer/format/json.h"
#include "infer/text/tokenizer.h"

/* Read normalizer, pre_tokenizer, post_processor, decoder and the switches of `model`. marks: -1 and false where
 * nothing is said. PLM_EUNSUPPORTED names the part, what it is and what was expected. Truncation and padding, settings
 * of a single call that a tokenizer was saved with, are noted in the log. */
int tokenizer_json_pipeline(const struct json_value *root, const char *where, struct tokenizer_pipeline *pipeline,
                            struct tokenizer_marks *marks, struct plm_status *st);

/* Helpers: null and missing members are the same. */
bool json_is_absent(const struct json_value *v);
bool json_is_text(const struct json_value *v, const char *expected);

#endif
