#include "train/align/formula_text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_NESTING = 32 }; /* of \text{...}: deeper ones are taken as they are */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

void formula_text_add(struct formula_text *t, const char *s, size_t n)
{
    if (t->failed)
        return;
    if (t->capacity - t->n <= n) {
        const size_t capacity = 2 * (t->n + n) + 64;
        char *grown = realloc(t->s, capacity);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->s = grown;
        t->capacity = capacity;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

void formula_text_free(struct formula_text *t)
{
    free(t->s);
    *t = (struct formula_text){0};
}

static char last_char(const struct formula_text *t)
{
    return t->n ? t->s[t->n - 1] : 0;
}

/* What is appended, and a white space that was seen before it. */
struct flat {
    struct formula_text *out;
    bool space;
};

/* Three digits at p, and no fourth. */
static bool is_group(const char *p, const char *end)
{
    int n = 0;
    while (n < 4 && p + n < end && is_digit(p[n]))
        n++;
    return n == 3;
}

/* Append what stands at p: a space before it matters between digits, and a command's name ends before a letter. */
static void emit(struct flat *f, const char *p, size_t n, const char *end)
{
    const char before = last_char(f->out);
    if (f->space && is_digit(before) && is_digit(*p))
        formula_text_add(f->out, is_group(p, end) ? "{,}" : " ", is_group(p, end) ? 3 : 1);
    if (is_letter(*p) && is_letter(before)) {
        size_t i = f->out->n;
        while (i > 0 && is_letter(f->out->s[i - 1]))
            i--;
        if (i > 0 && f->out->s[i - 1] == '\\')
            formula_text_add(f->out, " ", 1);
    }
    formula_text_add(f->out, p, n);
    f->space = false;
}

static void emit_word(struct flat *f, const char *word)
{
    emit(f, word, strlen(word), word + strlen(word));
}

static bool is_one_of(const char *p, size_t n, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strlen(words[i]) == n && !strncasecmp(p, words[i], n))
            return true;
    return false;
}

/* ---- units ---- */

static bool is_unit_word(const char *p, size_t n)
{
    static const char *const words[] = {
        "acre",        "acres",    "am",        "annually",  "apples",     "bags",       "balls",       "books",
        "boxes",       "cakes",    "cars",      "cc",        "cent",       "centimeter", "centimeters", "centimetre",
        "centimetres", "cents",    "chairs",    "children",  "cm",         "coins",      "cubic",       "cup",
        "cups",        "day",      "days",      "deg",       "degree",     "degrees",    "dm",          "dollar",
        "dollars",     "dozen",    "eggs",      "euro",      "euros",      "feet",       "foot",        "ft",
        "gal",         "gallon",   "gallons",   "games",     "girls",      "boys",       "gm",          "gram",
        "grams",       "hour",     "hours",     "hr",        "hrs",        "inch",       "inches",      "items",
        "kg",          "kilogram", "kilograms", "kilometer", "kilometers", "kilometre",  "kilometres",  "km",
        "kmh",         "kmph",     "kph",       "lb",        "lbs",        "liter",      "liters",      "litre",
        "litres",      "marbles",  "men",       "meter",     "meters",     "metre",      "metres",      "mg",
        "mile",        "miles",    "minute",    "minutes",   "min",        "mins",       "ml",          "mm",
        "month",       "months",   "mph",       "ounce",     "ounces",     "oz",         "page",        "pages",
        "pence",       "pencils",  "pens",      "people",    "per",        "percent",    "persons",     "pieces",
        "pm",          "points",   "pound",     "pounds",    "quart",      "quarts",     "radians",     "rupees",
        "sec",         "second",   "seconds",   "slices",    "square",     "sq",         "stickers",    "students",
        "tickets",     "times",    "ton",       "tonnes",    "tons",       "trees",      "unit",        "units",
        "ways",        "week",     "weeks",     "women",     "yard",       "yards",      "yd",          "year",
        "years",       "cubed",    "squared",   NULL};
    return is_one_of(p, n, words);
}

/* What follows exponents, slashes and points of a unit: "^2", "^{3}", "/", "\cdot". */
static const char *skip_exponent(const char *p, const char *end)
{
    while (p < end && is_space(*p))
        p++;
    if (p < end && *p == '^') {
        p++;
        const bool braces = p < end && *p == '{';
        p += braces;
        p += p < end && *p == '-';
        while (p < end && is_digit(*p))
            p++;
        p += braces && p < end && *p == '}';
    }
    return p;
}

/* Does what is measured end at p: the formula, one of several values, or a bracket? */
static bool value_ends(const char *p, const char *end)
{
    while (p < end && (is_space(*p) || strchr("$.~", *p)))
        p++;
    static const char *const after[] = {"\\right",    "\\}",       "\\text{ and", "\\text{and",
                                        "\\text{ or", "\\text{or", "\\\\",        "\\end"};
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        if ((size_t)(end - p) >= strlen(after[i]) && !memcmp(p, after[i], strlen(after[i])))
            return true;
    return p == end || strchr(",;)]}&", *p);
}

/* May a unit follow what is there: a number, a bracket, a letter or command such as \pi? */
static bool is_measurable(const struct formula_text *t)
{
    const char c = last_char(t);
    return is_digit(c) || is_letter(c) || (c && strchr(")]}", c));
}

/* The words at p, behind a number, when all are units and the value ends behind them: their end, else p. */
static const char *skip_unit_words(const struct flat *f, const char *p, const char *end)
{
    const char *q = p;
    int words = 0;
    if (!is_digit(last_char(f->out)) && last_char(f->out) != '}' && last_char(f->out) != ')')
        return p;
    for (;;) {
        while (q < end && is_space(*q))
            q++;
        const char *word = q;
        while (q < end && is_letter(*q))
            q++;
        if (q == word || !is_unit_word(word, (size_t)(q - word)))
            return words && value_ends(word, end) ? word : p;
        words++;
        q = skip_exponent(q, end);
        q += q < end && *q == '/';
    }
}

/* ---- commands ---- */

/* The closing brace of the group whose contents begin at p; end when there is none. */
static const char *group_end(const char *p, const char *end)
{
    for (int depth = 1; p < end; p++) {
        if (*p == '\\' && end - p > 1)
            p++;
        else if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0)
            return p;
    }
    return end;
}

static void flatten(struct flat *f, const char *p, const char *end, int nesting);

/* \text{...} and its kin, with contents [p, end) and `rest` behind the brace: a conjunction, a unit, or what it says.
 * Returns where to go on. */
static const char *flatten_words(struct flat *f, const char *p, const char *end, const char *rest, const char *all,
                                 int nesting)
{
    static const char *const conjunctions[] = {"and", "or", NULL};
    const char *first = p, *last = end;
    while (first < last && is_space(*first))
        first++;
    while (last > first && is_space(last[-1]))
        last--;
    if (f->out->n && is_one_of(first, (size_t)(last - first), conjunctions)) {
        if (last_char(f->out) != FORMULA_COMMA && last_char(f->out) != ',')
            emit(f, &(char){FORMULA_COMMA}, 1, all);
        return rest;
    }
    const bool connector = first < last && strchr("/", *first);
    if (is_measurable(f->out) && first < last && (is_letter(*first) || connector) &&
        memchr(first, '=', (size_t)(last - first)) == NULL) {
        const char *after = skip_exponent(rest, all);
        while (after < all && (*after == '/' || !strncmp(after, "\\cdot", 5))) { /* \text{m}/\text{s} */
            const char *next = after + (*after == '/' ? 1 : 5), *open = memchr(next, '{', (size_t)(all - next));
            if (next == all || *next != '\\' || !open)
                break;
            const char *closed = group_end(open + 1, all);
            after = closed < all ? skip_exponent(closed + 1, all) : all;
        }
        if (value_ends(after, all))
            return after;
    }
    flatten(f, first, last, nesting + 1);
    return rest;
}

/* A command whose name is [p, end of letters) of length n, behind its backslash: true when it is dealt with, *next
 * where to go on. */
static bool flatten_command(struct flat *f, const char *p, size_t n, const char *end, int nesting, const char **next)
{
    static const char *const dropped[] = {"displaystyle", "textstyle", "scriptstyle", "limits",    "nolimits",
                                          "rm",           "bf",        "it",          "cal",       "big",
                                          "bigl",         "bigr",      "bigg",        "biggl",     "biggr",
                                          "pounds",       "euro",      "degree",      "mathstrut", NULL};
    static const char *const sized[] = {"left", "right", "middle", NULL};
    static const char *const spaces[] = {"quad", "qquad", "enspace", "thinspace", "space", NULL};
    static const char *const words[] = {"text",       "textbf", "textit", "textrm",       "texttt", "textsf",
                                        "textnormal", "mathrm", "mathbf", "mathit",       "mathsf", "mathtt",
                                        "mathnormal", "mbox",   "hbox",   "operatorname", "boxed",  "fbox",
                                        "boldsymbol", "bm",     NULL};
    static const char *const names[][2] = {{"dfrac", "\\frac"},    {"tfrac", "\\frac"},   {"cfrac", "\\frac"},
                                           {"dbinom", "\\binom"},  {"tbinom", "\\binom"}, {"times", "\\cdot"},
                                           {"ast", "\\cdot"},      {"leq", "\\le"},       {"geq", "\\ge"},
                                           {"neq", "\\ne"},        {"leqslant", "\\le"},  {"geqslant", "\\ge"},
                                           {"lbrace", "\\{"},      {"rbrace", "\\}"},     {"lbrack", "["},
                                           {"rbrack", "]"},        {"lvert", "|"},        {"rvert", "|"},
                                           {"vert", "|"},          {"mid", "|"},          {"dots", "\\ldots"},
                                           {"cdots", "\\ldots"},   {"prime", "'"},        {"colon", ":"},
                                           {"lparen", "("},        {"rparen", ")"},       {"emptyset", "\\varnothing"},
                                           {"to", "\\rightarrow"}, {"div", "/"}};
    *next = p + n;
    if (is_one_of(p, n, sized)) {
        while (*next < end && is_space(**next))
            ++*next;
        *next += *next < end && **next == '.'; /* an invisible bracket */
        return true;
    }
    if (is_one_of(p, n, dropped)) /* in any case: \big and \Big alike */
        return true;
    if (is_one_of(p, n, spaces)) {
        f->space = true;
        return true;
    }
    if (is_one_of(p, n, words) && nesting < MAX_NESTING) {
        const char *q = *next;
        q += q < end && *q == '*';
        while (q < end && is_space(*q))
            q++;
        if (q < end && *q == '{') {
            const char *close = group_end(q + 1, end);
            *next = flatten_words(f, q + 1, close, close < end ? close + 1 : end, end, nesting);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i][0]) == n && !memcmp(p, names[i][0], n)) {
            emit_word(f, names[i][1]);
            return true;
        }
    return false;
}

/* A backslash at p. Returns where to go on. */
static const char *flatten_backslash(struct flat *f, const char *p, const char *end, int nesting)
{
    if (end - p < 2)
        return end;
    const char c = p[1];
    const char *next;
    size_t n = 0;
    while (p + 1 + n < end && is_letter(p[1 + n]))
        n++;
    if (n == 0) {
        if (c == '!' || c == '%' || c == '$')
            return p + 2;
        if (c == ',' || c == ';' || c == ':' || c == '>' || is_space(c)) {
            f->space = true;
            return p + 2;
        }
        emit(f, p, 2, end);
        return p + 2;
    }
    if (flatten_command(f, p + 1, n, end, nesting, &next))
        return next;
    emit(f, p, n + 1, end);
    return p + n + 1;
}

/* "^\circ" or "^{\circ}" at p: its end, NULL when it is another exponent. */
static const char *after_degrees(const char *p, const char *end)
{
    static const char *const forms[] = {"^\\circ",      "^{\\circ}", "^{ \\circ }", "^ \\circ",
                                        "^{\\,\\circ}", "^\\degree", "^{\\degree}"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const size_t n = strlen(forms[i]);
        if ((size_t)(end - p) >= n && !memcmp(p, forms[i], n) && !(p + n < end && is_letter(p[n])))
            return p + n;
    }
    return NULL;
}

/* A sign of Unicode at p as LaTeX: its end, NULL when it is none of these. */
static const char *flatten_unicode(struct flat *f, const char *p, const char *end)
{
    static const char *const signs[][2] = {{"\xE2\x88\x92", "-"},
                                           {"\xC3\x97", "\\cdot"},
                                           {"\xC2\xB7", "\\cdot"},
                                           {"\xE2\x8B\x85", "\\cdot"},
                                           {"\xC3\xB7", "/"},
                                           {"\xCF\x80", "\\pi"},
                                           {"\xE2\x88\x9E", "\\infty"},
                                           {"\xE2\x88\xAA", "\\cup"},
                                           {"\xE2\x88\xA9", "\\cap"},
                                           {"\xE2\x88\x9A", "\\sqrt"},
                                           {"\xC2\xB0", ""},
                                           {"\xE2\x82\xAC", ""},
                                           {"\xC2\xA3", ""},
                                           {"\xC2\xA5", ""},
                                           {"\xC2\xB1", "\\pm"},
                                           {"\xE2\x88\x88", "\\in"},
                                           {"\xE2\x89\xA4", "\\le"},
                                           {"\xE2\x89\xA5", "\\ge"},
                                           {"\xE2\x89\xA0", "\\ne"},
                                           {"\xCE\xB8", "\\theta"},
                                           {"\xC2\xB2", "^2"},
                                           {"\xC2\xB3", "^3"},
                                           {"\xC2\xBC", "\\frac{1}{4}"},
                                           {"\xC2\xBD", "\\frac{1}{2}"},
                                           {"\xC2\xBE", "\\frac{3}{4}"},
                                           {"\xE2\x85\x93", "\\frac{1}{3}"},
                                           {"\xE2\x85\x94", "\\frac{2}{3}"},
                                           {"\xE2\x88\x85", "\\varnothing"}};
    static const char *const spaces[] = {"\xC2\xA0", "\xE2\x80\x89", "\xE2\x80\xAF", "\xE2\x80\x8A"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if ((size_t)(end - p) >= strlen(spaces[i]) && !memcmp(p, spaces[i], strlen(spaces[i]))) {
            f->space = true;
            return p + strlen(spaces[i]);
        }
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if ((size_t)(end - p) >= strlen(signs[i][0]) && !memcmp(p, signs[i][0], strlen(signs[i][0]))) {
            if (*signs[i][1])
                emit_word(f, signs[i][1]);
            return p + strlen(signs[i][0]);
        }
    return NULL;
}

static void flatten(struct flat *f, const char *p, const char *end, int nesting)
{
    while (p < end) {
        const char *next;
        if (is_space(*p) || *p == '~') {
            f->space = true;
            p++;
        } else if (*p == '$' || *p == '%') {
            p++;
        } else if (*p == '\\') {
            p = flatten_backslash(f, p, end, nesting);
        } else if (*p == '^' && (next = after_degrees(p, end))) {
            p = next;
        } else if ((*p & 0x80) && (next = flatten_unicode(f, p, end))) {
            p = next;
        } else if (is_letter(*p) && (next = skip_unit_words(f, p, end)) > p) {
            p = next;
        } else if (*p == ',' || *p == ';') {
            const bool comma = *p++ == ',';
            const bool apart = !comma || p == end || is_space(*p) || *p == '~' || *p == '\\';
            const bool grouped = comma && end - p > 2 && p[0] == '\\' && p[1] == '!'; /* "1,\!234" */
            const char separator = apart && !grouped ? FORMULA_COMMA : ',';
            emit(f, &separator, 1, end);
        } else if (*p == '*') {
            emit_word(f, "\\cdot");
            p++;
        } else {
            emit(f, p, 1, end);
            p++;
        }
    }
}

void formula_text_flatten(struct formula_text *t, const char *p, const char *end)
{
    struct flat f = {.out = t};
    flatten(&f, p, end, 0);
}
