/* What counts as the answer in a text, and when two answers are the same. */
#ifndef TOOLS_EVAL_ANSWER_H
#define TOOLS_EVAL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "infer/base/status.h"

enum answer_rule {
    ANSWER_LAST_NUMBER, /* the last number of the text */
    ANSWER_GSM8K,       /* the number after the first "####" that one follows */
    ANSWER_LINE,        /* the first line that is not blank */
    ANSWER_ALL,         /* the text */
};

/* "last-number", "gsm8k", "line", "all". PLM_EINVAL lists them. */
int answer_rule_parse(enum answer_rule *rule, const char *name, struct plm_status *st);
const char *answer_rule_name(enum answer_rule rule);

/* The answer in text[0, length), normalised, malloc'ed in *answer, the caller frees; NULL when there is none (no
 * number, nothing but white space). Normalisation: white space at both ends and one period at the end are dropped; a
 * number is written in its shortest form, as the verifiers of answers do (train/align/number.h): "$1,080.00." is
 * "1080", "3/4" is "0.75". */
int answer_extract(enum answer_rule rule, const char *text, size_t length, char **answer, struct plm_status *st);

#endif
