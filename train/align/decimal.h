/* Decimal numbers as text, compared by value digit by digit: no floating point, whatever their length. */
#ifndef TRAIN_ALIGN_DECIMAL_H
#define TRAIN_ALIGN_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>

#define DECIMAL_ROOM 320 /* bytes beyond its text that a number's shortest form may take: an exponent up to 300, sign, point, NUL */

/* The shortest form ("-12.5", "1080", "0.25", "0") of the number that is all of text[0, n), white space aside: a sign, "$", digits with
 * commas anywhere among them, one decimal point, an exponent up to 300; commas and points at the end are dropped ("$1,080.00." is
 * 1080). Two numbers are equal when their shortest forms are. out has room for n + DECIMAL_ROOM bytes. False: it is no number. */
bool decimal_normalise(const char *text, size_t n, char *out);

/* The same of the last number in text[0, n). A sign counts when it does not follow a letter, a digit or a bracket ("16-3" is 16 and
 * 3); commas belong to a number where they set off groups of three digits ("1,234" is one number, "1,2,3" three). */
bool decimal_last(const char *text, size_t n, char *out);

#endif
