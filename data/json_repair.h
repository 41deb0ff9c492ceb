/* Rows of JSON as programs write them, made into JSON that every reader accepts. */
#ifndef DATA_JSON_REPAIR_H
#define DATA_JSON_REPAIR_H

#include <stddef.h>
#include <stdint.h>

/* What was replaced, in all rows of a file. */
struct json_repairs {
    int64_t characters; /* invalid UTF-8, lone surrogates and NUL, by U+FFFD */
    int64_t numbers;    /* NaN and Infinity (Python's) and numbers beyond a double, by null */
};

/* Copy the JSON text [text, text + n) to out, which has room for 3 n + 8 bytes, ended by a NUL. Within strings \u0000,
 * halves of surrogate pairs and bytes that are not UTF-8 become U+FFFD (one for each maximal invalid sequence, as
 * everywhere: utf8.h). Outside, NaN, Infinity and numbers beyond a double become null, and integers beyond 64 bits real
 * numbers, so that a field that nobody reads does not cost the row. Whatever else is wrong stays wrong. Returns the
 * length. */
size_t json_repair(const char *text, size_t n, char *out, struct json_repairs *repairs);

#endif
