/* The slots of one KV group of one layer of one sequence: what attention reads and cache policies rearrange (d2o.md 3.6).
 *
 *   latent (MLA)  one group for all heads: content = normed latent, rotary = shared rotated key, no value (content is the value)
 *   MHA           one group per head: content = k_nope, rotary = k_pe, value = v
 *   GQA           one group per KV head: content empty, rotary = the whole rotated key, value = v
 *
 * Rows are contiguous, so that attention streams them. Slots are in order of position until a policy evicts some: then the
 * last ones fill the holes, because attention does not ask for an order and closing the gap would move half of the cache. */
#ifndef INFER_CACHE_KV_SLOTS_H
#define INFER_CACHE_KV_SLOTS_H

#include "infer/base/arena.h"
#include "infer/ops/ops.h"
#include "infer/ops/rope.h"

struct kv_shape {
    int content, rotary, value; /* widths in elements; each 0 or whole blocks of `type`; value 0: content is the value */
    enum dtype type;            /* f32, f16 or q8_0 */
    float rope_theta;
    struct rope_scaling rope_scaling;
};

struct kv_slots {
    struct kv_shape shape;
    size_t row_bytes;      /* content, rotary, value one after the other */
    int64_t capacity;
    int64_t length;        /* slots in use */
    unsigned char *rows;   /* (capacity, row_bytes) */
    int32_t *pos;          /* (capacity) true positions, all different */
    float *score;          /* (capacity) accumulated attention; NULL when no policy needs it */
    float *count;          /* (capacity) tokens a slot stands for; NULL likewise */
    float *bias;           /* (capacity) ln(count), for attention; NULL likewise */
    float *norm;           /* (capacity) length of the stored similarity vector (see kv_similarity_width); NULL likewise */
    float tau;             /* merge threshold (d2o.md 1.5) */
    bool has_tau;
};

/* PLM_EINVAL, naming the width, unless the shape can be stored: even rotary width, whole blocks, one of the three types. */
int kv_shape_check(const struct kv_shape *shape, struct plm_status *st);

size_t kv_row_bytes(const struct kv_shape *shape);

/* Elements at the start of a row that slots are compared by: the content of a latent, content and rotary key otherwise. */
static inline int kv_similarity_width(const struct kv_shape *shape)
{
    return shape->value ? shape->content + shape->rotary : shape->content;
}

/* Lay out room for `capacity` slots; with_policy: score, count, bias and norm too. */
void kv_slots_layout(struct kv_slots *s, const struct kv_shape *shape, int64_t capacity, bool with_policy, struct arena *arena);

/* Empty, tau unset: between two sequences. */
void kv_slots_reset(struct kv_slots *s);

static inline unsigned char *kv_row(const struct kv_slots *s, int64_t i) { return s->rows + (size_t)i * s->row_bytes; }

/* Read or write a slot's vectors as float32; NULL where not wanted. Writing rounds to the stored type and refreshes norm. */
void kv_read(const struct kv_slots *s, int64_t i, float *content, float *rotary, float *value);
void kv_write(struct kv_slots *s, int64_t i, const float *content, const float *rotary, const float *value);

/* Append a slot at position pos with score 0 and count 1. The caller has made sure that there is room. */
void kv_append(struct kv_slots *s, int32_t pos, const float *content, const float *rotary, const float *value);

/* Attention of n_head queries over all slots (at least one) in the calling thread, for MHA and GQA groups: q_content (n_head,
 * content), q_rotary (n_head, rotary), out (n_head, value or content). Adds bias when use_bias, and the probabilities to score
 * when there is one. scratch: (n_head, length) floats. */
void kv_attend(struct kv_slots *s, const struct ops *ops, int n_head, const float *q_content, const float *q_rotary, float scale,
               bool use_bias, float *out, float *scratch);

#endif
