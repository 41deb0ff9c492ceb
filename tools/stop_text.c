#include "tools/stop_text.h"

#include <stdlib.h>
#include <string.h>

int stop_text_add(struct stop_text *t, const char *bytes, size_t n, bool *stopped, struct plm_status *st)
{
    *stopped = false;
    if (t->length + n > t->capacity) {
        const size_t capacity = 2 * (t->length + n) + 256;
        char *grown = realloc(t->data, capacity);
        if (!grown)
            return status_no_memory(st, capacity, "a text");
        t->data = grown;
        t->capacity = capacity;
    }
    const size_t old = t->length;
    size_t cut = old + n;
    if (n)
        memcpy(t->data + old, bytes, n);
    t->length += n;
    for (int i = 0; i < t->n_stops && n; i++) {
        const size_t stop = strlen(t->stops[i]), from = old >= stop - 1 ? old - (stop - 1) : 0;
        const char *hit = memmem(t->data + from, t->length - from, t->stops[i], stop);
        if (hit && (!*stopped || (size_t)(hit - t->data) < cut)) {
            cut = (size_t)(hit - t->data);
            *stopped = true;
        }
    }
    t->length = cut;
    return PLM_OK;
}

size_t stop_text_certain(const struct stop_text *t)
{
    size_t held = 0; /* longest end of the text that begins a stop string */
    for (int i = 0; i < t->n_stops; i++)
        for (size_t n = strlen(t->stops[i]) - 1; n > held; n--)
            if (n <= t->length && !memcmp(t->data + t->length - n, t->stops[i], n))
                held = n;
    return t->length - held;
}

void stop_text_drop(struct stop_text *t, size_t n)
{
    if (n)
        memmove(t->data, t->data + n, t->length - n);
    t->length -= n;
}
