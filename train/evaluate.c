#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "data/files.h"
#include "data/shard.h"

/* Documents and raw bytes of all shards of a source. */
static int source_totals(const char *path, int64_t *documents, int64_t *text_bytes, struct plm_status *st)
{
    struct file_list files = {0};
    *documents = *text_bytes = 0;
    int code = file_list_add(&files, path, ".h5", st);
    for (int64_t i = 0; i < files.n && !code; i++) {
        struct shard *shard;
        code = shard_open(&shard, files.paths[i], st);
        if (!code) {
            *documents += shard_information(shard)->n_documents;
            *text_bytes += shard_information(shard)->text_bytes;
            shard_close(shard);
        }
    }
    file_list_free(&files);
    return code;
}

/* This rank's share of the rows [0, rows): sums[0] += nll, sums[1] += predicted tokens. */
static int evaluate_share(double sums[2], struct step *step, struct stream *stream, struct batch *b, int64_t rows, const struct comm *comm,
                          float *nll, struct plm_status *st)
{
    const int64_t micro = b->rows;
    int code = stream_schedule(stream, comm->rank * micro, (int)micro, comm->size * micro, st);
    for (int64_t first = comm->rank * micro; first < rows && !code; first += comm->size * micro) {
        code = stream_read(stream, first, b, st);
        if (code)
            return code;
        step_forward(step, b);
        step_nll(step, b, nll, NULL);
        int64_t valid = rows - first < micro ? rows - first : micro; /* the last micro-batch wraps into the next epoch */
        for (int64_t i = 0; i < valid * b->seq_len; i++) {
            sums[0] += (double)b->weight[i] * nll[i];
            sums[1] += b->weight[i];
        }
    }
    return code;
}

int evaluate(struct evaluation *out, struct step *step, const struct evaluation_options *o, struct comm *comm, struct plm_status *st)
{
    *out = (struct evaluation){0};
    const struct stream_source source = {o->path, 1};
    const struct stream_options so = {.sources = &source, .n_sources = 1, .seq_len = o->seq_len, .tokenizer_sha256 = o->tokenizer_sha256,
        .vocab_size = step->config.vocab_size, .prefetch_rows = 4 * (int64_t)o->rows};
    struct stream *stream = NULL;
    struct stream_usage usage = {0};
    struct batch b = {0};
    int64_t documents = 0;
    float *nll = malloc((size_t)o->rows * (size_t)o->seq_len * sizeof *nll);
    int code = nll ? PLM_OK : status_no_memory(st, (size_t)o->rows * (size_t)o->seq_len * sizeof *nll, "evaluation losses");
    if (!code)
        code = source_totals(o->path, &documents, &out->text_bytes, st);
    if (!code)
        code = stream_open(&stream, &so, st);
    if (!code)
        code = stream_usage(stream, 0, 0, &usage, st);
    if (!code)
        code = batch_create(&b, o->rows, o->seq_len, st);
    code = comm_agree(comm, code, st);
    int64_t rows = usage.rows_per_epoch;
    if (o->max_tokens && o->max_tokens / o->seq_len < rows)
        rows = o->max_tokens / o->seq_len > 0 ? o->max_tokens / o->seq_len : 1;
    double sums[2] = {0, 0};
    if (!code)
        code = comm_agree(comm, evaluate_share(sums, step, stream, &b, rows, comm, nll, st), st);
    if (!code)
        code = comm_sum_doubles(comm, sums, 2, st);
    if (!code) {
        out->tokens = (int64_t)sums[1];
        out->loss = sums[1] > 0 ? sums[0] / sums[1] : 0;
        if (rows == usage.rows_per_epoch && out->text_bytes > 0)
            out->bits_per_byte = (sums[0] / log(2) + (double)documents * log2(step->config.vocab_size)) / (double)out->text_bytes;
    }
    batch_free(&b);
    stream_close(stream);
    free(nll);
    return code ? status_prefix(st, "evaluating '%s'", o->path) : PLM_OK;
}
