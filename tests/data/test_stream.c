/* The streaming mixture: what a sample holds, and that nothing but (seed, phase, sample number) decides it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "data/shard.h"
#include "data/stream.h"
#include "infer/base/random.h"
#include "tests/data/scratch.h"

enum { T = 48, VOCAB = 1 << 20 };

/* A shard whose tokens count up from `first`, so that a token tells where it is from. Returns the next number. */
static int32_t write_counting(const char *path, int32_t first, int n_documents, int max_length, int64_t chunk_tokens)
{
    struct plm_status st = {0};
    struct shard_writer *w;
    struct shard_writer_options o = {.tokenizer_sha256 = TEST_SHA, .vocab_size = VOCAB, .bos_id = -1, .eos_id = VOCAB - 1,
                                     .pad_id = -1, .chunk_tokens = chunk_tokens};
    assert_int_equal(shard_writer_create(&w, path, &o, &st), PLM_OK);
    int32_t *tokens = malloc((size_t)max_length * sizeof *tokens);
    for (int d = 0; d < n_documents; d++) {
        int n = 1 + (int)(random_u64(1, RANDOM_TEST, (uint32_t)first, (uint64_t)d) % (uint64_t)max_length);
        for (int i = 0; i < n; i++)
            tokens[i] = first++;
        assert_int_equal(shard_writer_append(w, tokens, n, n, &st), PLM_OK);
    }
    free(tokens);
    if (shard_writer_finish(w, NULL, &st))
        fail_msg("%s", st.message);
    return first;
}

static struct stream *open_stream(const struct stream_source *sources, int n, int n_threads, int64_t prefetch)
{
    struct plm_status st = {0};
    struct stream *s;
    struct stream_options o = {.sources = sources, .n_sources = n, .seq_len = T, .seed = 11, .phase = 2,
                               .tokenizer_sha256 = TEST_SHA, .vocab_size = VOCAB, .n_threads = n_threads,
                               .prefetch_rows = prefetch};
    if (stream_open(&s, &o, &st))
        fail_msg("%s", st.message);
    return s;
}

static void read_ok(struct stream *s, int64_t first, struct batch *b)
{
    struct plm_status st = {0};
    if (stream_read(s, first, b, &st))
        fail_msg("%s", st.message);
}

/* Every position with something to predict exactly once an epoch, in rows that are well formed. */
static void test_epoch(void **state)
{
    mkdir(scratch_path(state, "d"), 0777);
    int32_t middle = write_counting(scratch_path(state, "d/a.h5"), 0, 200, 3 * T, 256);
    int32_t end = write_counting(scratch_path(state, "d/b.h5"), middle, 90, T, 64);
    struct stream *s = open_stream(&(struct stream_source){scratch_path(state, "d"), 1}, 1, 1, 0);
    struct stream_usage usage;
    struct plm_status st = {0};
    assert_int_equal(stream_usage(s, 0, 0, &usage, &st), PLM_OK);
    assert_int_equal(usage.tokens_per_epoch, end - 290);
    int rows = (int)usage.rows_per_epoch, repeats = 0;
    assert_true((int64_t)rows * T < usage.tokens_per_epoch * 102 / 100 + 2 * T);
    struct batch b, next;
    assert_int_equal(batch_create(&b, rows, T, &st), PLM_OK);
    assert_int_equal(batch_create(&next, rows, T, &st), PLM_OK);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        unsigned char *seen = calloc((size_t)end + 1, 1);
        memset(b.tokens, 0xEE, sizeof *b.tokens * (size_t)rows * T); /* all of it must be overwritten */
        memset(b.doc_start, 0xEE, sizeof *b.doc_start * (size_t)rows * T);
        read_ok(s, epoch * rows, &b);
        int64_t predicted = 0;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < T; j++) {
                int i = r * T + j, start = b.doc_start[i];
                if (b.weight[i] == 0) {
                    assert_int_equal(b.tokens[i], VOCAB - 1);
                    assert_int_equal(b.targets[i], 0);
                    assert_int_equal(start, j);
                    assert_true(j == T - 1 || b.weight[i + 1] == 0);
                    continue;
                }
                assert_true(b.weight[i] == 1);
                assert_true(start >= 0 && start <= j && b.doc_start[r * T + start] == start);
                assert_int_equal(b.tokens[i] - b.tokens[r * T + start], j - start);
                assert_int_equal(b.targets[i], b.tokens[i] + 1);
                assert_int_equal(seen[b.tokens[i]]++, 0);
                predicted++;
            }
        assert_int_equal(predicted, usage.tokens_per_epoch);
        if (epoch > 0)
            for (int r = 0; r < rows; r++)
                repeats += b.tokens[r * T] == next.tokens[r * T];
        memcpy(next.tokens, b.tokens, sizeof *b.tokens * (size_t)rows * T);
        free(seen);
    }
    assert_true(repeats < rows / 4);
    assert_int_equal(stream_usage(s, 0, 5 * rows / 2, &usage, &st), PLM_OK);
    assert_true(fabs(usage.epochs - 2.5) < 1.0 / rows + 1e-9);
    batch_free(&b);
    batch_free(&next);
    stream_close(s);
}

static void three_sources(void **state, struct stream_source sources[3])
{
    write_counting(scratch_path(state, "a.h5"), 0, 300, 2 * T, 500);
    write_counting(scratch_path(state, "b.h5"), 100000, 50, T / 3, 64);
    write_counting(scratch_path(state, "c.h5"), 200000, 20, 5 * T, 4096);
    for (int i = 0; i < 3; i++)
        sources[i] = (struct stream_source){scratch_path(state, (const char *[]){"a.h5", "b.h5", "c.h5"}[i]), 0};
    sources[0].weight = 5;
    sources[1].weight = 3;
    sources[2].weight = 2;
}

/* Tokens of every source, in every prefix, within one row of the weights (and what rows are short of the mean). */
static void test_weights(void **state)
{
    struct stream_source sources[3];
    three_sources(state, sources);
    struct stream *s = open_stream(sources, 3, 1, 0);
    struct plm_status st = {0};
    struct batch b;
    assert_int_equal(batch_create(&b, 1, T, &st), PLM_OK);
    struct stream_usage usage[3];
    double share[3], sum = 0, tokens[3] = {0}, total = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(stream_usage(s, i, 0, &usage[i], &st), PLM_OK);
        share[i] = sources[i].weight * (double)usage[i].rows_per_epoch / (double)usage[i].tokens_per_epoch;
        sum += share[i];
    }
    int64_t count[3] = {0};
    for (int64_t k = 0; k < 1500; k++) {
        read_ok(s, k, &b);
        int source = b.tokens[0] / 100000;
        count[source]++;
        for (int j = 0; j < T; j++) {
            tokens[source] += (double)b.weight[j];
            total += (double)b.weight[j];
        }
        for (int i = 0; i < 3; i++) {
            assert_true(fabs((double)count[i] - (double)(k + 1) * share[i] / sum) < 1);
            assert_true(fabs(tokens[i] - total * sources[i].weight / 10) < 2 * T);
        }
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(stream_usage(s, i, 1500, &usage[i], &st), PLM_OK);
        assert_int_equal(usage[i].rows_drawn, count[i]);
    }
    assert_int_equal(stream_usage(s, 3, 1500, &usage[0], &st), PLM_EINVAL);
    batch_free(&b);
    stream_close(s);
}

static void expect_rows(const struct batch *all, int64_t first, const struct batch *b)
{
    size_t n = (size_t)b->rows * T, at = (size_t)first * T;
    assert_memory_equal(b->tokens, all->tokens + at, n * sizeof *b->tokens);
    assert_memory_equal(b->targets, all->targets + at, n * sizeof *b->targets);
    assert_memory_equal(b->weight, all->weight + at, n * sizeof *b->weight);
    assert_memory_equal(b->doc_start, all->doc_start + at, n * sizeof *b->doc_start);
}

/* The same samples for any number of ranks, rows, threads and any prefetch. */
static void test_partition(void **state)
{
    enum { N = 240 };
    struct stream_source sources[3];
    three_sources(state, sources);
    struct plm_status st = {0};
    struct batch all, b;
    assert_int_equal(batch_create(&all, N, T, &st), PLM_OK);
    struct stream *s = open_stream(sources, 3, 1, 0);
    read_ok(s, 0, &all);
    stream_close(s);
    for (int rows = 1; rows <= 4; rows *= 2)
        for (int ranks = 1; ranks <= 4; ranks += 3)
            for (int threads = 0; threads <= 3; threads += 3)
                for (int64_t prefetch = 0; prefetch <= 20; prefetch += 10) {
                    assert_int_equal(batch_create(&b, rows, T, &st), PLM_OK);
                    for (int rank = 0; rank < ranks; rank++) {
                        s = open_stream(sources, 3, threads, prefetch);
                        int64_t stride = rows * ranks, first = rank * rows;
                        assert_int_equal(stream_schedule(s, first, rows, stride, &st), PLM_OK);
                        for (int64_t k = first; k + rows <= N; k += stride) {
                            read_ok(s, k, &b);
                            expect_rows(&all, k, &b);
                        }
                        assert_true(stream_wait_seconds(s) > 0);
                        stream_close(s);
                    }
                    batch_free(&b);
                }
    batch_free(&all);
}

/* Requests that leave the schedule: skipping, going back, other sizes, a new schedule. */
static void test_off_schedule(void **state)
{
    enum { N = 400 };
    struct stream_source sources[3];
    three_sources(state, sources);
    struct plm_status st = {0};
    struct batch all, b, one;
    assert_int_equal(batch_create(&all, N, T, &st), PLM_OK);
    assert_int_equal(batch_create(&b, 3, T, &st), PLM_OK);
    assert_int_equal(batch_create(&one, 1, T, &st), PLM_OK);
    struct stream *s = open_stream(sources, 3, 2, 12);
    read_ok(s, 0, &all);
    assert_int_equal(stream_schedule(s, 6, 3, 6, &st), PLM_OK);
    static const int64_t order[] = {6, 12, 30, 36, 7, 35, 42, 300, 306, 300, 0, 390, 312, 396};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        read_ok(s, order[i], &b);
        expect_rows(&all, order[i], &b);
        read_ok(s, order[i], &one);
        expect_rows(&all, order[i], &one);
    }
    assert_int_equal(stream_schedule(s, 0, 1, 1, &st), PLM_OK);
    for (int64_t k = 0; k < 100; k++) {
        read_ok(s, k, &one);
        expect_rows(&all, k, &one);
    }
    assert_int_equal(stream_read(s, -1, &one, &st), PLM_EINVAL);
    assert_int_equal(stream_schedule(s, 0, 0, 1, &st), PLM_EINVAL);
    struct batch wrong;
    assert_int_equal(batch_create(&wrong, 1, T + 1, &st), PLM_OK);
    assert_int_equal(stream_read(s, 0, &wrong, &st), PLM_EINVAL);
    batch_free(&wrong);
    stream_close(s); /* while the threads are busy */
    batch_free(&all);
    batch_free(&b);
    batch_free(&one);
}

static void expect_open_error(const struct stream_options *o, int code, const char *words)
{
    struct plm_status st = {0};
    struct stream *s;
    assert_int_equal(stream_open(&s, o, &st), code);
    assert_null(s);
    if (!strstr(st.message, words))
        fail_msg("message '%s' does not say '%s'", st.message, words);
}

static void test_open_errors(void **state)
{
    const char *path = scratch_path(state, "a.h5"), *single = scratch_path(state, "single.h5");
    write_counting(path, 0, 30, T, 128);
    write_counting(single, 0, 30, 1, 128);
    mkdir(scratch_path(state, "empty"), 0777);
    struct stream_source source = {path, 1};
    struct stream_options good = {.sources = &source, .n_sources = 1, .seq_len = T, .tokenizer_sha256 = TEST_SHA,
                                  .vocab_size = VOCAB};
    struct stream_options o = good;
    o.tokenizer_sha256 = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    expect_open_error(&o, PLM_EINVAL, "another tokenizer");
    o = good;
    o.vocab_size = 1000;
    expect_open_error(&o, PLM_EINVAL, "vocabulary");
    o = good;
    o.seq_len = 0;
    expect_open_error(&o, PLM_EINVAL, "sequence length");
    o = good;
    o.n_sources = 0;
    expect_open_error(&o, PLM_EINVAL, "no source");
    source.weight = -1;
    expect_open_error(&good, PLM_EINVAL, "weight");
    source = (struct stream_source){scratch_path(state, "missing.h5"), 1};
    expect_open_error(&good, PLM_EIO, "missing.h5");
    source.path = scratch_path(state, "empty");
    expect_open_error(&good, PLM_EINVAL, "holds no shard");
    source.path = single;
    expect_open_error(&good, PLM_EINVAL, "nothing to predict");
    o = good;
    source.path = path;
    o.tokenizer_sha256 = NULL;
    o.vocab_size = 0;
    struct stream *s;
    struct plm_status st = {0};
    assert_int_equal(stream_open(&s, &o, &st), PLM_OK);
    stream_close(s);
}

/* A chunk that is damaged after opening: the background thread's error comes out of stream_read, and again when repeated. */
static void test_damaged(void **state)
{
    const char *path = scratch_path(state, "a.h5");
    write_counting(path, 0, 2000, T, SHARD_CHUNK_TOKENS / 8);
    size_t n;
    unsigned char *data = read_whole(path, &n);
    data[n / 2] ^= 0x40;
    write_file(path, data, n);
    free(data);
    struct plm_status st = {0};
    struct batch b;
    assert_int_equal(batch_create(&b, 2, T, &st), PLM_OK);
    struct stream *s = open_stream(&(struct stream_source){path, 1}, 1, 2, 8);
    assert_int_equal(stream_schedule(s, 0, 2, 2, &st), PLM_OK);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(stream_read(s, 2 * (k / 2), &b, &st), PLM_EFORMAT);
        assert_non_null(strstr(st.message, "checksum"));
        assert_non_null(strstr(st.message, path));
    }
    stream_close(s);
    batch_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_epoch, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_weights, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_partition, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_off_schedule, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_open_errors, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_damaged, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
