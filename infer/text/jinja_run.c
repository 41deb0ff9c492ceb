#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/jinja_internal.h"

enum { MOST_DEPTH = 400, MOST_STEPS = 3000000, MEMORY = 64 << 20, MEMORY_PER_BYTE = 64 };

struct value run_fail(struct run *r, enum plm_code code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (!r->code) {
        va_start(args, fmt);
        vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
        r->code = status_set(r->st, code, "%s: line %d: %s", r->t->where, r->line, text);
    }
    return (struct value){0};
}

/* Beyond the limit, or no memory within it. */
static void run_out(struct run *r, size_t n, size_t size)
{
    if (n <= (r->pool.limit - r->pool.used) / (size + 1) && !r->code)
        r->code = status_no_memory(r->st, n * size, "a conversation in a chat template");
    else
        run_fail(r, PLM_ELIMIT, "the template wants more memory than there is for it");
}

void *run_alloc(struct run *r, size_t n, size_t size)
{
    void *at = r->code ? NULL : pool_alloc(&r->pool, n, size);
    if (!at && !r->code)
        run_out(r, n, size);
    return at;
}

/* --- names --- */

static bool same_name(struct name a, struct name b)
{
    return a.bytes == b.bytes && !memcmp(a.text, b.text, a.bytes);
}

static void set_variable(struct run *r, struct name name, struct value v)
{
    if (r->n_variables == r->variable_capacity) {
        const size_t capacity = 2 * r->variable_capacity + 32;
        struct variable *grown = run_alloc(r, capacity, sizeof *grown);
        if (!grown)
            return;
        if (r->n_variables)
            memcpy(grown, r->variables, r->n_variables * sizeof *grown);
        r->variables = grown;
        r->variable_capacity = capacity;
    }
    r->variables[r->n_variables++] = (struct variable){name, v};
}

static const struct value *find_variable(const struct run *r, struct name name)
{
    size_t i = r->n_variables;
    while (i > 0) {
        if (i == r->frame && r->globals < i)
            i = r->globals; /* what the caller of a macro has set is not seen */
        if (i == 0)
            break;
        if (same_name(r->variables[--i].name, name))
            return &r->variables[i].value;
    }
    return NULL;
}

/* --- expressions --- */

static struct value evaluate(struct run *r, const struct node *x);
static bool step(struct run *r, const struct node *x);
static void charge(struct run *r, const struct value *v);
static void execute(struct run *r, const struct node *x, int *jump);

static void evaluate_arguments(struct run *r, const struct node *list, struct arguments *a)
{
    for (; list && !r->code; list = list->next) {
        if (a->n == MOST_ARGUMENTS) {
            run_fail(r, PLM_EUNSUPPORTED, "more than %d arguments", MOST_ARGUMENTS);
            return;
        }
        const bool named = list->kind == N_GROUP;
        a->names[a->n] = named ? list->name : (struct name){0};
        a->v[a->n] = evaluate(r, named ? list->a : list);
        charge(r, &a->v[a->n++]);
    }
}

static struct value take_output(struct run *r, size_t from)
{
    const size_t n = r->n_out - from;
    jinja_byte *s = run_alloc(r, n + 1, sizeof *s);
    if (!s)
        return (struct value){0};
    if (n)
        memcpy(s, r->out + from, n * sizeof *s);
    r->n_out = from;
    return (struct value){V_STRING, n, {.s = s}};
}

static struct value call_macro(struct run *r, const struct node *macro, const struct arguments *a)
{
    const size_t n = r->n_variables, globals = r->globals, frame = r->frame, out = r->n_out;
    const bool nested = r->nested;
    int i = 0, jump = 0;
    r->globals = nested ? globals : n;
    r->nested = true;
    for (const struct node *parameter = macro->a; parameter && !r->code; parameter = parameter->next, i++) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)(parameter->name.bytes < 63 ? parameter->name.bytes : 63),
                 parameter->name.text);
        const struct value *given = argument(a, i, word);
        set_variable(r, parameter->name, given ? *given : parameter->a ? evaluate(r, parameter->a) : (struct value){0});
    }
    r->frame = n;
    execute(r, macro->b, &jump);
    r->n_variables = n;
    r->globals = globals;
    r->frame = frame;
    r->nested = nested;
    return take_output(r, out);
}

static struct value make_dict(struct run *r, const struct node *pairs)
{
    struct dict *d = run_alloc(r, 1, sizeof *d);
    for (; pairs && !r->code; pairs = pairs->next) {
        const struct value key = evaluate(r, pairs->a);
        dict_set(r, d, key, evaluate(r, pairs->b));
    }
    return (struct value){V_DICT, 0, {.dict = d}};
}

static struct value make_namespace(struct run *r, const struct node *arguments)
{
    struct arguments a = {.n = 0};
    struct dict *d = run_alloc(r, 1, sizeof *d);
    evaluate_arguments(r, arguments, &a);
    for (int i = 0; i < a.n && !r->code; i++)
        dict_set(r, d, value_text(r, a.names[i].text, a.names[i].bytes, JINJA_TEMPLATE), a.v[i]);
    return (struct value){V_NAMESPACE, 0, {.dict = d}};
}

static struct value call(struct run *r, const struct node *x)
{
    struct arguments a = {.n = 0};
    const struct node *what = x->a;
    if (what->kind == N_ATTRIBUTE) {
        a.v[a.n++] = evaluate(r, what->a);
        charge(r, &a.v[0]);
        evaluate_arguments(r, x->b, &a);
        return r->code ? (struct value){0} : call_method(r, what->name, &a);
    }
    if (what->kind != N_NAME)
        return run_fail(r, PLM_EUNSUPPORTED, "a call of what is not a name");
    const struct value *known = find_variable(r, what->name);
    if (!known && name_is(what->name, "namespace"))
        return make_namespace(r, x->b);
    if (!known && !jinja_is_function(what->name))
        return run_fail(r, PLM_EUNSUPPORTED, "the function '%.*s' is not supported",
                        (int)(what->name.bytes < 40 ? what->name.bytes : 40), what->name.text);
    evaluate_arguments(r, x->b, &a);
    if (r->code)
        return (struct value){0};
    if (known && known->type == V_MACRO)
        return call_macro(r, known->u.macro, &a);
    return call_function(r, what->name, &a);
}

static struct value make_list(struct run *r, const struct node *items)
{
    size_t n = 0;
    for (const struct node *x = items; x; x = x->next)
        n++;
    struct value *list = run_alloc(r, n + 1, sizeof *list);
    for (size_t i = 0; list && items && !r->code; items = items->next)
        list[i++] = evaluate(r, items);
    return (struct value){V_LIST, n, {.list = list}};
}

static int64_t bound(struct run *r, const struct node *x, int64_t usual)
{
    const struct value v = x ? evaluate(r, x) : (struct value){.type = V_NONE};
    if (v.type != V_INT && v.type != V_NONE)
        run_fail(r, PLM_EINVAL, "a bound of a slice is not a number");
    return v.type == V_INT ? v.u.i : usual;
}

static struct value get_item(struct run *r, const struct value *of, const struct value *key)
{
    if (r->code)
        return (struct value){0};
    if (of->type == V_UNDEFINED)
        return run_fail(r, PLM_EINVAL, "'%.*s' is undefined", of->u.name ? (int)of->n : 10,
                        of->u.name ? of->u.name : "an element");
    if (of->type == V_DICT) {
        const struct value *found = dict_get(of->u.dict, key);
        return found ? *found : (struct value){0};
    }
    if (key->type == V_INT && (of->type == V_LIST || of->type == V_STRING)) {
        const int64_t n = value_length(of), i = key->u.i < 0 ? key->u.i + n : key->u.i;
        if (i < 0 || i >= n)
            return (struct value){0};
        return of->type == V_LIST ? of->u.list[i] : value_slice(r, of, i, i + 1, 1);
    }
    return (struct value){0};
}

static struct value arithmetic(struct run *r, char op, const struct value *a, const struct value *b)
{
    const bool numbers = (a->type == V_INT || a->type == V_BOOL) && (b->type == V_INT || b->type == V_BOOL);
    int64_t x = 0;
    if (op == '+' && a->type == V_STRING && b->type == V_STRING)
        return value_concat(r, a, b);
    if (op == '+' && a->type == V_LIST && b->type == V_LIST) {
        struct value *list = run_alloc(r, a->n + b->n + 1, sizeof *list);
        if (!list)
            return (struct value){0};
        memcpy(list, a->u.list, a->n * sizeof *list);
        memcpy(list + a->n, b->u.list, b->n * sizeof *list);
        return (struct value){V_LIST, a->n + b->n, {.list = list}};
    }
    for (int i = 0; i < 2; i++) {
        const struct value *v = i ? b : a;
        if (v->type == V_UNDEFINED)
            return run_fail(r, PLM_EINVAL, "'%.*s' is undefined", v->u.name ? (int)v->n : 10,
                            v->u.name ? v->u.name : "an operand");
    }
    if (!numbers)
        return run_fail(r, PLM_EINVAL, "'%c' of what are not two numbers or two texts", op);
    const int64_t p = a->u.i, q = b->u.i;
    if (((op == '/' || op == '%') && (q == 0 || (p == INT64_MIN && q == -1))) ||
        (op == '+' && __builtin_add_overflow(p, q, &x)) || (op == '-' && __builtin_sub_overflow(p, q, &x)) ||
        (op == '*' && __builtin_mul_overflow(p, q, &x)))
        return run_fail(r, PLM_EINVAL, "%lld %c %lld", (long long)p, op, (long long)q);
    if (op == '/' || op == '%') { /* rounded down, as in Python */
        const int64_t rest = p % q, up = rest && (rest < 0) != (q < 0);
        x = op == '/' ? p / q - up : rest + up * q;
    }
    return value_int(V_INT, x);
}

static struct value binary(struct run *r, const struct node *x)
{
    const struct value a = evaluate(r, x->a), b = evaluate(r, x->b);
    const char op = x->op[0];
    bool is = false;
    charge(r, &a);
    charge(r, &b);
    if (r->code)
        return (struct value){0};
    if (op == '~') {
        const struct value left = value_string(r, a), right = value_string(r, b);
        return value_concat(r, &left, &right);
    }
    if ((op == '/' && !x->op[1]) || (op == '*' && x->op[1]))
        return run_fail(r, PLM_EUNSUPPORTED, "the operator '%.2s' is not supported", x->op);
    if (strchr("+-*/%", op))
        return arithmetic(r, op, &a, &b);
    if (op == 'i')
        is = value_contains(r, &b, &a);
    else if (op == '=' || op == '!')
        is = value_equal(&a, &b, 0) == (op == '=');
    else if ((a.type == V_INT || a.type == V_BOOL) && (b.type == V_INT || b.type == V_BOOL))
        is = a.u.i == b.u.i ? x->op[1] == '=' : (a.u.i < b.u.i) == (op == '<');
    else if (a.type == V_STRING && b.type == V_STRING)
        is = value_compare(&a, &b) == 0 ? x->op[1] == '=' : (value_compare(&a, &b) < 0) == (op == '<');
    else
        return run_fail(r, PLM_EINVAL, "'%.2s' of what are not two numbers or two texts", x->op);
    return value_int(V_BOOL, is);
}

/* Filters and tests have what they are applied to as their first argument. */
static struct value apply(struct run *r, const struct node *x)
{
    struct arguments a = {.n = 1};
    a.v[0] = evaluate(r, x->a);
    charge(r, &a.v[0]);
    evaluate_arguments(r, x->b, &a);
    if (r->code)
        return (struct value){0};
    return x->kind == N_FILTER ? call_filter(r, x->name, &a) : value_int(V_BOOL, call_test(r, x->name, &a));
}

static struct value slice(struct run *r, const struct node *x)
{
    const struct value of = evaluate(r, x->a);
    const int64_t step = bound(r, x->d, 1), from = bound(r, x->b, step < 0 ? INT64_MAX : 0),
                  to = bound(r, x->c, step < 0 ? INT64_MIN : INT64_MAX);
    return r->code ? (struct value){0} : value_slice(r, &of, from, to, step);
}

static struct value evaluate_name(const struct run *r, const struct node *x)
{
    const struct value *v = find_variable(r, x->name);
    return v ? *v
             : (struct value){
                   jinja_is_function(x->name) ? V_FUNCTION : V_UNDEFINED, x->name.bytes, {.name = x->name.text}};
}

static struct value evaluate_kind(struct run *r, const struct node *x)
{
    struct value a;
    switch (x->kind) {
    case N_VALUE:
        return x->value;
    case N_NAME:
        return evaluate_name(r, x);
    case N_LIST:
        return make_list(r, x->a);
    case N_DICT:
        return make_dict(r, x->a);
    case N_ATTRIBUTE:
        a = evaluate(r, x->a);
        return r->code ? a : value_member(r, &a, x->name);
    case N_ITEM: {
        a = evaluate(r, x->a);
        const struct value key = evaluate(r, x->b);
        return get_item(r, &a, &key);
    }
    case N_SLICE:
        return slice(r, x);
    case N_CALL:
        return call(r, x);
    case N_FILTER:
    case N_TEST:
        return apply(r, x);
    case N_NOT:
        a = evaluate(r, x->a);
        return value_int(V_BOOL, !value_true(&a));
    case N_NEGATE:
        a = evaluate(r, x->a);
        if (a.type != V_INT && a.type != V_BOOL)
            return run_fail(r, PLM_EINVAL, "'-' of what is not a number");
        return value_int(V_INT, -a.u.i);
    case N_BINARY:
        return binary(r, x);
    case N_AND:
        a = evaluate(r, x->a);
        return value_true(&a) ? evaluate(r, x->b) : a;
    case N_OR:
        a = evaluate(r, x->a);
        return value_true(&a) ? a : evaluate(r, x->b);
    case N_CHOICE:
        a = evaluate(r, x->a);
        return value_true(&a) ? evaluate(r, x->b) : x->c ? evaluate(r, x->c) : (struct value){0};
    default:
        return run_fail(r, PLM_EINTERNAL, "not an expression");
    }
}

/* Work on long texts counts as steps, too. */
static void charge(struct run *r, const struct value *v)
{
    r->steps += v->type == V_STRING || v->type == V_LIST ? (int64_t)(v->n / 64) : 0;
}

/* One step; false ends the run. */
static bool step(struct run *r, const struct node *x)
{
    if (r->code)
        return false;
    r->line = x->line;
    if (++r->steps > MOST_STEPS || r->depth >= MOST_DEPTH)
        run_fail(r, PLM_ELIMIT,
                 r->depth >= MOST_DEPTH ? "the template nests too deeply" : "the template does not come to an end");
    return !r->code;
}

static struct value evaluate(struct run *r, const struct node *x)
{
    if (!step(r, x))
        return (struct value){0};
    r->depth++;
    const struct value v = evaluate_kind(r, x);
    r->depth--;
    r->line = x->line;
    return r->code ? (struct value){0} : v;
}

/* --- statements --- */

static void put(struct run *r, const struct value *v)
{
    if (r->code || !v->n)
        return;
    if (r->capacity - r->n_out < v->n) {
        const size_t capacity = 2 * r->capacity + v->n + 256;
        jinja_byte *grown =
            capacity <= r->pool.limit / sizeof *grown ? realloc(r->out, capacity * sizeof *grown) : NULL;
        if (!grown) {
            run_out(r, capacity, sizeof *grown);
            return;
        }
        r->out = grown;
        r->capacity = capacity;
    }
    memcpy(r->out + r->n_out, v->u.s, v->n * sizeof *v->u.s);
    r->n_out += v->n;
}

/* What "for" runs over, as a list. */
static struct value items_of(struct run *r, struct value v)
{
    if (v.type == V_UNDEFINED)
        return (struct value){.type = V_LIST};
    if (v.type == V_DICT) {
        struct arguments a = {.v = {v}, .n = 1};
        return call_method(r, (struct name){"keys", 4}, &a);
    }
    if (v.type != V_LIST)
        return run_fail(r, v.type == V_STRING ? PLM_EUNSUPPORTED : PLM_EINVAL, "'for' runs over what is not a list");
    return v;
}

static void bind(struct run *r, const struct node *x, const struct value *item)
{
    if (!x->other.bytes) {
        set_variable(r, x->name, *item);
    } else if (item->type == V_LIST && item->n == 2) {
        set_variable(r, x->name, item->u.list[0]);
        set_variable(r, x->other, item->u.list[1]);
    } else {
        run_fail(r, PLM_EINVAL, "an element of the list is not a pair");
    }
}

enum { JUMP_BREAK = 1, JUMP_CONTINUE };

/* The items for which the condition holds. */
static struct value chosen(struct run *r, const struct node *x, struct value all)
{
    struct value *list = run_alloc(r, all.n + 1, sizeof *list);
    size_t n = 0;
    for (size_t i = 0; i < all.n && !r->code; i++) {
        const size_t before = r->n_variables;
        bind(r, x, &all.u.list[i]);
        const struct value is = evaluate(r, x->d);
        r->n_variables = before;
        if (!r->code && value_true(&is))
            list[n++] = all.u.list[i];
    }
    return (struct value){V_LIST, n, {.list = list}};
}

static void execute_for(struct run *r, const struct node *x, int *outer)
{
    const size_t n = r->n_variables, globals = r->globals;
    const bool nested = r->nested;
    struct value items = items_of(r, evaluate(r, x->a));
    int jump = 0;
    if (!nested)
        r->globals = n;
    r->nested = true;
    if (x->d && !r->code)
        items = chosen(r, x, items);
    struct loop *loop = run_alloc(r, 1, sizeof *loop);
    for (size_t i = 0; i < items.n && jump != JUMP_BREAK && step(r, x); i++) {
        jump = 0;
        *loop = (struct loop){items.u.list, items.n, i};
        set_variable(r, (struct name){"loop", 4}, (struct value){V_LOOP, 0, {.loop = loop}});
        bind(r, x, &items.u.list[i]);
        execute(r, x->b, &jump);
        r->n_variables = n;
    }
    r->nested = nested;
    r->globals = globals;
    if (items.n == 0 && x->c)
        execute(r, x->c, outer);
}

static void assign(struct run *r, const struct node *x, struct value v)
{
    if (!x->other.bytes) {
        set_variable(r, x->name, v);
        return;
    }
    const struct value *of = find_variable(r, x->name);
    if (!of || of->type != V_NAMESPACE)
        run_fail(r, PLM_EINVAL, "'%.*s' is not a namespace", (int)(x->name.bytes < 40 ? x->name.bytes : 40),
                 x->name.text);
    else
        dict_set(r, of->u.dict, value_text(r, x->other.text, x->other.bytes, JINJA_TEMPLATE), v);
}

static void execute_one(struct run *r, const struct node *x, int *jump)
{
    struct value v;
    size_t n;
    switch (x->kind) {
    case N_TEXT:
        put(r, &x->value);
        break;
    case N_OUTPUT:
        v = value_string(r, evaluate(r, x->a));
        put(r, &v);
        break;
    case N_IF:
        v = evaluate(r, x->a);
        execute(r, value_true(&v) ? x->b : x->c, jump);
        break;
    case N_GROUP:
        execute(r, x->b, jump);
        break;
    case N_FOR:
        execute_for(r, x, jump);
        break;
    case N_SET:
        assign(r, x, evaluate(r, x->a));
        break;
    case N_SET_BLOCK:
        n = r->n_out;
        execute(r, x->b, jump);
        assign(r, x, take_output(r, n));
        break;
    case N_MACRO:
        set_variable(r, x->name, (struct value){V_MACRO, 0, {.macro = x}});
        break;
    case N_BREAK:
        *jump = JUMP_BREAK;
        break;
    case N_CONTINUE:
        *jump = JUMP_CONTINUE;
        break;
    default:
        run_fail(r, PLM_EINTERNAL, "not a statement");
    }
}

static void execute(struct run *r, const struct node *x, int *jump)
{
    for (; x && !*jump && step(r, x); x = x->next) {
        r->depth++;
        execute_one(r, x, jump);
        r->depth--;
    }
}

/* --- the variables of a chat template --- */

static struct name word(const char *text)
{
    return (struct name){text, strlen(text)};
}

static void set_text(struct run *r, const char *name, const char *text)
{
    if (text)
        set_variable(r, word(name), value_text(r, text, strlen(text), JINJA_TEMPLATE));
}

static struct value message_value(struct run *r, const struct chat_message *m, uint32_t origin)
{
    static const char *const known[] = {"system", "user", "assistant", "tool"};
    struct dict *d = run_alloc(r, 1, sizeof *d);
    uint32_t role_origin = JINJA_ROLE;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        role_origin = strcmp(m->role, known[i]) ? role_origin : JINJA_TEMPLATE;
    dict_set(r, d, value_text(r, "role", 4, JINJA_TEMPLATE), value_text(r, m->role, strlen(m->role), role_origin));
    dict_set(r, d, value_text(r, "content", 7, JINJA_TEMPLATE), value_text(r, m->content, m->content_bytes, origin));
    return (struct value){V_DICT, 0, {.dict = d}};
}

int jinja_render(const struct jinja *t, const struct jinja_input *input, jinja_byte **out, size_t *length,
                 struct plm_status *st)
{
    struct run r = {.t = t, .st = st, .line = 1, .pool.limit = MEMORY};
    int jump = 0;
    *out = NULL;
    for (int i = 0; i < input->n; i++) {
        const size_t bytes = input->messages[i].content_bytes;
        r.pool.limit += bytes < SIZE_MAX / MEMORY_PER_BYTE - r.pool.limit ? bytes * MEMORY_PER_BYTE : 0;
    }
    if (input->n >= JINJA_ROLE - 1)
        return status_set(st, PLM_ELIMIT, "a conversation of %d messages", input->n);
    struct value *messages = run_alloc(&r, (size_t)input->n + 1, sizeof *messages);
    for (int i = 0; i < input->n && !r.code; i++)
        messages[i] = message_value(&r, &input->messages[i], (uint32_t)i + 1);
    set_variable(&r, word("messages"), (struct value){V_LIST, (size_t)input->n, {.list = messages}});
    set_variable(&r, word("add_generation_prompt"), value_int(V_BOOL, input->generation));
    set_variable(&r, word("tools"), (struct value){.type = V_NONE});
    set_variable(&r, word("documents"), (struct value){.type = V_NONE});
    set_text(&r, "bos_token", input->bos);
    set_text(&r, "eos_token", input->eos);
    execute(&r, t->body, &jump);
    pool_free(&r.pool);
    if (r.code) {
        free(r.out);
        return r.code;
    }
    *out = r.out;
    *length = r.n_out;
    return PLM_OK;
}
