#include "data/arithmetic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "infer/base/random.h"

/* In templates: {N} and {M} two people, {h} {H} {m} he, He, him for {N}, {o} the things, {a} and {b} numbers. */
struct frame {
    const char *opening, *more[3], *fewer[3], *question;
};

/* A story of any number of steps: an opening, what happens, the question. */
static const struct frame frames[] = {
    {"{N} has {a} {o}. ",
     {"{H} buys {b} more. ", "{M} gives {m} {b} more. ", "{H} finds {b} {o}. "},
     {"{H} gives {b} to {M}. ", "{H} sells {b} of them. ", "{H} loses {b} {o}. "},
     "How many {o} does {h} have now?"},
    {"There are {a} {o} in a box. ",
     {"{N} puts in {b} more. ", "{N} adds {b} {o}. ", "{b} more come in. "},
     {"{N} takes out {b}. ", "{b} {o} are taken out. ", "{b} of them are sold. "},
     "How many {o} are in the box now?"},
    {"A shop has {a} {o}. ",
     {"It gets {b} more. ", "A truck brings {b} {o}. ", "{N} brings {b} back. "},
     {"It sells {b}. ", "{N} buys {b} of them. ", "{b} {o} are broken. "},
     "How many {o} does the shop have now?"},
};

/* Questions of one step. */
static const char *const sums[] = {
    "{N} has {a} {o} and {M} has {b}. How many {o} do they have together?",
    "{N} counts {a} {o} on Monday and {b} on Tuesday. How many {o} does {h} count in all?",
    "There are {a} red {o} and {b} blue {o}. How many {o} are there?",
};
static const char *const differences[] = {
    "{N} has {a} {o} and {M} has {b}. How many more {o} does {N} have than {M}?",
    "{N} needs {a} {o} and has {b}. How many more {o} does {h} need?",
    "{b} of {a} {o} are red. How many {o} are not red?",
};

/* Two steps of which the second uses the first number again. */
static const char *const together[] = {
    "{N} has {a} {o}. {M} has {b} {c} than {N}. How many {o} do they have together?",
    "{N} counts {a} {o} on Monday and {b} {c} than that on Tuesday. How many {o} does {h} count in all?",
};

static const char *const names[] = { /* men first */
    "Tom", "Ben", "Sam", "Max", "Leo", "Paul", "Omar", "Ivan", "Anna", "Mia", "Lucy", "Emma", "Sara", "Rosa", "Jane", "Nora",
};
static const char *const things[] = {
    "pens", "books", "apples", "coins", "cards", "stamps", "eggs", "marbles", "shells", "pears", "nails", "cups", "toys", "plates", "keys", "roses",
};

enum {
    N_FRAMES = sizeof frames / sizeof *frames,
    N_NAMES = sizeof names / sizeof *names,
    N_MEN = N_NAMES / 2,
    N_THINGS = sizeof things / sizeof *things,
    DRAW_BITS = 24,   /* random numbers of one problem */
    MAX_TRIES = 1 << 18, /* numbers drawn until the steps are in the split: a problem of the smallest split needs 400 to 1,600 */
};

struct generator {
    const struct arithmetic_options *o;
    uint64_t next; /* counter of the random numbers */
};

static uint32_t draw(struct generator *g, uint32_t n)
{
    const uint64_t r = random_u64(g->o->seed, RANDOM_ARITHMETIC, (uint32_t)g->o->split, g->next++);
    return (uint32_t)((r >> 32) * n >> 32);
}

const char *arithmetic_split_name(enum arithmetic_split split)
{
    static const char *const split_names[ARITHMETIC_N_SPLITS] = {"train", "valid", "test"};
    return split_names[split];
}

const char *arithmetic_slip_name(enum arithmetic_slip slip)
{
    static const char *const slip_names[ARITHMETIC_N_SLIPS] = {"carry", "ten", "unit", "operation", "stopped"};
    return slip_names[slip];
}

int arithmetic_split_parse(enum arithmetic_split *split, const char *name, struct plm_status *st)
{
    for (int i = 0; i < ARITHMETIC_N_SPLITS; i++)
        if (!strcmp(name, arithmetic_split_name((enum arithmetic_split)i))) {
            *split = (enum arithmetic_split)i;
            return PLM_OK;
        }
    return status_set(st, PLM_EINVAL, "the split is '%.40s', expected train, valid or test", name);
}

enum arithmetic_split arithmetic_fact_split(int64_t a, int64_t b)
{
    const uint64_t low = (uint64_t)(a < b ? a : b), high = (uint64_t)(a < b ? b : a);
    const uint64_t r = random_u64(0, RANDOM_ARITHMETIC, ARITHMETIC_N_SPLITS, low << 32 | high) >> 32;
    const uint32_t percent = (uint32_t)(r * 100 >> 32);
    return percent < 90 ? ARITHMETIC_TRAIN : percent < 95 ? ARITHMETIC_VALID : ARITHMETIC_TEST;
}

/* ---- the numbers ---- */

static int64_t draw_number(struct generator *g)
{
    int64_t least = 1;
    for (int d = g->o->min_digits + (int)draw(g, (uint32_t)(g->o->max_digits - g->o->min_digits + 1)); d > 1; d--)
        least *= 10;
    return least + draw(g, (uint32_t)(9 * least));
}

static struct arithmetic_step step_of(int64_t left, char op, int64_t right)
{
    return (struct arithmetic_step){left, right, op == '+' ? left + right : left - right, op};
}

static bool step_fits(const struct arithmetic_step *s, enum arithmetic_split split)
{
    return s->result >= 1 && arithmetic_fact_split(s->op == '+' ? s->left : s->result, s->right) == split;
}

/* Numbers for the drawn operations. `again`: the second step adds the first number once more. */
static bool draw_steps(struct generator *g, struct arithmetic_problem *p, const char *ops, bool again)
{
    const uint64_t last = g->next + MAX_TRIES;
    while (g->next < last) {
        const int64_t left = draw_number(g), right = draw_number(g);
        p->steps[0] = step_of(left, ops[0], right);
        bool fits = step_fits(&p->steps[0], g->o->split);
        for (int i = 1; i < p->n_steps && fits; i++) {
            fits = false;
            /* some tries only: after a small result there may be nothing to subtract */
            for (int tries = again ? 1 : 200; tries > 0 && !fits; tries--) {
                p->steps[i] = step_of(p->steps[i - 1].result, ops[i], again ? p->steps[0].left : draw_number(g));
                fits = step_fits(&p->steps[i], g->o->split);
            }
        }
        if (fits) {
            p->answer = p->steps[p->n_steps - 1].result;
            return true;
        }
    }
    return false;
}

/* ---- the texts ---- */

struct text {
    char *data; /* (size), NUL-terminated; what does not fit is cut, which the sizes of struct arithmetic_problem rule out */
    size_t size, length;
};

static void append(struct text *t, const char *fmt, ...) PLM_PRINTF(2, 3);
static void append(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(t->data + t->length, t->size - t->length, fmt, args);
    va_end(args);
    const size_t room = t->size - t->length - 1;
    t->length += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room;
}

struct story {
    uint32_t person, other, thing;
    int64_t a, b;
    const char *comparison; /* "more" or "fewer" */
};

static void tell(struct text *t, const char *template, const struct story *s)
{
    const bool man = s->person < N_MEN;
    for (const char *c = template; *c; c++) {
        if (*c != '{') {
            append(t, "%c", *c);
            continue;
        }
        switch (c[1]) {
        case 'N': append(t, "%s", names[s->person]); break;
        case 'M': append(t, "%s", names[s->other]); break;
        case 'h': append(t, "%s", man ? "he" : "she"); break;
        case 'H': append(t, "%s", man ? "He" : "She"); break;
        case 'm': append(t, "%s", man ? "him" : "her"); break;
        case 'o': append(t, "%s", things[s->thing]); break;
        case 'c': append(t, "%s", s->comparison); break;
        case 'a': append(t, "%lld", (long long)s->a); break;
        default: append(t, "%lld", (long long)s->b); break;
        }
        c += 2;
    }
}

static void write_question(struct generator *g, struct arithmetic_problem *p, bool again)
{
    struct text t = {p->question, sizeof p->question, 0};
    struct story s = {.a = p->steps[0].left, .b = p->steps[0].right, .comparison = p->steps[0].op == '+' ? "more" : "fewer"};
    s.person = draw(g, N_NAMES);
    s.thing = draw(g, N_THINGS);
    s.other = (s.person + 1 + draw(g, N_NAMES - 1)) % N_NAMES;
    if (again) {
        tell(&t, together[draw(g, sizeof together / sizeof *together)], &s);
        return;
    }
    enum { N_SINGLE = sizeof sums / sizeof *sums };
    _Static_assert(sizeof sums == sizeof differences, "drawn by the same number");
    const uint32_t form = draw(g, p->n_steps == 1 ? N_FRAMES + N_SINGLE : N_FRAMES);
    if (form >= N_FRAMES) {
        tell(&t, (p->steps[0].op == '+' ? sums : differences)[form - N_FRAMES], &s);
        return;
    }
    tell(&t, frames[form].opening, &s);
    for (int i = 0; i < p->n_steps; i++) {
        s.b = p->steps[i].right;
        tell(&t, (p->steps[i].op == '+' ? frames[form].more : frames[form].fewer)[draw(g, 3)], &s);
    }
    tell(&t, frames[form].question, &s);
}

/* One calculation digit by digit. The digits of the result are written as the step has them: a slip shows in the column it happened in. */
static void write_columns(struct text *t, const struct arithmetic_step *s, int width)
{
    int64_t a = s->left, b = s->right, rest = s->result;
    int columns = 1, carry = 0;
    for (int64_t ten = 10; ten <= a || ten <= b; ten *= 10)
        columns++;
    columns = columns < width ? width : columns;
    append(t, "%0*lld%c%0*lld\n", width, (long long)a, s->op, width, (long long)b);
    for (int i = 0; i < columns; i++, a /= 10, b /= 10, rest /= 10) {
        const int x = (int)(a % 10), y = (int)(b % 10), out = s->op == '+' ? x + y + carry >= 10 : x - y - carry < 0;
        append(t, "%d%c%d%c%d=", x, s->op, y, s->op, carry);
        if (i + 1 == columns)
            append(t, "%02lld\n", (long long)rest); /* the last column has what is left */
        else
            append(t, "%d%d\n", out, (int)(rest % 10));
        carry = out;
    }
}

static void write_solution(char *to, size_t size, const struct arithmetic_step *steps, int n, const struct arithmetic_options *o)
{
    struct text t = {to, size, 0};
    for (int i = 0; i < n; i++)
        if (o->columns)
            write_columns(&t, &steps[i], o->width);
        else
            append(&t, "%0*lld%c%0*lld=%0*lld\n", o->width, (long long)steps[i].left, steps[i].op, o->width, (long long)steps[i].right, o->width,
                   (long long)steps[i].result);
    append(&t, "#### %lld", (long long)steps[n - 1].result);
}

/* ---- wrong solutions ---- */

/* The result with one carry (borrow) forgotten, of one drawn among those there are, or with one too many. */
static int64_t carry_slip(struct generator *g, const struct arithmetic_step *s)
{
    const int64_t a = s->op == '+' ? s->left : s->result; /* a borrow of c - b is a carry of a + b = c */
    int64_t places[ARITHMETIC_MAX_DIGITS + 2];
    uint32_t n = 0;
    for (int64_t ten = 10; ten <= a + s->right; ten *= 10)
        if (a % ten + s->right % ten >= ten)
            places[n++] = ten;
    const int sign = s->op == '+' ? 1 : -1;
    if (n)
        return s->result - sign * places[draw(g, n)];
    return s->result + sign * 10;
}

static int64_t slip_result(struct generator *g, const struct arithmetic_step *s, enum arithmetic_slip slip)
{
    const int64_t sign = draw(g, 2) ? 1 : -1;
    switch (slip) {
    case SLIP_CARRY: return carry_slip(g, s);
    case SLIP_TEN: return s->result + sign * (s->result >= 100 && draw(g, 2) ? 100 : 10);
    case SLIP_UNIT: return s->result + sign * (1 + draw(g, 2));
    default: return s->result;
    }
}

/* A solution with one slip: false when this slip leads to no other answer, or to a number below 1. */
static bool write_wrong(struct generator *g, struct arithmetic_problem *p, enum arithmetic_slip slip)
{
    struct arithmetic_step steps[ARITHMETIC_MAX_STEPS];
    const int at = (int)draw(g, (uint32_t)p->n_steps);
    int n = p->n_steps;
    memcpy(steps, p->steps, sizeof steps);
    if (slip == SLIP_STOPPED)
        n--;
    else if (slip == SLIP_OPERATION)
        steps[at] = step_of(steps[at].left, steps[at].op == '+' ? '-' : '+', steps[at].right);
    else
        steps[at].result = slip_result(g, &steps[at], slip);
    for (int i = at + 1; i < n; i++)
        steps[i] = step_of(steps[i - 1].result, steps[i].op, steps[i].right);
    for (int i = 0; i < n; i++)
        if (steps[i].result < 1)
            return false;
    if (n == 0 || steps[n - 1].result == p->answer)
        return false;
    write_solution(p->wrong, sizeof p->wrong, steps, n, g->o);
    p->slip = slip;
    return true;
}

int arithmetic_generate(const struct arithmetic_options *o, uint64_t index, struct arithmetic_problem *p, struct plm_status *st)
{
    if (o->min_digits < 1 || o->max_digits < o->min_digits || o->max_digits > ARITHMETIC_MAX_DIGITS)
        return status_set(st, PLM_EINVAL, "numbers of %d to %d digits, expected 1 to %d", o->min_digits, o->max_digits, ARITHMETIC_MAX_DIGITS);
    if (o->min_steps < 1 || o->max_steps < o->min_steps || o->max_steps > ARITHMETIC_MAX_STEPS)
        return status_set(st, PLM_EINVAL, "%d to %d steps, expected 1 to %d", o->min_steps, o->max_steps, ARITHMETIC_MAX_STEPS);
    if (o->width < 0 || o->width > ARITHMETIC_MAX_WIDTH)
        return status_set(st, PLM_EINVAL, "solutions %d digits wide, expected 0 to %d", o->width, ARITHMETIC_MAX_WIDTH);
    if (index >> (64 - DRAW_BITS))
        return status_set(st, PLM_EINVAL, "problem number %llu, expected a number below 2^%d", (unsigned long long)index, 64 - DRAW_BITS);
    struct generator g = {o, index << DRAW_BITS};
    memset(p, 0, sizeof *p);
    p->n_steps = o->min_steps + (int)draw(&g, (uint32_t)(o->max_steps - o->min_steps + 1));
    char ops[ARITHMETIC_MAX_STEPS];
    for (int i = 0; i < ARITHMETIC_MAX_STEPS; i++)
        ops[i] = draw(&g, 2) ? '+' : '-';
    const bool again = p->n_steps > 1 && draw(&g, 4) == 0;
    if (again)
        ops[1] = '+';
    if (!draw_steps(&g, p, ops, again))
        return status_set(st, PLM_ELIMIT, "no problem of numbers of %d to %d digits is in the split '%s': allow more digits", o->min_digits,
                          o->max_digits, arithmetic_split_name(o->split));
    write_question(&g, p, again);
    write_solution(p->solution, sizeof p->solution, p->steps, p->n_steps, o);
    /* a slip in the last digits is possible with every result */
    enum arithmetic_slip slip = (enum arithmetic_slip)draw(&g, ARITHMETIC_N_SLIPS);
    while (!write_wrong(&g, p, slip))
        slip = SLIP_UNIT;
    return PLM_OK;
}
