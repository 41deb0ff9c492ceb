#include "tools/stop_text.h"

#include <stdlib.h>
#include <string.h>

void stop_text_free(struct stop_text *t)
{
    free(t->data);
    free(t->tail);
    free(t->shown);
    t->data = t->tail = NULL;
    t->shown = NULL;
    t->capacity = t->tail_capacity = 0;
    stop_text_clear(t);
}

void stop_text_clear(struct stop_text *t)
{
    t->length = t->n_tail = t->dropped = 0;
}

static int reserve(struct stop_text *t, size_t more, struct plm_status *st)
{
    if (t->length + more > t->capacity) {
        const size_t capacity = 2 * (t->length + more) + 256;
        char *data = realloc(t->data, capacity);
        if (!data)
            return status_no_memory(st, capacity, "a text");
        t->data = data;
        t->capacity = capacity;
    }
    if (t->n_stops && t->n_tail + more > t->tail_capacity) {
        const size_t capacity = 2 * (t->n_tail + more) + 64;
        char *tail = realloc(t->tail, capacity);
        t->tail = tail ? tail : t->tail;
        size_t *shown = realloc(t->shown, capacity * sizeof *shown);
        t->shown = shown ? shown : t->shown;
        if (!tail || !shown)
            return status_no_memory(st, capacity * (1 + sizeof *shown), "a text");
        t->tail_capacity = capacity;
    }
    return PLM_OK;
}

static size_t longest_stop(const struct stop_text *t)
{
    size_t longest = 1;
    for (int i = 0; i < t->n_stops; i++)
        longest = strlen(t->stops[i]) > longest ? strlen(t->stops[i]) : longest;
    return longest;
}

int stop_text_add(struct stop_text *t, const char *bytes, size_t n, bool hidden, bool *stopped, struct plm_status *st)
{
    *stopped = false;
    const int code = n ? reserve(t, n, st) : PLM_OK;
    if (code || !n)
        return code;
    const size_t old = t->n_tail, begin = t->dropped + t->length;
    if (!hidden) {
        memcpy(t->data + t->length, bytes, n);
        t->length += n;
    }
    if (!t->n_stops)
        return PLM_OK;
    memcpy(t->tail + old, bytes, n);
    for (size_t i = 0; i < n; i++)
        t->shown[old + i] = begin + (hidden ? 0 : i);
    t->n_tail += n;
    size_t cut = t->n_tail;
    for (int i = 0; i < t->n_stops; i++) {
        const size_t stop = strlen(t->stops[i]), from = old >= stop - 1 ? old - (stop - 1) : 0;
        const char *hit = memmem(t->tail + from, t->n_tail - from, t->stops[i], stop);
        if (hit && (size_t)(hit - t->tail) < cut) {
            cut = (size_t)(hit - t->tail);
            *stopped = true;
        }
    }
    if (*stopped) /* what is dropped already was certain: no stop string begins in it */
        t->length = t->shown[cut] - t->dropped;
    const size_t keep = longest_stop(t) - 1, gone = t->n_tail > keep ? t->n_tail - keep : 0;
    memmove(t->tail, t->tail + gone, t->n_tail - gone);
    memmove(t->shown, t->shown + gone, (t->n_tail - gone) * sizeof *t->shown);
    t->n_tail -= gone;
    return PLM_OK;
}

size_t stop_text_certain(const struct stop_text *t)
{
    size_t held = 0; /* longest end of the whole text that begins a stop string */
    for (int i = 0; i < t->n_stops; i++)
        for (size_t n = strlen(t->stops[i]) - 1; n > held; n--)
            if (n <= t->n_tail && !memcmp(t->tail + t->n_tail - n, t->stops[i], n))
                held = n;
    return held ? t->shown[t->n_tail - held] - t->dropped : t->length;
}

void stop_text_drop(struct stop_text *t, size_t n)
{
    if (n)
        memmove(t->data, t->data + n, t->length - n);
    t->length -= n;
    t->dropped += n;
}
