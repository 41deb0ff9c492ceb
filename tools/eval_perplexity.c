#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "tools/eval.h"
#include "tools/result.h"

struct tally {
    int64_t documents, tokens, bytes;
    double nats;
};

/* Score one document in windows: ids is the start token and the document. *counted: its tokens that were scored. */
static int score_document(struct eval_model *e, const struct token_list *ids, size_t stride, size_t limit,
                          struct token_score *scores, double *nats, size_t *counted, struct plm_status *st)
{
    const size_t end = limit < ids->length - 1 ? limit + 1 : ids->length; /* tokens [1, end) are to be scored */
    *nats = 0;
    for (size_t begin = 0, next = 1; next < end; begin += stride) {
        /* tokens [begin, begin + context) go in, so the last that can be scored is the one behind them */
        const size_t last = end - begin <= e->context + 1 ? end : begin + e->context + 1;
        const int code = eval_score(e, ids->data + begin, last - begin, next - begin, scores, st);
        if (code)
            return code;
        for (size_t i = 0; i < last - next; i++)
            *nats -= scores[i].log_prob;
        next = last;
    }
    *counted = end - 1;
    return PLM_OK;
}

static int add_row(json_t *rows, const char *name, const struct tally *t, struct plm_status *st)
{
    const double mean = t->tokens ? t->nats / (double)t->tokens : 0;
    json_t *row =
        json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "file", name, "documents", (json_int_t)t->documents, "tokens",
                  (json_int_t)t->tokens, "bytes", (json_int_t)t->bytes, "nats_per_token", mean, "perplexity", exp(fmin(mean, 700)),
                  /* JSON has no infinity */ "bits_per_byte", t->bytes ? t->nats / M_LN2 / (double)t->bytes : 0.0);
    return row && !json_array_append_new(rows, row) ? PLM_OK : result_failed(st);
}

/* Bytes of text in `n` tokens from the front of a document. */
static int64_t bytes_of(const struct eval_model *e, const int32_t *tokens, size_t n)
{
    int64_t bytes = 0;
    const char *text;
    for (size_t i = 0; i < n; i++)
        bytes += (int64_t)plm_token_bytes(e->model, tokens[i], true, &text);
    return bytes;
}

struct run {
    struct eval_model *e;
    const struct eval_perplexity_options *o;
    size_t stride;
    struct token_list ids;
    struct token_score *scores;
    struct tally file, total;
    const char *path; /* of `file` */
    json_t *rows;
};

static int finish_file(struct run *r, struct plm_status *st)
{
    r->total.documents += r->file.documents;
    r->total.tokens += r->file.tokens;
    r->total.bytes += r->file.bytes;
    r->total.nats += r->file.nats;
    const int code = r->file.documents ? add_row(r->rows, r->path, &r->file, st) : PLM_OK;
    r->file = (struct tally){0};
    return code;
}

static int64_t tokens_left(const struct run *r)
{
    return r->o->max_tokens ? r->o->max_tokens - r->total.tokens - r->file.tokens : INT64_MAX;
}

static int one_document(struct run *r, const struct document *doc, struct plm_status *st)
{
    int code = r->path && strcmp(r->path, doc->path) ? finish_file(r, st) : PLM_OK;
    r->path = doc->path;
    if (!code)
        code = eval_encode(r->e, doc->text, doc->length, false, &r->ids, st);
    double nats;
    size_t counted;
    if (!code)
        code = score_document(r->e, &r->ids, r->stride, (size_t)tokens_left(r), r->scores, &nats, &counted, st);
    if (code)
        return status_prefix(st, "%s:%lld", doc->path, (long long)doc->line);
    r->file.documents++;
    r->file.tokens += (int64_t)counted;
    /* of a whole document the bytes as they are in the file, before the tokenizer's normalisation */
    r->file.bytes += counted == r->ids.length - 1 ? (int64_t)doc->length : bytes_of(r->e, r->ids.data + 1, counted);
    r->file.nats += nats;
    return PLM_OK;
}

static int all_documents(struct run *r, struct reader *reader, struct plm_status *st)
{
    struct document doc;
    int code = reader_next(reader, &doc, st);
    while (!code && doc.text) {
        code = one_document(r, &doc, st);
        if (!code && tokens_left(r) <= 0)
            break;
        if (!code)
            code = reader_next(reader, &doc, st);
    }
    if (!code)
        code = finish_file(r, st);
    if (!code && r->total.tokens == 0)
        code = status_set(st, PLM_EINVAL, "no document in the input: files with text, or .jsonl with a field \"%s\", are expected",
                          r->o->text_field ? r->o->text_field : "text");
    if (!code && json_array_size(r->rows) > 1)
        code = add_row(r->rows, "all", &r->total, st);
    return code;
}

int eval_perplexity(struct eval_model *e, const char *const *paths, int n_paths, const struct eval_perplexity_options *o,
                    json_t **result, struct plm_status *st)
{
    struct run r = {.e = e, .o = o, .stride = o->stride ? (size_t)o->stride : (e->context + 1) / 2, .rows = json_array()};
    struct reader *reader = NULL;
    *result = NULL;
    if (r.stride > e->context) {
        json_decref(r.rows);
        return status_set(st, PLM_EINVAL, "a stride of %zu tokens with a context of %zu would leave tokens out: expected 1 to %zu",
                          r.stride, e->context, e->context);
    }
    /* a document is scored whole, whatever its size: cutting it would take context from its tokens */
    int code = reader_open(&reader, paths, n_paths,
                           &(struct reader_options){.text_field = o->text_field, .max_document = (size_t)256 << 20}, st);
    if (!code && !(r.scores = malloc(e->context * sizeof *r.scores)))
        code = status_no_memory(st, e->context * sizeof *r.scores, "scores");
    if (!code)
        code = all_documents(&r, reader, st);
    if (!code) {
        *result = json_pack("{s:s, s:s, s:I, s:I, s:O}", "evaluation", "perplexity", "model", e->path, "context",
                            (json_int_t)e->context, "stride", (json_int_t)r.stride, "files", r.rows);
        code = *result ? PLM_OK : result_failed(st);
    }
    if (!code) {
        const struct reader_stats *s = reader_statistics(reader);
        const int64_t skipped = s->binary_files + s->empty + s->bad_json + s->missing_field + s->wrong_type + s->long_lines;
        if (json_object_set_new(*result, "skipped", json_integer(skipped)) ||
            json_object_set_new(*result, "repaired", json_integer(s->repaired_documents)) ||
            json_object_set_new(*result, "cut", json_integer(s->cut)))
            code = result_failed(st);
    }
    if (!code)
        code = eval_add_speed(e, *result, st);
    reader_close(reader);
    json_decref(r.rows);
    free(r.ids.data);
    free(r.scores);
    return code;
}
