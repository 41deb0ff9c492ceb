/* Validation and repair of UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
#ifndef DATA_UTF8_H
#define DATA_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the longest prefix that is valid UTF-8 without NUL. */
size_t utf8_valid_prefix(const char *text, size_t length);

/* Copy `text` to `out`, which holds 3 * length bytes, with U+FFFD in place of every maximal invalid sequence (the
 * substitution of the Unicode standard, section 3.9) and of every NUL. Returns the bytes written; *replaced counts. */
size_t utf8_repair(const char *text, size_t length, char *out, int64_t *replaced);

#endif
