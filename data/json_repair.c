#include "data/json_repair.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* The four hexadecimal digits after "\u" at p; -1 when they are none. */
static int escape_value(const char *p, const char *end)
{
    int value = 0;
    if (end - p < 6)
        return -1;
    for (int i = 2; i < 6; i++) {
        const char c = p[i];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool is_escape(const char *p, const char *end)
{
    return end - p >= 6 && p[0] == '\\' && p[1] == 'u';
}

/* The escape at p, with its other half when it is a surrogate pair, to *to. Returns its end. */
static const char *copy_escape(const char *p, const char *end, char **to, struct json_repairs *repairs)
{
    const int value = is_escape(p, end) ? escape_value(p, end) : -1;
    size_t n = end - p >= 2 ? 2 : 1;
    if (value >= 0xD800 && value < 0xDC00 && is_escape(p + 6, end)) {
        const int low = escape_value(p + 6, end);
        n = low >= 0xDC00 && low < 0xE000 ? 12 : 6;
    } else if (value >= 0) {
        n = 6;
    }
    if (value == 0 || (value >= 0xD800 && value < 0xE000 && n == 6)) {
        memcpy(*to, replacement, 3);
        *to += 3;
        repairs->characters++;
    } else {
        memcpy(*to, p, n);
        *to += n;
    }
    return p + n;
}

/* The string whose quote is at p. Returns what follows its closing quote. */
static const char *copy_string(const char *p, const char *end, char **to, struct json_repairs *repairs)
{
    *(*to)++ = *p++;
    while (p < end) {
        const char *stop = p;
        while (stop < end && *stop != '"' && *stop != '\\')
            stop++;
        *to += utf8_repair(p, (size_t)(stop - p), *to, &repairs->characters);
        p = stop;
        if (p < end && *p == '"') {
            *(*to)++ = '"';
            return p + 1;
        }
        if (p < end)
            p = copy_escape(p, end, to, repairs);
    }
    return p;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '+' || c == '-';
}

/* A number, or a word such as true and NaN. Returns its end. */
static const char *copy_word(const char *p, const char *end, char **to, struct json_repairs *repairs)
{
    const char *stop = p;
    while (stop < end && is_word(*stop))
        stop++;
    const size_t n = (size_t)(stop - p);
    char text[400], *rest;
    const bool number = n < sizeof text && strspn(p, "-0123456789.eE+") >= n && memchr("-0123456789", *p, 11);
    static const char *const words[] = {"NaN", "-NaN", "Infinity", "-Infinity"};
    bool special = false;
    for (int i = 0; i < 4; i++)
        special |= n == strlen(words[i]) && !memcmp(p, words[i], n);
    if (number) {
        memcpy(text, p, n);
        text[n] = 0;
        special = !isfinite(strtod(text, &rest)) && !*rest;
    }
    if (special) {
        memcpy(*to, "null", 4);
        *to += 4;
        repairs->numbers++;
        return stop;
    }
    memcpy(*to, p, n);
    *to += n;
    if (number && !strpbrk(text, ".eE")) {
        errno = 0;
        (void)strtoll(text, &rest, 10);
        if (errno == ERANGE && !*rest) {
            memcpy(*to, ".0", 2);
            *to += 2;
        }
    }
    return stop;
}

size_t json_repair(const char *text, size_t n, char *out, struct json_repairs *repairs)
{
    const char *p = text, *end = text + n;
    char *to = out;
    while (p < end) {
        if (*p == '"')
            p = copy_string(p, end, &to, repairs);
        else if (is_word(*p))
            p = copy_word(p, end, &to, repairs);
        else
            *to++ = *p++;
    }
    *to = 0;
    return (size_t)(to - out);
}
