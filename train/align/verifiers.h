/* Rule-based verifiers: what an answer says, read out of its text in a normal form, and whether it is what the reference says. */
#ifndef TRAIN_ALIGN_VERIFIERS_H
#define TRAIN_ALIGN_VERIFIERS_H

#include <stdbool.h>

#include "infer/base/status.h"
#include "train/align/pattern.h"

enum verifier_kind { VERIFY_GSM8K, VERIFY_NUMBER, VERIFY_BOXED, VERIFY_CHOICE, VERIFY_EXACT, VERIFY_REGEX };

struct verifier {
    enum verifier_kind kind;
    bool flexible;    /* gsm8k: the last number when there is none after "####" */
    bool ignore_case; /* exact: ASCII letters */
    bool normalise;   /* exact, as SQuAD does: lower case, without ASCII punctuation and the articles a, an, the; single spaces */
    struct pattern *pattern; /* regex: verifier_regex */
};

/* Compile a pattern (pattern.h). PLM_EINVAL with the reason. */
int verifier_regex(struct verifier *v, const char *pattern, struct plm_status *st);
void verifier_free(struct verifier *v);

/* What the text says, malloc'ed in *key; NULL when it says nothing of this kind. Numbers are compared by value, whatever their notation
 * (number.h).
 *     gsm8k   the number after the last "####" of the last 300 characters (as verl does)
 *     number  the last number: a fraction, mixed number or power of ten is one
 *     boxed   what the last \boxed{...} (or \fbox{...}) holds, in the canonical form of formula.h
 *     choice  one capital letter: after the last "answer is" or "answer:", else in the last \boxed{}, else the last in brackets "(B)", else what
 *             the first line begins with ("B.", "B)", "B:", or all of it), else the last line when it is one letter
 *     exact   the text without white space at its ends, normalised as asked
 *     regex   group 1 of the last match (the whole match when the pattern has no group), trimmed; PLM_ELIMIT where it takes too many steps */
int verifier_extract(const struct verifier *v, const char *text, char **key, struct plm_status *st);

/* The same from a reference solution, which may also be the bare answer: without "####" its last number, without \boxed{} all of it; for a
 * regex all of it. */
int verifier_reference(const struct verifier *v, const char *text, char **key, struct plm_status *st);

/* Does the answer say what the reference says? PLM_EINVAL when the reference (NULL: none) says nothing of this kind. A regex without a group
 * needs no reference: it matches or not. */
int verifier_check(const struct verifier *v, const char *reference, const char *text, bool *correct, struct plm_status *st);

#endif
