#include "train/align/formula.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "train/align/formula_text.h"
#include "train/align/number.h"

/* The second pass: flat text (formula_text.h) is read by its brackets and written again. Groups nested deeper are
 * copied as they are. */
enum { MAX_DEPTH = 48 };

struct span {
    const char *p, *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool starts(struct span s, const char *word)
{
    const size_t n = strlen(word);
    return (size_t)(s.end - s.p) >= n && !memcmp(s.p, word, n);
}

/* "\name" at s.p, and no longer name. */
static bool starts_command(struct span s, const char *name)
{
    const size_t n = strlen(name);
    return starts(s, name) && !((size_t)(s.end - s.p) > n && is_letter(s.p[n]));
}

static void add(struct formula_text *t, const char *s)
{
    formula_text_add(t, s, strlen(s));
}

/* ---- pieces ---- */

/* Bytes of the token at s.p: a command with the space behind its name, "\{", or one byte. */
static size_t token_bytes(struct span s)
{
    if (*s.p != '\\' || s.end - s.p < 2)
        return 1;
    size_t n = 1;
    while (s.p + n < s.end && is_letter(s.p[n]))
        n++;
    if (n == 1)
        return 2;
    return n + (s.p + n < s.end && s.p[n] == ' ');
}

/* Does the token open (1) or close (-1) something? Intervals may close with another bracket than they open with. */
static int nesting(struct span s)
{
    if (starts_command(s, "\\begin") || starts(s, "\\{") || starts_command(s, "\\langle") || strchr("({[", *s.p))
        return 1;
    if (starts_command(s, "\\end") || starts(s, "\\}") || starts_command(s, "\\rangle") || strchr(")}]", *s.p))
        return -1;
    return 0;
}

/* Where what opens at s.p closes: the closing token; s.end when it does not. */
static const char *closing(struct span s)
{
    int depth = 0;
    for (; s.p < s.end; s.p += token_bytes(s)) {
        depth += nesting(s);
        if (depth == 0)
            return s.p;
    }
    return s.end;
}

/* The first token of s outside of brackets that `is` accepts; s.end when there is none. */
static const char *find_top(struct span s, bool (*is)(struct span))
{
    int depth = 0;
    for (; s.p < s.end; s.p += token_bytes(s)) {
        if (depth == 0 && is(s))
            return s.p;
        depth += nesting(s);
        depth = depth < 0 ? 0 : depth;
    }
    return s.end;
}

static bool is_separator(struct span s)
{
    return *s.p == FORMULA_COMMA || *s.p == ',';
}

static bool is_hard_separator(struct span s)
{
    return *s.p == FORMULA_COMMA;
}

static bool is_relation(struct span s)
{
    return *s.p == '=' || starts_command(s, "\\in");
}

static bool is_sum(struct span s)
{
    return *s.p == '+' || *s.p == '-' || starts_command(s, "\\pm");
}

static bool is_slash(struct span s)
{
    return *s.p == '/';
}

static bool is_equals(struct span s)
{
    return *s.p == '=';
}

static bool is_ampersand(struct span s)
{
    return *s.p == '&';
}

static bool is_row_end(struct span s)
{
    return starts(s, "\\\\");
}

/* ---- writing ---- */

static void write_list(struct formula_text *t, struct span s, bool in_brackets, int depth);
static void write_value(struct formula_text *t, struct span s, int depth);
static void write_expression(struct formula_text *t, struct span s, int depth);

/* One argument of a command at s.p, a group or a token: written between `open` and `close`. Returns where to go on. */
static const char *write_argument(struct formula_text *t, struct span s, const char *open, const char *close, int depth)
{
    add(t, open);
    const char *next = s.p;
    if (s.p < s.end && *s.p == '{') {
        const char *end = closing(s);
        write_value(t, (struct span){s.p + 1, end}, depth + 1);
        next = end < s.end ? end + 1 : end;
    } else if (s.p < s.end) {
        next = s.p + token_bytes(s);
        formula_text_add(t, s.p, (size_t)(next - s.p) - (next[-1] == ' '));
    }
    add(t, close);
    return next;
}

/* An exponent or index: in braces when it is more than one sign. Digits belong together without braces, as people mean
 * them. */
static const char *write_script(struct formula_text *t, struct span s, int depth)
{
    struct formula_text inner = {0};
    formula_text_add(t, s.p++, 1);
    if (s.p < s.end && *s.p == '-')
        formula_text_add(&inner, s.p++, 1);
    const char *next = s.p;
    while (next < s.end && is_digit(*next))
        next++;
    if (next > s.p)
        formula_text_add(&inner, s.p, (size_t)(next - s.p));
    else
        next = write_argument(&inner, s, "", "", depth);
    const bool braces = inner.n > 1;
    add(t, braces ? "{" : "");
    if (inner.s)
        formula_text_add(t, inner.s, inner.n);
    add(t, braces ? "}" : "");
    t->failed |= inner.failed;
    formula_text_free(&inner);
    return next;
}

static const char *write_root(struct formula_text *t, struct span s, int depth)
{
    s.p += token_bytes(s);
    add(t, "\\sqrt");
    if (s.p < s.end && *s.p == '[') {
        const char *end = closing(s);
        add(t, "[");
        write_value(t, (struct span){s.p + 1, end}, depth + 1);
        add(t, "]");
        s.p = end < s.end ? end + 1 : end;
    }
    return write_argument(t, s, "{", "}", depth);
}

/* num and den as a fraction; a minus of a numerator that is one product goes before it. */
static void write_fraction(struct formula_text *t, struct span num, struct span den, int depth)
{
    if (num.p < num.end && *num.p == '-' && find_top((struct span){num.p + 1, num.end}, is_sum) == num.end) {
        add(t, "-");
        num.p++;
    }
    add(t, "\\frac{");
    write_value(t, num, depth + 1);
    add(t, "}{");
    write_value(t, den, depth + 1);
    add(t, "}");
}

/* The argument at s->p, without its braces; *s goes on behind it. */
static struct span take_argument(struct span *s)
{
    struct span argument = *s;
    if (s->p < s->end && *s->p == '{') {
        const char *end = closing(*s);
        argument = (struct span){s->p + 1, end};
        s->p = end < s->end ? end + 1 : end;
    } else if (s->p < s->end) {
        s->p += token_bytes(*s);
        argument.end = s->p;
    }
    return argument;
}

/* Rows and entries; all kinds of brackets but those of determinants are one. */
static const char *write_matrix(struct formula_text *t, struct span s, int depth)
{
    static const char *const matrices[] = {"{matrix}", "{pmatrix}", "{bmatrix}", "{smallmatrix}", "{array}"};
    const char *end = closing(s);
    struct span body = {s.p + token_bytes(s), end}, name = take_argument(&body);
    bool matrix = false, array = false;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        const size_t n = strlen(matrices[i]) - 2;
        matrix |= (size_t)(name.end - name.p) == n && !memcmp(name.p, matrices[i] + 1, n);
        array |= i == 4 && (size_t)(name.end - name.p) == n && !memcmp(name.p, matrices[i] + 1, n);
    }
    if (array && body.p < body.end && *body.p == '{')
        take_argument(&body); /* how its columns are set */
    add(t, "\\begin{");
    if (matrix)
        add(t, "matrix");
    else
        formula_text_add(t, name.p, (size_t)(name.end - name.p));
    add(t, "}");
    while (body.p < body.end) {
        struct span row = {body.p, find_top(body, is_row_end)};
        body.p = row.end < body.end ? row.end + 2 : row.end;
        while (row.p < row.end) {
            const struct span entry = {row.p, find_top(row, is_ampersand)};
            write_value(t, entry, depth + 1);
            row.p = entry.end < row.end ? entry.end + 1 : entry.end;
            add(t, entry.end < row.end ? "&" : "");
        }
        if (body.p < body.end)
            add(t, "\\\\");
    }
    add(t, "\\end");
    struct span rest = {end < s.end ? end + token_bytes((struct span){end, s.end}) : end, s.end};
    if (rest.p < rest.end && *rest.p == '{')
        take_argument(&rest);
    return rest.p;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The elements of a set in an order that does not depend on how they were given. */
static void write_set(struct formula_text *t, struct span s, int depth)
{
    struct formula_text list = {0};
    write_list(&list, s, true, depth);
    t->failed |= list.failed;
    size_t n = 1, capacity = 1;
    for (size_t i = 0; i < list.n; i++)
        capacity += list.s[i] == FORMULA_COMMA;
    char **elements = malloc(capacity * sizeof *elements);
    if (!elements || !list.s) {
        t->failed |= !elements;
    } else {
        elements[0] = list.s;
        for (size_t i = 0; i < list.n; i++)
            if (list.s[i] == FORMULA_COMMA) {
                list.s[i] = 0;
                elements[n++] = list.s + i + 1;
            }
        qsort(elements, n, sizeof *elements, compare_texts);
        for (size_t i = 0; i < n; i++) {
            add(t, i ? (char[]){FORMULA_COMMA, 0} : "");
            add(t, elements[i]);
        }
    }
    free(elements);
    formula_text_free(&list);
}

/* What a bracket at s.p encloses, with the brackets. Returns where to go on. */
static const char *write_brackets(struct formula_text *t, struct span s, int depth)
{
    const char *end = closing(s);
    const size_t open = token_bytes(s), close = end < s.end ? token_bytes((struct span){end, s.end}) : 0;
    const struct span inner = {s.p + open, end};
    formula_text_add(t, s.p, open);
    if (starts(s, "\\{"))
        write_set(t, inner, depth + 1);
    else
        write_list(t, inner, true, depth + 1);
    formula_text_add(t, end, close);
    return end + close;
}

/* Is a sign or bracket in front, so that a plus says nothing? */
static bool at_start(const struct formula_text *t, size_t from)
{
    return t->n == from || strchr("([{,&"
                                  "\x01",
                                  t->s[t->n - 1]);
}

static void write_expression(struct formula_text *t, struct span s, int depth)
{
    const size_t from = t->n;
    while (s.p < s.end && !t->failed) {
        const char c = *s.p;
        if (depth > MAX_DEPTH) {
            formula_text_add(t, s.p, (size_t)(s.end - s.p));
            return;
        }
        if (is_digit(c) || (c == '.' && s.end - s.p > 1 && is_digit(s.p[1]))) {
            char *out = malloc((size_t)(s.end - s.p) + DECIMAL_ROOM);
            t->failed |= !out;
            if (out) {
                s.p = decimal_scan(s.p, s.end, false, out);
                add(t, out);
            }
            free(out);
        } else if (starts_command(s, "\\frac")) {
            s.p += token_bytes(s);
            const struct span num = take_argument(&s), den = take_argument(&s);
            write_fraction(t, num, den, depth);
        } else if (starts_command(s, "\\sqrt")) {
            s.p = write_root(t, s, depth);
        } else if (c == '^' || c == '_') {
            s.p = write_script(t, s, depth);
        } else if (starts_command(s, "\\begin")) {
            s.p = write_matrix(t, s, depth);
        } else if (c == '{') {
            const struct span inner = take_argument(&s);
            write_expression(t, inner, depth + 1);
        } else if (nesting(s) > 0) {
            s.p = write_brackets(t, s, depth);
        } else if (c == '+' && at_start(t, from)) {
            s.p++;
        } else if (starts_command(s, "\\cdot") && t->n > from) {
            s.p += token_bytes(s);
            if (s.p < s.end && is_digit(*s.p)) /* elsewhere a product is what stands side by side */
                add(t, "\\cdot");
        } else {
            const size_t n = token_bytes(s), shown = n - (n > 1 && s.p[n - 1] == ' ');
            if (t->n > from && is_letter(c) && is_letter(t->s[t->n - 1])) { /* a name that ends here */
                size_t i = t->n;
                while (i > from && is_letter(t->s[i - 1]))
                    i--;
                add(t, i > from && t->s[i - 1] == '\\' ? " " : "");
            }
            formula_text_add(t, s.p, shown);
            s.p += n;
        }
    }
}

/* s without a pair of brackets around all of it that holds no comma, or a matrix alone. */
static struct span without_brackets(struct span s)
{
    while (s.p < s.end && (*s.p == '(' || *s.p == '[' || *s.p == '{')) {
        const char *end = closing(s);
        const struct span inner = {s.p + 1, end};
        if (end + 1 != s.end || inner.p == inner.end)
            break;
        const bool matrix = starts_command(inner, "\\begin") && *s.p != '{';
        const bool pair = (*s.p == '(' && *end == ')') || (*s.p == '{' && *end == '}') || (matrix && *end == ']');
        if (!pair || (*s.p == '(' && find_top(inner, is_separator) < inner.end))
            break;
        s = inner;
    }
    return s;
}

/* a/b, when it is one product over one thing: where its slash is; s.end when it is something else. */
static const char *simple_slash(struct span s)
{
    const struct span body = {s.p + (s.p < s.end && *s.p == '-'), s.end};
    const char *slash = find_top(body, is_slash);
    if (slash == s.end || slash == body.p || slash + 1 == s.end || find_top(body, is_sum) < s.end)
        return s.end;
    struct span den = {slash + 1, s.end};
    if (is_digit(*den.p)) {
        while (den.p < den.end && (is_digit(*den.p) || *den.p == '.'))
            den.p++;
    } else if (nesting(den) > 0) {
        den.p = closing(den);
        den.p += den.p < den.end ? token_bytes(den) : 0;
    } else {
        const bool root = starts_command(den, "\\sqrt");
        den.p += token_bytes(den);
        if (root)
            take_argument(&den);
    }
    return den.p == den.end ? slash : s.end;
}

/* One thing of a list: a number by its value, a fraction, or an expression. */
static void write_value(struct formula_text *t, struct span s, int depth)
{
    s = without_brackets(s);
    if (s.p == s.end || t->failed)
        return;
    if (depth > MAX_DEPTH) {
        formula_text_add(t, s.p, (size_t)(s.end - s.p));
        return;
    }
    const size_t n = (size_t)(s.end - s.p);
    char *number = malloc(n + DECIMAL_ROOM);
    t->failed |= !number;
    if (number && number_whole(s.p, n, number)) {
        add(t, number);
    } else if (number) {
        const char *slash = simple_slash(s);
        if (slash < s.end)
            write_fraction(t, (struct span){s.p, slash}, without_brackets((struct span){slash + 1, s.end}), depth);
        else
            write_expression(t, s, depth);
    }
    free(number);
}

/* The things of a list, with FORMULA_COMMA between them. Outside of brackets "1,234" is one number, unless more commas
 * say otherwise. */
static void write_list(struct formula_text *t, struct span s, bool in_brackets, int depth)
{
    bool (*separates)(struct span) = is_separator;
    char number[DECIMAL_ROOM + 128];
    for (;;) {
        struct span part = {s.p, find_top(s, is_hard_separator)};
        const size_t n = (size_t)(part.end - part.p);
        if (in_brackets || n > 128 || !number_whole(part.p, n, number))
            part.end = find_top(s, separates);
        write_value(t, part, depth);
        if (part.end == s.end)
            return;
        add(t, (char[]){FORMULA_COMMA, 0});
        s.p = part.end + 1;
    }
}

/* The one variable on the left of "x = ..." or "x \in ...": one or two letters, with an index or a prime, or a command;
 * empty when something else stands there. *right is what follows it. */
static struct span left_variable(struct span s, struct span *right)
{
    const struct span none = {s.p, s.p};
    const char *relation = find_top(s, is_relation);
    const size_t n = (size_t)(relation - s.p);
    if (relation == s.end || n == 0)
        return none;
    *right = (struct span){relation + token_bytes((struct span){relation, s.end}), s.end};
    const bool letter = is_letter(*s.p), two = n == 2 && (is_letter(s.p[1]) || s.p[1] == '\''),
               index = n > 2 && n <= 6 && s.p[1] == '_', command = *s.p == '\\' && n > 2 && token_bytes(s) == n;
    const bool variable = (letter && (n == 1 || two || index)) || command;
    return variable && right->p < right->end && find_top(*right, is_equals) == right->end ? (struct span){s.p, relation}
                                                                                          : none;
}

/* Append to *to the list s without the variable that stands on the left of its only equation, or of all its equations.
 */
static void drop_variable(struct formula_text *to, struct span s)
{
    const char *first = find_top(s, is_equals);
    const bool several = first < s.end && find_top((struct span){first + 1, s.end}, is_equals) < s.end;
    struct span variable = {0}, part = s, right = s;
    if (!several) {
        variable = left_variable(s, &right);
        s = variable.p < variable.end ? right : s;
        formula_text_add(to, s.p, (size_t)(s.end - s.p));
        return;
    }
    for (;; part.p = part.end + 1) { /* each with the same variable? */
        part.end = find_top((struct span){part.p, s.end}, is_separator);
        const struct span left = left_variable(part, &right);
        const size_t n = (size_t)(left.end - left.p);
        if (n == 0 ||
            (variable.p && ((size_t)(variable.end - variable.p) != n || memcmp(variable.p, left.p, n) != 0))) {
            to->n = 0;
            formula_text_add(to, s.p, (size_t)(s.end - s.p));
            return;
        }
        variable = left;
        formula_text_add(to, right.p, (size_t)(part.end - right.p));
        if (part.end == s.end)
            return;
        formula_text_add(to, &(char){FORMULA_COMMA}, 1);
    }
}

int formula_key(const char *begin, const char *end, char **key, struct plm_status *st)
{
    struct formula_text flat = {0}, list = {0}, out = {0};
    *key = NULL;
    formula_text_flatten(&flat, begin, end);
    while (flat.n && strchr(".,\x01", flat.s[flat.n - 1]))
        flat.n--;
    if (flat.n)
        drop_variable(&list, without_brackets((struct span){flat.s, flat.s + flat.n}));
    if (list.n)
        write_list(&out, without_brackets((struct span){list.s, list.s + list.n}), false, 0);
    const bool failed = flat.failed || list.failed || out.failed;
    formula_text_free(&flat);
    formula_text_free(&list);
    for (size_t i = 0; i < out.n; i++)
        if (out.s[i] == FORMULA_COMMA)
            out.s[i] = ',';
    if (failed || !out.n)
        formula_text_free(&out);
    *key = out.s;
    return failed ? status_no_memory(st, (size_t)(end - begin), "what an answer says") : PLM_OK;
}
