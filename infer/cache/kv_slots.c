#include "infer/cache/kv_slots.h"

#include <math.h>
#include <string.h>

#define NORM_CHUNK 256 /* elements converted at a time: whole blocks of every type */

int kv_shape_check(const struct kv_shape *shape, struct plm_status *st)
{
    if (shape->type != DTYPE_F32 && shape->type != DTYPE_F16 && shape->type != DTYPE_Q8_0)
        return status_set(st, PLM_EINVAL, "a KV cache of type %s is not possible; expected f32, f16 or q8_0",
                          dtype_info(shape->type)->name);
    const struct {
        const char *name;
        int width;
    } parts[] = {{"content", shape->content}, {"rotary", shape->rotary}, {"value", shape->value}};
    const int block = dtype_info(shape->type)->block_elements;
    for (int i = 0; i < 3; i++)
        if (parts[i].width < 0 || parts[i].width % block)
            return status_set(st, PLM_EINVAL,
                              "the %s width of the KV cache is %d, and type %s stores blocks of %d; choose another type",
                              parts[i].name, parts[i].width, dtype_info(shape->type)->name, block);
    if (shape->rotary % 2)
        return status_set(st, PLM_EINVAL, "the rotary width of the KV cache is %d, expected an even number", shape->rotary);
    if (!kv_similarity_width(shape))
        return status_set(st, PLM_EINVAL, "a KV cache needs keys: content and rotary widths are %d and %d", shape->content,
                          shape->rotary);
    return PLM_OK;
}

size_t kv_row_bytes(const struct kv_shape *shape)
{
    return dtype_row_bytes(shape->type, shape->content) + dtype_row_bytes(shape->type, shape->rotary) +
           dtype_row_bytes(shape->type, shape->value);
}

void kv_slots_layout(struct kv_slots *s, const struct kv_shape *shape, int64_t capacity, bool with_policy, struct arena *arena)
{
    const size_t n = (size_t)capacity;
    *s = (struct kv_slots){.shape = *shape, .row_bytes = kv_row_bytes(shape), .capacity = capacity};
    s->rows = arena_alloc(arena, n, s->row_bytes);
    s->pos = arena_alloc(arena, n, sizeof *s->pos);
    if (!with_policy)
        return;
    s->score = arena_alloc(arena, n, sizeof *s->score);
    s->count = arena_alloc(arena, n, sizeof *s->count);
    s->bias = arena_alloc(arena, n, sizeof *s->bias);
    s->norm = arena_alloc(arena, n, sizeof *s->norm);
}

void kv_slots_reset(struct kv_slots *s)
{
    s->length = 0;
    s->tau = 0;
    s->has_tau = false;
}

/* The three parts of a slot's row. */
struct row_parts {
    unsigned char *content, *rotary, *value;
};

static struct row_parts row_parts(const struct kv_slots *s, int64_t i)
{
    unsigned char *row = kv_row(s, i), *rotary = row + dtype_row_bytes(s->shape.type, s->shape.content);
    return (struct row_parts){row, rotary, rotary + dtype_row_bytes(s->shape.type, s->shape.rotary)};
}

void kv_read(const struct kv_slots *s, int64_t i, float *content, float *rotary, float *value)
{
    const struct row_parts row = row_parts(s, i);
    if (content)
        dtype_to_f32(s->shape.type, content, row.content, s->shape.content);
    if (rotary)
        dtype_to_f32(s->shape.type, rotary, row.rotary, s->shape.rotary);
    if (value)
        dtype_to_f32(s->shape.type, value, row.value, s->shape.value);
}

/* Of the stored vector, not of the one that was rounded: the cosine of two equal rows is then 1 in every type. */
static float stored_norm(const struct kv_slots *s, int64_t i)
{
    const int width = kv_similarity_width(&s->shape);
    float chunk[NORM_CHUNK];
    double sum = 0;
    for (int at = 0; at < width; at += NORM_CHUNK) {
        int n = width - at < NORM_CHUNK ? width - at : NORM_CHUNK;
        dtype_to_f32(s->shape.type, chunk, kv_row(s, i) + dtype_row_bytes(s->shape.type, at), n);
        for (int k = 0; k < n; k++)
            sum += (double)chunk[k] * chunk[k];
    }
    return (float)sqrt(sum);
}

void kv_write(struct kv_slots *s, int64_t i, const float *content, const float *rotary, const float *value)
{
    const struct row_parts row = row_parts(s, i);
    if (content)
        dtype_from_f32(s->shape.type, row.content, content, s->shape.content);
    if (rotary)
        dtype_from_f32(s->shape.type, row.rotary, rotary, s->shape.rotary);
    if (value)
        dtype_from_f32(s->shape.type, row.value, value, s->shape.value);
    if (s->norm)
        s->norm[i] = stored_norm(s, i);
}

void kv_append(struct kv_slots *s, int32_t pos, const float *content, const float *rotary, const float *value)
{
    const int64_t i = s->length++;
    s->pos[i] = pos;
    if (s->score) {
        s->score[i] = 0;
        s->count[i] = 1;
        s->bias[i] = 0;
    }
    kv_write(s, i, content, rotary, value);
}

void kv_attend(struct kv_slots *s, const struct ops *ops, int n_head, const float *q_content, const float *q_rotary, float scale,
               bool use_bias, float *out, float *scratch)
{
    const struct kv_shape *shape = &s->shape;
    const struct row_parts first = row_parts(s, 0);
    const int width = shape->value ? shape->value : shape->content;
    const unsigned char *values = shape->value ? first.value : first.content;
    const int64_t n = s->length, ld = shape->content + shape->rotary + shape->value;
    ops->gemm(&(struct gemm){.m = n_head, .n = n, .k = shape->content, .trans_b = true, .alpha = scale, .a = q_content,
                             .lda = shape->content, .b = first.content, .ldb = ld, .b_type = shape->type, .c = scratch,
                             .ldc = n}, NULL);
    ops->gemm(&(struct gemm){.m = n_head, .n = n, .k = shape->rotary, .trans_b = true, .accumulate = true, .alpha = scale,
                             .a = q_rotary, .lda = shape->rotary, .b = first.rotary, .ldb = ld, .b_type = shape->type,
                             .c = scratch, .ldc = n}, NULL);
    memset(out, 0, (size_t)n_head * (size_t)width * sizeof *out);
    for (int h = 0; h < n_head; h++) {
        float *p = scratch + h * n;
        if (use_bias)
            ops->add(p, s->bias, n);
        ops->scale(p, 1 / ops->exp_sum(p, p, n, 1, ops->max(p, n)), n);
        if (s->score)
            ops->add(s->score, p, n);
        for (int64_t j = 0; j < n; j++)
            ops->axpy(out + (int64_t)h * width, p[j], values + (size_t)j * s->row_bytes, shape->type, width);
    }
}
