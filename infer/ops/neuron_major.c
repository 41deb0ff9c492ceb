#include "infer/ops/neuron_major.h"

#include <string.h>

#include "infer/format/kquants.h"

enum { SUPER = 256, WIDE = 128 }; /* neurons of a super-block; rows whose 4-bit digits share 64 bytes */

size_t neuron_major_layout(struct neuron_layout *l, enum dtype type, int64_t n, int64_t neurons)
{
    const size_t rows = (size_t)n, bytes_of_one = dtype_row_bytes(type, dtype_info(type)->block_elements);
    *l = (struct neuron_layout){.group = 32, .unit = 128};
    switch (type) {
    case DTYPE_Q8_0: l->unit = 64, l->header = 2 * rows, l->row = rows; break;
    case DTYPE_Q4_0: l->header = 2 * rows, l->row = rows / 2; break;
    case DTYPE_Q4_K: l->super = 4 * rows, l->header = 2 * rows, l->row = rows / 2; break;
    case DTYPE_Q6_K: l->group = 16, l->unit = 256, l->super = 2 * rows, l->header = rows, l->row = rows / 2 + rows / 4; break;
    default: l->group = 1, l->unit = 64, l->row = rows * bytes_of_one; break;
    }
    if (n <= 0 || neurons <= 0 || n % l->unit || neurons % (l->super ? SUPER : l->group))
        return 0;
    l->per_group = l->header + (size_t)l->group * l->row;
    l->groups = (size_t)(neurons / SUPER) * l->super;
    return l->groups + (size_t)(neurons / l->group) * l->per_group;
}

struct job {
    char *to;
    const char *from;
    enum dtype type;
    int64_t n, neurons;
    size_t row_bytes;
    struct neuron_layout l;
};

/* Put 4 bits of row r's digit. */
static void put_nibble(uint8_t *at, int64_t r, int digit)
{
    uint8_t *byte = at + r / WIDE * 64 + neuron_place(r % 64);
    *byte = (uint8_t)(*byte | digit << (r % WIDE / 64 * 4));
}

/* One block of row r. `group`: that of the block's first neuron; it and those after it are zero where digits go. */
static void put_block(const struct job *j, char *super, char *group, const void *block, int64_t r)
{
    const size_t n = (size_t)j->n, row = j->l.row;
    uint8_t *digits = (uint8_t *)group + j->l.header;
    if (j->type == DTYPE_Q8_0) {
        const struct block_q8_0 *b = block;
        memcpy(group + 2 * r, &b->d, 2);
        for (size_t i = 0; i < 32; i++)
            digits[i * row + (size_t)neuron_place(r)] = (uint8_t)b->q[i];
    } else if (j->type == DTYPE_Q4_0) {
        const struct block_q4_0 *b = block;
        memcpy(group + 2 * r, &b->d, 2);
        for (size_t i = 0; i < 32; i++)
            put_nibble(digits + i * row, r, i < 16 ? b->q[i] & 15 : b->q[i - 16] >> 4);
    } else if (j->type == DTYPE_Q4_K) {
        const struct block_q4_k *b = block;
        uint8_t scale[8], minimum[8];
        q4_k_scales(b, scale, minimum);
        memcpy(super + 2 * r, &b->d, 2);
        memcpy(super + 2 * n + 2 * (size_t)r, &b->dmin, 2);
        for (size_t s = 0; s < 8; s++) {
            uint8_t *at = (uint8_t *)group + s * j->l.per_group;
            at[r] = scale[s];
            at[n + (size_t)r] = minimum[s];
            for (size_t i = 0; i < 32; i++)
                put_nibble(at + j->l.header + i * row, r, b->q[s / 2 * 32 + i] >> (s % 2 * 4) & 15);
        }
    } else {
        const struct block_q6_k *b = block;
        memcpy(super + 2 * r, &b->d, 2);
        for (size_t i = 0; i < SUPER; i++) {
            char *at = group + i / 16 * j->l.per_group;
            const size_t half = i / 128, quarter = i / 32 % 4, l = i % 32;
            at[r] = (char)b->scales[i / 16];
            uint8_t *q = (uint8_t *)at + j->l.header + i % 16 * row;
            put_nibble(q, r, b->ql[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15);
            uint8_t *upper = q + n / 2 + (size_t)(r / 256 * 64 + neuron_place(r % 64));
            *upper = (uint8_t)(*upper | (b->qh[half * 32 + l] >> (quarter * 2) & 3) << (r % 256 / 64 * 2));
        }
    }
}

/* Blocks [begin, end) of every row. */
static void pack_blocks(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *j = ctx;
    const int64_t elements = dtype_info(j->type)->block_elements;
    const size_t bytes = (size_t)dtype_info(j->type)->block_bytes;
    for (int64_t b = begin; b < end; b++) {
        const int64_t neuron = b * elements;
        char *group = j->to + j->l.groups + (size_t)(neuron / j->l.group) * j->l.per_group;
        if (elements > 1)
            memset(group, 0, (size_t)(elements / j->l.group) * j->l.per_group);
        for (int64_t r = 0; r < j->n; r++) {
            const char *from = j->from + (size_t)r * j->row_bytes + (size_t)b * bytes;
            if (elements > 1)
                put_block(j, j->to + (size_t)(neuron / SUPER) * j->l.super, group, from, r);
            else
                memcpy(group + (size_t)r * bytes, from, bytes);
        }
    }
}

void neuron_major_pack(void *to, const void *weights, enum dtype type, int64_t n, int64_t neurons, struct thread_pool *pool)
{
    struct job j = {to, weights, type, n, neurons, dtype_row_bytes(type, neurons), {0}};
    if (neuron_major_layout(&j.l, type, n, neurons))
        pool_for(pool, neurons / dtype_info(type)->block_elements, dtype_is_quantized(type) ? 1 : 16, pack_blocks, &j);
}
