#include "tools/show_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

static const char trained[] = "\033[30;42m", strong[] = "\033[1m", plain[] = "\033[0m", open_bracket[] = "⟦", close_bracket[] = "⟧", bar[] = "│";

void show_text(FILE *f, const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        const size_t valid = utf8_valid_prefix(text + i, length - i);
        for (const size_t end = i + valid; i < end; i++) {
            const unsigned char c = (unsigned char)text[i];
            /* U+0080 to U+009F are control characters too: 0xC2 0x80 .. 0xC2 0x9F */
            const bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
            if (!control)
                fputc(c, f);
            else if (c == 0xc2)
                fprintf(f, "\\u%04x", (unsigned char)text[++i]);
            else
                fprintf(f, "\\x%02x", c);
        }
        if (i < length)
            fprintf(f, "\\x%02x", (unsigned char)text[i++]);
    }
}

static size_t bytes_of(const struct tokenizer *t, int32_t id, const char **bytes, bool *special)
{
    size_t n;
    *bytes = tokenizer_token(t, id, &n, special);
    return *bytes ? n : 0;
}

/* Tokens [from, to) of one kind: a character may lie in several of them, which only boundaries tear apart. */
static void show_run(FILE *f, const struct tokenizer *t, const int32_t *ids, size_t from, size_t to, bool boundaries)
{
    const char *bytes;
    bool special;
    size_t total = 0, length = 0;
    for (size_t i = from; i < to; i++) {
        const size_t n = bytes_of(t, ids[i], &bytes, &special);
        total += n;
        if (boundaries) {
            show_text(f, bytes, n);
            fputs(bar, f);
        }
    }
    char *text = boundaries ? NULL : malloc(total + 1);
    for (size_t i = from; i < to && text; i++) {
        const size_t n = bytes_of(t, ids[i], &bytes, &special);
        if (n)
            memcpy(text + length, bytes, n);
        length += n;
    }
    if (text)
        show_text(f, text, length);
    free(text);
}

void show_tokens(FILE *f, const struct tokenizer *t, const int32_t *ids, const uint8_t *targets, size_t n, const struct show_options *o)
{
    bool inside = false;
    for (size_t i = 0, end; i < n; i = end) {
        const char *bytes;
        bool special, next = false;
        const bool target = targets && targets[i];
        bytes_of(t, ids[i], &bytes, &special);
        for (end = i + 1; end < n; end++) {
            bytes_of(t, ids[end], &bytes, &next);
            if (next != special || (targets && targets[end]) != target)
                break;
        }
        if (o->colour) {
            fputs(target ? trained : "", f);
            fputs(special ? strong : "", f);
        } else if (target != inside) {
            fputs(target ? open_bracket : close_bracket, f);
        }
        inside = target;
        show_run(f, t, ids, i, end, o->boundaries);
        if (o->colour && (target || special))
            fputs(plain, f);
    }
    if (!o->colour && inside)
        fputs(close_bracket, f);
    fputc('\n', f);
}
