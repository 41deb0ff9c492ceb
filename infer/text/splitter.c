#include "infer/text/splitter.h"

#include <stdbool.h>

#include "infer/text/unicode_tables.h"
#include "infer/text/utf8.h"

/* Class of the character at s[i], i < n, and its length in bytes. */
static inline unsigned class_at(const unsigned char *s, size_t n, size_t i, size_t *length)
{
    if (s[i] < 0x80) {
        *length = 1;
        return unicode_ascii_class[s[i]];
    }
    uint32_t c;
    *length = utf8_decode(s + i, n - i, &c);
    return unicode_class(unicode_cell(c)); /* UTF8_INVALID is above every table: other */
}

/* First position from i on whose class is not `class`. */
static inline size_t skip_class(const unsigned char *s, size_t n, size_t i, unsigned class)
{
    size_t length;
    while (i < n && class_at(s, n, i, &length) == class)
        i += length;
    return i;
}

static bool is_letter(const unsigned char *s, size_t n, size_t i)
{
    size_t length;
    return i < n && class_at(s, n, i, &length) == UNICODE_LETTER;
}

/* End of (?i:'s|'t|'re|'ve|'m|'ll|'d) at s[i] == '\'', or i. U+017F folds to s. */
static size_t match_contraction(const unsigned char *s, size_t n, size_t i)
{
    unsigned char a = i + 1 < n ? s[i + 1] | 0x20 : 0, b = i + 2 < n ? s[i + 2] | 0x20 : 0;
    if (i + 1 >= n)
        return i;
    if (s[i + 1] < 0x80) {
        if (a == 's' || a == 't' || a == 'm' || a == 'd')
            return i + 2;
        if (i + 2 < n && s[i + 2] < 0x80 && ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')))
            return i + 3;
        return i;
    }
    return i + 2 < n && s[i + 1] == 0xC5 && s[i + 2] == 0xBF ? i + 3 : i;
}

/* [^\s\p{L}\p{N}]+[\r\n]* */
static size_t match_symbols(const unsigned char *s, size_t n, size_t i)
{
    i = skip_class(s, n, i, UNICODE_OTHER);
    while (i < n && (s[i] == '\r' || s[i] == '\n'))
        i++;
    return i;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last newline of the run if it has one; else, when something follows, all but the
 * run's last code point; else all of it. */
static size_t match_space(const unsigned char *s, size_t n, size_t begin)
{
    size_t i = begin, last = begin, after_newline = begin;
    while (i < n) {
        size_t length;
        unsigned class = class_at(s, n, i, &length);
        if (class != UNICODE_SPACE && class != UNICODE_NEWLINE)
            break;
        last = i;
        i += length;
        if (class == UNICODE_NEWLINE)
            after_newline = i;
    }
    if (after_newline > begin)
        return after_newline;
    return i < n && last > begin ? last : i;
}

size_t splitter_next(const char *text, size_t n, size_t begin)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t length;
    unsigned class = class_at(s, n, begin, &length);
    if (class == UNICODE_LETTER)
        return skip_class(s, n, begin + length, UNICODE_LETTER);
    if (class == UNICODE_NUMBER)
        return begin + length;
    if (s[begin] == '\'') {
        size_t end = match_contraction(s, n, begin);
        if (end > begin)
            return end;
    }
    if (class != UNICODE_NEWLINE && is_letter(s, n, begin + length))
        return skip_class(s, n, begin + length, UNICODE_LETTER);
    if (class == UNICODE_OTHER)
        return match_symbols(s, n, begin);
    size_t next_length;
    if (s[begin] == ' ' && begin + 1 < n && class_at(s, n, begin + 1, &next_length) == UNICODE_OTHER)
        return match_symbols(s, n, begin + 1);
    return match_space(s, n, begin);
}
