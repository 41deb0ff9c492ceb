#include "data/examples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"

void examples_free(struct examples *e)
{
    free(e->begin);
    free(e->tokens.data);
    free(e->target.data);
    *e = (struct examples){0};
}

/* Room for one more sequence of n tokens. */
static int reserve(struct examples *e, size_t n, struct plm_status *st)
{
    if (e->n == e->capacity || !e->begin) {
        const int64_t capacity = 2 * e->capacity + 256;
        int64_t *begin = realloc(e->begin, (size_t)(capacity + 1) * sizeof *begin);
        if (!begin)
            return status_no_memory(st, (size_t)(capacity + 1) * sizeof *begin, "the sequences of a data set");
        begin[e->n] = (int64_t)e->tokens.length;
        e->begin = begin;
        e->capacity = capacity;
    }
    const size_t needed = e->tokens.length + n;
    if (needed > e->tokens.capacity) {
        const size_t capacity = needed > 2 * e->tokens.capacity ? needed + 4096 : 2 * e->tokens.capacity;
        int32_t *tokens = realloc(e->tokens.data, capacity * sizeof *tokens);
        if (!tokens)
            return status_no_memory(st, capacity * sizeof *tokens, "the tokens of a data set");
        e->tokens.data = tokens;
        e->tokens.capacity = capacity;
    }
    if (needed > e->target.capacity) {
        uint8_t *target = realloc(e->target.data, e->tokens.capacity);
        if (!target)
            return status_no_memory(st, e->tokens.capacity, "the targets of a data set");
        e->target.data = target;
        e->target.capacity = e->tokens.capacity;
    }
    return PLM_OK;
}

int examples_add(struct examples *e, const int32_t *tokens, int64_t n, const uint8_t *targets, int64_t first_target, struct plm_status *st)
{
    if (n < 1)
        return status_set(st, PLM_EINVAL, "a sequence of %lld tokens; expected one at least", (long long)n);
    const int code = reserve(e, (size_t)n, st);
    if (code)
        return code;
    uint8_t *to = e->target.data + e->tokens.length;
    memcpy(e->tokens.data + e->tokens.length, tokens, (size_t)n * sizeof *tokens);
    for (int64_t i = 0; i < n; i++)
        to[i] = i > 0 && (targets ? targets[i] : i >= first_target);
    e->tokens.length += (size_t)n;
    e->target.length = e->tokens.length;
    e->begin[++e->n] = (int64_t)e->tokens.length;
    return PLM_OK;
}

static int render_text(const char *text, struct encoder *e, int32_t end_of_text, struct token_list *ids, struct target_list *targets, struct plm_status *st)
{
    const size_t first = ids->length;
    if (end_of_text < 0)
        return status_set(st, PLM_EUNSUPPORTED, "a row is a text, but the tokenizer has no token to end it with: "
                          "declare an eos_token in tokenizer_config.json");
    int code = encoder_begin(e, ids, st);
    if (!code)
        code = encoder_encode(e, text, strlen(text), false, ids, st);
    if (!code && ids->length == ids->capacity) {
        const size_t capacity = ids->capacity + 64;
        int32_t *data = realloc(ids->data, capacity * sizeof *data);
        if (!data)
            return status_no_memory(st, capacity * sizeof *data, "a list of tokens");
        ids->data = data;
        ids->capacity = capacity;
    }
    if (code)
        return code;
    ids->data[ids->length++] = end_of_text;
    return target_list_add(targets, ids->length - first, true, st);
}

int example_render(const struct row *row, const struct chat_template *t, struct encoder *e, int32_t end_of_text, struct token_list *ids,
                   struct target_list *targets, struct plm_status *st)
{
    const size_t first_id = ids->length, first_target = targets->length;
    if (row->kind == ROW_TEXT)
        return render_text(row->text, e, end_of_text, ids, targets, st);
    const int code = chat_template_render(t, e, row->messages, row->n_messages, CHAT_BEGINS, false, ids, targets, st);
    if (code)
        return code;
    size_t n = ids->length - first_id;
    while (n > 0 && !targets->data[first_target + n - 1])
        n--;
    if (n > 0) { /* a row without targets stays whole */
        ids->length = first_id + n;
        targets->length = first_target + n;
    }
    return PLM_OK;
}

int example_render_answer(const struct chat_message *messages, int n_messages, const char *answer, const struct chat_template *t, struct encoder *e,
                          struct token_list *ids, struct target_list *targets, struct plm_status *st)
{
    const size_t first = targets->length;
    int code = chat_template_render(t, e, messages, n_messages, CHAT_BEGINS, true, ids, targets, st);
    if (!code)
        memset(targets->data + first, 0, targets->length - first);
    return code ? code : chat_template_answer(t, e, answer, strlen(answer), true, ids, targets, st);
}

/* --- files --- */

struct loader {
    struct examples *out;
    const struct example_options *o;
    struct encoder *encoder;
    struct token_list ids;
    struct target_list targets;
    int32_t end_of_text;
};

/* How often a row is used. */
static int64_t times_used(double weight, uint64_t seed, int source, int64_t row)
{
    const double whole = floor(weight);
    return (int64_t)whole + (weight > whole && random_uniform(seed, RANDOM_ROWS, (uint32_t)source, (uint64_t)row) < weight - whole);
}

static int64_t count_targets(const struct target_list *t, int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 1; i < n; i++)
        sum += t->data[i];
    return sum;
}

static int add_row(struct loader *l, const struct row *row, int64_t times, struct example_counts *counts, struct plm_status *st)
{
    l->ids.length = l->targets.length = 0;
    int code = example_render(row, l->o->chat, l->encoder, l->end_of_text, &l->ids, &l->targets, st);
    if (code)
        return code;
    int64_t n = (int64_t)l->ids.length, learnt = count_targets(&l->targets, n);
    const bool too_long = n > l->o->max_len;
    if (learnt == 0) {
        counts->no_target++;
        return PLM_OK;
    }
    if (too_long && l->o->truncate)
        learnt = count_targets(&l->targets, n = l->o->max_len);
    if (too_long && (!l->o->truncate || learnt == 0)) {
        counts->dropped_long++;
        return PLM_OK;
    }
    counts->truncated += too_long;
    for (int64_t i = 0; i < times && !code; i++) {
        code = examples_add(l->out, l->ids.data, n, l->targets.data, 0, st);
        counts->used++;
        counts->tokens += n;
        counts->targets += learnt;
    }
    return code;
}

static int read_source(struct loader *l, const struct example_source *source, int index, struct example_counts *counts, struct plm_status *st)
{
    const struct row_options options = {.wanted = ROW_CONVERSATION, .fields = source->fields, .last_turn_only = l->o->last_turn_only,
                                        .unread = &counts->unread};
    struct row_set set = {0};
    if (!(source->weight > 0 && source->weight <= 1e6))
        return status_set(st, PLM_EINVAL, "the weight of '%s' is %g; expected a number above 0, up to 1e6", source->path, source->weight);
    int code = row_set_read(&set, source->path, &options, l->o->skip_bad, st);
    counts->rows = set.n;
    counts->bad = set.bad;
    for (int64_t i = 0; i < set.n && !code; i++) {
        const int64_t times = times_used(source->weight, l->o->seed, index, i);
        counts->left_out += times == 0;
        code = times ? add_row(l, &set.rows[i], times, counts, st) : PLM_OK;
        if (code)
            status_prefix(st, "%s:%lld", source->path, (long long)set.rows[i].line);
    }
    row_set_free(&set);
    return code;
}

int examples_read(struct examples *out, const struct example_source *sources, int n, const struct example_options *o,
                  struct example_counts *counts, struct plm_status *st)
{
    struct loader l = {.out = out, .o = o, .end_of_text = tokenizer_eos(o->tokenizer)};
    struct example_counts all = {0};
    const int64_t before = out->n;
    if (o->max_len < 2)
        return status_set(st, PLM_EINVAL, "sequences of %d tokens at most; expected 2 or more", o->max_len);
    int code = encoder_create(&l.encoder, o->tokenizer, st);
    for (int i = 0; i < n && !code; i++) {
        counts[i] = (struct example_counts){0};
        code = read_source(&l, &sources[i], i, &counts[i], st);
        all.rows += counts[i].rows;
        all.no_target += counts[i].no_target;
        all.dropped_long += counts[i].dropped_long;
        all.left_out += counts[i].left_out;
    }
    if (!code && out->n == before)
        code = status_set(st, PLM_EINVAL, "nothing to train on: of %lld rows %lld have no target, %lld are longer than %d tokens, %lld are left out by a weight",
                          (long long)all.rows, (long long)all.no_target, (long long)all.dropped_long, o->max_len, (long long)all.left_out);
    encoder_free(l.encoder);
    free(l.ids.data);
    free(l.targets.data);
    return code;
}
