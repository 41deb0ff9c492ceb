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

/* An exponent at p ("e-3"), which must not run into a word: its value, and where it ends. p itself when there is none. */
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

/* Shortest form of 0.DIGITS * 10^point, written to out; digits are moved within out, where they begin `room` bytes in. */
static void write_shortest(char *out, char *digits, size_t n, long point, bool negative)
{
    while (n > 0 && *digits == '0')
        digits++, n--, point--;
    while (n > 0 && digits[n - 1] == '0')
        n--;
    if (n == 0) {
        memcpy(out, "0", 2);
        return;
    }
    if (negative)
        *out++ = '-';
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

bool decimal_normalise(const char *text, size_t n, char *out)
{
    const char *p = text, *end = text + n;
    while (p < end && is_space(*p))
        p++;
    while (p < end && is_space(end[-1]))
        end--;
    while (p < end && (end[-1] == '.' || end[-1] == ','))
        end--;
    bool negative = false, sign = false, currency = false, point = false;
    for (; p < end && (*p == '-' || *p == '+' || *p == '$'); p++) {
        if (*p == '$' ? currency : sign)
            return false;
        currency |= *p == '$';
        sign |= *p != '$';
        negative |= *p == '-';
    }
    char *digits = out + DECIMAL_ROOM - 1; /* so that the zeros of an exponent fit in front of them */
    size_t count = 0;
    long whole = 0; /* digits before the point */
    for (; p < end && (is_digit(*p) || *p == ',' || (*p == '.' && !point)); p++) {
        if (is_digit(*p)) {
            digits[count++] = *p;
            whole += !point;
        }
        point |= *p == '.';
    }
    int exponent;
    if (count == 0 || read_exponent(p, end, &exponent) != end)
        return false;
    write_shortest(out, digits, count, whole + exponent, negative);
    return true;
}

/* The comma at p sets off a group of three digits: exactly three digits follow. */
static bool is_group(const char *p, const char *end)
{
    return end - p > 3 && is_digit(p[1]) && is_digit(p[2]) && is_digit(p[3]) && (end - p == 4 || !is_digit(p[4]));
}

/* End of the number whose first digit (or its point) is p. */
static const char *number_end(const char *p, const char *end)
{
    const char *first = p;
    while (p < end && is_digit(*p))
        p++;
    const bool grouped = p > first && p - first <= 3;
    while (grouped && p < end && *p == ',' && is_group(p, end))
        p += 4;
    if (p + 1 < end && *p == '.' && is_digit(p[1]))
        for (p++; p < end && is_digit(*p);)
            p++;
    int exponent;
    return read_exponent(p, end, &exponent);
}

bool decimal_last(const char *text, size_t n, char *out)
{
    const char *end = text + n, *first = NULL, *last = NULL;
    for (const char *p = text; p < end;) {
        const bool fraction = *p == '.' && p + 1 < end && is_digit(p[1]);
        if (!is_digit(*p) && !fraction) {
            p++;
            continue;
        }
        first = p;
        p = last = number_end(p, end);
    }
    if (!first)
        return false;
    bool negative = false;
    const char *before = first;
    before -= before > text && before[-1] == '$';
    if (before > text && before[-1] == '-') {
        before--;
        const char c = before > text ? before[-1] : ' ';
        negative = !is_digit(c) && !is_letter(c) && c != ')' && c != ']' && c != '}' && c != '-';
    }
    if (!decimal_normalise(first, (size_t)(last - first), out))
        return false;
    if (negative && strcmp(out, "0") != 0) {
        memmove(out + 1, out, strlen(out) + 1);
        *out = '-';
    }
    return true;
}
