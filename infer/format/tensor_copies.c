#include "infer/format/tensor_copies.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more copy; NULL when there is none. */
static void *add(struct tensor_copies *c, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    if (copy && (c->n & (c->n - 1)) == 0) { /* powers of two: the list is full */
        void **data = realloc(c->data, (c->n ? 2 * (size_t)c->n : 1) * sizeof *data);
        if (!data) {
            free(copy);
            return NULL;
        }
        c->data = data;
    }
    if (copy) {
        c->data[c->n++] = copy;
        c->bytes += bytes;
    }
    return copy;
}

int tensor_copy_aligned(struct tensor_copies *c, struct stored_tensor *t, struct plm_status *st)
{
    if ((uintptr_t)t->data % dtype_alignment(t->type) == 0)
        return PLM_OK;
    void *copy = add(c, t->bytes);
    if (!copy)
        return status_no_memory(st, t->bytes, t->name);
    if (t->bytes)
        memcpy(copy, t->data, t->bytes);
    t->data = copy;
    t->copied = true;
    return PLM_OK;
}

int tensor_copy_narrowed(struct tensor_copies *c, struct stored_tensor *t, struct plm_status *st)
{
    const size_t n = t->bytes / sizeof(double);
    float *copy = add(c, n * sizeof *copy);
    if (!copy)
        return status_no_memory(st, n * sizeof *copy, t->name);
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, (const char *)t->data + i * sizeof value, sizeof value);
        copy[i] = (float)value;
    }
    t->data = copy;
    t->copied = true;
    t->bytes = n * sizeof *copy;
    t->type = DTYPE_F32;
    return PLM_OK;
}

void tensor_copies_free(struct tensor_copies *c)
{
    for (int i = 0; i < c->n; i++)
        free(c->data[i]);
    free(c->data);
    *c = (struct tensor_copies){0};
}
