/* Formulas in LaTeX, written in one way, so that equal ones are equal texts: after the equivalence that the MATH data
 * set publishes (Hendrycks et al., arXiv 2103.03874), with numbers compared by value. */
#ifndef TRAIN_ALIGN_FORMULA_H
#define TRAIN_ALIGN_FORMULA_H

#include "infer/base/status.h"

/* The formula [begin, end) in its canonical form, malloc'ed in *key; NULL when nothing is left of it.
 *
 *     not shown      white space, $, \left, \right, \big and its kin, \displaystyle, spacing commands, a point at the end
 *     numbers        by value in their shortest form (number.h): 0.5, \frac12, \dfrac{1}{2} and 1/2 are one; groups of
 *                    three digits by "," "{,}" "\," or a space; other commas separate
 *     units          \text{ cm}^2, \mathrm{kg} and the usual words behind a number, degrees, percent, currencies go
 *     text           \text{...} and its kin are their contents; "and", "or" between two things are a comma
 *     one notation   \frac12 is \frac{1}{2}, a/b is \frac{a}{b}, \sqrt3 is \sqrt{3}, x^{2} is x^2, \times is \cdot, ...
 *     x = 5, x \in I the right side, when only one variable stands on the left
 *     brackets       around all of it go where they hold no comma; tuples and intervals keep theirs: [0,1) is not
 *                    (0,1); elements of a set \{...\} are sorted; entries of a matrix are formulas, whatever brackets
 *                    it has, but for those of determinants */
int formula_key(const char *begin, const char *end, char **key, struct plm_status *st);

#endif
