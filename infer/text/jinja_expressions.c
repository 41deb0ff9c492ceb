#include <string.h>

#include "infer/text/jinja_parser.h"

struct node *parser_node(struct parser *p, enum node_kind kind, struct node *a, struct node *b)
{
    static struct node nothing;
    struct node *x = parser_alloc(p, 1, sizeof *x);
    if (!x)
        return &nothing;
    *x = (struct node){.kind = kind, .line = parser_line(p, p->start), .a = a, .b = b};
    return x;
}

static struct node *value_node(struct parser *p, struct value v)
{
    struct node *x = parser_node(p, N_VALUE, NULL, NULL);
    if (!p->code)
        x->value = v;
    return x;
}

struct value parser_text(struct parser *p, const char *text, size_t bytes)
{
    jinja_byte *s = parser_alloc(p, bytes + 1, sizeof *s);
    for (size_t i = 0; s && i < bytes; i++)
        s[i] = (unsigned char)text[i];
    return (struct value){V_STRING, bytes, {.s = s}};
}

static struct node *parse_string(struct parser *p)
{
    char *text = NULL;
    size_t length = 0;
    while (p->kind == T_STRING && !p->code) { /* 'a' 'b' is one text */
        const struct name raw = p->token;
        char *grown = parser_alloc(p, length + raw.bytes + 4, 1);
        if (!grown)
            break;
        if (length)
            memcpy(grown, text, length);
        text = grown;
        for (size_t i = 0; i < raw.bytes;) {
            size_t made = 1;
            if (raw.text[i] == '\\')
                i += 1 + parser_unescape(p, raw.text + i + 1, raw.bytes - i - 1, text + length, &made);
            else
                text[length] = raw.text[i++];
            length += made;
        }
        parser_advance(p);
    }
    return value_node(p, parser_text(p, text ? text : "", length));
}

static struct node *parse_unary(struct parser *p, bool with_filter);

/* Items up to the closing bracket, which is taken. */
static struct node *parse_items(struct parser *p, const char *close, enum node_kind kind)
{
    struct node *first = NULL, **list = &first;
    while (!p->code && !parser_accept(p, close)) {
        struct node *x = parse_expression(p);
        if (kind == N_DICT) {
            parser_expect(p, ":");
            x = parser_node(p, N_PAIR, x, parse_expression(p));
        } else if (kind == N_CALL && x->kind == N_NAME && parser_accept(p, "=")) {
            const struct name name = x->name;
            struct node *given = parser_node(p, N_GROUP, parse_expression(p), NULL);
            given->name = name;
            x = given;
        }
        if (p->code)
            break;
        *list = x;
        list = &x->next;
        if (!parser_at_operator(p, close))
            parser_expect(p, ",");
    }
    return first;
}

static struct node *parse_word(struct parser *p)
{
    const int constant = word_index(p->token, "true True false False none None");
    if (constant >= 0) {
        struct node *x = value_node(p, (struct value){constant < 4 ? V_BOOL : V_NONE, 0, {.i = constant < 2}});
        parser_advance(p);
        return x;
    }
    struct node *x = parser_node(p, N_NAME, NULL, NULL);
    const struct name name = parser_name(p);
    if (!p->code)
        x->name = name;
    return x;
}

static struct node *parse_integer(struct parser *p)
{
    int64_t value = 0;
    for (size_t i = 0; i < p->token.bytes; i++) {
        if (!jinja_digit(p->token.text[i]) || value > INT32_MAX)
            parser_unexpected(p, "a whole number below two thousand million");
        if (p->code)
            break;
        value = value * 10 + (p->token.text[i] - '0');
    }
    struct node *x = value_node(p, (struct value){V_INT, 0, {.i = value}});
    parser_advance(p);
    return x;
}

/* ( expression ), or a tuple, which is a list here. */
static struct node *parse_group(struct parser *p)
{
    if (parser_accept(p, ")"))
        return parser_node(p, N_LIST, NULL, NULL);
    struct node *x = parse_expression(p);
    if (!parser_at_operator(p, ",")) {
        parser_expect(p, ")");
        return x;
    }
    parser_advance(p);
    struct node *rest = parse_items(p, ")", N_LIST);
    if (p->code)
        return x;
    /* Wrapped, so that chaining does not touch a shared node. */
    x->next = rest;
    return parser_node(p, N_LIST, x, NULL);
}

static struct node *parse_primary(struct parser *p)
{
    if (p->kind == T_NAME)
        return parse_word(p);
    if (p->kind == T_STRING)
        return parse_string(p);
    if (p->kind == T_INT)
        return parse_integer(p);
    if (parser_accept(p, "("))
        return parse_group(p);
    if (parser_accept(p, "["))
        return parser_node(p, N_LIST, parse_items(p, "]", N_LIST), NULL);
    if (parser_accept(p, "{"))
        return parser_node(p, N_DICT, parse_items(p, "}", N_DICT), NULL);
    parser_unexpected(p, "a value");
    return parser_node(p, N_VALUE, NULL, NULL);
}

/* After [: an index, or from:to:step. */
static struct node *parse_subscript(struct parser *p, struct node *of)
{
    struct node *part[3] = {NULL};
    int i = 0;
    while (!p->code && !parser_at_operator(p, "]")) {
        if (parser_at_operator(p, ":")) {
            if (++i > 2)
                break;
            parser_advance(p);
        } else if (!part[i]) {
            part[i] = parse_expression(p);
        } else {
            break;
        }
    }
    parser_expect(p, "]");
    struct node *x = parser_node(p, i ? N_SLICE : N_ITEM, of, part[0]);
    if (!p->code && !i && !part[0])
        parser_unexpected(p, "an index");
    if (!p->code) {
        x->c = part[1];
        x->d = part[2];
    }
    return x;
}

static struct node *parse_postfix(struct parser *p, struct node *x)
{
    while (!p->code) {
        if (parser_accept(p, ".")) {
            x = parser_node(p, N_ATTRIBUTE, x, NULL);
            const struct name name = parser_name(p);
            if (!p->code)
                x->name = name;
        } else if (parser_accept(p, "[")) {
            x = parse_subscript(p, x);
        } else if (parser_accept(p, "(")) {
            struct node *call = parser_node(p, N_CALL, x, NULL), *arguments = parse_items(p, ")", N_CALL);
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
    return p->kind == T_STRING || p->kind == T_INT || parser_at_operator(p, "[") || parser_at_operator(p, "{");
}

static struct node *parse_filters(struct parser *p, struct node *x)
{
    while (!p->code && (parser_at_operator(p, "|") || parser_at_word(p, "is") || parser_at_operator(p, "("))) {
        if (parser_at_operator(p, "(")) {
            x = parse_postfix(p, x);
            continue;
        }
        const bool test = parser_at_word(p, "is");
        parser_advance(p);
        const bool negated = test && parser_accept(p, "not");
        struct node *f = parser_node(p, test ? N_TEST : N_FILTER, x, NULL), *arguments = NULL;
        const struct name name = parser_name(p);
        if (parser_accept(p, "("))
            arguments = parse_items(p, ")", N_CALL);
        else if (test && begins_argument(p))
            arguments = parse_postfix(p, parse_primary(p));
        if (!p->code) {
            f->name = name;
            f->b = arguments;
        }
        x = negated ? parser_node(p, N_NOT, f, NULL) : f;
    }
    return x;
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    struct node *x;
    if (++p->nesting > JINJA_MOST_NESTED)
        parser_fail(p, PLM_ELIMIT, "more than %d levels of nesting", JINJA_MOST_NESTED);
    if (parser_accept(p, "-"))
        x = parser_node(p, N_NEGATE, parse_unary(p, false), NULL);
    else if (parser_accept(p, "+"))
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
    struct node *x = parser_node(p, N_BINARY, a, b);
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
        if (!parser_accept(p, op))
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
        const bool negated = parser_at_word(p, "not");
        if (negated)
            parser_advance(p);
        if (negated ? !parser_accept(p, "in") : !parser_accept(p, operators[i])) {
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
        x = negated ? parser_node(p, N_NOT, x, NULL) : x;
        all = all ? parser_node(p, N_AND, all, x) : x;
        left = right;
        i = 0;
    }
    return all ? all : left;
}

static struct node *parse_not(struct parser *p)
{
    if (++p->nesting > JINJA_MOST_NESTED)
        parser_fail(p, PLM_ELIMIT, "more than %d levels of nesting", JINJA_MOST_NESTED);
    struct node *x = parser_accept(p, "not") ? parser_node(p, N_NOT, parse_not(p), NULL) : parse_comparison(p);
    p->nesting--;
    return x;
}

static struct node *parse_and(struct parser *p)
{
    struct node *x = parse_not(p);
    while (parser_accept(p, "and"))
        x = parser_node(p, N_AND, x, parse_not(p));
    return x;
}

struct node *parse_or(struct parser *p)
{
    struct node *x = parse_and(p);
    while (parser_accept(p, "or"))
        x = parser_node(p, N_OR, x, parse_and(p));
    return x;
}

struct node *parse_expression(struct parser *p)
{
    struct node *x = parse_or(p);
    while (parser_accept(p, "if")) {
        struct node *choice = parser_node(p, N_CHOICE, parse_or(p), x);
        if (parser_accept(p, "else")) {
            struct node *other = parse_expression(p);
            if (!p->code)
                choice->c = other;
        }
        x = choice;
    }
    return x;
}
