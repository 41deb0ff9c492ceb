/* What a measuring command found: one JSON object of scalars and of arrays of objects with the same keys. The same object is
 * printed as JSON or as text, so both say the same. */
#ifndef TOOLS_RESULT_H
#define TOOLS_RESULT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "infer/base/status.h"

/* As text: arrays of objects as tables, one column per key of the first, and scalars as "name  value", in the order of the
 * object; underscores of names are printed as spaces. Numbers have 4 decimals below 1000, else 1. */
int result_print(FILE *out, const json_t *result, bool as_json, struct plm_status *st);

/* {"correct", "accuracy", "interval_95"} for k of n, added to `row`: the interval is Wilson's score interval, null for n = 0. */
int result_add_accuracy(json_t *row, int64_t k, int64_t n, struct plm_status *st);

/* Text for JSON, which holds only UTF-8: U+FFFD takes the place of a character that is not complete or not valid, and
 * of NUL. NULL when memory is short. */
json_t *result_text(const char *text, size_t n);

/* json_pack and json_object_set_new fail only when memory is short or text is not UTF-8: the one message for both. */
int result_failed(struct plm_status *st);

/* Wilson's score interval of a proportion k / n, 0 <= k <= n, n > 0, at 95 %: Wilson, "Probable inference, the law of
 * succession, and statistical inference", JASA 22 (1927). */
void wilson_interval(int64_t k, int64_t n, double *low, double *high);

#endif
