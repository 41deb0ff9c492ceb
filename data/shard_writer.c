#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

#include "data/hdf5_lock.h"
#include "data/hdf5_output.h"
#include "data/memory_room.h"
#include "data/shard.h"
#include "data/shard_layout.h"
#include "data/zstd_filter.h"

enum slot_state { SLOT_FREE, SLOT_QUEUED, SLOT_DONE, SLOT_FAILED };

/* One chunk on its way to the file. */
struct slot {
    enum slot_state state;
    void *raw;      /* (chunk_tokens), zero behind the last token */
    void *stored;   /* one zstd frame */
    size_t stored_bytes;
};

struct shard_writer {
    struct shard_info info;
    char *path, *temporary;
    int level;
    size_t chunk_bytes, bound;
    hid_t file, tokens, driver;
    struct hdf5_output output;
    uint64_t *offsets;      /* (info.n_documents + 1) */
    int64_t offsets_capacity;
    uint64_t (*index)[3];   /* (SHARD_MAX_CHUNKS) */
    int64_t fill;           /* tokens in the slot being filled */
    /* ring: chunk i lives in slots[i % n_slots] */
    struct slot *slots;
    int n_slots;
    int64_t submitted, claimed, written;
    pthread_t *threads;
    int n_threads;
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t queued, done;
    ZSTD_CCtx *compressor;  /* of the caller, when there are no threads */
};

static int fail(const struct shard_writer *w, const char *what, struct plm_status *st)
{
    char text[256];
    return status_set(st, PLM_EIO, "cannot write %s of shard '%s': %s", what, w->temporary,
                      w->output.error ? strerror(w->output.error) : hdf5_error(text, sizeof text));
}

static ZSTD_CCtx *create_compressor(int level)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (c && (ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) ||
              ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)))) {
        ZSTD_freeCCtx(c);
        return NULL;
    }
    return c;
}

static void compress_slot(const struct shard_writer *w, struct slot *slot, ZSTD_CCtx *c, enum slot_state *state)
{
    slot->stored_bytes = c ? ZSTD_compress2(c, slot->stored, w->bound, slot->raw, w->chunk_bytes) : (size_t)-1;
    *state = ZSTD_isError(slot->stored_bytes) ? SLOT_FAILED : SLOT_DONE;
}

static void *compress_main(void *arg)
{
    struct shard_writer *w = arg;
    ZSTD_CCtx *c = create_compressor(w->level);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->stop && w->claimed == w->submitted)
            pthread_cond_wait(&w->queued, &w->lock);
        if (w->stop)
            break;
        struct slot *slot = &w->slots[w->claimed++ % w->n_slots];
        pthread_mutex_unlock(&w->lock);
        enum slot_state state;
        compress_slot(w, slot, c, &state);
        pthread_mutex_lock(&w->lock);
        slot->state = state;
        pthread_cond_signal(&w->done);
    }
    pthread_mutex_unlock(&w->lock);
    ZSTD_freeCCtx(c);
    return NULL;
}

/* An empty file of format v110 with an empty /tokens. Chunks are never allocated or filled by HDF5 itself; the maximal
 * extent is fixed, so that the chunk index is a checksummed fixed array. */
static int create_file(struct shard_writer *w, struct plm_status *st)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE), chunked = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t zero = 0, chunk = (hsize_t)w->info.chunk_tokens, most = chunk * SHARD_MAX_CHUNKS;
    hid_t space = H5Screate_simple(1, &zero, &most);
    unsigned values[2] = {(unsigned)w->level, (unsigned)w->chunk_bytes};
    bool ok = access >= 0 && creation >= 0 && chunked >= 0 && space >= 0;
    ok = ok && H5Zregister(zstd_filter_class()) >= 0;
    ok = ok && H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0;
    ok = ok && H5Pset_attr_phase_change(creation, SHARD_MAX_ATTRIBUTES, 0) >= 0;
    /* no time stamps: the same data make the same bytes */
    ok = ok && H5Pset_obj_track_times(creation, 0) >= 0 && H5Pset_obj_track_times(chunked, 0) >= 0;
    ok = ok && H5Pset_chunk(chunked, 1, &chunk) >= 0 && H5Pset_fill_time(chunked, H5D_FILL_TIME_NEVER) >= 0;
    ok = ok && H5Pset_filter(chunked, ZSTD_FILTER_ID, H5Z_FLAG_MANDATORY, 2, values) >= 0;
    ok = ok && (w->driver = hdf5_output_use(access, &w->output)) >= 0;
    ok = ok && (w->file = H5Fcreate(w->temporary, H5F_ACC_TRUNC, creation, access)) >= 0;
    ok = ok && (w->tokens = H5Dcreate2(w->file, "tokens", w->info.token_bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, space,
                                       H5P_DEFAULT, chunked, H5P_DEFAULT)) >= 0;
    int code = ok && !w->output.error ? PLM_OK : fail(w, "the start", st);
    H5Sclose(space);
    H5Pclose(chunked);
    H5Pclose(creation);
    H5Pclose(access);
    return code;
}

static int check_options(const struct shard_writer_options *o, struct plm_status *st)
{
    if (!o->tokenizer_sha256 || strlen(o->tokenizer_sha256) != 64)
        return status_set(st, PLM_EINVAL, "a shard needs the SHA-256 of its tokenizer as 64 hexadecimal digits");
    if (o->vocab_size < 1 || o->vocab_size > INT32_MAX)
        return status_set(st, PLM_EINVAL, "vocabulary of %lld tokens, expected 1 to %d", (long long)o->vocab_size, INT32_MAX);
    if (o->chunk_tokens < 0 || o->chunk_tokens > SHARD_MAX_CHUNK_TOKENS)
        return status_set(st, PLM_EINVAL, "chunks of %lld tokens, expected 1 to %d", (long long)o->chunk_tokens,
                          SHARD_MAX_CHUNK_TOKENS);
    if (o->level < 0 || o->level > ZSTD_maxCLevel())
        return status_set(st, PLM_EINVAL, "zstd level %d, expected 1 to %d", o->level, ZSTD_maxCLevel());
    return PLM_OK;
}

static int start_threads(struct shard_writer *w, int n, struct plm_status *st)
{
    w->threads = calloc((size_t)n + 1, sizeof *w->threads);
    if (!w->threads)
        return status_no_memory(st, (size_t)n * sizeof *w->threads, "compression threads");
    for (; w->n_threads < n; w->n_threads++) {
        int error = pthread_create(&w->threads[w->n_threads], NULL, compress_main, w);
        if (error)
            return status_set(st, PLM_ENOMEM, "cannot start a compression thread: %s", strerror(error));
    }
    return PLM_OK;
}

int shard_writer_create(struct shard_writer **out, const char *path, const struct shard_writer_options *o,
                        struct plm_status *st)
{
    *out = NULL;
    int code = check_options(o, st);
    if (code)
        return code;
    struct shard_writer *w = calloc(1, sizeof *w);
    if (!w)
        return status_no_memory(st, sizeof *w, "a shard writer");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->queued, NULL);
    pthread_cond_init(&w->done, NULL);
    w->file = w->tokens = w->driver = H5I_INVALID_HID;
    w->level = o->level ? o->level : 3;
    struct shard_info *info = &w->info;
    snprintf(info->tokenizer_sha256, sizeof info->tokenizer_sha256, "%s", o->tokenizer_sha256);
    snprintf(info->name, sizeof info->name, "%s", o->name ? o->name : "");
    snprintf(info->tool_version, sizeof info->tool_version, "%s", PLM_VERSION);
    info->vocab_size = o->vocab_size;
    info->bos_id = o->bos_id;
    info->eos_id = o->eos_id;
    info->pad_id = o->pad_id;
    info->seed = o->seed;
    info->chunk_tokens = o->chunk_tokens ? o->chunk_tokens : SHARD_CHUNK_TOKENS;
    info->token_bytes = o->vocab_size <= 65536 ? 2 : 4;
    w->chunk_bytes = (size_t)info->chunk_tokens * (size_t)info->token_bytes;
    w->bound = ZSTD_compressBound(w->chunk_bytes);
    w->n_slots = 2 * (o->n_threads > 0 ? o->n_threads : 0) + 1;
    w->slots = calloc((size_t)w->n_slots, sizeof *w->slots);
    w->index = calloc(SHARD_MAX_CHUNKS, sizeof *w->index);
    w->offsets_capacity = 1024;
    w->offsets = calloc((size_t)w->offsets_capacity, sizeof *w->offsets);
    w->path = strdup(path);
    bool ok = w->slots && w->index && w->offsets && w->path && asprintf(&w->temporary, "%s.tmp", path) >= 0;
    for (int i = 0; ok && i < w->n_slots; i++)
        ok = (w->slots[i].raw = calloc(1, w->chunk_bytes)) && (w->slots[i].stored = malloc(w->bound));
    if (ok && o->n_threads <= 0)
        ok = (w->compressor = create_compressor(w->level)) != NULL;
    code = ok ? PLM_OK : status_no_memory(st, w->chunk_bytes * (size_t)w->n_slots * 2, "a shard writer");
    if (!code)
        code = memory_room(MEMORY_ROOM_HDF5, "HDF5", st); /* which ends with a signal without */
    if (!code) {
        struct hdf5_session session;
        hdf5_enter(&session);
        code = create_file(w, st);
        hdf5_leave(&session);
    }
    if (!code && o->n_threads > 0)
        code = start_threads(w, o->n_threads, st);
    if (code) {
        shard_writer_abort(w);
        return code;
    }
    *out = w;
    return PLM_OK;
}

/* Write the oldest chunk in the ring, waiting for its compression. */
static int write_oldest(struct shard_writer *w, struct plm_status *st)
{
    struct slot *slot = &w->slots[w->written % w->n_slots];
    pthread_mutex_lock(&w->lock);
    while (slot->state == SLOT_QUEUED)
        pthread_cond_wait(&w->done, &w->lock);
    pthread_mutex_unlock(&w->lock);
    if (slot->state == SLOT_FAILED)
        return status_no_memory(st, w->bound, "the compression of a chunk");
    hsize_t at = (hsize_t)w->written * (hsize_t)w->info.chunk_tokens;
    hsize_t extent = at + (hsize_t)w->info.chunk_tokens;
    if (extent > (hsize_t)w->info.n_tokens) /* only the last chunk; the extent must not shrink afterwards: HDF5 would */
        extent = (hsize_t)w->info.n_tokens; /* read and rewrite the chunk */
    struct hdf5_session session;
    hdf5_enter(&session);
    bool ok = H5Dset_extent(w->tokens, &extent) >= 0 &&
              H5Dwrite_chunk(w->tokens, H5P_DEFAULT, 0, &at, slot->stored_bytes, slot->stored) >= 0 && !w->output.error;
    int code = ok ? PLM_OK : fail(w, "a chunk", st);
    hdf5_leave(&session);
    w->index[w->written][1] = slot->stored_bytes;
    w->index[w->written][2] = XXH3_64bits(slot->stored, slot->stored_bytes);
    w->info.stored_bytes += (int64_t)slot->stored_bytes;
    w->written++;
    slot->state = SLOT_FREE;
    return code;
}

/* Hand the slot being filled over to compression, and make sure that the next one is free. */
static int submit(struct shard_writer *w, struct plm_status *st)
{
    struct slot *slot = &w->slots[w->submitted % w->n_slots];
    memset((char *)slot->raw + w->fill * w->info.token_bytes, 0, w->chunk_bytes - (size_t)(w->fill * w->info.token_bytes));
    w->fill = 0;
    if (w->n_threads == 0) {
        compress_slot(w, slot, w->compressor, &slot->state);
        w->submitted++;
    } else {
        pthread_mutex_lock(&w->lock);
        slot->state = SLOT_QUEUED;
        w->submitted++;
        pthread_cond_signal(&w->queued);
        pthread_mutex_unlock(&w->lock);
    }
    return w->submitted - w->written == w->n_slots ? write_oldest(w, st) : PLM_OK;
}

int64_t shard_writer_room(const struct shard_writer *w)
{
    return w->info.chunk_tokens * SHARD_MAX_CHUNKS - w->info.n_tokens;
}

int shard_writer_append(struct shard_writer *w, const int32_t *tokens, int64_t n, int64_t text_bytes, struct plm_status *st)
{
    if (n < 1 || n > shard_writer_room(w))
        return status_set(st, PLM_ELIMIT, "document of %lld tokens does not fit: the shard '%s' has room for %lld", (long long)n,
                          w->path, (long long)shard_writer_room(w));
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= w->info.vocab_size)
            return status_set(st, PLM_EINVAL, "token %d at position %lld of a document is outside the vocabulary of %lld",
                              tokens[i], (long long)i, (long long)w->info.vocab_size);
    if (w->info.n_documents + 2 > w->offsets_capacity) {
        size_t capacity = 2 * (size_t)w->offsets_capacity;
        uint64_t *grown = realloc(w->offsets, capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, capacity * sizeof *grown, "document offsets");
        w->offsets = grown;
        w->offsets_capacity = (int64_t)capacity;
    }
    int64_t done = 0;
    while (done < n) {
        int64_t take = w->info.chunk_tokens - w->fill < n - done ? w->info.chunk_tokens - w->fill : n - done;
        void *raw = w->slots[w->submitted % w->n_slots].raw;
        if (w->info.token_bytes == 2)
            for (int64_t i = 0; i < take; i++)
                ((uint16_t *)raw)[w->fill + i] = (uint16_t)tokens[done + i];
        else
            memcpy((uint32_t *)raw + w->fill, tokens + done, (size_t)take * sizeof *tokens);
        w->fill += take;
        done += take;
        w->info.n_tokens += take;
        if (w->fill == w->info.chunk_tokens) {
            int code = submit(w, st);
            if (code)
                return code;
        }
    }
    w->info.text_bytes += text_bytes;
    w->offsets[++w->info.n_documents] = (uint64_t)w->info.n_tokens;
    return PLM_OK;
}

static bool write_u64(hid_t file, const char *name, int rank, const hsize_t dims[], const void *data)
{
    hid_t space = H5Screate_simple(rank, dims, NULL), creation = H5Pcreate(H5P_DATASET_CREATE), set = H5I_INVALID_HID;
    bool ok = space >= 0 && H5Pset_obj_track_times(creation, 0) >= 0 &&
              (set = H5Dcreate2(file, name, H5T_STD_U64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT)) >= 0 &&
              H5Dwrite(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (set >= 0)
        ok = H5Dclose(set) >= 0 && ok;
    H5Pclose(creation);
    H5Sclose(space);
    return ok;
}

static bool write_attribute(hid_t file, const char *name, hid_t type, hid_t memory_type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, memory_type, value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    return ok;
}

static bool write_integer(hid_t file, const char *name, int64_t value)
{
    return write_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

static bool write_string(hid_t file, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool ok = H5Tset_size(type, strlen(value) + 1) >= 0 && write_attribute(file, name, type, type, value);
    H5Tclose(type);
    return ok;
}

static int write_metadata(struct shard_writer *w, struct plm_status *st)
{
    const struct shard_info *info = &w->info;
    struct hdf5_session session;
    hdf5_enter(&session);
    bool ok = H5Fflush(w->file, H5F_SCOPE_LOCAL) >= 0;
    for (int64_t i = 0; ok && i < w->written; i++) {
        hsize_t at = (hsize_t)(i * info->chunk_tokens), size;
        haddr_t address;
        unsigned mask;
        ok = H5Dget_chunk_info_by_coord(w->tokens, &at, &mask, &address, &size) >= 0 && address != HADDR_UNDEF &&
             size == w->index[i][1];
        w->index[i][0] = address;
    }
    ok = ok && write_u64(w->file, "doc_offsets", 1, (hsize_t[]){(hsize_t)info->n_documents + 1}, w->offsets);
    ok = ok && write_u64(w->file, "chunk_index", 2, (hsize_t[]){(hsize_t)w->written, 3}, w->index);
    uint64_t offsets_hash = XXH3_64bits(w->offsets, ((size_t)info->n_documents + 1) * sizeof *w->offsets);
    uint64_t index_hash = XXH3_64bits(w->index, (size_t)w->written * sizeof *w->index);
    ok = ok && write_string(w->file, "format", SHARD_FORMAT) && write_integer(w->file, "format_version", SHARD_FORMAT_VERSION);
    ok = ok && write_string(w->file, "tool_version", info->tool_version);
    ok = ok && write_string(w->file, "tokenizer_sha256", info->tokenizer_sha256) && write_string(w->file, "name", info->name);
    for (const struct shard_field *f = shard_fields; ok && f->name; f++)
        ok = write_integer(w->file, f->name, *(const int64_t *)((const char *)info + f->offset));
    ok = ok && write_attribute(w->file, "doc_offsets_xxh3", H5T_STD_U64LE, H5T_NATIVE_UINT64, &offsets_hash);
    ok = ok && write_attribute(w->file, "chunk_index_xxh3", H5T_STD_U64LE, H5T_NATIVE_UINT64, &index_hash);
    ok = ok && H5Fflush(w->file, H5F_SCOPE_LOCAL) >= 0 && write_integer(w->file, "complete", 1);
    int code = ok && !w->output.error ? PLM_OK : fail(w, "the index", st);
    ok = H5Dclose(w->tokens) >= 0;
    w->tokens = H5I_INVALID_HID;
    ok = H5Fclose(w->file) >= 0 && ok;
    w->file = H5I_INVALID_HID;
    if (!code && (!ok || w->output.error))
        code = fail(w, "the end", st);
    hdf5_leave(&session);
    return code;
}

/* Make the file durable under its final name. */
static int publish(struct shard_writer *w, struct plm_status *st)
{
    int fd = open(w->temporary, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 && fsync(fd) == 0 ? lseek(fd, 0, SEEK_END) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (size < 0)
        return status_set(st, PLM_EIO, "cannot sync shard '%s': %s", w->temporary, strerror(error));
    w->info.file_bytes = size;
    if (rename(w->temporary, w->path) != 0)
        return status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", w->temporary, w->path, strerror(errno));
    fd = open(dirname(w->temporary), O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* the temporary name is not needed any more */
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(w->temporary);
    w->temporary = NULL;
    return PLM_OK;
}

int shard_writer_finish(struct shard_writer *w, struct shard_info *info, struct plm_status *st)
{
    int code = PLM_OK;
    if (w->info.n_documents == 0)
        code = status_set(st, PLM_EINVAL, "shard '%s' would hold no document", w->path);
    w->info.n_chunks = (w->info.n_tokens + w->info.chunk_tokens - 1) / w->info.chunk_tokens;
    if (!code && w->fill > 0)
        code = submit(w, st);
    while (!code && w->written < w->submitted)
        code = write_oldest(w, st);
    if (!code)
        code = write_metadata(w, st);
    if (!code)
        code = publish(w, st);
    if (!code && info)
        *info = w->info;
    shard_writer_abort(w);
    return code;
}

void shard_writer_abort(struct shard_writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->queued);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    if (w->driver >= 0) { /* it comes before the others */
        struct hdf5_session session;
        hdf5_enter(&session);
        if (w->tokens >= 0)
            H5Dclose(w->tokens);
        if (w->file >= 0)
            H5Fclose(w->file);
        H5FDunregister(w->driver);
        hdf5_leave(&session);
    }
    if (w->temporary)
        unlink(w->temporary);
    for (int i = 0; w->slots && i < w->n_slots; i++) {
        free(w->slots[i].raw);
        free(w->slots[i].stored);
    }
    ZSTD_freeCCtx(w->compressor);
    pthread_cond_destroy(&w->done);
    pthread_cond_destroy(&w->queued);
    pthread_mutex_destroy(&w->lock);
    free(w->threads);
    free(w->slots);
    free(w->index);
    free(w->offsets);
    free(w->path);
    free(w->temporary);
    free(w);
}
