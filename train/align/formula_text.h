/* LaTeX without what does not change its meaning: the first pass of formula.h. */
#ifndef TRAIN_ALIGN_FORMULA_TEXT_H
#define TRAIN_ALIGN_FORMULA_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Text that grows. After a failed allocation it stays as it is, and `failed` says so. */
struct formula_text {
    char *s; /* (n), and a NUL */
    size_t n, capacity;
    bool failed;
};
void formula_text_add(struct formula_text *t, const char *s, size_t n);
void formula_text_free(struct formula_text *t);

/* A comma that cannot be part of a number. */
#define FORMULA_COMMA '\x01'

/* Append [p, end) to *t without white space, dollar signs, sizes of brackets, units, percent signs, degrees, currencies
 * and commands for fonts; commands of the same meaning under one name; the commands' names end before a letter by a
 * space; Unicode's signs as commands. A space between two digits stays as one, or as "{,}" before three digits. */
void formula_text_flatten(struct formula_text *t, const char *p, const char *end);

#endif
