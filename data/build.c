#include "data/build.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "data/build_state.h"
#include "data/digest_set.h"
#include "data/directory_lock.h"
#include "data/files.h"
#include "data/shard.h"
#include "infer/base/log.h"
#include "infer/base/mapped.h"
#include "infer/base/output.h"
#include "infer/base/random.h"
#include "infer/base/threads.h"
#include "infer/text/tokenizer.h"

enum {
    BATCH_DOCUMENTS = 1024,
    BATCH_BYTES = 16 << 20, /* text tokenised at once by all threads */
};

/* A document on its way through the batch. */
struct item {
    size_t begin, length; /* in the batch's text */
    const char *path;     /* and line: where the document is from */
    int64_t line;
    struct digest digest;
    bool part;            /* it goes on the item before */
    bool duplicate, valid;
    struct token_list ids;
};

/* One side of the split. */
struct side {
    const char *name;
    int n_threads; /* that compress */
    struct shard_writer *writer;
    struct build_split *totals;
};

struct build {
    bool document_valid; /* is the document held out that the next pieces go on? */
    int directory_lock; /* -1: not held */
    const struct build_options *o;
    struct build_report *report;
    struct reader *reader;
    struct tokenizer *tokenizer;
    char tokenizer_sha256[65];
    int32_t eos;
    int64_t chunk_tokens;
    json_t *settings, *shards;
    struct side train, valid;
    FILE *valid_text;
    char *valid_text_temporary;
    struct digest_set seen;
    struct thread_pool *pool;
    struct encoder **encoders; /* (pool_size) */
    /* the batch */
    char *text;
    size_t text_length, text_capacity;
    struct item *items; /* (BATCH_DOCUMENTS) */
    int64_t n_items;
    /* the first document (in order) that could not be encoded */
    pthread_mutex_t lock;
    int64_t failed;
    struct plm_status failure;
};

static int load_tokenizer(struct build *b, struct plm_status *st)
{
    struct stat info;
    bool directory = stat(b->o->tokenizer_path, &info) == 0 && S_ISDIR(info.st_mode);
    char *path;
    if (asprintf(&path, "%s%s", b->o->tokenizer_path, directory ? "/tokenizer.json" : "") < 0)
        return status_no_memory(st, strlen(b->o->tokenizer_path), "a file name");
    struct mapped_file file;
    int code = mapped_open(&file, path, st);
    if (code) {
        free(path);
        return code;
    }
    unsigned char sha[EVP_MAX_MD_SIZE];
    if (!EVP_Digest(file.data ? (const void *)file.data : "", file.size, sha, NULL, EVP_sha256(), NULL))
        code = status_set(st, PLM_EINTERNAL, "libcrypto cannot compute a SHA-256");
    for (int i = 0; !code && i < 32; i++)
        snprintf(b->tokenizer_sha256 + 2 * i, 3, "%02x", sha[i]);
    if (!code)
        code = tokenizer_from_json(&b->tokenizer, (const char *)file.data, file.size, path, st);
    mapped_close(&file);
    if (!code && (b->eos = tokenizer_eos(b->tokenizer)) < 0)
        code = status_set(st, PLM_EINVAL, "tokenizer '%s' has no token to end documents with: no <|endoftext|>, and no eos_token in a tokenizer_config.json beside it", path);
    free(path);
    return code;
}

static int create_encoders(struct build *b, struct plm_status *st)
{
    int code = pool_create(&b->pool, b->o->n_threads, st);
    if (code)
        return code;
    b->encoders = calloc((size_t)pool_size(b->pool), sizeof *b->encoders);
    b->items = calloc(BATCH_DOCUMENTS, sizeof *b->items);
    if (!b->encoders || !b->items)
        return status_no_memory(st, BATCH_DOCUMENTS * sizeof *b->items, "a batch of documents");
    for (int i = 0; !code && i < pool_size(b->pool); i++)
        code = encoder_create(&b->encoders[i], b->tokenizer, st);
    b->train.n_threads = pool_size(b->pool) > 1 ? pool_size(b->pool) : 0;
    return code;
}

/* Read documents until the batch is full or the data end. */
static int read_batch(struct build *b, struct plm_status *st)
{
    b->text_length = 0;
    b->n_items = 0;
    while (b->n_items < BATCH_DOCUMENTS && b->text_length < BATCH_BYTES) {
        struct document doc;
        int code = reader_next(b->reader, &doc, st);
        if (code || !doc.text)
            return code;
        if (b->text_length + doc.length > b->text_capacity) {
            size_t capacity = 2 * (b->text_length + doc.length);
            char *grown = realloc(b->text, capacity);
            if (!grown)
                return status_no_memory(st, capacity, "a batch of documents");
            b->text = grown;
            b->text_capacity = capacity;
        }
        memcpy(b->text + b->text_length, doc.text, doc.length);
        struct item *item = &b->items[b->n_items++];
        *item = (struct item){.begin = b->text_length, .length = doc.length, .path = doc.path, .line = doc.line, .part = doc.part,
                              .ids = item->ids};
        item->ids.length = 0;
        b->text_length += doc.length;
    }
    return PLM_OK;
}

static void digest_items(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    struct build *b = ctx;
    for (int64_t i = begin; i < end; i++)
        b->items[i].digest = digest_of(b->text + b->items[i].begin, b->items[i].length);
}

static void encode_items(void *ctx, int64_t begin, int64_t end, int worker)
{
    struct build *b = ctx;
    for (int64_t i = begin; i < end; i++) {
        struct item *item = &b->items[i];
        if (item->duplicate)
            continue;
        struct plm_status st = {0};
        /* special tokens in the text stay text: a document must not be able to end itself */
        if (encoder_begin(b->encoders[worker], &item->ids, &st) == PLM_OK &&
            encoder_encode(b->encoders[worker], b->text + item->begin, item->length, false, &item->ids, &st) == PLM_OK)
            continue;
        pthread_mutex_lock(&b->lock);
        if (b->failed < 0 || i < b->failed) {
            b->failed = i;
            b->failure = st;
        }
        pthread_mutex_unlock(&b->lock);
    }
}

/* In document order: which documents were there before, and which are held out. */
static int sort_out(struct build *b, struct plm_status *st)
{
    for (int64_t i = 0; i < b->n_items; i++) {
        struct item *item = &b->items[i];
        bool added;
        int code = digest_set_add(&b->seen, item->digest, &added, st);
        if (code)
            return code;
        item->duplicate = !added;
        b->report->duplicates += !added;
        if (!item->part) { /* pieces of one document stand on one side: that of its first piece */
            const double u = random_uniform((uint64_t)b->o->seed, RANDOM_SPLIT, (uint32_t)item->digest.high, item->digest.low);
            b->document_valid = u < b->o->valid_fraction;
        }
        item->valid = b->document_valid;
    }
    return PLM_OK;
}

static int open_shard(struct build *b, struct side *side, struct plm_status *st)
{
    char *path;
    if (asprintf(&path, "%s/%s/%s-%05lld.h5", b->o->directory, side->name, side->name, (long long)side->totals->shards) < 0)
        return status_no_memory(st, strlen(b->o->directory), "a file name");
    struct shard_writer_options o = {.tokenizer_sha256 = b->tokenizer_sha256, .name = b->o->name,
                                     .vocab_size = tokenizer_vocab_size(b->tokenizer), .bos_id = -1, .eos_id = b->eos,
                                     .pad_id = b->eos, .seed = b->o->seed, .chunk_tokens = b->chunk_tokens,
                                     .level = b->o->level, .n_threads = side->n_threads};
    int code = shard_writer_create(&side->writer, path, &o, st);
    free(path);
    return code;
}

static int finish_shard(struct build *b, struct side *side, struct plm_status *st)
{
    struct shard_info info;
    int code = shard_writer_finish(side->writer, &info, st);
    side->writer = NULL;
    if (code)
        return code;
    char name[64];
    snprintf(name, sizeof name, "%s/%s-%05lld.h5", side->name, side->name, (long long)side->totals->shards);
    if (json_array_append_new(b->shards, json_pack("{s:s, s:I}", "path", name, "bytes", (json_int_t)info.file_bytes)) != 0)
        return status_no_memory(st, sizeof name, "the list of shards");
    side->totals->shards++;
    side->totals->documents += info.n_documents;
    side->totals->text_bytes += info.text_bytes;
    side->totals->tokens += info.n_tokens;
    side->totals->stored_bytes += info.stored_bytes;
    b->report->token_bytes = info.token_bytes;
    return PLM_OK;
}

static int write_document(struct build *b, struct side *side, const struct item *item, struct plm_status *st)
{
    int code = PLM_OK;
    if (side->writer && shard_writer_room(side->writer) < (int64_t)item->ids.length)
        code = finish_shard(b, side, st);
    if (!code && !side->writer)
        code = open_shard(b, side, st);
    if (!code)
        code = shard_writer_append(side->writer, item->ids.data, (int64_t)item->ids.length, (int64_t)item->length, st);
    if (!code && b->valid_text && side == &b->valid &&
        fwrite(b->text + item->begin, 1, item->length, b->valid_text) != item->length)
        code = status_set(st, PLM_EIO, "cannot write the held-out text '%s': %s", b->valid_text_temporary, strerror(errno));
    return code;
}

static int append_eos(struct token_list *ids, int32_t eos, struct plm_status *st)
{
    if (ids->length == ids->capacity) {
        size_t capacity = ids->capacity + ids->capacity / 2 + 16;
        int32_t *grown = realloc(ids->data, capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, capacity * sizeof *grown, "the tokens of a document");
        ids->data = grown;
        ids->capacity = capacity;
    }
    ids->data[ids->length++] = eos;
    return PLM_OK;
}

static int process_batch(struct build *b, struct plm_status *st)
{
    pool_for(b->pool, b->n_items, 16, digest_items, b);
    int code = sort_out(b, st);
    if (code)
        return code;
    b->failed = -1;
    pool_for(b->pool, b->n_items, 4, encode_items, b);
    if (b->failed >= 0) {
        const struct item *item = &b->items[b->failed];
        return status_set(st, b->failure.code, "cannot tokenise the document at %s:%lld: %s", item->path, (long long)item->line,
                          b->failure.message);
    }
    for (int64_t i = 0; !code && i < b->n_items; i++) {
        struct item *item = &b->items[i];
        if (item->duplicate)
            continue;
        code = append_eos(&item->ids, b->eos, st);
        if (!code)
            code = write_document(b, item->valid ? &b->valid : &b->train, item, st);
    }
    return code;
}

static int open_valid_text(struct build *b, struct plm_status *st)
{
    if (!b->o->valid_text)
        return PLM_OK;
    if (asprintf(&b->valid_text_temporary, "%s.tmp", b->o->valid_text) < 0) {
        b->valid_text_temporary = NULL;
        return status_no_memory(st, strlen(b->o->valid_text), "a file name");
    }
    const int code = output_create_stream(&b->valid_text, b->valid_text_temporary, st);
    return code ? status_prefix(st, "the held-out text") : PLM_OK;
}

static int close_valid_text(struct build *b, struct plm_status *st)
{
    if (!b->valid_text)
        return PLM_OK;
    bool ok = fflush(b->valid_text) == 0 && fsync(fileno(b->valid_text)) == 0;
    ok = fclose(b->valid_text) == 0 && ok;
    b->valid_text = NULL;
    if (!ok || rename(b->valid_text_temporary, b->o->valid_text) != 0)
        return status_set(st, PLM_EIO, "cannot write the held-out text '%s': %s", b->o->valid_text, strerror(errno));
    return PLM_OK;
}

static int run(struct build *b, struct plm_status *st)
{
    int code = open_valid_text(b, st);
    do {
        if (!code)
            code = read_batch(b, st);
        if (!code)
            code = process_batch(b, st);
    } while (!code && b->n_items > 0);
    if (!code && b->train.writer)
        code = finish_shard(b, &b->train, st);
    if (!code && b->valid.writer)
        code = finish_shard(b, &b->valid, st);
    if (!code)
        code = close_valid_text(b, st);
    b->report->reader = *reader_statistics(b->reader);
    if (code)
        return code;
    if (b->report->train.documents == 0)
        return status_set(st, PLM_EINVAL, "no document to train on: %lld files read, %lld documents found, %lld of them held "
                          "out, %lld duplicates; add data or lower --valid-fraction", (long long)b->report->reader.files,
                          (long long)b->report->reader.documents, (long long)b->report->valid.documents,
                          (long long)b->report->duplicates);
    if (b->o->valid_fraction > 0 && b->report->valid.documents == 0)
        log_warn("none of the %lld documents fell into the held-out split of %g: raise --valid-fraction or add documents",
                 (long long)b->report->train.documents, b->o->valid_fraction);
    return PLM_OK;
}

/* Small data get small chunks, so that the padding of the last one stays small. */
static int64_t choose_chunk(const struct build *b, const char *const *files, int64_t n)
{
    if (b->o->chunk_tokens)
        return b->o->chunk_tokens;
    int64_t bytes = 0;
    struct stat info;
    for (int64_t i = 0; i < n; i++)
        bytes += stat(files[i], &info) == 0 ? info.st_size : 0;
    return bytes < 64 << 20 ? 65536 : SHARD_CHUNK_TOKENS;
}

static bool is_finished(enum build_status status, const struct build_options *o)
{
    return status == BUILD_FINISHED && (!o->valid_text || access(o->valid_text, F_OK) == 0);
}

static int prepare_and_run(struct build *b, struct plm_status *st)
{
    const struct build_options *o = b->o;
    struct reader_options options = {o->text_field, o->max_document, 0};
    int64_t n_files;
    int code = load_tokenizer(b, st);
    if (!code)
        code = reader_open(&b->reader, o->inputs, o->n_inputs, &options, st);
    if (code)
        return code;
    const char *const *files = reader_files(b->reader, &n_files);
    b->chunk_tokens = choose_chunk(b, files, n_files);
    code = build_settings(&b->settings, o, b->tokenizer_sha256, files, n_files, b->chunk_tokens, st);
    enum build_status status = BUILD_NEEDED;
    if (!code)
        code = build_inspect(&status, o->directory, b->settings, o->force, b->report, st);
    if (code || is_finished(status, o))
        return code;
    /* Only now, so that a directory that is not ours stays as it is; what another build did meanwhile is looked at again. */
    code = directory_create(o->directory, st);
    if (!code)
        code = directory_lock(&b->directory_lock, o->directory, DIRECTORY_LOCK_SECONDS, st);
    if (!code)
        code = build_inspect(&status, o->directory, b->settings, o->force, b->report, st);
    if (code || is_finished(status, o))
        return code;
    *b->report = (struct build_report){0};
    code = build_begin(o->directory, b->settings, st);
    if (!code)
        code = create_encoders(b, st);
    return code ? code : run(b, st);
}

static void build_free(struct build *b)
{
    shard_writer_abort(b->train.writer);
    shard_writer_abort(b->valid.writer);
    if (b->valid_text) {
        fclose(b->valid_text);
        unlink(b->valid_text_temporary);
    }
    for (int i = 0; b->encoders && i < pool_size(b->pool); i++)
        encoder_free(b->encoders[i]);
    for (int i = 0; b->items && i < BATCH_DOCUMENTS; i++)
        free(b->items[i].ids.data);
    pool_destroy(b->pool);
    tokenizer_free(b->tokenizer);
    reader_close(b->reader);
    digest_set_free(&b->seen);
    json_decref(b->settings);
    json_decref(b->shards);
    free(b->valid_text_temporary);
    free(b->encoders);
    free(b->items);
    free(b->text);
    pthread_mutex_destroy(&b->lock);
    directory_unlock(b->directory_lock);
}

int data_build(const struct build_options *o, struct build_report *report, struct plm_status *st)
{
    *report = (struct build_report){0};
    if (!(o->valid_fraction >= 0 && o->valid_fraction < 1))
        return status_set(st, PLM_EINVAL, "held-out fraction is %g, expected 0 up to, not including, 1", o->valid_fraction);
    if (o->name && strlen(o->name) >= sizeof((struct shard_info *)0)->name)
        return status_set(st, PLM_EINVAL, "the name has %zu bytes, expected at most %zu", strlen(o->name),
                          sizeof((struct shard_info *)0)->name - 1);
    struct build b = {.o = o, .report = report, .shards = json_array(), .directory_lock = -1};
    b.train = (struct side){"train", 0, NULL, &report->train};
    b.valid = (struct side){"valid", 0, NULL, &report->valid};
    pthread_mutex_init(&b.lock, NULL);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int code = prepare_and_run(&b, st);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!code && !report->up_to_date) {
        report->seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
        code = build_complete(o->directory, b.settings, report, b.shards, st);
    }
    build_free(&b);
    return code;
}
