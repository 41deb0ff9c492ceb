#include "infer/model/sequence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/output.h"

static void sequence_layout(struct sequence *s, const struct model_config *c)
{
    const struct kv_shape shape = {.content = c->kv_lora_rank, .rotary = c->qk_rope_head_dim, .type = s->options.type, .rope_theta = c->rope_theta, .rope_scaling = c->rope_scaling};
    const bool scores = policy_needs_scores(s->options.policy.policy);
    s->tokens = arena_alloc(&s->arena, (size_t)s->capacity, sizeof *s->tokens);
    for (int i = 0; i < s->n_layer; i++) {
        kv_slots_layout(&s->layers[i], &shape, s->capacity, scores, &s->arena);
        if (scores)
            s->sums[i] = arena_alloc(&s->arena, (size_t)s->capacity, sizeof *s->sums[i]);
    }
}

static int check_options(const struct sequence_options *o, const struct engine *e, struct plm_status *st)
{
    const struct model_config *c = &engine_model(e)->config;
    const struct kv_shape shape = {.content = c->kv_lora_rank, .rotary = c->qk_rope_head_dim, .type = o->type, .rope_theta = c->rope_theta, .rope_scaling = c->rope_scaling};
    if (o->capacity < 0 || o->capacity > engine_context(e))
        return status_set(st, PLM_ELIMIT, "a sequence of %lld positions was asked for, the engine was made for 1 to %lld", (long long)o->capacity,
                          (long long)engine_context(e));
    int code = kv_shape_check(&shape, st);
    if (!code)
        code = policy_options_check(&o->policy, st);
    if (code || o->policy.policy == POLICY_FULL)
        return code;
    if (!engine_policies(e))
        return status_set(st, PLM_EINVAL, "the engine was made without room for cache policies");
    if (o->budget < 0 || (o->budget == 0 && !(o->share > 0 && o->share <= 1)))
        return status_set(st, PLM_EINVAL, "a cache policy wants a budget: slots per layer, or a share of the prompt above 0 and at most 1");
    if (o->budget > 0 && o->budget < o->policy.min_budget)
        return status_set(st, PLM_EINVAL, "a cache budget of %lld slots is below the minimum of %d", (long long)o->budget, o->policy.min_budget);
    return PLM_OK;
}

/* Everything up to the allocation of the cache. */
static int sequence_prepare(struct sequence *s, const struct engine *e, const struct sequence_options *options, struct plm_status *st)
{
    const struct model_config *c = &engine_model(e)->config;
    const struct sequence_options o = options ? *options : (struct sequence_options){.type = DTYPE_F32, .policy = policy_options_default(POLICY_FULL)};
    const size_t layers = (size_t)c->num_hidden_layers;
    int code = check_options(&o, e, st);
    if (code)
        return code;
    *s = (struct sequence){.engine = e, .capacity = o.capacity ? o.capacity : engine_context(e), .n_layer = c->num_hidden_layers, .options = o,
        .layers = calloc(layers, sizeof *s->layers), .budgets = calloc(layers, sizeof *s->budgets), .sums = calloc(layers, sizeof *s->sums)};
    if (!s->layers || !s->budgets || !s->sums)
        return status_no_memory(st, layers * sizeof *s->layers, "a sequence");
    sequence_layout(s, c);
    return PLM_OK;
}

static void sequence_release(struct sequence *s)
{
    arena_free(&s->arena);
    free(s->layers);
    free(s->budgets);
    free(s->sums);
}

int sequence_create(struct sequence **out, struct engine *e, const struct sequence_options *options, struct plm_status *st)
{
    *out = NULL;
    struct sequence *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a sequence");
    int code = sequence_prepare(s, e, options, st);
    if (!code)
        code = arena_commit(&s->arena, 0, "the latent cache of a sequence", st);
    if (code) {
        sequence_destroy(s);
        return code;
    }
    sequence_layout(s, &engine_model(e)->config);
    *out = s;
    return PLM_OK;
}

int sequence_measure(const struct engine *e, const struct sequence_options *options, size_t *bytes, struct plm_status *st)
{
    struct sequence s = {0};
    int code = sequence_prepare(&s, e, options, st);
    *bytes = s.arena.used;
    sequence_release(&s);
    return code;
}

void sequence_destroy(struct sequence *s)
{
    if (!s)
        return;
    sequence_release(s);
    free(s);
}

int64_t sequence_length(const struct sequence *s) { return s->length; }

int64_t sequence_capacity(const struct sequence *s) { return s->capacity; }

int64_t sequence_held(const struct sequence *s) { return s->held; }

const int32_t *sequence_tokens(const struct sequence *s) { return s->tokens; }

int64_t sequence_room(const struct sequence *s)
{
    int64_t room = INT32_MAX - s->length;
    for (int i = 0; i < s->n_layer; i++)
        if (!s->compressed || s->budgets[i] + s->options.policy.batch > s->capacity)
            room = s->capacity - s->layers[i].length < room ? s->capacity - s->layers[i].length : room;
    return room;
}

void sequence_remember(struct sequence *s, const int32_t *tokens, int64_t n)
{
    if (n > s->capacity - s->held) { /* one token of a compressed sequence */
        const int64_t forgotten = s->capacity / 2 + 1;
        s->held -= forgotten;
        memmove(s->tokens, s->tokens + forgotten, (size_t)s->held * sizeof *s->tokens);
    }
    memcpy(s->tokens + s->held, tokens, (size_t)n * sizeof *tokens);
    s->held += n;
    s->length += n;
}

size_t sequence_bytes(const struct sequence *s) { return s->arena.size; }

int64_t sequence_slots(const struct sequence *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_layer; i++)
        n += s->layers[i].length;
    return n;
}

int64_t sequence_budget(const struct sequence *s, int layer) { return s->budgets[layer]; }

int sequence_truncate(struct sequence *s, int64_t n, struct plm_status *st)
{
    if (n < 0 || n > s->length)
        return status_set(st, PLM_EINVAL, "cannot cut a sequence of %lld tokens to %lld", (long long)s->length, (long long)n);
    if (s->compressed && n > 0 && n < s->length)
        return status_set(st, PLM_EUNSUPPORTED, "a compressed sequence cannot be cut back: what the policy dropped or merged is gone");
    if (n == s->length)
        return PLM_OK;
    s->length = s->held = n;
    for (int i = 0; i < s->n_layer; i++) {
        s->layers[i].length = n;
        if (n == 0) {
            kv_slots_reset(&s->layers[i]);
            s->budgets[i] = 0;
            if (s->sums[i])
                memset(s->sums[i], 0, (size_t)s->capacity * sizeof *s->sums[i]);
        }
    }
    s->compressed = s->compressed && n > 0;
    return PLM_OK;
}

int sequence_finish_prompt(struct sequence *s, const struct ops *ops, struct thread_pool *pool, void *policy_scratch, struct plm_status *st)
{
    const struct policy_options *o = &s->options.policy;
    int64_t budget = s->options.budget ? s->options.budget : (int64_t)(s->options.share * (double)s->length);
    budget = budget < o->min_budget ? o->min_budget : budget;
    double *density = calloc((size_t)s->n_layer, sizeof *density);
    if (!density)
        return status_no_memory(st, (size_t)s->n_layer * sizeof *density, "layer statistics");
    for (int i = 0; i < s->n_layer && s->sums[i]; i++)
        density[i] = policy_density(o, s->sums[i], s->length);
    int code = policy_allocate(o, density, s->n_layer, budget, s->length, s->budgets, st);
    free(density);
    for (int i = 0; i < s->n_layer && !code; i++) {
        struct kv_slots *slots = &s->layers[i];
        for (int64_t k = 0; k < slots->length && slots->score; k++)
            slots->score[k] = (float)s->sums[i][k];
        code = policy_compress(o, slots, s->budgets[i], ops, pool, policy_scratch, st);
    }
    s->compressed = code == PLM_OK;
    return code;
}

/* Everything that a sequence is beyond its options, piece by piece: for copies and files. */
struct piece {
    void *data;
    size_t bytes;
};

struct layer_state {
    int64_t length, budget;
    float tau;
    int32_t has_tau;
};

enum { PIECES_PER_LAYER = 6 };

/* Pieces of layer i for `length` slots; those that a sequence without scores lacks are empty. */
static void layer_pieces(const struct sequence *s, int i, int64_t length, struct piece p[PIECES_PER_LAYER])
{
    const struct kv_slots *l = &s->layers[i];
    const size_t n = (size_t)length, f = l->score ? n * sizeof(float) : 0;
    p[0] = (struct piece){l->pos, n * sizeof *l->pos};
    p[1] = (struct piece){l->rows, n * l->row_bytes};
    p[2] = (struct piece){l->score, f};
    p[3] = (struct piece){l->count, f};
    p[4] = (struct piece){l->bias, f};
    p[5] = (struct piece){l->norm, f};
}

static struct layer_state layer_state(const struct sequence *s, int i)
{
    return (struct layer_state){s->layers[i].length, s->budgets[i], s->layers[i].tau, s->layers[i].has_tau};
}

static void set_layer_state(struct sequence *s, int i, const struct layer_state *l)
{
    s->layers[i].length = l->length, s->budgets[i] = l->budget, s->layers[i].tau = l->tau, s->layers[i].has_tau = l->has_tau != 0;
}

/* The first `length` slots of layer i. */
static void copy_slots(struct sequence *to, const struct sequence *from, int i, int64_t length)
{
    struct piece a[PIECES_PER_LAYER], b[PIECES_PER_LAYER];
    layer_pieces(to, i, length, a);
    layer_pieces(from, i, length, b);
    for (int k = 0; k < PIECES_PER_LAYER; k++)
        if (b[k].bytes)
            memcpy(a[k].data, b[k].data, b[k].bytes);
}

static int check_alike(const struct sequence *to, const struct sequence *from, struct plm_status *st)
{
    if (engine_model(to->engine) == engine_model(from->engine) && to->options.type == from->options.type &&
        to->options.policy.policy == from->options.policy.policy)
        return PLM_OK;
    return status_set(st, PLM_EINVAL, "sequences of different models, cache types or policies cannot be copied");
}

int sequence_copy_first(struct sequence *to, const struct sequence *from, int64_t n, struct plm_status *st)
{
    int code = check_alike(to, from, st);
    if (!code && (from->options.policy.policy != POLICY_FULL || n < 0 || n > from->length))
        code = status_set(st, PLM_EINVAL, "the first %lld of %lld tokens cannot be copied%s", (long long)n, (long long)from->length,
                          from->options.policy.policy == POLICY_FULL ? "" : " from a sequence with a cache policy");
    if (!code && n > to->capacity)
        code = status_set(st, PLM_ELIMIT, "%lld tokens do not fit into a sequence of %lld", (long long)n, (long long)to->capacity);
    if (code)
        return code;
    for (int i = 0; i < to->n_layer; i++) {
        copy_slots(to, from, i, n);
        to->layers[i].length = n;
    }
    memcpy(to->tokens, from->tokens, (size_t)n * sizeof *to->tokens);
    to->length = to->held = n;
    return PLM_OK;
}

int sequence_copy(struct sequence *to, const struct sequence *from, struct plm_status *st)
{
    int code = check_alike(to, from, st);
    if (code)
        return code;
    int64_t needed = from->held;
    for (int i = 0; i < from->n_layer; i++)
        needed = from->layers[i].length > needed ? from->layers[i].length : needed;
    if (needed > to->capacity)
        return status_set(st, PLM_ELIMIT, "a sequence of %lld slots does not fit into one of %lld", (long long)needed, (long long)to->capacity);
    memcpy(to->tokens, from->tokens, (size_t)from->held * sizeof *to->tokens);
    for (int i = 0; i < to->n_layer; i++) {
        const struct layer_state state = layer_state(from, i);
        copy_slots(to, from, i, state.length);
        set_layer_state(to, i, &state);
        if (to->sums[i] && !from->compressed)
            memcpy(to->sums[i], from->sums[i], (size_t)from->length * sizeof *to->sums[i]);
    }
    to->length = from->length;
    to->held = from->held;
    to->compressed = from->compressed;
    return PLM_OK;
}

/* ---- files ---- */

#define SESSION_MAGIC "PLMSEQ2"
#define FNV_START 0xCBF29CE484222325u

struct session_header {
    char magic[8];
    uint64_t model;     /* fingerprint */
    uint64_t checksum;  /* of everything after the header */
    int64_t length, held; /* as of the sequence */
    uint32_t n_layer, type, row_bytes, policy;
};

static uint64_t fnv1a(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

/* Tells models apart: the hyper-parameters and a sample of every tensor's bytes (4 KiB of each: enough to see another training). */
static uint64_t model_fingerprint(const struct plm_model *m)
{
    uint64_t h = FNV_START;
    struct model_weights weights = m->weights;
    for (int i = 0; i < model_config_n_fields; i++)
        h = fnv1a(h, (const char *)&m->config + model_config_fields[i].offset, 4);
    if (m->config.rope_scaling.type || m->config.rope_scaling.magnitude > 0) /* unscaled models keep the fingerprint they had */
        h = fnv1a(h, &m->config.rope_scaling, sizeof m->config.rope_scaling);
    for (int i = 0; i < m->table.n_tensors; i++) {
        const struct weight *w = weights_slot(&weights, &m->table.tensors[i]);
        const size_t bytes = dtype_row_bytes(w->type, w->cols) * (size_t)w->rows;
        h = fnv1a(h, &w->type, sizeof w->type);
        h = fnv1a(h, w->data, bytes < 4096 ? bytes : 4096);
    }
    return h;
}

/* Everything after the header: tokens, then per layer its state and its pieces. `visit` gets each in turn. */
static bool visit_body(const struct sequence *s, bool (*visit)(void *ctx, const void *data, size_t bytes), void *ctx)
{
    bool ok = visit(ctx, s->tokens, (size_t)s->held * sizeof *s->tokens);
    for (int i = 0; i < s->n_layer && ok; i++) {
        const struct layer_state state = layer_state(s, i);
        struct piece p[PIECES_PER_LAYER];
        layer_pieces(s, i, state.length, p);
        ok = visit(ctx, &state, sizeof state);
        for (int k = 0; k < PIECES_PER_LAYER && ok; k++)
            ok = visit(ctx, p[k].data, p[k].bytes);
    }
    return ok;
}

static bool add_checksum(void *ctx, const void *data, size_t bytes)
{
    *(uint64_t *)ctx = fnv1a(*(uint64_t *)ctx, data, bytes);
    return true;
}

static bool write_piece(void *ctx, const void *data, size_t bytes) { return bytes == 0 || fwrite(data, bytes, 1, ctx) == 1; }

static bool is_complete(const struct sequence *s) { return s->options.policy.policy == POLICY_FULL || s->compressed || s->length == 0; }

/* The session in a file `temporary`, which becomes `path` as a whole: what was there stays until then. */
static int write_session(const struct sequence *s, const struct session_header *h, const char *path, const char *temporary,
                         struct plm_status *st)
{
    FILE *f;
    if (output_create_stream(&f, temporary, st))
        return status_prefix(st, "session");
    bool ok = write_piece(f, h, sizeof *h) && visit_body(s, write_piece, f);
    int error = ok ? 0 : errno;
    if (fclose(f) != 0 && ok)
        ok = false, error = errno;
    if (ok && strcmp(path, temporary) != 0 && rename(temporary, path) != 0)
        ok = false, error = errno;
    if (ok)
        return PLM_OK;
    if (strcmp(path, temporary) != 0)
        remove(temporary);
    return status_set(st, PLM_EIO, "cannot write session '%s': %s", path, strerror(error));
}

int sequence_save(const struct sequence *s, const char *path, struct plm_status *st)
{
    if (!is_complete(s))
        return status_set(st, PLM_EINVAL, "the prompt of the sequence is not complete");
    struct session_header h = {.magic = SESSION_MAGIC, .model = model_fingerprint(engine_model(s->engine)), .checksum = FNV_START, .length = s->length,
        .held = s->held, .n_layer = (uint32_t)s->n_layer, .type = (uint32_t)s->options.type, .row_bytes = (uint32_t)s->layers[0].row_bytes,
        .policy = (uint32_t)s->options.policy.policy};
    visit_body(s, add_checksum, &h.checksum);
    char *temporary = malloc(strlen(path) + sizeof ".tmp");
    if (!temporary)
        return status_no_memory(st, strlen(path) + 5, "a path");
    sprintf(temporary, output_is_device(path) ? "%s" : "%s.tmp", path);
    const int code = write_session(s, &h, path, temporary, st);
    free(temporary);
    return code;
}

static int check_header(const struct session_header *h, const struct sequence *s, struct plm_status *st)
{
    if (memcmp(h->magic, SESSION_MAGIC, sizeof h->magic) != 0)
        return status_set(st, PLM_EFORMAT, "not a session file");
    if (h->model != model_fingerprint(engine_model(s->engine)) || h->n_layer != (uint32_t)s->n_layer)
        return status_set(st, PLM_EINVAL, "it belongs to another model");
    if (h->type != (uint32_t)s->options.type || h->row_bytes != (uint32_t)s->layers[0].row_bytes || h->policy != (uint32_t)s->options.policy.policy)
        return status_set(st, PLM_EINVAL, "its cache has another type or policy than this sequence (%s, %s)", dtype_info(s->options.type)->name,
                          cache_policy_name(s->options.policy.policy));
    if (h->held < 0 || h->length < h->held || h->length > INT32_MAX || (h->length > h->held && s->options.policy.policy == POLICY_FULL))
        return status_set(st, PLM_EFORMAT, "its %lld tokens, %lld of them in the file, make no sense", (long long)h->length, (long long)h->held);
    if (h->held > s->capacity)
        return status_set(st, PLM_ELIMIT, "it has %lld tokens, there is room for %lld", (long long)h->held, (long long)s->capacity);
    return PLM_OK;
}

struct input {
    const unsigned char *data;
    size_t left;
};

static bool take(struct input *in, void *to, size_t bytes)
{
    if (bytes > in->left)
        return false;
    if (bytes && to)
        memcpy(to, in->data, bytes);
    in->data += bytes;
    in->left -= bytes;
    return true;
}

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Are these n slots' positions all different and below `length`, and in a full cache all of them in order? Policies rely on it. */
static bool positions_are_sound(const void *pos, int64_t n, int64_t length, bool full)
{
    int32_t *copy = malloc((size_t)n * sizeof *copy + 1);
    bool ok = copy != NULL;
    if (ok)
        memcpy(copy, pos, (size_t)n * sizeof *copy);
    if (ok && !full)
        qsort(copy, (size_t)n, sizeof *copy, by_value);
    for (int64_t i = 0; i < n && ok; i++)
        ok = copy[i] >= 0 && copy[i] < length && (full ? copy[i] == i : i == 0 || copy[i] > copy[i - 1]);
    free(copy);
    return ok;
}

/* Read the body (into the sequence, or with `dry` only to see that its sizes are right). */
static bool read_body(struct sequence *s, struct input in, const struct session_header *h, bool dry)
{
    const struct policy_options *o = &s->options.policy;
    const bool full = o->policy == POLICY_FULL;
    if (!take(&in, dry ? NULL : s->tokens, (size_t)h->held * sizeof *s->tokens))
        return false;
    for (int i = 0; i < s->n_layer; i++) {
        struct layer_state state;
        struct piece p[PIECES_PER_LAYER];
        if (!take(&in, &state, sizeof state) || state.length < 0 || state.length > s->capacity || (full && state.length != h->length) ||
            (!full && h->length && (state.budget < o->min_budget || state.budget > INT32_MAX)))
            return false;
        layer_pieces(s, i, state.length, p);
        if (dry && (p[0].bytes > in.left || !positions_are_sound(in.data, state.length, h->length, full)))
            return false;
        for (int k = 0; k < PIECES_PER_LAYER; k++)
            if (!take(&in, dry ? NULL : p[k].data, p[k].bytes))
                return false;
        if (!dry)
            set_layer_state(s, i, &state);
    }
    return in.left == 0;
}

int sequence_load(struct sequence *s, const char *path, struct plm_status *st)
{
    struct mapped_file m;
    int code = mapped_open(&m, path, st);
    if (code)
        return code;
    struct session_header h = {0};
    struct input in = {m.data, m.size};
    const int vocab = engine_model(s->engine)->config.vocab_size;
    take(&in, &h, sizeof h);
    code = check_header(&h, s, st);
    if (!code && fnv1a(FNV_START, in.data, in.left) != h.checksum)
        code = status_set(st, PLM_EFORMAT, "its checksum does not match: the file is damaged");
    if (!code && !read_body(s, in, &h, true))
        code = status_set(st, PLM_EFORMAT, "the %zu bytes do not hold a sequence", m.size);
    for (int64_t i = 0; i < h.held && !code; i++) {
        int32_t token;
        memcpy(&token, in.data + (size_t)i * sizeof token, sizeof token);
        if (token < 0 || token >= vocab)
            code = status_set(st, PLM_EFORMAT, "token %lld is %d, beyond the vocabulary", (long long)i, (int)token);
    }
    if (!code) {
        read_body(s, in, &h, false);
        s->length = h.length;
        s->held = h.held;
        s->compressed = h.length > 0 && s->options.policy.policy != POLICY_FULL;
    }
    mapped_close(&m);
    return code ? status_prefix(st, "session '%s'", path) : PLM_OK;
}
