#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/jinja_parser.h"

/* --- memory --- */

struct pool_block {
    struct pool_block *next;
    size_t used, size;
    max_align_t data[];
};

void *pool_alloc(struct pool *p, size_t n, size_t size)
{
    const size_t unit = sizeof(max_align_t);
    if (n > p->limit / (size ? size : 1))
        return NULL;
    const size_t bytes = (n * size + unit - 1) / unit * unit;
    if (bytes > p->limit - p->used)
        return NULL;
    if (!p->blocks || p->blocks->size - p->blocks->used < bytes) {
        const size_t block_size = bytes > 16384 ? bytes : 16384;
        struct pool_block *b = calloc(1, sizeof *b + block_size);
        if (!b)
            return NULL;
        *b = (struct pool_block){p->blocks, 0, block_size};
        p->blocks = b;
    }
    void *at = (char *)p->blocks->data + p->blocks->used;
    p->blocks->used += bytes;
    p->used += bytes;
    return at;
}

void pool_free(struct pool *p)
{
    while (p->blocks) {
        struct pool_block *b = p->blocks;
        p->blocks = b->next;
        free(b);
    }
}

bool name_is(struct name n, const char *word)
{
    return n.bytes == strlen(word) && !memcmp(n.text, word, n.bytes);
}

int word_index(struct name n, const char *words)
{
    for (int i = 0; *words; i++) {
        const size_t bytes = strcspn(words, " ");
        if (bytes == n.bytes && !memcmp(words, n.text, bytes))
            return i;
        words += bytes + (words[bytes] == ' ');
    }
    return -1;
}

/* --- tokens --- */

int parser_line(struct parser *p, size_t at)
{
    for (; p->line_at < at; p->line_at++)
        p->line += p->src[p->line_at] == '\n';
    return p->line;
}

void parser_fail(struct parser *p, enum plm_code code, const char *fmt, ...)
{
    char text[256];
    va_list args;
    if (p->code)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->code = status_set(p->st, code, "%s: line %d: %s", p->t->where, parser_line(p, p->start), text);
    p->kind = T_FILE_END;
}

void *parser_alloc(struct parser *p, size_t n, size_t size)
{
    void *at = p->code ? NULL : pool_alloc(&p->t->pool, n, size);
    if (!at && !p->code) {
        p->code = status_no_memory(p->st, n * size, "a chat template");
        p->kind = T_FILE_END;
    }
    return at;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* %} and }}, with a sign before it: what follows is trimmed. */
static bool tag_end(struct parser *p)
{
    const char sign = parser_peek(p, 0), *end = p->in_block ? "%}" : "}}";
    const size_t skip = sign == '-' || (sign == '+' && p->in_block);
    if (p->brackets || parser_peek(p, skip) != end[0] || parser_peek(p, skip + 1) != end[1])
        return false;
    p->at += skip + 2;
    if (sign == '-')
        while (p->at < p->n && jinja_space(p->src[p->at]))
            p->at++;
    else if (p->in_block && sign != '+' && parser_peek(p, 0) == '\n')
        p->at++;
    p->kind = T_TAG_END;
    return true;
}

static void scan_string(struct parser *p)
{
    const char quote = p->src[p->at++];
    while (p->at < p->n && p->src[p->at] != quote)
        p->at += 1 + (p->src[p->at] == '\\');
    if (p->at >= p->n) {
        p->at = p->n;
        parser_fail(p, PLM_EFORMAT, "a text without its closing %c", quote);
        return;
    }
    p->kind = T_STRING;
    p->token = (struct name){p->src + p->start + 1, p->at++ - p->start - 1};
}

void parser_advance(struct parser *p)
{
    static const char doubled[] = "== != <= >= // **";
    if (p->code)
        return;
    while (p->at < p->n && jinja_space(p->src[p->at]))
        p->at++;
    p->start = p->at;
    const char c = parser_peek(p, 0);
    if (p->at >= p->n) {
        parser_fail(p, PLM_EFORMAT, "a tag without its end");
    } else if (tag_end(p)) {
        return;
    } else if (c == '\'' || c == '"') {
        scan_string(p);
    } else if (is_word(c)) {
        while (is_word(parser_peek(p, 0)))
            p->at++;
        p->kind = jinja_digit(c) ? T_INT : T_NAME;
        p->token = (struct name){p->src + p->start, p->at - p->start};
    } else if (strchr("+-*/%~=!<>.:|,()[]{}", c)) {
        const char pair[3] = {c, parser_peek(p, 1), 0};
        const size_t bytes = pair[1] && pair[1] != ' ' && strstr(doubled, pair) ? 2 : 1;
        p->kind = T_OPERATOR;
        p->token = (struct name){p->src + p->start, bytes};
        p->at += bytes;
        p->brackets += bytes == 1 && strchr("([{", c) ? 1 : bytes == 1 && strchr(")]}", c) ? -1 : 0;
    } else {
        parser_fail(p, PLM_EFORMAT, "'%.*s' is not part of an expression", 1, p->src + p->start);
    }
}

bool parser_accept(struct parser *p, const char *text)
{
    if (!parser_at_operator(p, text) && !parser_at_word(p, text))
        return false;
    parser_advance(p);
    return true;
}

void parser_unexpected(struct parser *p, const char *wanted)
{
    if (p->kind == T_TAG_END)
        parser_fail(p, PLM_EFORMAT, "the tag ends where %s is expected", wanted);
    else
        parser_fail(p, PLM_EUNSUPPORTED, "'%.*s' where %s is expected",
                    (int)(p->token.bytes < 40 ? p->token.bytes : 40), p->token.text, wanted);
}

void parser_expect(struct parser *p, const char *text)
{
    if (!p->code && !parser_accept(p, text))
        parser_unexpected(p, text);
}

struct name parser_name(struct parser *p)
{
    const struct name name = p->token;
    if (p->kind != T_NAME)
        parser_unexpected(p, "a name");
    else
        parser_advance(p);
    return name;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80)
        return *to = (char)c, 1;
    const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; c >>= 6)
        to[i] = (char)(0x80 | (c & 63));
    to[0] = (char)(lead[n] | c);
    return n;
}

size_t parser_unescape(struct parser *p, const char *s, size_t n, char *to, size_t *made)
{
    static const char from[] = "ntrabfv\\'\"", into[] = "\n\t\r\a\b\f\v\\'\"";
    const char *known = n && *s ? strchr(from, *s) : NULL;
    const size_t digits = !n ? 0 : *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
    uint32_t c = 0;
    size_t i = 1;
    *made = 0;
    if (known) {
        to[(*made)++] = into[known - from];
    } else if (digits) {
        for (; i <= digits; i++) {
            const char h = i < n ? s[i] : 0;
            c = c * 16 + (uint32_t)(jinja_digit(h) ? h - '0' : (h | 32) - 'a' + 10);
            if (!jinja_digit(h) && ((h | 32) < 'a' || (h | 32) > 'f'))
                parser_fail(p, PLM_EFORMAT, "\\%c without its %zu digits", *s, digits);
        }
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            parser_fail(p, PLM_EFORMAT, "an escape that is no character");
        else
            *made = put_utf8(to, c);
    } else if (n && *s >= '0' && *s <= '7') {
        for (i = 0; i < 3 && i < n && s[i] >= '0' && s[i] <= '7'; i++)
            c = c * 8 + (uint32_t)(s[i] - '0');
        *made = put_utf8(to, c);
    } else if (!n || *s != '\n') {
        to[(*made)++] = '\\';
        i = 0;
    }
    return i;
}
