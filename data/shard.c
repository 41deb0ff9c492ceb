#include "data/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

#include "data/hdf5_lock.h"
#include "data/memory_room.h"
#include "data/shard_layout.h"
#include "data/zstd_filter.h"

#define FIELD(name, low, high) {#name, offsetof(struct shard_info, name), low, high}

const struct shard_field shard_fields[] = {
    FIELD(vocab_size, 1, INT32_MAX),
    FIELD(bos_id, -1, INT32_MAX),
    FIELD(eos_id, -1, INT32_MAX),
    FIELD(pad_id, -1, INT32_MAX),
    FIELD(seed, INT64_MIN, INT64_MAX),
    FIELD(text_bytes, 0, INT64_MAX),
    FIELD(n_tokens, 1, (int64_t)SHARD_MAX_CHUNK_TOKENS * SHARD_MAX_CHUNKS),
    FIELD(n_documents, 1, (int64_t)SHARD_MAX_CHUNK_TOKENS * SHARD_MAX_CHUNKS),
    FIELD(n_chunks, 1, SHARD_MAX_CHUNKS),
    FIELD(chunk_tokens, 1, SHARD_MAX_CHUNK_TOKENS),
    FIELD(stored_bytes, 1, INT64_MAX),
    {NULL, 0, 0, 0},
};

struct shard {
    struct shard_info info;
    char *path;
    int fd;
    uint64_t *offsets;          /* (n_documents + 1) */
    uint64_t (*index)[3];       /* (n_chunks) */
};

struct shard_decoder {
    ZSTD_DCtx *context;
    void *stored;
    size_t capacity;
};

/* Everything but the prefix of the message: callers put "shard 'PATH'" in front. */
static int malformed(struct plm_status *st, const char *what)
{
    return status_set(st, PLM_EFORMAT, "%s; the file is damaged or was not written by plm data build", what);
}

static int read_at(const struct shard *s, void *to, size_t n, uint64_t offset, struct plm_status *st)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(s->fd, (char *)to + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return status_set(st, PLM_EIO, "cannot read %zu bytes at %llu: %s", n, (unsigned long long)offset, strerror(errno));
        if (got == 0)
            return status_set(st, PLM_EFORMAT, "the file ended before byte %llu: it was truncated",
                              (unsigned long long)(offset + n));
        done += (size_t)got;
    }
    return PLM_OK;
}

/* HDF5's signature and superblock version 3: all files that our writer makes, and the only ones HDF5 may look at. */
static int check_signature(struct shard *s, struct plm_status *st)
{
    static const unsigned char expected[9] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n', 3};
    unsigned char start[12];
    if (s->info.file_bytes < 48)
        return malformed(st, "the file is shorter than an HDF5 superblock");
    int code = read_at(s, start, sizeof start, 0, st);
    if (code)
        return code;
    if (memcmp(start, expected, 8))
        return malformed(st, "it does not start with the signature of HDF5");
    if (start[8] != expected[8])
        return status_set(st, PLM_EFORMAT, "HDF5 superblock version %d, expected 3: not written by plm data build", start[8]);
    return PLM_OK;
}

static bool read_attribute(hid_t file, const char *name, hid_t memory_type, H5T_class_t class, size_t size, H5T_sign_t sign,
                           void *value)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    if (attribute < 0)
        return false;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool ok = H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tget_class(type) == class;
    if (class == H5T_STRING) {
        hid_t memory = H5Tcopy(H5T_C_S1);
        ok = ok && H5Tis_variable_str(type) == 0 && H5Tget_size(type) <= size && H5Tset_size(memory, size) >= 0 &&
             H5Aread(attribute, memory, value) >= 0 && memchr(value, 0, size);
        H5Tclose(memory);
    } else {
        ok = ok && H5Tget_size(type) == size && H5Tget_sign(type) == sign && H5Aread(attribute, memory_type, value) >= 0;
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return ok;
}

static bool read_integer(hid_t file, const char *name, int64_t *value)
{
    return read_attribute(file, name, H5T_NATIVE_INT64, H5T_INTEGER, 8, H5T_SGN_2, value);
}

static bool read_string(hid_t file, const char *name, char *to, size_t capacity)
{
    return read_attribute(file, name, H5I_INVALID_HID, H5T_STRING, capacity, H5T_SGN_ERROR, to);
}

static int read_attributes(struct shard_info *info, hid_t file, uint64_t hashes[2], struct plm_status *st)
{
    char format[32] = "";
    int64_t version = 0, complete = 0;
    if (!read_string(file, "format", format, sizeof format) || strcmp(format, SHARD_FORMAT))
        return malformed(st, "attribute 'format' is not \"" SHARD_FORMAT "\"");
    if (!read_integer(file, "complete", &complete) || complete != 1)
        return status_set(st, PLM_EFORMAT, "it was never completed (attribute 'complete' is not 1): build it again");
    if (!read_integer(file, "format_version", &version) || version != SHARD_FORMAT_VERSION)
        return status_set(st, PLM_EUNSUPPORTED, "shard format version %lld, this program reads version %d: build it again",
                          (long long)version, SHARD_FORMAT_VERSION);
    if (!read_string(file, "tool_version", info->tool_version, sizeof info->tool_version) ||
        !read_string(file, "tokenizer_sha256", info->tokenizer_sha256, sizeof info->tokenizer_sha256) ||
        !read_string(file, "name", info->name, sizeof info->name))
        return malformed(st, "one of the attributes tool_version, tokenizer_sha256, name is missing or not a short string");
    for (const struct shard_field *f = shard_fields; f->name; f++) {
        int64_t *value = (int64_t *)((char *)info + f->offset);
        if (!read_integer(file, f->name, value))
            return status_set(st, PLM_EFORMAT, "attribute '%s' is missing or not a 64-bit integer", f->name);
        if (*value < f->low || *value > f->high)
            return status_set(st, PLM_EFORMAT, "attribute '%s' is %lld, expected %lld to %lld", f->name, (long long)*value,
                              (long long)f->low, (long long)f->high);
    }
    if (info->eos_id >= info->vocab_size || info->bos_id >= info->vocab_size || info->pad_id >= info->vocab_size)
        return malformed(st, "the id of a special token is outside the vocabulary");
    if (!read_attribute(file, "doc_offsets_xxh3", H5T_NATIVE_UINT64, H5T_INTEGER, 8, H5T_SGN_NONE, &hashes[0]) ||
        !read_attribute(file, "chunk_index_xxh3", H5T_NATIVE_UINT64, H5T_INTEGER, 8, H5T_SGN_NONE, &hashes[1]))
        return malformed(st, "attribute 'doc_offsets_xxh3' or 'chunk_index_xxh3' is missing");
    return PLM_OK;
}

/* What is common to the three datasets: a hard link to an unsigned little-endian integer array of the given extent that
 * lives in this very file, stored as `layout`, with `n_filters` filters. */
static int check_dataset(hid_t set, const char *name, size_t size, int rank, const hsize_t expected[], H5D_layout_t layout,
                         int n_filters, struct plm_status *st)
{
    hid_t type = H5Dget_type(set), space = H5Dget_space(set), creation = H5Dget_create_plist(set);
    hsize_t dims[2] = {0, 0};
    bool typed = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == size && H5Tget_sign(type) == H5T_SGN_NONE &&
                 H5Tget_order(type) == H5T_ORDER_LE;
    bool shaped = H5Sget_simple_extent_ndims(space) == rank && H5Sget_simple_extent_dims(space, dims, NULL) == rank &&
                  dims[0] == expected[0] && (rank == 1 || dims[1] == expected[1]);
    bool stored = H5Pget_layout(creation) == layout && H5Pget_external_count(creation) == 0 &&
                  H5Pget_nfilters(creation) == n_filters;
    H5Pclose(creation);
    H5Sclose(space);
    H5Tclose(type);
    if (!typed)
        return status_set(st, PLM_EFORMAT, "/%s is not an array of unsigned %zu-byte integers", name, size);
    if (!shaped)
        return status_set(st, PLM_EFORMAT, "/%s has another shape than the attributes say (first extent %llu, expected %llu)",
                          name, (unsigned long long)dims[0], (unsigned long long)expected[0]);
    if (!stored)
        return status_set(st, PLM_EFORMAT, "/%s is stored in another way than plm data build does", name);
    return PLM_OK;
}

static hid_t open_dataset(hid_t file, const char *name)
{
    H5L_info_t link;
    if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return H5I_INVALID_HID;
    return H5Dopen2(file, name, H5P_DEFAULT);
}

static int check_tokens(struct shard *s, hid_t file, struct plm_status *st)
{
    struct shard_info *info = &s->info;
    info->token_bytes = info->vocab_size <= 65536 ? 2 : 4;
    hid_t set = open_dataset(file, "tokens");
    if (set < 0)
        return malformed(st, "/tokens is missing or a link to elsewhere");
    int code = check_dataset(set, "tokens", (size_t)info->token_bytes, 1, (hsize_t[]){(hsize_t)info->n_tokens}, H5D_CHUNKED, 1,
                             st);
    if (!code) {
        hid_t creation = H5Dget_create_plist(set);
        hsize_t chunk = 0;
        unsigned flags, values[2];
        size_t n_values = 2;
        if (H5Pget_chunk(creation, 1, &chunk) != 1 || chunk != (hsize_t)info->chunk_tokens)
            code = malformed(st, "/tokens has another chunk size than the attributes say");
        else if (H5Pget_filter2(creation, 0, &flags, &n_values, values, 0, NULL, NULL) != ZSTD_FILTER_ID)
            code = malformed(st, "/tokens is not compressed with filter 32015 (zstd)");
        H5Pclose(creation);
    }
    H5Dclose(set);
    return code;
}

/* Where the bytes of a contiguous u64 dataset are. */
static int locate_u64(struct shard *s, hid_t file, const char *name, int rank, const hsize_t dims[], uint64_t *offset,
                      struct plm_status *st)
{
    hid_t set = open_dataset(file, name);
    if (set < 0)
        return status_set(st, PLM_EFORMAT, "/%s is missing or a link to elsewhere", name);
    int code = check_dataset(set, name, 8, rank, dims, H5D_CONTIGUOUS, 0, st);
    uint64_t bytes = (uint64_t)dims[0] * (rank == 2 ? dims[1] : 1) * 8, size = (uint64_t)s->info.file_bytes;
    *offset = code ? 0 : H5Dget_offset(set);
    if (!code && (*offset == HADDR_UNDEF || *offset > size || bytes > size - *offset))
        code = status_set(st, PLM_EFORMAT, "/%s needs %llu bytes at %llu, the file has %llu: it was truncated", name,
                          (unsigned long long)bytes, (unsigned long long)*offset, (unsigned long long)size);
    H5Dclose(set);
    return code;
}

/* All that HDF5 is needed for: attributes, types, shapes and the places of the two index arrays. */
static int read_description(struct shard *s, uint64_t places[2], uint64_t hashes[2], struct plm_status *st)
{
    H5PLset_loading_state(0); /* never load a plugin because a file asks for it */
    hid_t file = H5Fopen(s->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        char text[256];
        return status_set(st, PLM_EFORMAT, "HDF5 cannot open it: %s; the file is damaged or truncated",
                          hdf5_error(text, sizeof text));
    }
    struct shard_info *info = &s->info;
    int code = read_attributes(info, file, hashes, st);
    if (!code && info->n_chunks != (info->n_tokens + info->chunk_tokens - 1) / info->chunk_tokens)
        code = malformed(st, "the numbers of tokens and chunks contradict each other");
    if (!code)
        code = check_tokens(s, file, st);
    if (!code)
        code = locate_u64(s, file, "doc_offsets", 1, (hsize_t[]){(hsize_t)info->n_documents + 1}, &places[0], st);
    if (!code)
        code = locate_u64(s, file, "chunk_index", 2, (hsize_t[]){(hsize_t)info->n_chunks, 3}, &places[1], st);
    H5Fclose(file);
    return code;
}

/* Read and check the two index arrays; their sizes are known to lie inside the file. */
static int read_indices(struct shard *s, const uint64_t places[2], const uint64_t hashes[2], struct plm_status *st)
{
    const struct shard_info *info = &s->info;
    size_t n_offsets = (size_t)info->n_documents + 1, n_chunks = (size_t)info->n_chunks;
    s->offsets = malloc(n_offsets * sizeof *s->offsets);
    s->index = malloc(n_chunks * sizeof *s->index);
    if (!s->offsets || !s->index)
        return status_no_memory(st, n_offsets * sizeof *s->offsets, "document offsets");
    int code = read_at(s, s->offsets, n_offsets * sizeof *s->offsets, places[0], st);
    if (!code)
        code = read_at(s, s->index, n_chunks * sizeof *s->index, places[1], st);
    if (code)
        return code;
    if (XXH3_64bits(s->offsets, n_offsets * sizeof *s->offsets) != hashes[0])
        return malformed(st, "checksum of /doc_offsets does not match");
    if (XXH3_64bits(s->index, n_chunks * sizeof *s->index) != hashes[1])
        return malformed(st, "checksum of /chunk_index does not match");
    if (s->offsets[0] != 0 || s->offsets[n_offsets - 1] != (uint64_t)info->n_tokens)
        return malformed(st, "/doc_offsets does not span all tokens");
    for (size_t i = 1; i < n_offsets; i++)
        if (s->offsets[i] <= s->offsets[i - 1])
            return status_set(st, PLM_EFORMAT, "/doc_offsets does not rise at document %zu", i - 1);
    uint64_t size = (uint64_t)info->file_bytes, sum = 0;
    uint64_t bound = ZSTD_compressBound((size_t)info->chunk_tokens * (size_t)info->token_bytes);
    for (size_t i = 0; i < n_chunks; i++) {
        uint64_t at = s->index[i][0], bytes = s->index[i][1];
        if (bytes == 0 || bytes > bound || at > size || bytes > size - at)
            return status_set(st, PLM_EFORMAT, "chunk %zu needs %llu bytes at %llu, the file has %llu: it was truncated", i,
                              (unsigned long long)bytes, (unsigned long long)at, (unsigned long long)size);
        sum += bytes;
    }
    return sum == (uint64_t)info->stored_bytes ? PLM_OK : malformed(st, "the chunks' sizes do not add up to 'stored_bytes'");
}

static int open_checked(struct shard *s, struct plm_status *st)
{
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        return status_set(st, PLM_EIO, "cannot open: %s", strerror(errno));
    struct stat stat;
    if (fstat(s->fd, &stat) != 0)
        return status_set(st, PLM_EIO, "cannot read its size: %s", strerror(errno));
    if (!S_ISREG(stat.st_mode))
        return status_set(st, PLM_EINVAL, "not a regular file");
    s->info.file_bytes = stat.st_size;
    int code = check_signature(s, st);
    if (code)
        return code;
    uint64_t places[2], hashes[2];
    struct hdf5_session session;
    code = memory_room(MEMORY_ROOM_HDF5, "HDF5", st); /* which ends with a signal without */
    if (code)
        return code;
    hdf5_enter(&session);
    code = read_description(s, places, hashes, st);
    s->info.content_hash = code ? 0 : XXH3_64bits(hashes, sizeof hashes);
    hdf5_leave(&session);
    return code ? code : read_indices(s, places, hashes, st);
}

int shard_open(struct shard **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct shard *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return status_no_memory(st, sizeof *s, "a shard");
    }
    s->fd = -1;
    int code = open_checked(s, st);
    if (code) {
        shard_close(s);
        status_prefix(st, "shard '%s'", path);
        return code;
    }
    *out = s;
    return PLM_OK;
}

void shard_close(struct shard *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    free(s->offsets);
    free(s->index);
    free(s->path);
    free(s);
}

const struct shard_info *shard_information(const struct shard *s)
{
    return &s->info;
}

const uint64_t *shard_doc_offsets(const struct shard *s)
{
    return s->offsets;
}

const char *shard_path(const struct shard *s)
{
    return s->path;
}

int shard_decoder_create(struct shard_decoder **out, struct plm_status *st)
{
    *out = calloc(1, sizeof **out);
    if (*out && ((*out)->context = ZSTD_createDCtx()))
        return PLM_OK;
    free(*out);
    *out = NULL;
    return status_no_memory(st, 1 << 17, "a zstd decoder");
}

void shard_decoder_free(struct shard_decoder *d)
{
    if (!d)
        return;
    ZSTD_freeDCtx(d->context);
    free(d->stored);
    free(d);
}

/* The largest of n tokens and its place. */
static uint32_t largest_token(const void *tokens, int token_bytes, int64_t n, int64_t *where)
{
    uint32_t most = 0;
    if (token_bytes == 2) {
        for (int64_t i = 0; i < n; i++)
            most = ((const uint16_t *)tokens)[i] > most ? ((const uint16_t *)tokens)[i] : most;
    } else {
        for (int64_t i = 0; i < n; i++)
            most = ((const uint32_t *)tokens)[i] > most ? ((const uint32_t *)tokens)[i] : most;
    }
    *where = 0;
    while (*where < n && most != (token_bytes == 2 ? ((const uint16_t *)tokens)[*where] : ((const uint32_t *)tokens)[*where]))
        ++*where;
    return most;
}

static int decode_chunk(const struct shard *s, int64_t chunk, struct shard_decoder *d, void *tokens, struct plm_status *st)
{
    const struct shard_info *info = &s->info;
    size_t stored = (size_t)s->index[chunk][1], bytes = (size_t)info->chunk_tokens * (size_t)info->token_bytes;
    if (d->capacity < stored) {
        free(d->stored);
        d->stored = malloc(stored);
        d->capacity = d->stored ? stored : 0;
        if (!d->stored)
            return status_no_memory(st, stored, "a stored chunk");
    }
    int code = read_at(s, d->stored, stored, s->index[chunk][0], st);
    if (code)
        return code;
    if (XXH3_64bits(d->stored, stored) != s->index[chunk][2])
        return status_set(st, PLM_EFORMAT, "checksum does not match: the file is damaged; build it again");
    size_t got = ZSTD_decompressDCtx(d->context, tokens, bytes, d->stored, stored);
    if (ZSTD_isError(got))
        return status_set(st, PLM_EFORMAT, "zstd cannot decode it: %s", ZSTD_getErrorName(got));
    if (got != bytes)
        return status_set(st, PLM_EFORMAT, "it holds %zu bytes, expected %zu", got, bytes);
    int64_t where;
    uint32_t most = largest_token(tokens, info->token_bytes, info->chunk_tokens, &where);
    if (most >= info->vocab_size)
        return status_set(st, PLM_EFORMAT, "token %u at position %lld is outside the vocabulary of %lld", most, (long long)where,
                          (long long)info->vocab_size);
    return PLM_OK;
}

int shard_read_chunk(const struct shard *s, int64_t chunk, struct shard_decoder *d, void *tokens, struct plm_status *st)
{
    if (chunk < 0 || chunk >= s->info.n_chunks)
        return status_set(st, PLM_EINVAL, "shard '%s' has %lld chunks, not a chunk %lld", s->path, (long long)s->info.n_chunks,
                          (long long)chunk);
    int code = decode_chunk(s, chunk, d, tokens, st);
    if (code)
        status_prefix(st, "shard '%s', chunk %lld", s->path, (long long)chunk);
    return code;
}
