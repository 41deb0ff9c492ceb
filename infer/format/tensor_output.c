#include "infer/format/tensor_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/output.h"

#define BUFFER_BYTES ((size_t)1 << 18)

int tensor_output_open(struct tensor_output *o, const char *path, uint64_t alignment, struct plm_status *st)
{
    *o = (struct tensor_output){.fd = -1, .alignment = alignment};
    o->path = strdup(path);
    o->buffer = malloc(BUFFER_BYTES);
    if (!o->path || !o->buffer) {
        tensor_output_discard(o);
        return status_no_memory(st, BUFFER_BYTES, path);
    }
    struct stat info;
    int code = output_create(&o->fd, path, st);
    if (!code && fstat(o->fd, &info) != 0)
        code = status_set(st, PLM_EIO, "cannot create '%s': %s", path, strerror(errno));
    if (code) {
        tensor_output_discard(o);
        return code;
    }
    o->regular = S_ISREG(info.st_mode);
    return PLM_OK;
}

int tensor_output_status(const struct tensor_output *o, struct plm_status *st)
{
    if (o->error.code && st)
        *st = o->error;
    return (int)o->error.code;
}

/* Bytes of the tensor's data, false when they do not fit 63 bits or a row is not in whole blocks. */
static bool declared_bytes(struct declared_tensor *t)
{
    const struct dtype_info *info = dtype_info(t->type);
    uint64_t elements = 1;
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] < 0 || __builtin_mul_overflow(elements, (uint64_t)t->shape[i], &elements))
            return false;
    int64_t row = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    return row % info->block_elements == 0 &&
           !__builtin_mul_overflow(elements / (uint64_t)info->block_elements, (uint64_t)info->block_bytes, &t->bytes) &&
           t->bytes <= INT64_MAX;
}

int tensor_output_declare(struct tensor_output *o, const char *name, enum dtype type, int n_dims, const int64_t *shape)
{
    if (o->error.code)
        return (int)o->error.code;
    if (o->started)
        return status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' is declared after the first data were written", o->path,
                          name);
    if (!dtype_info(type))
        return status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' has no valid type (%d)", o->path, name, (int)type);
    if (n_dims < 0 || n_dims > TENSOR_MAX_DIMS)
        return status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' has %d dimensions; 0 to %d are possible", o->path, name,
                          n_dims, TENSOR_MAX_DIMS);
    struct declared_tensor t = {.type = type, .n_dims = n_dims};
    if (n_dims)
        memcpy(t.shape, shape, (size_t)n_dims * sizeof *shape);
    t.offset = (o->data_bytes + o->alignment - 1) / o->alignment * o->alignment;
    if (!declared_bytes(&t) || t.bytes > INT64_MAX - t.offset)
        return status_set(&o->error, PLM_EINVAL,
                          "'%s': tensor '%s' has a negative or too large dimension, or rows that are not "
                          "whole blocks of %d elements (%s)",
                          o->path, name, dtype_info(type)->block_elements, dtype_info(type)->name);
    if (o->n_tensors == o->capacity) {
        int capacity = o->capacity ? 2 * o->capacity : 64;
        struct declared_tensor *tensors = realloc(o->tensors, (size_t)capacity * sizeof *tensors);
        if (!tensors)
            return status_no_memory(&o->error, (size_t)capacity * sizeof *tensors, o->path);
        o->tensors = tensors;
        o->capacity = capacity;
    }
    t.name = strdup(name);
    if (!t.name)
        return status_no_memory(&o->error, strlen(name), o->path);
    o->tensors[o->n_tensors++] = t;
    o->data_bytes = t.offset + t.bytes;
    return PLM_OK;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int tensor_output_check_names(struct tensor_output *o)
{
    if (o->error.code || o->n_tensors == 0)
        return (int)o->error.code;
    const char **names = malloc((size_t)o->n_tensors * sizeof *names);
    if (!names)
        return status_no_memory(&o->error, (size_t)o->n_tensors * sizeof *names, o->path);
    for (int i = 0; i < o->n_tensors; i++)
        names[i] = o->tensors[i].name;
    qsort(names, (size_t)o->n_tensors, sizeof *names, name_compare);
    for (int i = 1; i < o->n_tensors && !o->error.code; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' is declared twice", o->path, names[i]);
    free(names);
    return (int)o->error.code;
}

static int write_all(struct tensor_output *o, const unsigned char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(o->fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return status_set(&o->error, PLM_EIO, "cannot write '%s' at byte %llu: %s", o->path,
                              (unsigned long long)(o->position - bytes), strerror(n < 0 ? errno : EIO));
        data += n;
        bytes -= (size_t)n;
    }
    return PLM_OK;
}

static int flush(struct tensor_output *o)
{
    size_t bytes = o->buffered;
    o->buffered = 0;
    return write_all(o, o->buffer, bytes);
}

int tensor_output_put(struct tensor_output *o, const void *data, size_t bytes)
{
    if (o->error.code)
        return (int)o->error.code;
    if (bytes > BUFFER_BYTES - o->buffered && flush(o))
        return (int)o->error.code;
    o->position += bytes;
    if (bytes >= BUFFER_BYTES)
        return write_all(o, data, bytes);
    if (bytes)
        memcpy(o->buffer + o->buffered, data, bytes);
    o->buffered += bytes;
    return PLM_OK;
}

int tensor_output_pad(struct tensor_output *o, uint64_t bytes)
{
    static const unsigned char zeros[64];
    for (; bytes > 0 && !o->error.code; bytes -= bytes < sizeof zeros ? bytes : sizeof zeros)
        tensor_output_put(o, zeros, bytes < sizeof zeros ? (size_t)bytes : sizeof zeros);
    return (int)o->error.code;
}

/* Step over tensors that are complete. */
static void advance(struct tensor_output *o, int current)
{
    while (current < o->n_tensors && o->tensors[current].bytes == 0)
        current++;
    o->current = current;
    o->current_left = current < o->n_tensors ? o->tensors[current].bytes : 0;
}

void tensor_output_start(struct tensor_output *o)
{
    o->started = true;
    o->data_begin = o->position;
    advance(o, 0);
}

int tensor_output_write(struct tensor_output *o, const void *data, size_t bytes)
{
    if (o->error.code || bytes == 0)
        return (int)o->error.code;
    if (o->current == o->n_tensors)
        return status_set(&o->error, PLM_EINVAL, "'%s': %zu bytes of data after the last declared tensor", o->path, bytes);
    const struct declared_tensor *t = &o->tensors[o->current];
    if (bytes > o->current_left)
        return status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' needs %llu more bytes, got %zu", o->path, t->name,
                          (unsigned long long)o->current_left, bytes);
    if (o->current_left == t->bytes)
        tensor_output_pad(o, t->offset - (o->position - o->data_begin));
    if (tensor_output_put(o, data, bytes))
        return (int)o->error.code;
    o->current_left -= bytes;
    if (o->current_left == 0)
        advance(o, o->current + 1);
    return PLM_OK;
}

static void release(struct tensor_output *o)
{
    for (int i = 0; i < o->n_tensors; i++)
        free(o->tensors[i].name);
    free(o->tensors);
    free(o->buffer);
    free(o->path);
    *o = (struct tensor_output){.fd = -1};
}

int tensor_output_finish(struct tensor_output *o, struct plm_status *st)
{
    if (!o->error.code && o->current < o->n_tensors)
        status_set(&o->error, PLM_EINVAL, "'%s': tensor '%s' lacks %llu bytes of data", o->path, o->tensors[o->current].name,
                   (unsigned long long)o->current_left);
    if (!o->error.code)
        flush(o);
    if (!o->error.code && o->regular && fsync(o->fd) != 0)
        status_set(&o->error, PLM_EIO, "cannot flush '%s' to its device: %s", o->path, strerror(errno));
    if (close(o->fd) != 0 && !o->error.code)
        status_set(&o->error, PLM_EIO, "cannot close '%s': %s", o->path, strerror(errno));
    o->fd = -1;
    int code = tensor_output_status(o, st);
    if (code && o->regular)
        unlink(o->path);
    release(o);
    return code;
}

void tensor_output_discard(struct tensor_output *o)
{
    if (o->fd >= 0) {
        close(o->fd);
        if (o->regular)
            unlink(o->path);
    }
    release(o);
}
