#include <stdlib.h>
#include <string.h>

#include "infer/text/jinja_parser.h"

enum { MEMORY_PER_BYTE = 256 };

static struct node *append(struct node **list, struct node *x)
{
    while (*list)
        list = &(*list)->next;
    return *list = x;
}

static void expect_tag_end(struct parser *p)
{
    if (!p->code && p->kind != T_TAG_END)
        parser_unexpected(p, "the end of the tag");
}

static struct node *parse_body(struct parser *p, struct name *stop);

/* A body up to one of two words (NULL: none), whose tag is open then. */
static struct node *parse_until(struct parser *p, const char *first, const char *second, const char *third,
                                struct name *stop)
{
    struct node *body = parse_body(p, stop);
    if (!p->code &&
        !(name_is(*stop, first) || (second && name_is(*stop, second)) || (third && name_is(*stop, third)))) {
        if (stop->bytes)
            parser_fail(p, PLM_EFORMAT, "'%.*s' where '%s' is expected", (int)(stop->bytes < 40 ? stop->bytes : 40),
                        stop->text, first);
        else
            parser_fail(p, PLM_EFORMAT, "'%s' is missing at the end", first);
    }
    return body;
}

/* After "if" or "elif". */
static struct node *parse_if(struct parser *p)
{
    struct node *first = parser_node(p, N_IF, parse_expression(p), NULL), *x = first;
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
        struct node *next = parser_node(p, N_IF, NULL, NULL);
        if (x->kind == N_GROUP)
            parser_fail(p, PLM_EFORMAT, "'%.*s' after 'else'", (int)stop.bytes, stop.text);
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
    struct node *x = parser_node(p, N_FOR, NULL, NULL), *part;
    struct name stop, first = parser_name(p), second = {0};
    if (parser_accept(p, ","))
        second = parser_name(p);
    parser_expect(p, "in");
    part = parse_or(p);
    if (p->code)
        return x;
    x->name = first;
    x->other = second;
    x->a = part;
    if (parser_accept(p, "if")) {
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
    struct node *x = parser_node(p, N_SET, NULL, NULL), *part;
    struct name stop, name = parser_name(p), member = {0};
    if (parser_accept(p, "."))
        member = parser_name(p);
    const bool block = p->kind == T_TAG_END;
    if (block) {
        part = parse_until(p, "endset", NULL, NULL, &stop);
    } else {
        parser_expect(p, "=");
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
    struct node *x = parser_node(p, N_MACRO, NULL, NULL), *body, *parameters = NULL;
    struct name stop;
    const struct name name = parser_name(p);
    parser_expect(p, "(");
    while (!p->code && !parser_accept(p, ")")) {
        struct node *parameter = parser_node(p, N_NAME, NULL, NULL), *usual = NULL;
        const struct name parameter_name = parser_name(p);
        if (parser_accept(p, "="))
            usual = parse_expression(p);
        if (!parser_at_operator(p, ")"))
            parser_expect(p, ",");
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
        parser_fail(p, PLM_EUNSUPPORTED, "the statement '%.*s' is not supported",
                    (int)(word.bytes < 40 ? word.bytes : 40), word.text);
    else if (which < 4)
        x = parse[which](p);
    else if (which < 6)
        x = parser_node(p, which == 4 ? N_BREAK : N_CONTINUE, NULL, NULL);
    else { /* "generation" marks an answer for training; it renders as it is */
        x = parser_node(p, N_GROUP, NULL, NULL);
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
        while (to > begin && jinja_space(p->src[to - 1]))
            to--;
    } else if (sign != '+' && kind != '{') {
        while (to > begin && jinja_space(p->src[to - 1]) && p->src[to - 1] != '\n')
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
        parser_fail(p, PLM_EFORMAT, "a comment without its #}");
        return;
    }
    const char sign = end[-1];
    p->at = (size_t)(end - p->src) + 2;
    if (sign == '-')
        while (p->at < p->n && jinja_space(p->src[p->at]))
            p->at++;
    else if (sign != '+' && parser_peek(p, 0) == '\n')
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
    if (++p->nesting > JINJA_MOST_NESTED)
        parser_fail(p, PLM_ELIMIT, "more than %d levels of nesting", JINJA_MOST_NESTED);
    while (!p->code) {
        const size_t begin = p->at, tag = find_tag(p);
        const char kind = tag < p->n ? p->src[tag + 1] : 0, sign = tag + 2 < p->n ? p->src[tag + 2] : 0;
        const size_t end = kind ? trimmed(p, begin, tag, sign, kind) : tag;
        struct node *x = NULL;
        p->start = begin;
        if (end > begin) {
            x = parser_node(p, N_TEXT, NULL, NULL);
            const struct value text = parser_text(p, p->src + begin, end - begin);
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
        parser_advance(p);
        if (kind == '{') {
            x = parser_node(p, N_OUTPUT, parse_expression(p), NULL);
            expect_tag_end(p);
        } else {
            const struct name word = parser_name(p);
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
        parser_fail(&p, PLM_EFORMAT, "'%.*s' without its beginning", (int)(stop.bytes < 40 ? stop.bytes : 40),
                    stop.text);
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
