/* Decimal numbers as text, compared by value digit by digit: no floating point, whatever their length. */
#ifndef TRAIN_ALIGN_DECIMAL_H
#define TRAIN_ALIGN_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes beyond its text that a number's shortest form may take: an exponent up to 300, sign, point, NUL. */
#define DECIMAL_ROOM 320

/* The number without a sign that begins at text: digits, in groups of three where they are separated (LaTeX's "{,}",
 * "\,", "\ " and the like, narrow spaces; "," only with `commas`), a point before a digit, an exponent up to 300.
 * Returns its end and writes its shortest form ("12.5", "1080", "0.25", "0") to out, which has room for end - text +
 * DECIMAL_ROOM bytes; returns text when there is none. Two numbers are equal when their shortest forms are. */
const char *decimal_scan(const char *text, const char *end, bool commas, char *out);

/* Put a minus in front of a shortest form, which needs one byte more. False: it is zero, which has none. */
bool decimal_negate(char *out);

/* The shortest form of the number that is all of text[0, n), white space aside: a sign, "$", what decimal_scan reads
 * with commas; commas and points at the end are dropped ("$1,080.00." is 1080). out has room for n + DECIMAL_ROOM
 * bytes. False: it is no number. */
bool decimal_normalise(const char *text, size_t n, char *out);

#endif
