#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/text/jinja_internal.h"

/* --- texts --- */

/* What Python's strip takes: the length of the white space character at i, 0 when there is none. */
static size_t space_at(const struct value *v, size_t i)
{
    const unsigned char c = value_byte(v, i);
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    const unsigned d = i + 1 < v->n ? value_byte(v, i + 1) : 0, e = i + 2 < v->n ? value_byte(v, i + 2) : 0;
    if (c == 0xc2)
        return d == 0x85 || d == 0xa0 ? 2 : 0;
    const unsigned code = (c & 15u) << 12 | (d & 63) << 6 | (e & 63);
    const bool space = (c & 0xf0) == 0xe0 && (code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
                                              code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000);
    return space ? 3 : 0;
}

/* The character at i when it is one of `set` (NULL: white space): its bytes. */
static size_t strips(const struct value *v, size_t i, const struct value *set)
{
    size_t n = 1;
    if (!set)
        return space_at(v, i);
    while (i + n < v->n && (value_byte(v, i + n) & 0xc0) == 0x80)
        n++;
    const struct value c = value_part(v, i, i + n);
    return value_find(set, &c, 0) <= set->n ? n : 0;
}

static struct value strip(const struct value *v, const struct value *set, bool left, bool right)
{
    size_t from = 0, to = v->n, n;
    while (left && from < to && (n = strips(v, from, set)))
        from += n;
    while (right && to > from) {
        size_t last = to - 1;
        while (last > from && (value_byte(v, last) & 0xc0) == 0x80)
            last--;
        if (strips(v, last, set) != to - last)
            break;
        to = last;
    }
    return value_part(v, from, to);
}

enum casing { UPPER, LOWER, TITLE, CAPITALIZE };

static struct value change_case(struct run *r, const struct value *v, enum casing how)
{
    jinja_byte *s = run_alloc(r, v->n + 1, sizeof *s);
    bool inside = false;
    for (size_t i = 0; s && i < v->n; i++) {
        const unsigned char c = value_byte(v, i);
        const bool letter = (c | 32) >= 'a' && (c | 32) <= 'z', up = how == UPPER || (how >= TITLE && !inside);
        if (c >= 0x80)
            return run_fail(r, PLM_EUNSUPPORTED, "upper and lower case beyond ASCII are not supported");
        s[i] = letter ? (v->u.s[i] & ~(jinja_byte)32) | (up ? 0 : 32) : v->u.s[i];
        inside = how == TITLE ? letter : true;
    }
    return (struct value){V_STRING, v->n, {.s = s}};
}

static struct value replace(struct run *r, const struct value *v, const struct value *from, const struct value *to)
{
    size_t hits = 0;
    if (from->type != V_STRING || to->type != V_STRING || !from->n)
        return run_fail(r, PLM_EUNSUPPORTED, "replace of what is not a text");
    for (size_t at = 0; (at = value_find(v, from, at)) <= v->n; at += from->n)
        hits++;
    if (to->n > from->n && hits > r->pool.limit / (to->n - from->n))
        return run_fail(r, PLM_ELIMIT, "replace makes too much text");
    jinja_byte *s = run_alloc(r, v->n - hits * from->n + hits * to->n + 1, sizeof *s);
    size_t n = 0;
    for (size_t at = 0; s && at < v->n;) {
        const size_t hit = value_find(v, from, at), end = hit <= v->n ? hit : v->n;
        memcpy(s + n, v->u.s + at, (end - at) * sizeof *s);
        n += end - at;
        if (hit <= v->n && to->n)
            memcpy(s + n, to->u.s, to->n * sizeof *s);
        n += hit <= v->n ? to->n : 0;
        at = hit <= v->n ? hit + from->n : v->n;
    }
    return (struct value){V_STRING, n, {.s = s}};
}

static struct value split(struct run *r, const struct value *v, const struct value *by, const struct value *limit)
{
    size_t n = 1, most = limit && limit->type == V_INT && limit->u.i >= 0 ? (size_t)limit->u.i : SIZE_MAX;
    if (!by || by->type != V_STRING || !by->n)
        return run_fail(r, PLM_EUNSUPPORTED, "split without a separator is not supported");
    for (size_t at = 0; (at = value_find(v, by, at)) <= v->n && n <= most; at += by->n)
        n++;
    struct value *list = run_alloc(r, n, sizeof *list);
    size_t at = 0;
    for (size_t i = 0; list && i < n; i++) {
        const size_t end = i + 1 < n ? value_find(v, by, at) : v->n;
        list[i] = value_part(v, at, end);
        at = end + by->n;
    }
    return (struct value){V_LIST, n, {.list = list}};
}

static bool begins(const struct value *v, const struct value *with, bool at_end)
{
    if (with->n > v->n)
        return false;
    const size_t from = at_end ? v->n - with->n : 0;
    const struct value x = value_part(v, from, from + with->n);
    return value_compare(&x, with) == 0;
}

static void append(struct run *r, struct value *to, struct value more)
{
    *to = value_concat(r, to, &more);
}

static struct value literal(struct run *r, const char *text)
{
    return value_text(r, text, strlen(text), JINJA_TEMPLATE);
}

static struct value quoted(struct run *r, const struct value *v)
{
    jinja_byte *s = run_alloc(r, 6 * v->n + 2, sizeof *s);
    size_t n = 0;
    if (!s)
        return (struct value){0};
    s[n++] = '"';
    for (size_t i = 0; i < v->n; i++) {
        static const char special[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
        const unsigned char c = value_byte(v, i);
        const char *known = c ? strchr(special, c) : NULL;
        const jinja_byte origin = v->u.s[i] & ~(jinja_byte)255;
        char code[8];
        if (known) {
            s[n++] = '\\' | origin;
            s[n++] = (unsigned char)letter[known - special] | origin;
        } else if (c < 0x20) {
            snprintf(code, sizeof code, "\\u%04x", c);
            for (int k = 0; k < 6; k++)
                s[n++] = (unsigned char)code[k] | origin;
        } else {
            s[n++] = v->u.s[i];
        }
    }
    s[n++] = '"';
    return (struct value){V_STRING, n, {.s = s}};
}

/* json.dumps(v, ensure_ascii=False) */
static struct value to_json(struct run *r, const struct value *v, int depth)
{
    struct value text = literal(r, v->type == V_DICT ? "{" : "[");
    if (depth > JINJA_MOST_COMPARED || r->code)
        return run_fail(r, PLM_ELIMIT, "tojson of what nests too deeply");
    switch (v->type) {
    case V_STRING:
        return quoted(r, v);
    case V_NONE:
        return literal(r, "null");
    case V_BOOL:
        return literal(r, v->u.i ? "true" : "false");
    case V_INT:
        return value_string(r, *v);
    case V_LIST:
        for (size_t i = 0; i < v->n && !r->code; i++) {
            if (i)
                append(r, &text, literal(r, ", "));
            append(r, &text, to_json(r, &v->u.list[i], depth + 1));
        }
        append(r, &text, literal(r, "]"));
        return text;
    case V_DICT:
        for (const struct pair *p = v->u.dict->first; p && !r->code; p = p->next) {
            if (p != v->u.dict->first)
                append(r, &text, literal(r, ", "));
            append(r, &text, to_json(r, &p->key, depth + 1));
            append(r, &text, literal(r, ": "));
            append(r, &text, to_json(r, &p->value, depth + 1));
        }
        append(r, &text, literal(r, "}"));
        return text;
    default:
        return run_fail(r, PLM_EINVAL, "tojson of what is undefined");
    }
}

/* --- lists --- */

static struct value join(struct run *r, const struct value *list, const struct value *by)
{
    struct value text = literal(r, "");
    for (size_t i = 0; i < list->n && !r->code; i++) {
        if (i && by)
            append(r, &text, *by);
        append(r, &text, value_string(r, list->u.list[i]));
    }
    return text;
}

/* keys, values or items */
static struct value dict_list(struct run *r, const struct dict *d, char what)
{
    struct value *list = run_alloc(r, d->n + 1, sizeof *list);
    size_t n = 0;
    for (const struct pair *p = d->first; p && !r->code; p = p->next) {
        if (what != 'i') {
            list[n++] = what == 'k' ? p->key : p->value;
            continue;
        }
        struct value *both = run_alloc(r, 2, sizeof *both);
        if (both) {
            both[0] = p->key;
            both[1] = p->value;
        }
        list[n++] = (struct value){V_LIST, 2, {.list = both}};
    }
    return (struct value){V_LIST, n, {.list = list}};
}

/* A name given as a text value. */
static bool name_of(const struct value *v, char to[64])
{
    if (!v || v->type != V_STRING || v->n >= 64)
        return false;
    for (size_t i = 0; i < v->n; i++)
        to[i] = (char)value_byte(v, i);
    to[v->n] = 0;
    return true;
}

/* selectattr, rejectattr (attribute, test, argument) and map(attribute=...) */
static struct value by_attribute(struct run *r, const struct arguments *a, bool map, bool select)
{
    const struct value *in = &a->v[0], *attribute = argument(a, map ? -1 : 1, "attribute"),
                       *test = map ? NULL : argument(a, 2, "test");
    char member[64], test_name[64];
    if (in->type != V_LIST || !name_of(attribute, member) || (test && !name_of(test, test_name)))
        return run_fail(r, PLM_EUNSUPPORTED,
                        "map, selectattr or rejectattr of what is not a list, or without the name of an attribute");
    struct value *list = run_alloc(r, in->n + 1, sizeof *list);
    size_t n = 0;
    for (size_t i = 0; i < in->n && !r->code; i++) {
        const struct value v = value_member(r, &in->u.list[i], (struct name){member, strlen(member)});
        struct arguments with = {.v = {v}, .n = 1};
        if (a->n > 3)
            with.v[with.n++] = a->v[3];
        const bool is =
            map || (test ? call_test(r, (struct name){test_name, strlen(test_name)}, &with) : value_true(&v));
        if (is == select)
            list[n++] = map ? v : in->u.list[i];
    }
    return (struct value){V_LIST, n, {.list = list}};
}

/* --- filters, methods, tests, functions --- */

static struct value unknown(struct run *r, const char *kind, struct name name)
{
    return run_fail(r, PLM_EUNSUPPORTED, "the %s '%.*s' is not supported, or not for such a value", kind,
                    (int)(name.bytes < 40 ? name.bytes : 40), name.text);
}

/* What texts have as methods and as filters. *known: it is one of them. */
static struct value text_operation(struct run *r, struct name name, const struct arguments *a, bool *known)
{
    enum { TRIM, STRIP, LSTRIP, RSTRIP, CASES, REPLACE = CASES + 4 };
    const struct value *v = &a->v[0], *first = argument(a, 1, "chars"), *old = argument(a, 1, "old"),
                       *new = argument(a, 2, "new");
    const int what = word_index(name, "trim strip lstrip rstrip upper lower title capitalize replace");
    *known = what >= 0 && (what != REPLACE || (old && new && a->n == 3));
    if (!*known)
        return *v;
    if (what < CASES)
        return strip(v, first && first->type == V_STRING ? first : NULL, what != RSTRIP, what != LSTRIP);
    return what == REPLACE ? replace(r, v, old, new) : change_case(r, v, (enum casing)(what - CASES));
}

static struct value list_filter(struct run *r, int what, const struct arguments *a)
{
    const struct value *v = &a->v[0];
    if (what < 2)
        return !v->n ? (struct value){0} : v->u.list[what ? v->n - 1 : 0];
    return what == 2 ? *v : what == 3 ? join(r, v, argument(a, 1, "d")) : value_slice(r, v, INT64_MAX, INT64_MIN, -1);
}

static struct value or_default(struct run *r, const struct arguments *a)
{
    const struct value *v = &a->v[0], *usual = argument(a, 1, "default_value"), *also_false = argument(a, 2, "boolean");
    const bool absent = v->type == V_UNDEFINED || (also_false && value_true(also_false) && !value_true(v));
    return !absent ? *v : usual ? *usual : literal(r, "");
}

struct value call_filter(struct run *r, struct name name, const struct arguments *a)
{
    enum {
        FIRST,
        LAST,
        LIST,
        JOIN,
        REVERSE,
        DEFAULT,
        D,
        TOJSON,
        STRING,
        SAFE,
        LENGTH,
        COUNT,
        ITEMS,
        MAP,
        SELECT,
        REJECT
    };
    static const char words[] =
        "first last list join reverse default d tojson string safe length count items map selectattr rejectattr";
    const struct value *v = &a->v[0];
    const int what = word_index(name, words);
    bool known = false;
    struct value made = {0};
    if (what >= FIRST && what <= REVERSE && v->type == V_LIST)
        return list_filter(r, what, a);
    if (what == DEFAULT || what == D)
        return or_default(r, a);
    if (what == TOJSON && a->n == 1)
        return to_json(r, v, 0);
    if (what == STRING || what == SAFE)
        return what == STRING ? value_string(r, *v) : *v;
    if ((what == LENGTH || what == COUNT) && value_length(v) >= 0)
        return value_int(V_INT, value_length(v));
    if (what == ITEMS && v->type == V_DICT)
        return dict_list(r, v->u.dict, 'i');
    if (what >= MAP)
        return by_attribute(r, a, what == MAP, what != REJECT);
    if (v->type == V_STRING || v->type == V_UNDEFINED) { /* Jinja's filters take what is undefined as "" */
        struct arguments of = *a;
        if (v->type == V_UNDEFINED)
            of.v[0] = literal(r, "");
        made = text_operation(r, name, &of, &known);
    }
    return known ? made : unknown(r, "filter", name);
}

struct value call_method(struct run *r, struct name name, const struct arguments *a)
{
    const struct value *v = &a->v[0], *first = argument(a, 1, "sep"), *second = argument(a, 2, "default");
    bool known = false;
    struct value made = {0};
    if (v->type == V_UNDEFINED)
        return run_fail(r, PLM_EINVAL, "'%.*s' is undefined", v->u.name ? (int)v->n : 10,
                        v->u.name ? v->u.name : "an element");
    const int what = word_index(name, v->type == V_DICT ? "keys values items get" : "startswith endswith split join");
    if (v->type == V_DICT && what >= 0 && (what < 3 || first)) {
        const struct value *found = what < 3 ? NULL : dict_get(v->u.dict, first);
        if (what < 3)
            return dict_list(r, v->u.dict, name.text[0]);
        return found ? *found : second ? *second : (struct value){.type = V_NONE};
    }
    if (v->type == V_STRING) {
        if (what >= 0 && what < 2 && first && first->type == V_STRING)
            return value_int(V_BOOL, begins(v, first, what));
        if (what == 2)
            return split(r, v, first, argument(a, 2, "maxsplit"));
        if (what == 3 && first && first->type == V_LIST)
            return join(r, first, v);
        if (!name_is(name, "trim"))
            made = text_operation(r, name, a, &known);
    }
    return known ? made : unknown(r, "method", name);
}

bool call_test(struct run *r, struct name name, const struct arguments *a)
{
    const struct value *v = &a->v[0], *other = argument(a, 1, "other");
    enum {
        UNDEFINED = 1 << V_UNDEFINED,
        NUMBER = 1 << V_INT | 1 << V_BOOL,
        MANY = UNDEFINED | 1 << V_STRING | 1 << V_LIST | 1 << V_DICT
    };
    enum { KINDS = 11, TRUE = KINDS, FALSE, ODD, EVEN, EQUALTO, EQ, SAMEAS, NE, IN, DIVISIBLEBY };
    static const short kinds[KINDS] = {
        ~UNDEFINED, UNDEFINED, 1 << V_NONE, 1 << V_STRING, 1 << V_DICT, MANY, MANY, NUMBER, 1 << V_INT, 1 << V_BOOL, 0};
    const int what = word_index(
        name,
        "defined undefined none string mapping iterable sequence number integer boolean float true false odd even "
        "equalto eq sameas ne in divisibleby");
    const bool number = NUMBER >> v->type & 1;
    if (what >= 0 && what < KINDS)
        return kinds[what] >> v->type & 1;
    if (what == TRUE || what == FALSE)
        return v->type == V_BOOL && v->u.i == (what == TRUE);
    if (what == ODD || what == EVEN)
        return number && (v->u.i & 1) == (what == ODD);
    if (other && what >= EQUALTO && what <= NE)
        return value_equal(v, other, 0) == (what != NE);
    if (other && what == IN)
        return value_contains(r, other, v);
    if (other && what == DIVISIBLEBY && number && other->type == V_INT && other->u.i)
        return v->u.i % other->u.i == 0;
    unknown(r, "test", name);
    return false;
}

static struct value time_now(struct run *r, const struct value *format)
{
    char pattern[64], text[256];
    const time_t now = time(NULL);
    struct tm local;
    if (!name_of(format, pattern) || !localtime_r(&now, &local))
        return run_fail(r, PLM_EUNSUPPORTED, "strftime_now without a format, or with a long one");
    return value_text(r, text, strftime(text, sizeof text, pattern, &local), JINJA_TEMPLATE);
}

static struct value range(struct run *r, const struct arguments *a)
{
    const int64_t most = INT32_MAX;
    for (int i = 0; i < a->n || i < 1; i++)
        if (a->n < 1 || a->n > 3 || a->v[i].type != V_INT || a->v[i].u.i > most || a->v[i].u.i < -most ||
            (i == 2 && a->v[i].u.i == 0))
            return run_fail(r, PLM_EUNSUPPORTED, "range of other than one, two or three whole numbers");
    const int64_t from = a->n > 1 ? a->v[0].u.i : 0, to = a->v[a->n > 1].u.i, step = a->n > 2 ? a->v[2].u.i : 1;
    const int64_t n = (to - from + (step > 0 ? step - 1 : step + 1)) / step;
    struct value *list = run_alloc(r, n > 0 ? (size_t)n : 1, sizeof *list);
    for (int64_t i = 0; list && i < n; i++)
        list[i] = value_int(V_INT, from + i * step);
    return (struct value){V_LIST, list && n > 0 ? (size_t)n : 0, {.list = list}};
}

bool jinja_is_function(struct name name)
{
    return word_index(name, "raise_exception strftime_now range namespace") >= 0;
}

struct value call_function(struct run *r, struct name name, const struct arguments *a)
{
    if (name_is(name, "raise_exception")) {
        char text[300];
        const struct value *message = argument(a, 0, "message");
        size_t n = 0;
        for (; message && message->type == V_STRING && n < message->n && n < sizeof text - 1; n++)
            text[n] = (char)value_byte(message, n);
        return run_fail(r, PLM_EINVAL, "the template says: %.*s", (int)n, text);
    }
    if (name_is(name, "strftime_now"))
        return time_now(r, argument(a, 0, "format"));
    return range(r, a);
}
