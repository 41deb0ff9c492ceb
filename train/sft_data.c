#include "train/sft_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/permutation.h"
#include "infer/base/log.h"
#include "infer/base/random.h"

/* ---- pairs ---- */

struct pair_reader {
    const struct sft_renderer *r;
    struct encoder *encoder;
    struct token_list ids;
    struct target_list targets;
    struct example_counts counts;
    int64_t refined;         /* sequences (x, draft, z) -> y_w */
    int max_len;
    bool truncate, report;
    struct examples *out;
};

/* prompt -> answer. whole: a sequence that is too long is dropped even when others are cut. */
static int add_answer(struct pair_reader *p, const struct chat_message *messages, int n, const char *answer, bool whole, bool *added, struct plm_status *st)
{
    *added = false;
    p->ids.length = p->targets.length = 0;
    int code = example_render_answer(messages, n, answer, p->r->chat, p->encoder, &p->ids, &p->targets, st);
    if (code)
        return code;
    int64_t prompt = 0; /* tokens before the answer */
    while (!p->targets.data[prompt])
        prompt++;
    int64_t length = (int64_t)p->ids.length;
    if (length > p->max_len && (whole || !p->truncate || prompt >= p->max_len)) {
        p->counts.dropped_long++;
        return PLM_OK;
    }
    if (length > p->max_len) {
        p->counts.truncated++;
        length = p->max_len;
    }
    code = examples_add(p->out, p->ids.data, length, p->targets.data, 0, st);
    p->counts.tokens += length;
    p->counts.targets += length - prompt;
    *added = !code;
    return code;
}

/* (x, draft, z) -> y_w: the last message of the prompt becomes the template filled with it and the draft. */
static int add_refinement(struct pair_reader *p, struct row *row, const char *draft, struct plm_status *st)
{
    struct chat_message *last = &row->messages[row->n_messages - 1];
    const struct chat_message question = *last;
    size_t length;
    char *text = refine_template_fill(p->r->refine, question.content, question.content_bytes, draft, strlen(draft), &length);
    if (!text)
        return status_no_memory(st, 0, "a filled refinement template");
    last->content = text;
    last->content_bytes = length;
    bool added;
    int code = add_answer(p, row->messages, row->n_messages, row->chosen, true, &added, st);
    p->refined += added;
    *last = question;
    free(text);
    return code;
}

/* How often a row is used: whole copies, and one more for a share of the rows (as examples_read does). */
static int64_t copies(double weight, uint64_t seed, int64_t row)
{
    const double whole = floor(weight);
    return (int64_t)whole + (random_uniform(seed, RANDOM_ROWS, UINT32_MAX, (uint64_t)row) < weight - whole);
}

static int read_pairs(struct pair_reader *p, const struct sft_source *source, bool skip_bad, uint64_t seed, struct plm_status *st)
{
    struct row_set set = {0};
    const struct row_options o = {.wanted = ROW_PAIR, .fields = source->fields};
    p->counts = (struct example_counts){0};
    p->refined = 0;
    int code = row_set_read(&set, source->path, &o, skip_bad, st);
    p->counts.bad = set.bad;
    p->counts.rows = set.n;
    for (int64_t i = 0; i < set.n && !code; i++) {
        struct row *row = &set.rows[i];
        int64_t times = copies(source->weight, seed, i);
        p->counts.left_out += times == 0;
        for (; times > 0 && !code; times--) {
            bool added;
            code = add_answer(p, row->messages, row->n_messages, row->chosen, false, &added, st);
            p->counts.used += added;
            if (!code && source->use != USE_CHOSEN)
                code = add_refinement(p, row, row->rejected, st);
            if (!code && source->use == USE_REFINE_BOTH)
                code = add_refinement(p, row, row->chosen, st);
        }
        if (code)
            status_prefix(st, "%s:%lld", source->path, (long long)row->line);
    }
    if (set.bad && p->report)
        log_warn("%s: %lld malformed rows left out, the first: %s", source->path, (long long)set.bad, set.first_bad);
    row_set_free(&set);
    return code;
}

/* ---- sources ---- */

static void report_source(const struct sft_source *s, const struct example_counts *n, int64_t refined)
{
    char more[256] = "";
    int at = 0;
    const struct { int64_t n; const char *what; } left_out[] = {{n->dropped_long, "too long, dropped"}, {n->truncated, "cut"},
        {n->no_target, "without a target, dropped"}, {n->bad, "malformed, left out"},
        {n->left_out, "not used by weight"}, {refined, "refinements added"}};
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (left_out[i].n)
            at += snprintf(more + at, sizeof more - (size_t)at, "; %lld %s", (long long)left_out[i].n, left_out[i].what);
    char unread[400];
    row_unread_describe(&n->unread, unread, sizeof unread);
    if (*unread)
        log_info("%s: keys of messages that are not read: %s", s->path, unread);
    if (n->unread.bad_arguments)
        log_warn("%s: the arguments of %lld tool calls are texts that hold no JSON; they are learnt as texts", s->path,
                 (long long)n->unread.bad_arguments);
    log_info("%s: %lld rows, %lld used, %lld tokens, %lld of them targets%s", s->path, (long long)n->rows, (long long)n->used, (long long)n->tokens,
             (long long)n->targets, more);
}

int sft_read_sources(struct examples *out, const struct sft_source *sources, int n, const struct sft_renderer *r, const struct sft_phase *how, int seq_len,
                     uint64_t seed, bool report, struct plm_status *st)
{
    struct example_source *plain = calloc((size_t)n + 1, sizeof *plain);
    struct example_counts *counts = calloc((size_t)n + 1, sizeof *counts);
    struct pair_reader pairs = {.r = r, .max_len = seq_len + 1, .truncate = how->truncate, .report = report, .out = out};
    int code = plain && counts ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *counts, "the list of sources");
    int n_plain = 0;
    for (int i = 0; i < n && !code; i++)
        if (sources[i].use == USE_CONVERSATION)
            plain[n_plain++] = (struct example_source){sources[i].path, sources[i].fields, sources[i].weight};
    const struct example_options o = {.chat = r->chat, .tokenizer = r->tokenizer, .max_len = seq_len + 1, .truncate = how->truncate,
        .last_turn_only = how->last_turn_only, .skip_bad = how->skip_bad, .seed = seed};
    if (!code && n_plain)
        code = examples_read(out, plain, n_plain, &o, counts, st);
    if (!code)
        code = encoder_create(&pairs.encoder, r->tokenizer, st);
    for (int i = 0, k = 0; i < n && !code; i++) {
        if (sources[i].use != USE_CONVERSATION)
            code = read_pairs(&pairs, &sources[i], how->skip_bad, seed, st);
        if (!code && report)
            report_source(&sources[i], sources[i].use == USE_CONVERSATION ? &counts[k] : &pairs.counts, sources[i].use == USE_CONVERSATION ? 0 : pairs.refined);
        k += sources[i].use == USE_CONVERSATION;
    }
    if (!code && out->n == 0)
        code = status_set(st, PLM_EINVAL, "'%s'%s: no row can be used: all are longer than seq_len + 1 = %d tokens, or have nothing to learn", sources[0].path,
                          n > 1 ? " and the other sources" : "", seq_len + 1);
    free(plain);
    free(counts);
    free(pairs.ids.data);
    free(pairs.targets.data);
    encoder_free(pairs.encoder);
    return code;
}

/* ---- phases ---- */

static int plan_phase(struct sft_data *d, int i, struct plm_status *st)
{
    struct sft_phase_data *p = &d->phases[i];
    const struct sft_phase *how = &d->c->phases[i];
    struct packed_examples packed;
    int code = packed_examples_build(&packed, &p->examples, d->c->seq_len, 0, st);
    if (code)
        return code;
    p->epoch_rows = packed.packing.n_rows;
    p->epoch_inputs = packed.packing.n_inputs;
    packed_examples_free(&packed);
    const double rows = how->epochs * (double)p->epoch_rows;
    p->rows = how->steps ? how->steps * how->batch_rows : rows < 1 ? 1 : llround(rows);
    p->steps = (p->rows - 1) / how->batch_rows + 1;
    p->first_step = d->total_steps;
    d->total_steps += p->steps;
    d->total_tokens += llround((double)p->rows / (double)p->epoch_rows * (double)p->epoch_inputs);
    const double warmup = schedule_warmup(how->warmup, (double)p->steps);
    if (warmup > (double)p->steps)
        return status_set(st, PLM_EINVAL, "the warm-up has %g steps, the whole phase has %lld", warmup, (long long)p->steps);
    /* The fall would end at the step after the last: no update is made with a rate of floor = 0. */
    p->schedule = (struct schedule){.peak = how->peak, .floor = how->floor, .warmup = warmup, .stable_end = warmup, .decay_end = (double)p->steps + 1,
        .shape = how->shape};
    return schedule_check(&p->schedule, st);
}

int sft_data_open(struct sft_data *d, const struct sft_config *c, const struct sft_renderer *r, bool report, struct plm_status *st)
{
    *d = (struct sft_data){.c = c, .packed_phase = -1};
    d->phases = calloc((size_t)c->n_phases, sizeof *d->phases);
    int code = d->phases ? PLM_OK : status_no_memory(st, (size_t)c->n_phases * sizeof *d->phases, "the phases");
    for (int i = 0; i < c->n_phases && !code; i++) {
        struct sft_phase_data *p = &d->phases[i];
        code = sft_read_sources(&p->examples, c->phases[i].sources, c->phases[i].n_sources, r, &c->phases[i], c->seq_len, c->seed, report, st);
        if (!code)
            code = plan_phase(d, i, st);
        if (code)
            status_prefix(st, "phase '%s'", c->phases[i].name);
        else if (report)
            log_info("phase '%s': %lld sequences in %lld rows of %d (%.1f %% filled), %.4g epochs, %lld steps", c->phases[i].name,
                     (long long)p->examples.n, (long long)p->epoch_rows, c->seq_len, 100 * (double)p->epoch_inputs / (double)p->epoch_rows / c->seq_len,
                     (double)p->rows / (double)p->epoch_rows, (long long)p->steps);
    }
    return code;
}

void sft_data_close(struct sft_data *d)
{
    packed_examples_free(&d->packed);
    for (int i = 0; d->phases && i < d->c->n_phases; i++)
        examples_free(&d->phases[i].examples);
    free(d->phases);
    *d = (struct sft_data){0};
}

int sft_data_describe(const struct sft_data *d, json_t **out, struct plm_status *st)
{
    int code = (*out = json_object()) ? PLM_OK : status_no_memory(st, 0, "a description of the data");
    for (int i = 0; i < d->c->n_phases && !code; i++) {
        const struct examples *e = &d->phases[i].examples;
        char name[160], what[128], hex[SHA256_HEX];
        snprintf(name, sizeof name, "phase '%.100s'", d->c->phases[i].name);
        code = sha256_bytes(e->tokens.data, e->tokens.length * sizeof *e->tokens.data, hex, st);
        snprintf(what, sizeof what, "%lld examples, %lld tokens, %.16s", (long long)e->n, (long long)e->tokens.length, hex);
        if (!code && json_object_set_new(*out, name, json_string(what)) != 0)
            code = status_no_memory(st, 0, "a description of the data");
    }
    return code;
}

int sft_data_hash(const struct sft_data *d, const char *more, char hex[SHA256_HEX], struct plm_status *st)
{
    char parts[2][SHA256_HEX];
    int code = sft_config_hash(d->c, parts[0], st);
    if (!code)
        code = sha256_bytes(more, strlen(more), parts[1], st);
    if (!code)
        code = sha256_bytes(parts, sizeof parts, hex, st);
    for (int i = 0; i < d->c->n_phases && !code; i++) {
        const struct examples *e = &d->phases[i].examples;
        char all[4][SHA256_HEX];
        memcpy(all[0], hex, sizeof all[0]);
        code = sha256_bytes(e->begin, ((size_t)e->n + 1) * sizeof *e->begin, all[1], st);
        if (!code)
            code = sha256_bytes(e->tokens.data, e->tokens.length * sizeof *e->tokens.data, all[2], st);
        if (!code)
            code = sha256_bytes(e->target.data, e->target.length, all[3], st);
        if (!code)
            code = sha256_bytes(all, sizeof all, hex, st);
    }
    return code;
}

bool sft_data_at(const struct sft_data *d, int64_t step, struct sft_point *out)
{
    if (step < 0 || step >= d->total_steps)
        return false;
    int i = 0;
    while (i + 1 < d->c->n_phases && d->phases[i + 1].first_step <= step)
        i++;
    const struct sft_phase_data *p = &d->phases[i];
    const int64_t rows = d->c->phases[i].batch_rows, in_phase = step - p->first_step, first = in_phase * rows;
    const int64_t n = p->rows - first < rows ? p->rows - first : rows;
    *out = (struct sft_point){.phase = i, .step = step, .step_in_phase = in_phase, .first_row = first, .n_rows = n,
        .epoch = (double)(first + n) / (double)p->epoch_rows, .learning_rate = schedule_rate(&p->schedule, (double)in_phase + 1)};
    return true;
}

/* Keys of a phase's epoch: which sequences of one length change places in the packing, and the order of the rows. */
static uint64_t epoch_key(const struct sft_data *d, int phase, int64_t epoch, int use)
{
    return random_u64(d->c->seed, RANDOM_DATA_ORDER, (uint32_t)(2 * phase + use), (uint64_t)epoch);
}

int sft_data_row(struct sft_data *d, int phase, int64_t i, int64_t *row, struct plm_status *st)
{
    const struct sft_phase_data *p = &d->phases[phase];
    const int64_t epoch = i / p->epoch_rows;
    if (d->packed_phase != phase || d->packed_epoch != epoch) {
        packed_examples_free(&d->packed);
        d->packed_phase = -1;
        int code = packed_examples_build(&d->packed, &p->examples, d->c->seq_len, epoch_key(d, phase, epoch, 0), st);
        if (code)
            return code;
        d->packed_phase = phase;
        d->packed_epoch = epoch;
    }
    *row = (int64_t)permutation_apply(epoch_key(d, phase, epoch, 1), (uint64_t)p->epoch_rows, (uint64_t)(i % p->epoch_rows));
    return PLM_OK;
}

static int by_length(const void *a, const void *b)
{
    const struct sft_row *x = a, *y = b;
    if (x->inputs != y->inputs)
        return x->inputs > y->inputs ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

int sft_data_step(struct sft_data *d, const struct sft_point *at, struct sft_row *rows, struct plm_status *st)
{
    const struct sft_phase_data *p = &d->phases[at->phase];
    int64_t begin = 0; /* of the epoch's rows in the list */
    for (int64_t k = 0; k < at->n_rows; k++) {
        int64_t row;
        rows[k].i = at->first_row + k;
        int code = sft_data_row(d, at->phase, rows[k].i, &row, st);
        if (code)
            return code;
        packed_row_counts(&d->packed, &p->examples, row, &rows[k].inputs, &rows[k].targets);
        if (k + 1 == at->n_rows || (rows[k].i + 1) % p->epoch_rows == 0) {
            qsort(rows + begin, (size_t)(k + 1 - begin), sizeof *rows, by_length);
            begin = k + 1;
        }
    }
    return PLM_OK;
}
