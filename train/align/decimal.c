#include "train/align/decimal.h"

#include <string.h>

#define MAX_EXPONENT 300

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* An exponent at p ("e-3"), which must not run into a word: its value, and where it ends. p itself when there is none.
 */
static const char *read_exponent(const char *p, const char *end, int *exponent)
{
    const char *q = p;
    *exponent = 0;
    if (q == end || (*q != 'e' && *q != 'E'))
        return p;
    const bool negative = ++q < end && *q == '-';
    q += q < end && (*q == '-' || *q == '+');
    const char *digits = q;
    int value = 0;
    for (; q < end && is_digit(*q); q++)
        value = value <= MAX_EXPONENT ? value * 10 + (*q - '0') : value;
    if (q == digits || value > MAX_EXPONENT || (q < end && is_letter(*q)))
        return p;
    *exponent = negative ? -value : value;
    return q;
}

/* Shortest form of 0.DIGITS * 10^point, written to out; digits are moved within out, where they begin `room` bytes in.
 */
static void write_shortest(char *out, char *digits, size_t n, long point)
{
    while (n > 0 && *digits == '0')
        digits++, n--, point--;
    while (n > 0 && digits[n - 1] == '0')
        n--;
    if (n == 0) {
        memcpy(out, "0", 2);
        return;
    }
    if (point <= 0) {
        *out++ = '0';
        *out++ = '.';
        memmove(out - point, digits, n);
        memset(out, '0', (size_t)-point);
        out[(size_t)-point + n] = 0;
        return;
    }
    const size_t whole = (size_t)point < n ? (size_t)point : n;
    memmove(out, digits, whole);
    out += whole;
    if (whole < n) { /* the digits lie far enough behind that the point does not reach them */
        *out++ = '.';
        memmove(out, digits + whole, n - whole);
        out += n - whole;
    }
    for (long zeros = point - (long)whole; zeros > 0; zeros--)
        *out++ = '0';
    *out = 0;
}

/* The separators of thousands, in prose and in LaTeX: a plain comma only where the caller says so. The spaces are
 * U+00A0, U+2009 and U+202F. The longer of two that begin alike stands first. */
static const char *const separators[] = {",\\!", "{,}",      "\\,",          "\\;",          "\\:", "\\ ",
                                         "~",    "\xC2\xA0", "\xE2\x80\x89", "\xE2\x80\xAF", ","};
enum { N_SEPARATORS = sizeof separators / sizeof *separators };

static bool starts_with(const char *p, const char *end, const char *word)
{
    const size_t n = strlen(word);
    return (size_t)(end - p) >= n && !memcmp(p, word, n);
}

/* Three digits at p, and no fourth. */
static bool is_group(const char *p, const char *end)
{
    return end - p >= 3 && is_digit(p[0]) && is_digit(p[1]) && is_digit(p[2]) && (end - p == 3 || !is_digit(p[3]));
}

/* The separator of thousands at p, with three digits after it and no fourth; NULL when there is none. */
static const char *group_separator(const char *p, const char *end, bool commas)
{
    for (int i = 0; i < N_SEPARATORS - !commas; i++)
        if (starts_with(p, end, separators[i]))
            return is_group(p + strlen(separators[i]), end) ? separators[i] : NULL;
    return NULL;
}

/* End of the groups of three that follow the digits [first, p): p itself where they are none, or where one of several
 * is no group of three: "1,234,5" is a list. */
static const char *groups_end(const char *first, const char *p, const char *end, bool commas)
{
    const char *separator = p - first <= 3 && p > first && *first != '0' ? group_separator(p, end, commas) : NULL,
               *q = p;
    if (!separator)
        return p;
    const size_t n = strlen(separator);
    while (starts_with(q, end, separator) && is_group(q + n, end))
        q += n + 3;
    return starts_with(q, end, separator) && q + n < end && is_digit(q[n]) ? p : q;
}

const char *decimal_scan(const char *text, const char *end, bool commas, char *out)
{
    const char *p = text, *last;
    char *digits = out + DECIMAL_ROOM - 1; /* so that the zeros of an exponent fit in front of them */
    size_t count = 0;
    long whole = 0; /* digits before the point */
    while (p < end && is_digit(*p))
        p++;
    last = groups_end(text, p, end, commas);
    for (p = text; p < last; p++)
        if (is_digit(*p))
            digits[count++] = *p, whole++;
    if (end - p > 1 && *p == '.' && is_digit(p[1]))
        for (p++; p < end && is_digit(*p); p++)
            digits[count++] = *p;
    if (count == 0)
        return text;
    int exponent;
    p = read_exponent(p, end, &exponent);
    write_shortest(out, digits, count, whole + exponent);
    return p;
}

bool decimal_negate(char *out)
{
    if (!strcmp(out, "0"))
        return false;
    memmove(out + 1, out, strlen(out) + 1);
    *out = '-';
    return true;
}

bool decimal_normalise(const char *text, size_t n, char *out)
{
    const char *p = text, *end = text + n;
    while (p < end && is_space(*p))
        p++;
    while (p < end && is_space(end[-1]))
        end--;
    while (p < end && (end[-1] == '.' || end[-1] == ','))
        end--;
    bool negative = false, sign = false, currency = false;
    for (; p < end && (*p == '-' || *p == '+' || *p == '$'); p++) {
        if (*p == '$' ? currency : sign)
            return false;
        currency |= *p == '$';
        sign |= *p != '$';
        negative |= *p == '-';
    }
    if (p == end || decimal_scan(p, end, true, out) != end)
        return false;
    if (negative)
        decimal_negate(out);
    return true;
}
