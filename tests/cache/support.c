#include "tests/cache/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "infer/base/random.h"

float normal(uint32_t stream, uint64_t i) { return (float)random_normal(3, RANDOM_TEST, stream, i); }

static void layout(struct group *g, const struct kv_shape *shape, bool with_policy)
{
    const struct policy_options most = policy_options_default(POLICY_D2O_COUNT);
    kv_slots_layout(&g->slots, shape, CAPACITY, with_policy, &g->arena);
    g->scratch = arena_alloc(&g->arena, policy_scratch_bytes(&most, shape, CAPACITY), 1);
}

void group_create(struct group *g, const struct kv_shape *shape, bool with_policy)
{
    struct plm_status st = {0};
    *g = (struct group){0};
    layout(g, shape, with_policy);
    if (kv_shape_check(shape, &st) || arena_commit(&g->arena, 0, "slots", &st)) {
        fprintf(stderr, "test support: %s\n", st.message);
        exit(1);
    }
    layout(g, shape, with_policy);
}

void group_free(struct group *g) { arena_free(&g->arena); }

void group_append_random(struct group *g, int32_t pos)
{
    struct kv_slots *s = &g->slots;
    float parts[3][256];
    const int widths[] = {s->shape.content, s->shape.rotary, s->shape.value};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < widths[i]; k++)
            parts[i][k] = normal((uint32_t)(100 + i), (uint64_t)(pos * 256 + k));
    kv_append(s, pos, parts[0], parts[1], parts[2]);
    if (s->score)
        s->score[s->length - 1] = expf(normal(99, (uint64_t)pos));
}

void group_fill(struct group *g, int64_t n)
{
    kv_slots_reset(&g->slots);
    for (int32_t i = 0; i < n; i++)
        group_append_random(g, i);
}

int group_compress(struct group *g, const struct policy_options *o, int64_t budget, struct plm_status *st)
{
    return policy_compress(o, &g->slots, budget, ops_select(OPS_BEST), NULL, g->scratch, st);
}

int64_t slot_at(const struct kv_slots *s, int32_t pos)
{
    for (int64_t i = 0; i < s->length; i++)
        if (s->pos[i] == pos)
            return i;
    return -1;
}

void rotate(float *x, int n, double position, double theta)
{
    for (int i = 0; i < n; i += 2) {
        const double angle = position * pow(theta, -(double)i / n), a = x[i], b = x[i + 1];
        x[i] = (float)(a * cos(angle) - b * sin(angle));
        x[i + 1] = (float)(a * sin(angle) + b * cos(angle));
    }
}
