#include <stdio.h>
#include <string.h>

#include "infer/text/jinja_internal.h"

struct value value_int(enum value_type type, int64_t i)
{
    return (struct value){type, 0, {.i = i}};
}

struct value value_text(struct run *r, const char *text, size_t bytes, uint32_t origin)
{
    jinja_byte *s = run_alloc(r, bytes + 1, sizeof *s);
    for (size_t i = 0; s && i < bytes; i++)
        s[i] = (unsigned char)text[i] | origin << 8;
    return (struct value){V_STRING, s ? bytes : 0, {.s = s}};
}

bool value_is(const struct value *v, const char *word)
{
    const size_t n = strlen(word);
    size_t i = 0;
    if (v->type != V_STRING || v->n != n)
        return false;
    while (i < n && value_byte(v, i) == (unsigned char)word[i])
        i++;
    return i == n;
}

bool value_true(const struct value *v)
{
    switch (v->type) {
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
    case V_INT:
        return v->u.i != 0;
    case V_STRING:
    case V_LIST:
        return v->n != 0;
    case V_DICT:
        return v->u.dict->n != 0;
    default:
        return true;
    }
}

int value_compare(const struct value *a, const struct value *b)
{
    size_t i = 0;
    while (i < a->n && i < b->n && value_byte(a, i) == value_byte(b, i))
        i++;
    const int x = i < a->n ? value_byte(a, i) : -1, y = i < b->n ? value_byte(b, i) : -1;
    return x - y;
}

bool value_equal(const struct value *a, const struct value *b, int depth)
{
    const bool numbers = (a->type == V_INT || a->type == V_BOOL) && (b->type == V_INT || b->type == V_BOOL);
    if (numbers)
        return a->u.i == b->u.i;
    if (a->type != b->type || depth > JINJA_MOST_COMPARED)
        return false;
    switch (a->type) {
    case V_STRING:
        return a->n == b->n && value_compare(a, b) == 0;
    case V_LIST: {
        size_t i = 0;
        while (a->n == b->n && i < a->n && value_equal(&a->u.list[i], &b->u.list[i], depth + 1))
            i++;
        return a->n == b->n && i == a->n;
    }
    case V_DICT: {
        const struct pair *p = a->u.dict->n == b->u.dict->n ? a->u.dict->first : NULL;
        for (; p; p = p->next) {
            const struct value *other = dict_get(b->u.dict, &p->key);
            if (!other || !value_equal(&p->value, other, depth + 1))
                return false;
        }
        return a->u.dict->n == b->u.dict->n;
    }
    case V_UNDEFINED:
    case V_NONE:
        return true;
    default:
        return a->u.loop == b->u.loop;
    }
}

const struct value *dict_get(const struct dict *d, const struct value *key)
{
    for (const struct pair *p = d->first; p; p = p->next)
        if (value_equal(&p->key, key, 0))
            return &p->value;
    return NULL;
}

void dict_set(struct run *r, struct dict *d, struct value key, struct value v)
{
    struct pair *p = r->code ? NULL : d->first;
    while (p && !value_equal(&p->key, &key, 0))
        p = p->next;
    if (p) {
        p->value = v;
        return;
    }
    p = run_alloc(r, 1, sizeof *p);
    if (!p)
        return;
    *p = (struct pair){key, v, NULL};
    *(d->last ? &d->last->next : &d->first) = p;
    d->last = p;
    d->n++;
}

/* Where character i of a text begins. */
static size_t offset_of(const struct value *v, int64_t i)
{
    size_t at = 0;
    while (at < v->n && (i > 0 || (value_byte(v, at) & 0xc0) == 0x80))
        i -= (value_byte(v, at++) & 0xc0) != 0x80;
    if (i == 0)
        while (at < v->n && (value_byte(v, at) & 0xc0) == 0x80)
            at++;
    return at;
}

int64_t value_length(const struct value *v)
{
    int64_t n = 0;
    switch (v->type) {
    case V_STRING:
        for (size_t i = 0; i < v->n; i++)
            n += (value_byte(v, i) & 0xc0) != 0x80;
        return n;
    case V_LIST:
        return (int64_t)v->n;
    case V_DICT:
        return (int64_t)v->u.dict->n;
    case V_UNDEFINED:
        return 0;
    default:
        return -1;
    }
}

struct value value_slice(struct run *r, const struct value *v, int64_t from, int64_t to, int64_t step)
{
    const int64_t n = value_length(v), low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if ((v->type != V_LIST && v->type != V_STRING) || step == 0 || (v->type == V_STRING && step != 1))
        return run_fail(r, PLM_EUNSUPPORTED, "a slice of what is not a list, or with such a step");
    from = from < 0 && from != INT64_MIN ? from + n : from;
    to = to < 0 && to != INT64_MIN ? to + n : to;
    from = from < low ? low : from > high ? high : from;
    to = to < low ? low : to > high ? high : to;
    if (v->type == V_STRING)
        return from < to ? value_part(v, offset_of(v, from), offset_of(v, to)) : value_part(v, 0, 0);
    struct value *list = run_alloc(r, v->n + 1, sizeof *list);
    size_t made = 0;
    for (int64_t i = from; list && (step > 0 ? i < to : i > to); i += step) {
        list[made++] = v->u.list[i];
        if (step > n || step < -n)
            break;
    }
    return (struct value){V_LIST, made, {.list = list}};
}

struct value value_concat(struct run *r, const struct value *a, const struct value *b)
{
    jinja_byte *s = run_alloc(r, a->n + b->n + 1, sizeof *s);
    if (!s)
        return (struct value){0};
    if (a->n)
        memcpy(s, a->u.s, a->n * sizeof *s);
    if (b->n)
        memcpy(s + a->n, b->u.s, b->n * sizeof *s);
    return (struct value){V_STRING, a->n + b->n, {.s = s}};
}

struct value value_string(struct run *r, struct value v)
{
    char number[32];
    if (v.type == V_STRING || r->code)
        return v;
    if (v.type == V_UNDEFINED || v.type == V_NONE || v.type == V_BOOL)
        strcpy(number, v.type == V_UNDEFINED ? "" : v.type == V_NONE ? "None" : v.u.i ? "True" : "False");
    else if (v.type == V_INT)
        snprintf(number, sizeof number, "%lld", (long long)v.u.i);
    else
        return run_fail(r, PLM_EUNSUPPORTED, "a list or an object is written out without tojson");
    return value_text(r, number, strlen(number), JINJA_TEMPLATE);
}

size_t value_find(const struct value *v, const struct value *what, size_t at)
{
    for (; what->n <= v->n && at <= v->n - what->n; at++) {
        size_t i = 0;
        while (i < what->n && value_byte(v, at + i) == value_byte(what, i))
            i++;
        if (i == what->n)
            return at;
    }
    return v->n + 1;
}

bool value_contains(struct run *r, const struct value *in, const struct value *what)
{
    if (in->type == V_STRING && what->type == V_STRING)
        return value_find(in, what, 0) <= in->n;
    if (in->type == V_LIST) {
        size_t i = 0;
        while (i < in->n && !value_equal(&in->u.list[i], what, 0))
            i++;
        return i < in->n;
    }
    if (in->type == V_DICT)
        return dict_get(in->u.dict, what) != NULL;
    if (in->type != V_UNDEFINED)
        run_fail(r, PLM_EINVAL, "'in' of what is neither text nor list");
    return false;
}

struct value value_member(struct run *r, const struct value *v, struct name name)
{
    if (v->type == V_UNDEFINED)
        return run_fail(r, PLM_EINVAL, "'%.*s' is undefined", v->u.name ? (int)v->n : 10,
                        v->u.name ? v->u.name : "an element");
    if (v->type == V_DICT || v->type == V_NAMESPACE) {
        const struct value key = value_text(r, name.text, name.bytes, JINJA_TEMPLATE),
                           *found = r->code ? NULL : dict_get(v->u.dict, &key);
        return found ? *found : (struct value){0};
    }
    if (v->type == V_LOOP) {
        const struct loop *l = v->u.loop;
        const int64_t i = (int64_t)l->i, n = (int64_t)l->n;
        const int64_t members[] = {i == 0, i == n - 1, i + 1, i, n, n - i, n - i - 1};
        const int which = word_index(name, "first last index index0 length revindex revindex0 previtem nextitem");
        if (which >= 7) {
            const size_t at = which == 7 ? l->i - 1 : l->i + 1;
            return at < l->n ? l->items[at] : (struct value){0};
        }
        if (which >= 0)
            return value_int(which < 2 ? V_BOOL : V_INT, members[which]);
        return run_fail(r, PLM_EUNSUPPORTED, "'loop.%.*s' is not supported", (int)(name.bytes < 40 ? name.bytes : 40),
                        name.text);
    }
    return (struct value){0};
}

const struct value *argument(const struct arguments *a, int i, const char *name)
{
    for (int k = 0; k < a->n; k++)
        if (a->names[k].bytes ? name_is(a->names[k], name) : k == i)
            return &a->v[k];
    return NULL;
}
