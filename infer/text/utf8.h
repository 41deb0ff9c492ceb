/* UTF-8 as Unicode 15, table 3-7 defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef INFER_TEXT_UTF8_H
#define INFER_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID 0x80000000u /* flag of a "code point" that is one byte which is not part of valid UTF-8 */

/* The code point at s (n >= 1 bytes are readable) and its length in bytes. A byte that does not begin a valid sequence is
 * UTF8_INVALID | byte with length 1. */
static inline size_t utf8_decode(const unsigned char *s, size_t n, uint32_t *point)
{
    unsigned char a = s[0];
    if (a < 0x80) {
        *point = a;
        return 1;
    }
    if (a >= 0xC2 && a <= 0xDF && n >= 2 && (s[1] & 0xC0) == 0x80) {
        *point = (uint32_t)(a & 0x1F) << 6 | (s[1] & 0x3F);
        return 2;
    }
    if ((a & 0xF0) == 0xE0 && n >= 3 && (s[1] & 0xC0) == 0x80 && (s[2] & 0xC0) == 0x80) {
        uint32_t c = (uint32_t)(a & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
        if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) {
            *point = c;
            return 3;
        }
    } else if ((a & 0xF8) == 0xF0 && n >= 4 && (s[1] & 0xC0) == 0x80 && (s[2] & 0xC0) == 0x80 && (s[3] & 0xC0) == 0x80) {
        uint32_t c = (uint32_t)(a & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 | (uint32_t)(s[2] & 0x3F) << 6 | (s[3] & 0x3F);
        if (c >= 0x10000 && c <= 0x10FFFF) {
            *point = c;
            return 4;
        }
    }
    *point = UTF8_INVALID | a;
    return 1;
}

/* Write a code point (or the byte of a UTF8_INVALID one) to s, which has room for 4; returns the number of bytes. */
static inline size_t utf8_encode(uint32_t c, unsigned char *s)
{
    if (c < 0x80 || c & UTF8_INVALID) {
        s[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        s[0] = (unsigned char)(0xC0 | c >> 6);
        s[1] = (unsigned char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        s[0] = (unsigned char)(0xE0 | c >> 12);
        s[1] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        s[2] = (unsigned char)(0x80 | (c & 0x3F));
        return 3;
    }
    s[0] = (unsigned char)(0xF0 | c >> 18);
    s[1] = (unsigned char)(0x80 | (c >> 12 & 0x3F));
    s[2] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
    s[3] = (unsigned char)(0x80 | (c & 0x3F));
    return 4;
}

#endif
