#include "data/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/prefetch.h"
#include "data/sampler.h"
#include "infer/base/clock.h"

enum { MAX_SEQ_LEN = 1 << 24, MAX_THREADS = 256 };

struct stream {
    struct sampler *sampler;
    struct sampler_thread *thread;   /* of stream_read itself */
    struct prefetch *prefetch;       /* NULL before stream_schedule */
    int seq_len, n_threads;
    int64_t prefetch_rows;
    double waited;                   /* seconds */
};

int batch_create(struct batch *b, int rows, int seq_len, struct plm_status *st)
{
    *b = (struct batch){0};
    if (rows < 1 || seq_len < 1 || seq_len > MAX_SEQ_LEN)
        return status_set(st, PLM_EINVAL, "a batch of %d rows of %d positions", rows, seq_len);
    size_t n = (size_t)rows * (size_t)seq_len;
    b->rows = rows;
    b->seq_len = seq_len;
    b->tokens = calloc(n, sizeof *b->tokens);
    b->targets = calloc(n, sizeof *b->targets);
    b->weight = calloc(n, sizeof *b->weight);
    b->doc_start = calloc(n, sizeof *b->doc_start);
    if (!b->tokens || !b->targets || !b->weight || !b->doc_start) {
        batch_free(b);
        return status_no_memory(st, n * 16, "a batch");
    }
    return PLM_OK;
}

void batch_free(struct batch *b)
{
    free(b->tokens);
    free(b->targets);
    free(b->weight);
    free(b->doc_start);
    *b = (struct batch){0};
}

static int check_options(const struct stream_options *o, struct plm_status *st)
{
    if (o->n_sources < 1 || !o->sources)
        return status_set(st, PLM_EINVAL, "the mixture has no source");
    for (int i = 0; i < o->n_sources; i++)
        if (!(o->sources[i].weight > 0) || !isfinite(o->sources[i].weight))
            return status_set(st, PLM_EINVAL, "weight of source '%s' is %g, expected a positive number", o->sources[i].path,
                              o->sources[i].weight);
    if (o->seq_len < 1 || o->seq_len > MAX_SEQ_LEN)
        return status_set(st, PLM_EINVAL, "sequence length is %d, expected 1 to %d", o->seq_len, MAX_SEQ_LEN);
    if (o->n_threads < 0 || o->n_threads > MAX_THREADS)
        return status_set(st, PLM_EINVAL, "%d decoding threads, expected 0 to %d", o->n_threads, MAX_THREADS);
    if (o->prefetch_rows < 0)
        return status_set(st, PLM_EINVAL, "prefetch of %lld rows", (long long)o->prefetch_rows);
    return PLM_OK;
}

int stream_open(struct stream **out, const struct stream_options *o, struct plm_status *st)
{
    *out = NULL;
    int code = check_options(o, st);
    if (code)
        return code;
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a data stream");
    s->seq_len = o->seq_len;
    s->n_threads = o->n_threads ? o->n_threads : 1;
    s->prefetch_rows = o->prefetch_rows;
    code = sampler_open(&s->sampler, o, st);
    if (!code)
        code = sampler_thread_create(&s->thread, s->sampler, st);
    if (code)
        stream_close(s);
    else
        *out = s;
    return code;
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    prefetch_stop(s->prefetch);
    sampler_thread_free(s->thread);
    sampler_close(s->sampler);
    free(s);
}

int stream_read(struct stream *s, int64_t first, struct batch *b, struct plm_status *st)
{
    if (first < 0)
        return status_set(st, PLM_EINVAL, "sample number %lld is negative", (long long)first);
    if (b->seq_len != s->seq_len)
        return status_set(st, PLM_EINVAL, "the batch has rows of %d positions, the stream of %d", b->seq_len, s->seq_len);
    double start = seconds_now();
    bool found = false;
    int code = s->prefetch ? prefetch_take(s->prefetch, first, b, &found, st) : PLM_OK;
    if (!found)
        code = sampler_fill(s->thread, first, b, st);
    s->waited += seconds_now() - start;
    return code;
}

int stream_schedule(struct stream *s, int64_t first, int rows, int64_t stride, struct plm_status *st)
{
    if (first < 0 || rows < 1 || stride < 1)
        return status_set(st, PLM_EINVAL, "schedule of %d samples from %lld with stride %lld", rows, (long long)first,
                          (long long)stride);
    prefetch_stop(s->prefetch);
    s->prefetch = NULL;
    if (s->prefetch_rows == 0)
        return PLM_OK;
    int64_t blocks = (s->prefetch_rows + rows - 1) / rows;
    return prefetch_start(&s->prefetch, s->sampler, &(struct prefetch_plan){first, stride, rows, s->seq_len, blocks,
                          s->n_threads}, st);
}

int stream_usage(struct stream *s, int source, int64_t n_samples, struct stream_usage *out, struct plm_status *st)
{
    return sampler_usage(s->sampler, source, n_samples, out, st);
}

double stream_wait_seconds(const struct stream *s)
{
    return s->waited;
}
