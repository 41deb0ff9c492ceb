#include "infer/model/panels.h"

#include <stdlib.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"

struct panels {
    const struct gemm_kernel *kernel;
    struct model_weights weights;
    struct arena arena;
    int n_layer;
};

static void place(struct panels *p, struct weight *w)
{
    if (w->data && w->type == DTYPE_F32 && w->rows > 1)
        w->panels = arena_alloc(&p->arena, gemm_panels_bytes(p->kernel, w->rows, w->cols), 1);
}

/* kv_b is left out: decoding multiplies with its heads one by one. */
static void lay_out(struct panels *p)
{
    place(p, &p->weights.embed);
    for (int i = 0; i < p->n_layer; i++)
        for (int role = 0; role < TENSOR_ROLES; role++)
            if (role != TENSOR_KV_B)
                place(p, &p->weights.layers[i].at[role]);
}

int panels_create(struct panels **out, const struct model_weights **weights, const struct plm_model *m, const struct ops *ops, struct plm_status *st)
{
    struct panels *p = *out = calloc(1, sizeof *p);
    if (!p)
        return status_no_memory(st, sizeof *p, "packed weights");
    p->kernel = ops->kernel;
    p->n_layer = m->config.num_hidden_layers;
    int code = weights_create(&p->weights, &m->config, st);
    if (!code) {
        struct layer_weights *layers = p->weights.layers;
        memcpy(layers, m->weights.layers, (size_t)p->n_layer * sizeof *layers);
        p->weights = m->weights;
        p->weights.layers = layers;
        lay_out(p);
        code = arena_commit(&p->arena, 0, "packed weights", st);
    }
    if (code) {
        panels_free(p);
        *out = NULL;
        return code;
    }
    lay_out(p);
    *weights = &p->weights;
    return PLM_OK;
}

void panels_free(struct panels *p)
{
    if (!p)
        return;
    weights_free(&p->weights);
    arena_free(&p->arena);
    free(p);
}

static void fill(const struct panels *p, const struct weight *w, struct thread_pool *pool)
{
    const struct gemm g = {.n = w->rows, .k = w->cols, .trans_b = true, .b = w->data, .ldb = w->cols, .b_type = DTYPE_F32};
    if (w->panels)
        gemm_panels_pack(p->kernel, &g, (float *)w->panels, pool); /* the engine's own memory */
}

void panels_fill(struct panels *p, struct thread_pool *pool)
{
    fill(p, &p->weights.embed, pool);
    for (int i = 0; i < p->n_layer; i++)
        for (int role = 0; role < TENSOR_ROLES; role++)
            fill(p, &p->weights.layers[i].at[role], pool);
}
