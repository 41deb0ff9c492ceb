/* Regular expressions on texts that a model wrote: PCRE2's, with a limit of steps. */
#ifndef TRAIN_ALIGN_PATTERN_H
#define TRAIN_ALIGN_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "infer/base/status.h"

struct pattern;

/* Compile a regular expression (Perl's, as PCRE2 has it; UTF-8). ^ and $ match at every line, "." does not match a
 * newline, \d, \w and \b know Unicode. PLM_EINVAL names the place. */
int pattern_open(struct pattern **out, const char *text, struct plm_status *st);
void pattern_close(struct pattern *p);

/* Has it a group to capture with? */
bool pattern_has_group(const struct pattern *p);

/* Group 1 of the last match in text[0, n) that has one (the whole match of a pattern without groups): its bytes
 * [*first, *last). *found: there is one. What is not UTF-8 matches nothing. PLM_ELIMIT: PATTERN_STEPS were not enough
 * to see whether it matches, as with nested repetitions or references back to them, or the matches together took
 * PATTERN_SECONDS of this thread's time. Any number of threads may use one pattern. */
#define PATTERN_STEPS 2000000
#define PATTERN_SECONDS 5
int pattern_last(const struct pattern *p, const char *text, size_t n, size_t *first, size_t *last, bool *found,
                 struct plm_status *st);

#endif
