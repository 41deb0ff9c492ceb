/* The tree of a template and the values of a run: jinja_parse.c makes the first, jinja_run.c the second. */
#ifndef INFER_TEXT_JINJA_INTERNAL_H
#define INFER_TEXT_JINJA_INTERNAL_H

#include "infer/text/jinja.h"

/* Memory that is freed as a whole, and never grows beyond its limit. */
struct pool {
    struct pool_block *blocks;
    size_t used, limit;
};

void *pool_alloc(struct pool *p, size_t n, size_t size); /* zeroed; NULL beyond the limit or without memory */
void pool_free(struct pool *p);

struct name {
    const char *text;
    size_t bytes;
};

bool name_is(struct name n, const char *word);
/* Which of some words, separated by spaces, n is; -1: none. */
int word_index(struct name n, const char *words);

enum value_type {
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_STRING,
    V_LIST,
    V_DICT,
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_FUNCTION
};

struct value {
    enum value_type type;
    size_t n; /* bytes of a string, items of a list */
    union {
        int64_t i; /* V_BOOL, V_INT */
        const jinja_byte *s;
        const struct value *list;
        struct dict *dict; /* V_DICT, V_NAMESPACE */
        const struct loop *loop;
        const struct node *macro;
        const char *name; /* of what is undefined (n bytes); NULL: an expression */
    } u;
};

struct pair {
    struct value key, value;
    struct pair *next;
};

struct dict {
    struct pair *first, *last;
    size_t n;
};

struct loop {
    const struct value *items;
    size_t n, i;
};

enum node_kind {
    N_TEXT,
    N_OUTPUT,
    N_IF,
    N_FOR,
    N_SET,
    N_SET_BLOCK,
    N_MACRO,
    N_BREAK,
    N_CONTINUE,
    N_GROUP, /* statements */
    N_VALUE,
    N_NAME,
    N_LIST,
    N_DICT,
    N_PAIR,
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_NEGATE,
    N_BINARY,
    N_AND,
    N_OR,
    N_CHOICE,
};

/* Operands by kind: OUTPUT a. IF a ? b : c. FOR name, other in a if d: b else c. SET name(.other) = a. SET_BLOCK name:
 * b. MACRO name(a: parameters, with their defaults in a): b. GROUP b. LIST, DICT a (PAIR a: b). ATTRIBUTE a.name. ITEM
 * a[b]. SLICE a[b:c:d]. CALL a(b...). FILTER a|name(b...). TEST a is name(b...). CHOICE a ? b : c. Arguments are
 * chained by next, with a name when they are given by keyword. */
struct node {
    enum node_kind kind;
    char op[2];
    int line;
    struct name name, other;
    struct node *a, *b, *c, *d, *next;
    struct value value; /* N_VALUE, N_TEXT */
};

struct jinja {
    struct pool pool;
    struct node *body;
    const char *where;
};

struct run {
    const struct jinja *t;
    struct pool pool;
    jinja_byte *out;
    size_t n_out, capacity;
    struct variable {
        struct name name;
        struct value value;
    } * variables;
    size_t n_variables, variable_capacity;
    size_t globals, frame; /* names below globals and from frame on are seen */
    bool nested;           /* inside a loop or a macro */
    int depth;
    int64_t steps;
    int line, code; /* the first error ends all that follows */
    struct plm_status *st;
};

enum { MOST_ARGUMENTS = 8, JINJA_MOST_COMPARED = 50 };

struct arguments {
    struct value v[MOST_ARGUMENTS];
    struct name names[MOST_ARGUMENTS];
    int n;
};

/* Record an error at the present line; gives undefined. */
struct value run_fail(struct run *r, enum plm_code code, const char *fmt, ...) PLM_PRINTF(3, 4);
void *run_alloc(struct run *r, size_t n, size_t size);

struct value value_int(enum value_type type, int64_t i);
struct value value_text(struct run *r, const char *text, size_t bytes, uint32_t origin);
bool value_true(const struct value *v);
bool value_equal(const struct value *a, const struct value *b, int depth);
int value_compare(const struct value *a, const struct value *b); /* of texts, byte by byte */
bool value_is(const struct value *v, const char *word);          /* is this text */
const struct value *dict_get(const struct dict *d, const struct value *key);
void dict_set(struct run *r, struct dict *d, struct value key, struct value v);
static inline unsigned char value_byte(const struct value *v, size_t i)
{
    return (unsigned char)v->u.s[i];
}
/* Bytes from .. to of a text. */
static inline struct value value_part(const struct value *v, size_t from, size_t to)
{
    return (struct value){V_STRING, to - from, {.s = v->u.s + from}};
}
/* Where `what` is in v, from `at` on; v->n + 1: nowhere. */
size_t value_find(const struct value *v, const struct value *what, size_t at);
struct value value_slice(struct run *r, const struct value *v, int64_t from, int64_t to, int64_t step);
int64_t value_length(const struct value *v); /* -1: has none */
/* What Python's str() makes of it. */
struct value value_string(struct run *r, struct value v);
struct value value_concat(struct run *r, const struct value *a, const struct value *b);
bool value_contains(struct run *r, const struct value *in, const struct value *what);

/* A filter or a method; a and b have their receiver first. */
struct value call_filter(struct run *r, struct name name, const struct arguments *a);
struct value call_method(struct run *r, struct name name, const struct arguments *a);
bool call_test(struct run *r, struct name name, const struct arguments *a);
bool jinja_is_function(struct name name);
struct value call_function(struct run *r, struct name name, const struct arguments *a);
const struct value *argument(const struct arguments *a, int i, const char *name);
/* v[name] of what has names. */
struct value value_member(struct run *r, const struct value *v, struct name name);

#endif
