/* The tokens of a template's tags, and the parser's state: jinja_tokens.c reads them, jinja_expressions.c and
 * jinja_parse.c make the tree. */
#ifndef INFER_TEXT_JINJA_PARSER_H
#define INFER_TEXT_JINJA_PARSER_H

#include "infer/text/jinja_internal.h"

enum { JINJA_MOST_NESTED = 100 };

enum token_kind { T_NAME, T_INT, T_STRING, T_OPERATOR, T_TAG_END, T_FILE_END };

struct parser {
    struct jinja *t;
    const char *src;
    size_t n, at, start; /* start: of the present token */
    size_t line_at;
    int line, nesting, brackets;
    bool in_block; /* a {% %} tag, not {{ }} */
    enum token_kind kind;
    struct name token;
    struct plm_status *st;
    int code;
};

static inline bool jinja_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}
static inline bool jinja_digit(char c)
{
    return c >= '0' && c <= '9';
}
static inline char parser_peek(const struct parser *p, size_t ahead)
{
    return p->at + ahead < p->n ? p->src[p->at + ahead] : 0;
}
static inline bool parser_at_operator(const struct parser *p, const char *op)
{
    return p->kind == T_OPERATOR && name_is(p->token, op);
}
static inline bool parser_at_word(const struct parser *p, const char *word)
{
    return p->kind == T_NAME && name_is(p->token, word);
}

int parser_line(struct parser *p, size_t at);
/* The first error ends all that follows: the present token is the end of the file then. */
void parser_fail(struct parser *p, enum plm_code code, const char *fmt, ...) PLM_PRINTF(3, 4);
void *parser_alloc(struct parser *p, size_t n, size_t size);
/* The next token; the same if it is this operator or word; an error if it is not. */
void parser_advance(struct parser *p);
bool parser_accept(struct parser *p, const char *text);
void parser_expect(struct parser *p, const char *text);
struct name parser_name(struct parser *p);
void parser_unexpected(struct parser *p, const char *wanted);
/* Python's escapes; \x, \u and \U need all their digits. Returns the bytes read after the backslash. */
size_t parser_unescape(struct parser *p, const char *s, size_t n, char *to, size_t *made);

/* Never NULL, so that a tree can be built on after an error; nobody looks at it then. */
struct node *parser_node(struct parser *p, enum node_kind kind, struct node *a, struct node *b);
/* A text of the template: every byte has the origin 0. */
struct value parser_text(struct parser *p, const char *text, size_t bytes);
struct node *parse_expression(struct parser *p);
/* Without "a if b else c": what a loop runs over. */
struct node *parse_or(struct parser *p);

#endif
