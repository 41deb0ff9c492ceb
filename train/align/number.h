/* Numbers as people and LaTeX write them: fractions, mixed numbers, powers of ten, currency, percent signs, compared by
 * value. */
#ifndef TRAIN_ALIGN_NUMBER_H
#define TRAIN_ALIGN_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

#include "train/align/decimal.h"

/* The number without a sign in front that begins at p, where `text` begins what it stands in: a decimal (decimal.h),
 * "3/4", "1 3/4", \frac{3}{4} (\dfrac, \tfrac, \cfrac, \frac34), 1\frac34, U+00BD and its kin, 2 \times 10^{-3},
 * 2^{10}. Returns its end, and in out its shortest form: a decimal where it has one, else a reduced fraction ("2/3"),
 * with a minus when a numerator has one. Returns p when there is none. out has room for end - p + DECIMAL_ROOM bytes. A
 * value that 64 bits cannot hold is read up to where it still is a decimal. */
const char *number_scan(const char *text, const char *p, const char *end, bool commas, char *out);

/* The same with a sign (- + U+2212) and a currency ($ \$ and U+20AC, U+00A3, U+00A5) in front, in either order, and
 * white space before. */
const char *number_scan_signed(const char *text, const char *end, bool commas, char *out);

/* The number that is all of text[0, n): signed, a percent sign after it dropped, as are "$", points and commas at the
 * end. */
bool number_whole(const char *text, size_t n, char *out);

/* The last number in text[0, n). A sign counts when it does not follow a letter, a digit or a bracket ("16-3" is 16 and
 * 3); commas belong to a number where they set off groups of three digits ("1,234" is one number, "1,2,3" three); an
 * exponent or index of something
 * ("cm^2", "x_1") is none. */
bool number_last(const char *text, size_t n, char *out);

#endif
