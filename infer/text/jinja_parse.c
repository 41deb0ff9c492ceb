#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/jinja_internal.h"

enum { MOST_NESTED = 100, MEMORY_PER_BYTE = 256 };

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

enum token_kind { T_NAME, T_INT, T_STRING, T_OPERATOR, T_TAG_END, T_FILE_END };

struct parser {
    struct jinja *t;
    const char *src;
    size_t n, at, start;  /* start: of the present token */
    size_t line_at;
    int line, nesting, brackets;
    bool in_block;        /* a {% %} tag, not {{ }} */
    enum token_kind kind;
    struct name token;
    struct plm_status *st;
    int code;
};

static int line_of(struct parser *p, size_t at)
{
    for (; p->line_at < at; p->line_at++)
        p->line += p->src[p->line_at] == '\n';
    return p->line;
}

static void fail(struct parser *p, enum plm_code code, const char *fmt, ...) PLM_PRINTF(3, 4);
static void fail(struct parser *p, enum plm_code code, const char *fmt, ...)
{
    char text[256];
    va_list args;
    if (p->code)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->code = status_set(p->st, code, "%s: line %d: %s", p->t->where, line_of(p, p->start), text);
    p->kind = T_FILE_END;
}

static void *allocate(struct parser *p, size_t n, size_t size)
{
    void *at = p->code ? NULL : pool_alloc(&p->t->pool, n, size);
    if (!at && !p->code) {
        p->code = status_no_memory(p->st, n * size, "a chat template");
        p->kind = T_FILE_END;
    }
    return at;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f); }
static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static char peek(const struct parser *p, size_t ahead) { return p->at + ahead < p->n ? p->src[p->at + ahead] : 0; }

/* %} and }}, with a sign before it: what follows is trimmed. */
static bool tag_end(struct parser *p)
{
    const char sign = peek(p, 0), *end = p->in_block ? "%}" : "}}";
    const size_t skip = sign == '-' || (sign == '+' && p->in_block);
    if (p->brackets || peek(p, skip) != end[0] || peek(p, skip + 1) != end[1])
        return false;
    p->at += skip + 2;
    if (sign == '-')
        while (p->at < p->n && is_space(p->src[p->at]))
            p->at++;
    else if (p->in_block && sign != '+' && peek(p, 0) == '\n')
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
        fail(p, PLM_EFORMAT, "a text without its closing %c", quote);
        return;
    }
    p->kind = T_STRING;
    p->token = (struct name){p->src + p->start + 1, p->at++ - p->start - 1};
}

static void advance(struct parser *p)
{
    static const char doubled[] = "== != <= >= // **";
    if (p->code)
        return;
    while (p->at < p->n && is_space(p->src[p->at]))
        p->at++;
    p->start = p->at;
    const char c = peek(p, 0);
    if (p->at >= p->n) {
        fail(p, PLM_EFORMAT, "a tag without its end");
    } else if (tag_end(p)) {
        return;
    } else if (c == '\'' || c == '"') {
        scan_string(p);
    } else if (is_word(c)) {
        while (is_word(peek(p, 0)))
            p->at++;
        p->kind = is_digit(c) ? T_INT : T_NAME;
        p->token = (struct name){p->src + p->start, p->at - p->start};
    } else if (strchr("+-*/%~=!<>.:|,()[]{}", c)) {
        const char pair[3] = {c, peek(p, 1), 0};
        const size_t bytes = pair[1] && pair[1] != ' ' && strstr(doubled, pair) ? 2 : 1;
        p->kind = T_OPERATOR;
        p->token = (struct name){p->src + p->start, bytes};
        p->at += bytes;
        p->brackets += bytes == 1 && strchr("([{", c) ? 1 : bytes == 1 && strchr(")]}", c) ? -1 : 0;
    } else {
        fail(p, PLM_EFORMAT, "'%.*s' is not part of an expression", 1, p->src + p->start);
    }
}

static bool at_operator(const struct parser *p, const char *op) { return p->kind == T_OPERATOR && name_is(p->token, op); }
static bool at_word(const struct parser *p, const char *word) { return p->kind == T_NAME && name_is(p->token, word); }

static bool accept(struct parser *p, const char *text)
{
    if (!at_operator(p, text) && !at_word(p, text))
        return false;
    advance(p);
    return true;
}

static void unexpected(struct parser *p, const char *wanted)
{
    if (p->kind == T_TAG_END)
        fail(p, PLM_EFORMAT, "the tag ends where %s is expected", wanted);
    else
        fail(p, PLM_EUNSUPPORTED, "'%.*s' where %s is expected", (int)(p->token.bytes < 40 ? p->token.bytes : 40), p->token.text, wanted);
}

static void expect(struct parser *p, const char *text)
{
    if (!p->code && !accept(p, text))
        unexpected(p, text);
}

static struct name expect_name(struct parser *p)
{
    const struct name name = p->token;
    if (p->kind != T_NAME)
        unexpected(p, "a name");
    else
        advance(p);
    return name;
}

/* --- the tree --- */

/* Never NULL, so that a tree can be built on after an error; nobody looks at it then. */
static struct node *node(struct parser *p, enum node_kind kind, struct node *a, struct node *b)
{
    static struct node nothing;
    struct node *x = allocate(p, 1, sizeof *x);
    if (!x)
        return &nothing;
    *x = (struct node){.kind = kind, .line = line_of(p, p->start), .a = a, .b = b};
    return x;
}

static struct node *value_node(struct parser *p, struct value v)
{
    struct node *x = node(p, N_VALUE, NULL, NULL);
    if (!p->code)
        x->value = v;
    return x;
}

/* Texts of the template: every byte has the origin 0. */
static struct value text_value(struct parser *p, const char *text, size_t bytes)
{
    jinja_byte *s = allocate(p, bytes + 1, sizeof *s);
    for (size_t i = 0; s && i < bytes; i++)
        s[i] = (unsigned char)text[i];
    return (struct value){V_STRING, bytes, {.s = s}};
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

/* Python's escapes; \x, \u and \U need all their digits. Returns the bytes read after the backslash. */
static size_t unescape(struct parser *p, const char *s, size_t n, char *to, size_t *made)
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
            c = c * 16 + (uint32_t)(is_digit(h) ? h - '0' : (h | 32) - 'a' + 10);
            if (!is_digit(h) && ((h | 32) < 'a' || (h | 32) > 'f'))
                fail(p, PLM_EFORMAT, "\\%c without its %zu digits", *s, digits);
        }
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            fail(p, PLM_EFORMAT, "an escape that is no character");
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

static struct node *parse_string(struct parser *p)
{
    char *text = NULL;
    size_t length = 0;
    while (p->kind == T_STRING && !p->code) { /* 'a' 'b' is one text */
        const struct name raw = p->token;
        char *grown = allocate(p, length + raw.bytes + 4, 1);
        if (!grown)
            break;
        if (length)
            memcpy(grown, text, length);
        text = grown;
        for (size_t i = 0; i < raw.bytes;) {
            size_t made = 1;
            if (raw.text[i] == '\\')
                i += 1 + unescape(p, raw.text + i + 1, raw.bytes - i - 1, text + length, &made);
            else
                text[length] = raw.text[i++];
            length += made;
        }
        advance(p);
    }
    return value_node(p, text_value(p, text ? text : "", length));
}

static struct node *parse_expression(struct parser *p);
static struct node *parse_or(struct parser *p);
static struct node *parse_unary(struct parser *p, bool with_filter);

static struct node *append(struct node **list, struct node *x)
{
    while (*list)
        list = &(*list)->next;
    return *list = x;
}

/* Items up to the closing bracket, which is taken. */
static struct node *parse_items(struct parser *p, const char *close, enum node_kind kind)
{
    struct node *first = NULL, **list = &first;
    while (!p->code && !accept(p, close)) {
        struct node *x = parse_expression(p);
        if (kind == N_DICT) {
            expect(p, ":");
            x = node(p, N_PAIR, x, parse_expression(p));
        } else if (kind == N_CALL && x->kind == N_NAME && accept(p, "=")) {
            const struct name name = x->name;
            struct node *given = node(p, N_GROUP, parse_expression(p), NULL);
            given->name = name;
            x = given;
        }
        if (p->code)
            break;
        *list = x;
        list = &x->next;
        if (!at_operator(p, close))
            expect(p, ",");
    }
    return first;
}

static struct node *parse_word(struct parser *p)
{
    const int constant = word_index(p->token, "true True false False none None");
    if (constant >= 0) {
        struct node *x = value_node(p, (struct value){constant < 4 ? V_BOOL : V_NONE, 0, {.i = constant < 2}});
        advance(p);
        return x;
    }
    struct node *x = node(p, N_NAME, NULL, NULL);
    const struct name name = expect_name(p);
    if (!p->code)
        x->name = name;
    return x;
}

static struct node *parse_integer(struct parser *p)
{
    int64_t value = 0;
    for (size_t i = 0; i < p->token.bytes; i++) {
        if (!is_digit(p->token.text[i]) || value > INT32_MAX)
            unexpected(p, "a whole number below two thousand million");
        if (p->code)
            break;
        value = value * 10 + (p->token.text[i] - '0');
    }
    struct node *x = value_node(p, (struct value){V_INT, 0, {.i = value}});
    advance(p);
    return x;
}

/* ( expression ), or a tuple, which is a list here. */
static struct node *parse_group(struct parser *p)
{
    if (accept(p, ")"))
        return node(p, N_LIST, NULL, NULL);
    struct node *x = parse_expression(p);
    if (!at_operator(p, ",")) {
        expect(p, ")");
        return x;
    }
    advance(p);
    struct node *rest = parse_items(p, ")", N_LIST);
    if (p->code)
        return x;
    /* Wrapped, so that chaining does not touch a shared node. */
    x->next = rest;
    return node(p, N_LIST, x, NULL);
}

static struct node *parse_primary(struct parser *p)
{
    if (p->kind == T_NAME)
        return parse_word(p);
    if (p->kind == T_STRING)
        return parse_string(p);
    if (p->kind == T_INT)
        return parse_integer(p);
    if (accept(p, "("))
        return parse_group(p);
    if (accept(p, "["))
        return node(p, N_LIST, parse_items(p, "]", N_LIST), NULL);
    if (accept(p, "{"))
        return node(p, N_DICT, parse_items(p, "}", N_DICT), NULL);
    unexpected(p, "a value");
    return node(p, N_VALUE, NULL, NULL);
}

/* After [: an index, or from:to:step. */
static struct node *parse_subscript(struct parser *p, struct node *of)
{
    struct node *part[3] = {NULL};
    int i = 0;
    while (!p->code && !at_operator(p, "]")) {
        if (at_operator(p, ":")) {
            if (++i > 2)
                break;
            advance(p);
        } else if (!part[i]) {
            part[i] = parse_expression(p);
        } else {
            break;
        }
    }
    expect(p, "]");
    struct node *x = node(p, i ? N_SLICE : N_ITEM, of, part[0]);
    if (!p->code && !i && !part[0])
        unexpected(p, "an index");
    if (!p->code) {
        x->c = part[1];
        x->d = part[2];
    }
    return x;
}

static struct node *parse_postfix(struct parser *p, struct node *x)
{
    while (!p->code) {
        if (accept(p, ".")) {
            x = node(p, N_ATTRIBUTE, x, NULL);
            const struct name name = expect_name(p);
            if (!p->code)
                x->name = name;
        } else if (accept(p, "[")) {
            x = parse_subscript(p, x);
        } else if (accept(p, "(")) {
            struct node *call = node(p, N_CALL, x, NULL), *arguments = parse_items(p, ")", N_CALL);
            if (!p->code)
                call->b = arguments;
            x = call;
        } else {
            break;
        }
    }
    return x;
}

/* A test's argument without brackets: "is divisibleby 3", "is equalto 'x'". */
static bool begins_argument(const struct parser *p)
{
    if (p->kind == T_NAME)
        return word_index(p->token, "else or and is if not in") < 0;
    return p->kind == T_STRING || p->kind == T_INT || at_operator(p, "[") || at_operator(p, "{");
}

static struct node *parse_filters(struct parser *p, struct node *x)
{
    while (!p->code && (at_operator(p, "|") || at_word(p, "is") || at_operator(p, "("))) {
        if (at_operator(p, "(")) {
            x = parse_postfix(p, x);
            continue;
        }
        const bool test = at_word(p, "is");
        advance(p);
        const bool negated = test && accept(p, "not");
        struct node *f = node(p, test ? N_TEST : N_FILTER, x, NULL), *arguments = NULL;
        const struct name name = expect_name(p);
        if (accept(p, "("))
            arguments = parse_items(p, ")", N_CALL);
        else if (test && begins_argument(p))
            arguments = parse_postfix(p, parse_primary(p));
        if (!p->code) {
            f->name = name;
            f->b = arguments;
        }
        x = negated ? node(p, N_NOT, f, NULL) : f;
    }
    return x;
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    struct node *x;
    if (++p->nesting > MOST_NESTED)
        fail(p, PLM_ELIMIT, "more than %d levels of nesting", MOST_NESTED);
    if (accept(p, "-"))
        x = node(p, N_NEGATE, parse_unary(p, false), NULL);
    else if (accept(p, "+"))
        x = parse_unary(p, false);
    else
        x = parse_primary(p);
    x = parse_postfix(p, x);
    if (with_filter)
        x = parse_filters(p, x);
    p->nesting--;
    return x;
}

static struct node *binary(struct parser *p, struct node *a, struct node *b, const char *op, size_t bytes)
{
    struct node *x = node(p, N_BINARY, a, b);
    if (!p->code)
        memcpy(x->op, op, bytes);
    return x;
}

/* Left-associative operators by level: + -, ~, * / // %. */
static struct node *parse_arithmetic(struct parser *p, int level)
{
    static const char *const operators[3][5] = {{"+", "-", NULL}, {"~", NULL}, {"*", "/", "//", "%", NULL}};
    struct node *x = level < 2 ? parse_arithmetic(p, level + 1) : parse_unary(p, true);
    for (int i = 0; operators[level][i] && !p->code;) {
        const char *op = operators[level][i++];
        if (!accept(p, op))
            continue;
        struct node *right = level < 2 ? parse_arithmetic(p, level + 1) : parse_unary(p, true);
        x = binary(p, x, right, op, strlen(op));
        i = 0;
    }
    return x;
}

/* a < b < c means a < b and b < c; "not in" is !i here. */
static struct node *parse_comparison(struct parser *p)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">", "in"};
    struct node *left = parse_arithmetic(p, 0), *all = NULL;
    for (size_t i = 0; i < sizeof operators / sizeof *operators && !p->code;) {
        const size_t saved_at = p->at, saved_start = p->start;
        const bool negated = at_word(p, "not");
        if (negated)
            advance(p);
        if (negated ? !accept(p, "in") : !accept(p, operators[i])) {
            if (negated && !p->code) { /* "not" of something else: not ours */
                p->at = saved_at;
                p->start = saved_start;
                p->kind = T_NAME;
                p->token = (struct name){p->src + saved_start, 3};
                break;
            }
            i++;
            continue;
        }
        struct node *right = parse_arithmetic(p, 0);
        struct node *x = binary(p, left, right, negated ? "in" : operators[i], negated ? 2 : strlen(operators[i]));
        x = negated ? node(p, N_NOT, x, NULL) : x;
        all = all ? node(p, N_AND, all, x) : x;
        left = right;
        i = 0;
    }
    return all ? all : left;
}

static struct node *parse_not(struct parser *p)
{
    if (++p->nesting > MOST_NESTED)
        fail(p, PLM_ELIMIT, "more than %d levels of nesting", MOST_NESTED);
    struct node *x = accept(p, "not") ? node(p, N_NOT, parse_not(p), NULL) : parse_comparison(p);
    p->nesting--;
    return x;
}

static struct node *parse_and(struct parser *p)
{
    struct node *x = parse_not(p);
    while (accept(p, "and"))
        x = node(p, N_AND, x, parse_not(p));
    return x;
}

static struct node *parse_or(struct parser *p)
{
    struct node *x = parse_and(p);
    while (accept(p, "or"))
        x = node(p, N_OR, x, parse_and(p));
    return x;
}

static struct node *parse_expression(struct parser *p)
{
    struct node *x = parse_or(p);
    while (accept(p, "if")) {
        struct node *choice = node(p, N_CHOICE, parse_or(p), x);
        if (accept(p, "else")) {
            struct node *other = parse_expression(p);
            if (!p->code)
                choice->c = other;
        }
        x = choice;
    }
    return x;
}

/* --- statements --- */

static void expect_tag_end(struct parser *p)
{
    if (!p->code && p->kind != T_TAG_END)
        unexpected(p, "the end of the tag");
}

static struct node *parse_body(struct parser *p, struct name *stop);

/* A body up to one of two words (NULL: none), whose tag is open then. */
static struct node *parse_until(struct parser *p, const char *first, const char *second, const char *third, struct name *stop)
{
    struct node *body = parse_body(p, stop);
    if (!p->code && !(name_is(*stop, first) || (second && name_is(*stop, second)) || (third && name_is(*stop, third)))) {
        if (stop->bytes)
            fail(p, PLM_EFORMAT, "'%.*s' where '%s' is expected", (int)(stop->bytes < 40 ? stop->bytes : 40), stop->text, first);
        else
            fail(p, PLM_EFORMAT, "'%s' is missing at the end", first);
    }
    return body;
}

/* After "if" or "elif". */
static struct node *parse_if(struct parser *p)
{
    struct node *first = node(p, N_IF, parse_expression(p), NULL), *x = first;
    struct name stop = {0};
    while (!p->code) {
        expect_tag_end(p);
        struct node *body = parse_until(p, "endif", "else", "elif", &stop);
        if (p->code)
            break;
        if (x->a)
            x->b = body;
        else
            *x = (struct node){.kind = N_GROUP, .line = x->line, .b = body};
        if (name_is(stop, "endif"))
            break;
        struct node *next = node(p, N_IF, NULL, NULL);
        if (x->kind == N_GROUP)
            fail(p, PLM_EFORMAT, "'%.*s' after 'else'", (int)stop.bytes, stop.text);
        if (name_is(stop, "elif"))
            next->a = p->code ? NULL : parse_expression(p);
        if (!p->code)
            x->c = next;
        x = next;
    }
    return first;
}

static struct node *parse_for(struct parser *p)
{
    struct node *x = node(p, N_FOR, NULL, NULL), *part;
    struct name stop, first = expect_name(p), second = {0};
    if (accept(p, ","))
        second = expect_name(p);
    expect(p, "in");
    part = parse_or(p);
    if (p->code)
        return x;
    x->name = first;
    x->other = second;
    x->a = part;
    if (accept(p, "if")) {
        part = parse_expression(p);
        if (!p->code)
            x->d = part;
    }
    expect_tag_end(p);
    part = parse_until(p, "endfor", "else", NULL, &stop);
    if (p->code)
        return x;
    x->b = part;
    if (name_is(stop, "else")) {
        expect_tag_end(p);
        part = parse_until(p, "endfor", NULL, NULL, &stop);
        if (!p->code)
            x->c = part;
    }
    return x;
}

static struct node *parse_set(struct parser *p)
{
    struct node *x = node(p, N_SET, NULL, NULL), *part;
    struct name stop, name = expect_name(p), member = {0};
    if (accept(p, "."))
        member = expect_name(p);
    const bool block = p->kind == T_TAG_END;
    if (block) {
        part = parse_until(p, "endset", NULL, NULL, &stop);
    } else {
        expect(p, "=");
        part = parse_expression(p);
    }
    if (p->code)
        return x;
    x->kind = block ? N_SET_BLOCK : N_SET;
    x->name = name;
    x->other = member;
    *(block ? &x->b : &x->a) = part;
    return x;
}

static struct node *parse_macro(struct parser *p)
{
    struct node *x = node(p, N_MACRO, NULL, NULL), *body, *parameters = NULL;
    struct name stop;
    const struct name name = expect_name(p);
    expect(p, "(");
    while (!p->code && !accept(p, ")")) {
        struct node *parameter = node(p, N_NAME, NULL, NULL), *usual = NULL;
        const struct name parameter_name = expect_name(p);
        if (accept(p, "="))
            usual = parse_expression(p);
        if (!at_operator(p, ")"))
            expect(p, ",");
        if (p->code)
            break;
        parameter->name = parameter_name;
        parameter->a = usual;
        append(&parameters, parameter);
    }
    expect_tag_end(p);
    body = parse_until(p, "endmacro", NULL, NULL, &stop);
    if (p->code)
        return x;
    x->name = name;
    x->a = parameters;
    x->b = body;
    return x;
}

/* A tag whose first word has been taken. */
static struct node *parse_statement(struct parser *p, struct name word)
{
    struct name stop;
    struct node *x = NULL;
    struct node *(*const parse[])(struct parser *) = {parse_if, parse_for, parse_set, parse_macro};
    const int which = word_index(word, "if for set macro break continue generation");
    if (which < 0)
        fail(p, PLM_EUNSUPPORTED, "the statement '%.*s' is not supported", (int)(word.bytes < 40 ? word.bytes : 40), word.text);
    else if (which < 4)
        x = parse[which](p);
    else if (which < 6)
        x = node(p, which == 4 ? N_BREAK : N_CONTINUE, NULL, NULL);
    else { /* "generation" marks an answer for training; it renders as it is */
        x = node(p, N_GROUP, NULL, NULL);
        expect_tag_end(p);
        struct node *body = parse_until(p, "endgeneration", NULL, NULL, &stop);
        if (!p->code)
            x->b = body;
    }
    expect_tag_end(p);
    return x;
}

/* The text before a tag, trimmed as its sign (or lstrip_blocks) wants. begin: where the text begins in the source. */
static size_t trimmed(const struct parser *p, size_t begin, size_t end, char sign, char kind)
{
    size_t to = end;
    if (sign == '-') {
        while (to > begin && is_space(p->src[to - 1]))
            to--;
    } else if (sign != '+' && kind != '{') {
        while (to > begin && is_space(p->src[to - 1]) && p->src[to - 1] != '\n')
            to--;
        if (to > 0 && p->src[to - 1] != '\n')
            to = end; /* something else is on the line */
    }
    return to;
}

static void skip_comment(struct parser *p)
{
    const char *end = memmem(p->src + p->at, p->n - p->at, "#}", 2);
    if (!end) {
        fail(p, PLM_EFORMAT, "a comment without its #}");
        return;
    }
    const char sign = end[-1];
    p->at = (size_t)(end - p->src) + 2;
    if (sign == '-')
        while (p->at < p->n && is_space(p->src[p->at]))
            p->at++;
    else if (sign != '+' && peek(p, 0) == '\n')
        p->at++;
}

/* The next tag of any kind, or the end. */
static size_t find_tag(const struct parser *p)
{
    size_t at = p->at;
    while (at < p->n && !(p->src[at] == '{' && at + 1 < p->n && strchr("%{#", p->src[at + 1]) && p->src[at + 1]))
        at++;
    return at;
}

static struct node *parse_body(struct parser *p, struct name *stop)
{
    struct node *first = NULL, **list = &first;
    *stop = (struct name){0};
    if (++p->nesting > MOST_NESTED)
        fail(p, PLM_ELIMIT, "more than %d levels of nesting", MOST_NESTED);
    while (!p->code) {
        const size_t begin = p->at, tag = find_tag(p);
        const char kind = tag < p->n ? p->src[tag + 1] : 0, sign = tag + 2 < p->n ? p->src[tag + 2] : 0;
        const size_t end = kind ? trimmed(p, begin, tag, sign, kind) : tag;
        struct node *x = NULL;
        p->start = begin;
        if (end > begin) {
            x = node(p, N_TEXT, NULL, NULL);
            const struct value text = text_value(p, p->src + begin, end - begin);
            if (p->code)
                break;
            x->value = text;
            *list = x;
            list = &x->next;
        }
        p->start = tag;
        if (!kind)
            break;
        p->at = tag + 2 + (sign == '-' || (sign == '+' && kind != '{'));
        p->in_block = kind == '%';
        p->brackets = 0;
        if (kind == '#') {
            p->at = tag + 2;
            skip_comment(p);
            continue;
        }
        advance(p);
        if (kind == '{') {
            x = node(p, N_OUTPUT, parse_expression(p), NULL);
            expect_tag_end(p);
        } else {
            const struct name word = expect_name(p);
            if (!p->code && (!strncmp(word.text, "end", 3) || name_is(word, "else") || name_is(word, "elif"))) {
                *stop = word;
                break;
            }
            x = p->code ? NULL : parse_statement(p, word);
        }
        if (p->code)
            break;
        *list = x;
        list = &x->next;
    }
    p->nesting--;
    return first;
}

/* A copy with \n as the only line end, and without the last one. */
static char *normalised(struct jinja *t, const char *text, size_t *bytes)
{
    char *copy = pool_alloc(&t->pool, *bytes + 1, 1);
    size_t n = 0;
    for (size_t i = 0; copy && i < *bytes; i++) {
        if (text[i] == '\n' && i > 0 && text[i - 1] == '\r')
            continue;
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    *bytes = n - (n > 0 && copy[n - 1] == '\n');
    return copy;
}

int jinja_parse(struct jinja **out, const char *text, size_t bytes, const char *where, struct plm_status *st)
{
    struct name stop;
    struct jinja *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return status_no_memory(st, sizeof *t, "a chat template");
    t->where = where;
    t->pool.limit = bytes < SIZE_MAX / MEMORY_PER_BYTE - 65536 ? (bytes + 4096) * MEMORY_PER_BYTE : 0;
    struct parser p = {.t = t, .n = bytes, .line = 1, .st = st};
    p.src = normalised(t, text, &p.n);
    if (!p.src)
        p.code = status_no_memory(st, bytes, "a chat template");
    else
        t->body = parse_body(&p, &stop);
    if (!p.code && stop.bytes)
        fail(&p, PLM_EFORMAT, "'%.*s' without its beginning", (int)(stop.bytes < 40 ? stop.bytes : 40), stop.text);
    if (p.code) {
        jinja_free(t);
        return p.code;
    }
    *out = t;
    return PLM_OK;
}

void jinja_free(struct jinja *t)
{
    if (!t)
        return;
    pool_free(&t->pool);
    free(t);
}
