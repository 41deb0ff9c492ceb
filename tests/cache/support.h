/* Slots for tests of the cache: an arena of their own, random vectors, policies run on them. */
#ifndef TESTS_CACHE_SUPPORT_H
#define TESTS_CACHE_SUPPORT_H

#include "infer/cache/policy.h"

#define CAPACITY 128

/* A group with the scratch memory of any policy. */
struct group {
    struct kv_slots slots;
    struct arena arena;
    void *scratch;
};

/* Standard normal number i of a stream. */
float normal(uint32_t stream, uint64_t i);

void group_create(struct group *g, const struct kv_shape *shape, bool with_policy);
void group_free(struct group *g);

/* Append a slot of random vectors at position pos; a score from its stream when the slots have one. */
void group_append_random(struct group *g, int32_t pos);

/* Fill with n random slots at positions 0 .. n-1. */
void group_fill(struct group *g, int64_t n);

/* policy_compress with the best operations, without threads. */
int group_compress(struct group *g, const struct policy_options *o, int64_t budget, struct plm_status *st);

/* The slot at a position, -1 when there is none. */
int64_t slot_at(const struct kv_slots *s, int32_t pos);

/* A rotation by `angle` of the pairs, as RoPE at this position does. */
void rotate(float *x, int n, double position, double theta);

#endif
