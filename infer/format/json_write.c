#include "infer/format/json.h"
#include "infer/format/json_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t json_utf8_length(const char *text, const char *end)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > (size_t)(end - text))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* overlong, surrogate, beyond U+10FFFF */
    return n;
}

locale_t json_locale_enter(locale_t *old)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    *old = c ? uselocale(c) : (locale_t)0;
    return c;
}

void json_locale_leave(locale_t c, locale_t old)
{
    if (c) {
        uselocale(old);
        freelocale(c);
    }
}

static bool buffer_reserve(struct json_buffer *b, size_t more)
{
    if (b->failed || more < b->capacity - b->length)
        return !b->failed;
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity - b->length <= more && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    char *data = capacity - b->length > more ? realloc(b->data, capacity) : NULL;
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

void json_put(struct json_buffer *b, const char *raw, size_t length)
{
    if (!buffer_reserve(b, length))
        return;
    if (length)
        memcpy(b->data + b->length, raw, length);
    b->length += length;
    b->data[b->length] = '\0';
}

void json_put_string(struct json_buffer *b, const char *text, size_t length)
{
    static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *end = text + length, *run = text;
    json_put(b, "\"", 1);
    while (text < end) {
        unsigned char c = (unsigned char)*text;
        size_t n = json_utf8_length(text, end);
        if (n > 0 && c >= 0x20 && c != '"' && c != '\\') {
            text += n;
            continue;
        }
        json_put(b, run, (size_t)(text - run));
        const char *at = c ? strchr(special, c) : NULL;
        if (at)
            json_put(b, (char[]){'\\', letters[at - special]}, 2);
        else if (n > 0)
            json_printf(b, "\\u%04x", c);
        else
            json_put(b, "\xef\xbf\xbd", 3); /* U+FFFD */
        run = ++text;
    }
    json_put(b, run, (size_t)(end - run));
    json_put(b, "\"", 1);
}

void json_printf(struct json_buffer *b, const char *fmt, ...)
{
    locale_t old, c = json_locale_enter(&old);
    va_list args;
    va_start(args, fmt);
    int n = c ? vsnprintf(NULL, 0, fmt, args) : -1;
    va_end(args);
    if (n < 0) {
        b->failed = true;
    } else if (buffer_reserve(b, (size_t)n)) {
        va_start(args, fmt);
        vsnprintf(b->data + b->length, (size_t)n + 1, fmt, args);
        va_end(args);
        b->length += (size_t)n;
    }
    json_locale_leave(c, old);
}

void json_put_float(struct json_buffer *b, float f)
{
    if (!isfinite(f)) {
        json_put(b, "null", 4);
        return;
    }
    char text[32];
    locale_t old, c = json_locale_enter(&old);
    for (int digits = 6; digits <= 9; digits++) { /* nine always suffice */
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (strtof(text, NULL) == f)
            break;
    }
    json_locale_leave(c, old);
    json_put(b, text, strlen(text));
    if (!strpbrk(text, ".e"))
        json_put(b, ".0", 2);
    b->failed |= !c;
}
