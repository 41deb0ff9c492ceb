#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/report.h"

/* Neighbouring points of a curve. */
struct bucket {
    int64_t first, last; /* steps */
    int64_t round;       /* of the last one; -1: none */
    double low, high, sum;
    int64_t values;      /* finite ones; the others are gaps */
};

struct curve {
    char *eval, *key;
    int64_t turn;
    bool of_round;
    struct bucket *buckets; /* (n), capacity grows up to REPORT_POINTS */
    int n, capacity;
    int64_t width, in_last; /* points of a full bucket, and of the last one */
    int64_t gaps;
    double last;            /* the last finite value; NAN: none */
};

struct report_curves {
    struct curve *curves; /* (n) */
    int n, capacity, hint;
};

struct report_curves *report_curves_create(void)
{
    return calloc(1, sizeof(struct report_curves));
}

void report_curves_free(struct report_curves *c)
{
    for (int i = 0; c && i < c->n; i++) {
        free(c->curves[i].eval);
        free(c->curves[i].key);
        free(c->curves[i].buckets);
    }
    if (c)
        free(c->curves);
    free(c);
}

static bool is_curve(const struct curve *c, const struct report_curve_id *id)
{
    return c->turn == id->turn && c->of_round == id->of_round && !strcmp(c->key, id->key) && (c->eval && id->eval ? !strcmp(c->eval, id->eval) : !c->eval && !id->eval);
}

/* Rows of one kind follow each other: the search begins behind the curve of the last point. */
static struct curve *find(struct report_curves *c, const struct report_curve_id *id)
{
    for (int i = 0; i < c->n; i++) {
        const int k = (c->hint + i) % c->n;
        if (is_curve(&c->curves[k], id)) {
            c->hint = k + 1;
            return &c->curves[k];
        }
    }
    return NULL;
}

static int begin(struct report_curves *c, const struct report_curve_id *id, struct curve **out, struct plm_status *st)
{
    if (c->n == c->capacity) {
        const int capacity = c->capacity ? 2 * c->capacity : 32;
        struct curve *curves = realloc(c->curves, (size_t)capacity * sizeof *curves);
        if (!curves)
            return status_no_memory(st, (size_t)capacity * sizeof *curves, "the curves of a run");
        c->curves = curves;
        c->capacity = capacity;
    }
    struct curve *curve = &c->curves[c->n++];
    *curve = (struct curve){.turn = id->turn, .of_round = id->of_round, .key = strdup(id->key), .eval = id->eval ? strdup(id->eval) : NULL, .width = 1, .last = NAN};
    *out = curve;
    return curve->key && (curve->eval || !id->eval) ? PLM_OK : status_no_memory(st, strlen(id->key), "the name of a curve");
}

static void merge(struct bucket *into, const struct bucket *b)
{
    into->low = fmin(into->low, b->low); /* of a gap: NAN, which fmin and fmax leave out */
    into->high = fmax(into->high, b->high);
    into->sum += b->sum;
    into->values += b->values;
    into->last = b->last;
    into->round = b->round;
}

static void halve(struct curve *c)
{
    const int pairs = c->n / 2, odd = c->n % 2;
    for (int i = 0; i < pairs; i++) {
        const struct bucket right = c->buckets[2 * i + 1];
        c->buckets[i] = c->buckets[2 * i];
        merge(&c->buckets[i], &right);
    }
    if (odd)
        c->buckets[pairs] = c->buckets[c->n - 1];
    c->in_last = odd ? c->width : 2 * c->width;
    c->width *= 2;
    c->n = pairs + odd;
}

static int add(struct curve *c, int64_t step, int64_t round, double value, struct plm_status *st)
{
    const bool finite = isfinite(value);
    const struct bucket point = {step, step, round, finite ? value : NAN, finite ? value : NAN, finite ? value : 0, finite};
    c->gaps += !finite;
    if (finite)
        c->last = value;
    if (c->n == REPORT_POINTS && c->in_last == c->width)
        halve(c);
    if (c->n > 0 && c->in_last < c->width) {
        merge(&c->buckets[c->n - 1], &point);
        c->in_last++;
        return PLM_OK;
    }
    if (c->n == c->capacity) {
        const int capacity = c->capacity == 0 ? 64 : c->capacity < REPORT_POINTS / 2 ? 2 * c->capacity : REPORT_POINTS;
        struct bucket *buckets = realloc(c->buckets, (size_t)capacity * sizeof *buckets);
        if (!buckets)
            return status_no_memory(st, (size_t)capacity * sizeof *buckets, "the points of a curve");
        c->buckets = buckets;
        c->capacity = capacity;
    }
    c->buckets[c->n++] = point;
    c->in_last = 1;
    return PLM_OK;
}

int report_curves_add(struct report_curves *c, const struct report_curve_id *id, int64_t step, int64_t round, double value, bool *full, struct plm_status *st)
{
    struct curve *curve = find(c, id);
    if (!curve && c->n == REPORT_CURVES) {
        *full = true;
        return PLM_OK;
    }
    int code = curve ? PLM_OK : begin(c, id, &curve, st);
    return code ? code : add(curve, step, round, value, st);
}

/* Whole numbers as such: counts and steps stay exact where a real is printed with few digits. */
static json_t *number(double x)
{
    if (!isfinite(x))
        return json_null();
    return x == floor(x) && fabs(x) < 9e15 ? json_integer((json_int_t)x) : json_real(x);
}

static double middle(const struct bucket *b)
{
    return (double)b->first + ((double)b->last - (double)b->first) / 2;
}

/* Rows of one kind have curves at the same steps: one list serves them. Takes the list. */
static json_t *list_index(json_t *lists, json_t *list)
{
    size_t i;
    json_t *other;
    json_array_foreach(lists, i, other)
        if (json_equal(other, list))
            break;
    if (i == json_array_size(lists))
        json_array_append(lists, list);
    json_decref(list);
    return json_integer((json_int_t)i);
}

static json_t *curve_json(const struct curve *c, json_t *lists)
{
    json_t *v = json_object(), *steps = json_array(), *rounds = json_array(), *y = json_array(), *low = json_array(), *high = json_array();
    bool has_rounds = true;
    for (int i = 0; i < c->n; i++) {
        const struct bucket *b = &c->buckets[i];
        has_rounds = has_rounds && b->round >= 0;
        json_array_append_new(steps, number(middle(b)));
        json_array_append_new(rounds, json_integer(b->round));
        json_array_append_new(y, number(b->values ? b->sum / (double)b->values : NAN));
        json_array_append_new(low, number(b->low));
        json_array_append_new(high, number(b->high));
    }
    json_object_set_new(v, "key", json_string(c->key));
    if (c->eval)
        json_object_set_new(v, "eval", json_string(c->eval));
    if (c->turn >= 0)
        json_object_set_new(v, "turn", json_integer(c->turn));
    if (c->of_round)
        json_object_set_new(v, "of_round", json_true());
    json_object_set_new(v, "x", list_index(lists, steps));
    if (has_rounds)
        json_object_set_new(v, "round", list_index(lists, json_incref(rounds)));
    json_object_set_new(v, "y", y);
    json_object_set_new(v, "width", json_integer(c->width));
    if (c->width > 1) {
        json_object_set(v, "low", low);
        json_object_set(v, "high", high);
    }
    json_object_set_new(v, "gaps", json_integer(c->gaps));
    json_object_set_new(v, "last", number(c->last));
    json_decref(rounds);
    json_decref(low);
    json_decref(high);
    return v;
}

int report_curves_json(const struct report_curves *c, json_t *run, struct plm_status *st)
{
    json_t *lists = json_array(), *curves = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(curves, curve_json(&c->curves[i], lists));
    if (json_array_size(curves) != (size_t)c->n || json_object_set(run, "x", lists) || json_object_set(run, "curves", curves)) {
        json_decref(lists);
        json_decref(curves);
        return status_no_memory(st, 0, "the curves of a run");
    }
    json_decref(lists);
    json_decref(curves);
    return PLM_OK;
}
