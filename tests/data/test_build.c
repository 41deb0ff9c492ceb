/* plm data build: text to shards and back, duplicates, the held-out split, repeated and interrupted builds. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/build.h"
#include "data/shard.h"
#include "infer/base/log.h"
#include "infer/base/random.h"
#include "infer/text/tokenizer.h"
#include "tests/data/scratch.h"

enum { EOS = 257 };

static void drop(void *user, enum log_level level, const char *line)
{
    (void)user, (void)level, (void)line;
}

/* 256 bytes, one merge ("th" = 256) and <|endoftext|>. */
static void write_tokenizer(const char *path)
{
    static char bytes[256];
    const char *tokens[258];
    size_t lengths[258];
    struct plm_status st = {0};
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = &bytes[i];
        lengths[i] = 1;
    }
    tokens[256] = "th";
    lengths[256] = 2;
    tokens[EOS] = "<|endoftext|>";
    lengths[EOS] = 13;
    const int32_t merges[1][2] = {{'t', 'h'}};
    const struct special_token eos = {"<|endoftext|>", EOS};
    struct tokenizer *t;
    if (tokenizer_create(&t, tokens, lengths, 258, merges, 1, &eos, 1, &st))
        fail_msg("%s", st.message);
    size_t n;
    char *json = tokenizer_to_json(t, &n);
    assert_non_null(json);
    write_file(path, json, n);
    free(json);
    tokenizer_free(t);
}

/* 300 documents as JSON lines, of which every third occurs twice, and a text file that tries to end itself. */
static char *document_text(int i)
{
    char *text = malloc(600);
    int n = snprintf(text, 600, "document %d: the ", i);
    int words = (int)(random_u64(5, RANDOM_TEST, 0, (uint64_t)i) % 80);
    for (int w = 0; w < words; w++)
        n += snprintf(text + n, (size_t)(600 - n), "%s ", (const char *[]){"moth", "caf\xc3\xa9", "x", "path"}[(i + w * w) % 4]);
    return text;
}

static const char hostile[] = "text <|endoftext|> goes on";

static int setup(void **state)
{
    log_set_sink(drop, NULL);
    if (scratch_setup(state))
        return -1;
    write_tokenizer(scratch_path(state, "tokenizer.json"));
    mkdir(scratch_path(state, "in"), 0777);
    FILE *f = fopen(scratch_path(state, "in/a.jsonl"), "w");
    for (int i = 0; i < 400; i++) {
        char *text = document_text(i < 300 ? i : (i - 300) * 3);
        fprintf(f, "{\"text\": \"%s\"}\n", text);
        free(text);
    }
    fclose(f);
    write_file(scratch_path(state, "in/b.txt"), hostile, strlen(hostile));
    return 0;
}

static int teardown(void **state)
{
    log_set_sink(NULL, NULL);
    return scratch_teardown(state);
}

struct job {
    struct build_options o;
    const char *input;
    char directory[512], tokenizer[512], in[512];
};

static struct build_options *job(struct job *j, void **state, const char *directory)
{
    *j = (struct job){.o.valid_fraction = 0.2, .o.n_inputs = 1, .o.n_threads = 2, .o.name = "test"};
    snprintf(j->directory, sizeof j->directory, "%s", scratch_path(state, directory));
    snprintf(j->tokenizer, sizeof j->tokenizer, "%s", scratch_path(state, "tokenizer.json"));
    snprintf(j->in, sizeof j->in, "%s", scratch_path(state, "in"));
    j->input = j->in;
    j->o.inputs = &j->input;
    j->o.directory = j->directory;
    j->o.tokenizer_path = j->tokenizer;
    return &j->o;
}

static struct build_report build_ok(const struct build_options *o)
{
    struct plm_status st = {0};
    struct build_report report;
    if (data_build(o, &report, &st))
        fail_msg("%s", st.message);
    return report;
}

static void build_fails(const struct build_options *o, int code, const char *words)
{
    struct plm_status st = {0};
    struct build_report report;
    assert_int_equal(data_build(o, &report, &st), code);
    if (!strstr(st.message, words))
        fail_msg("message '%s' does not say '%s'", st.message, words);
}

/* The documents of a shard as text, each with a newline, decoded token by token here. malloc'ed. */
static char *shard_text(const char *path)
{
    struct plm_status st = {0};
    struct shard *s;
    struct shard_decoder *decoder;
    if (shard_open(&s, path, &st))
        fail_msg("%s", st.message);
    assert_int_equal(shard_decoder_create(&decoder, &st), PLM_OK);
    const struct shard_info *info = shard_information(s);
    assert_int_equal(info->eos_id, EOS);
    assert_int_equal(info->vocab_size, 258);
    uint16_t *chunk = malloc((size_t)info->chunk_tokens * 2);
    char *text = malloc((size_t)info->n_tokens * 2 + 1);
    size_t n = 0, text_bytes = 0;
    for (int64_t i = 0; i < info->n_tokens; i++) {
        if (i % info->chunk_tokens == 0)
            assert_int_equal(shard_read_chunk(s, i / info->chunk_tokens, decoder, chunk, &st), PLM_OK);
        int token = chunk[i % info->chunk_tokens];
        text_bytes += token < 256 ? 1 : token == 256 ? 2 : 0;
        if (token == 256) {
            memcpy(text + n, "th", 2);
            n += 2;
        } else {
            text[n++] = token == EOS ? '\n' : (char)token;
        }
    }
    text[n] = 0;
    assert_int_equal(info->text_bytes, text_bytes);
    free(chunk);
    shard_decoder_free(decoder);
    shard_close(s);
    return text;
}

static void test_content(void **state)
{
    struct job j;
    struct build_options *o = job(&j, state, "out");
    o->valid_text = strdup(scratch_path(state, "valid.txt"));
    struct build_report r = build_ok(o);
    assert_int_equal(r.reader.documents, 401);
    assert_int_equal(r.duplicates, 100);
    assert_int_equal(r.train.documents + r.valid.documents, 301);
    assert_true(r.valid.documents > 30 && r.valid.documents < 90);
    assert_int_equal(r.token_bytes, 2);
    char *train = shard_text(scratch_path(state, "out/train/train-00000.h5"));
    char *valid = shard_text(scratch_path(state, "out/valid/valid-00000.h5"));
    for (int i = 0; i < 301; i++) {
        char *text = i < 300 ? document_text(i) : strdup(hostile), *line;
        assert_true(asprintf(&line, "%s\n", text) > 0);
        char *in_train = strstr(train, line), *in_valid = strstr(valid, line);
        assert_true(!in_train != !in_valid); /* on one side, */
        assert_null(strstr((in_train ? in_train : in_valid) + 1, line)); /* once */
        free(text);
        free(line);
    }
    /* the held-out text is what the held-out shard stands for */
    size_t n;
    char *kept = (char *)read_whole(o->valid_text, &n), *to = valid;
    assert_int_equal(n, r.valid.text_bytes);
    for (char *from = valid; *from; from++)
        if (*from != '\n')
            *to++ = *from;
    assert_int_equal((size_t)(to - valid), n);
    assert_memory_equal(kept, valid, n);
    free(kept);
    free(train);
    free(valid);
    free((char *)o->valid_text);
}

static void expect_same(void **state, const char *a, const char *b)
{
    size_t n, m;
    unsigned char *x = read_whole(scratch_path(state, a), &n), *y = read_whole(scratch_path(state, b), &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void test_deterministic(void **state)
{
    struct job a, b;
    build_ok(job(&a, state, "a"));
    struct build_options *o = job(&b, state, "b");
    o->n_threads = 1;
    build_ok(o);
    expect_same(state, "a/train/train-00000.h5", "b/train/train-00000.h5");
    expect_same(state, "a/valid/valid-00000.h5", "b/valid/valid-00000.h5");
    o = job(&b, state, "c");
    o->seed = 1;
    struct build_report r = build_ok(o);
    assert_true(r.valid.documents > 0);
    size_t n, m;
    unsigned char *x = read_whole(scratch_path(state, "a/valid/valid-00000.h5"), &n);
    unsigned char *y = read_whole(scratch_path(state, "c/valid/valid-00000.h5"), &m);
    assert_true(n != m || memcmp(x, y, n)); /* another seed holds others out */
    free(x);
    free(y);
}

/* Several shards per side: small chunks fill SHARD_MAX_CHUNKS. */
static void test_many_shards(void **state)
{
    struct job j;
    struct build_options *o = job(&j, state, "out");
    o->chunk_tokens = 40;
    struct build_report r = build_ok(o);
    assert_true(r.train.shards > 1);
    int64_t documents = 0;
    for (int i = 0; i < r.train.shards; i++) {
        char name[64];
        snprintf(name, sizeof name, "out/train/train-%05d.h5", i);
        char *text = shard_text(scratch_path(state, name));
        for (const char *p = text; (p = strchr(p, '\n')); p++)
            documents++;
        free(text);
    }
    assert_int_equal(documents, r.train.documents);
    o->chunk_tokens = 1; /* documents of more than 256 tokens cannot fit */
    o->force = true;
    build_fails(o, PLM_ELIMIT, "does not fit");
}

static void test_repeated(void **state)
{
    struct job j;
    struct build_options *o = job(&j, state, "out");
    struct build_report first = build_ok(o);
    assert_false(first.up_to_date);
    struct build_report again = build_ok(o);
    assert_true(again.up_to_date);
    again.up_to_date = false;
    assert_memory_equal(&first, &again, sizeof first);

    o->valid_fraction = 0.3; /* other settings */
    build_fails(o, PLM_EINVAL, "valid_fraction");
    o->valid_fraction = 0.2;
    assert_true(build_ok(o).up_to_date);

    write_file(scratch_path(state, "in/c.txt"), "more", 4); /* other inputs */
    build_fails(o, PLM_EINVAL, "inputs");
    o->force = true;
    assert_int_equal(build_ok(o).reader.documents, 402);
    o->force = false;
    assert_true(build_ok(o).up_to_date);

    unlink(scratch_path(state, "out/train/train-00000.h5")); /* a shard is gone */
    assert_false(build_ok(o).up_to_date);
    assert_true(build_ok(o).up_to_date);

    mkdir(scratch_path(state, "foreign"), 0777);
    write_file(scratch_path(state, "foreign/thesis.txt"), "x", 1);
    build_fails(job(&j, state, "foreign"), PLM_EINVAL, "not empty");
}

/* Killed in the middle: the next run starts again, without --force, and leaves no rest. */
static void test_interrupted(void **state)
{
    struct job j;
    struct build_options *o = job(&j, state, "out");
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){3000, 3000});
        struct plm_status st = {0};
        struct build_report report;
        int code = data_build(o, &report, &st);
        _exit(code == PLM_EIO && strstr(st.message, "File too large") ? 7 : 8);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 7);
    assert_int_not_equal(access(scratch_path(state, "out/train/train-00000.h5"), F_OK), 0);
    write_file(scratch_path(state, "out/train/train-00003.h5.tmp"), "x", 1); /* as SIGKILL would leave it */
    write_file(scratch_path(state, "out/train/train-00002.h5"), "x", 1);
    assert_false(build_ok(o).up_to_date);
    assert_int_not_equal(access(scratch_path(state, "out/train/train-00003.h5.tmp"), F_OK), 0);
    assert_int_not_equal(access(scratch_path(state, "out/train/train-00002.h5"), F_OK), 0);
    assert_true(build_ok(o).up_to_date);
}

static void test_errors(void **state)
{
    struct job j;
    struct build_options *o = job(&j, state, "out");
    mkdir(scratch_path(state, "empty"), 0777);
    j.input = scratch_path(state, "empty");
    build_fails(o, PLM_EINVAL, "no document to train on");
    j.input = scratch_path(state, "missing");
    build_fails(o, PLM_EIO, "missing");
    j.input = j.in;
    o->valid_fraction = 1;
    build_fails(o, PLM_EINVAL, "fraction");
    o->valid_fraction = 0.2;
    o->tokenizer_path = scratch_path(state, "in/a.jsonl");
    build_fails(o, PLM_EFORMAT, "a.jsonl");
    o->tokenizer_path = *state; /* a directory that has one */
    o->directory = scratch_path(state, "in/b.txt/x");
    build_fails(o, PLM_EIO, "Not a directory");
    o->directory = scratch_path(state, "fine");
    assert_int_equal(build_ok(o).duplicates, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_interrupted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deterministic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    return cmocka_run_group_tests_name("build", tests, NULL, NULL);
}
