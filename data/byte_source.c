#include "data/byte_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>

enum encoding { ENCODING_PLAIN, ENCODING_GZIP, ENCODING_ZSTD };

enum { BUFFER = 1 << 16 };

struct byte_source {
    enum encoding encoding;
    int fd;
    char *path;
    int64_t position;
    bool end_of_file;
    bool inside;          /* in the middle of a gzip member or zstd frame */
    bool any;             /* at least one member or frame was begun */
    z_stream gzip;
    ZSTD_DCtx *zstd;
    size_t begin, end;    /* unread part of buffer */
    unsigned char buffer[BUFFER];
};

static int read_some(struct byte_source *s, void *to, size_t capacity, size_t *n, struct plm_status *st)
{
    ssize_t got;
    do
        got = read(s->fd, to, capacity);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return status_set(st, PLM_EIO, "cannot read '%s' at byte %lld: %s", s->path, (long long)s->position, strerror(errno));
    s->position += got;
    s->end_of_file = got == 0;
    *n = (size_t)got;
    return PLM_OK;
}

static bool ends_with(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);
    return n > m && !strcasecmp(path + n - m, suffix);
}

size_t byte_source_stem(const char *path)
{
    const size_t n = strlen(path);
    return n - (ends_with(path, ".gz") ? 3 : ends_with(path, ".zst") ? 4 : 0);
}

/* What the first bytes say; what a name says that they do not is an error when it is decoded. */
static int recognise(struct byte_source *s, struct plm_status *st)
{
    static const struct { const char *magic; size_t n; const char *name; } others[] = {
        {"\xFD" "7zXZ", 5, "xz"}, {"BZh", 3, "bzip2"}, {"PK\x03\x04", 4, "zip"}, {"7z\xBC\xAF", 4, "7-zip"}, {"PAR1", 4, "Parquet"}};
    int code = PLM_OK;
    while (!code && s->end < 6 && !s->end_of_file) {
        size_t n = 0;
        code = read_some(s, s->buffer + s->end, BUFFER - s->end, &n, st);
        s->end += n;
    }
    if (code)
        return code;
    if (s->end >= 2 && !memcmp(s->buffer, "\x1F\x8B", 2))
        s->encoding = ENCODING_GZIP;
    else if (s->end >= 4 && !memcmp(s->buffer, "\x28\xB5\x2F\xFD", 4))
        s->encoding = ENCODING_ZSTD;
    else
        s->encoding = ends_with(s->path, ".gz") ? ENCODING_GZIP : ends_with(s->path, ".zst") ? ENCODING_ZSTD : ENCODING_PLAIN;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (s->end >= others[i].n && !memcmp(s->buffer, others[i].magic, others[i].n))
            return status_set(st, PLM_EUNSUPPORTED, "'%s' is %s: unpack it first; plain text, .gz and .zst are read", s->path, others[i].name);
    if (s->end >= 2 && (!memcmp(s->buffer, "\xFF\xFE", 2) || !memcmp(s->buffer, "\xFE\xFF", 2)))
        return status_set(st, PLM_EUNSUPPORTED, "'%s' is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)", s->path);
    return PLM_OK;
}

int byte_source_open(struct byte_source **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct byte_source *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a read buffer");
    s->fd = -1;
    s->path = strdup(path);
    int code = s->path ? PLM_OK : status_no_memory(st, strlen(path), "a file name");
    if (!code && (s->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        code = status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    if (!code)
        code = recognise(s, st);
    if (!code && s->encoding == ENCODING_GZIP && inflateInit2(&s->gzip, 15 + 16) != Z_OK)
        code = status_no_memory(st, BUFFER, "a gzip decoder");
    if (!code && s->encoding == ENCODING_ZSTD && !(s->zstd = ZSTD_createDCtx()))
        code = status_no_memory(st, BUFFER, "a zstd decoder");
    if (code) {
        byte_source_close(s);
        return code;
    }
    *out = s;
    return PLM_OK;
}

void byte_source_close(struct byte_source *s)
{
    if (!s)
        return;
    if (s->encoding == ENCODING_GZIP && s->gzip.state)
        inflateEnd(&s->gzip);
    ZSTD_freeDCtx(s->zstd);
    if (s->fd >= 0)
        close(s->fd);
    free(s->path);
    free(s);
}

/* Decode from the buffer into `to`; *n may be 0 when more input is needed. */
static int gzip_step(struct byte_source *s, void *to, size_t capacity, size_t *n, struct plm_status *st)
{
    if (!s->inside) {
        /* gzip -l style padding: zero bytes may follow the last member */
        while (s->any && s->begin < s->end && s->buffer[s->begin] == 0)
            s->begin++;
        if (s->begin == s->end)
            return PLM_OK;
        inflateReset(&s->gzip);
        s->inside = s->any = true;
    }
    s->gzip.next_in = s->buffer + s->begin;
    s->gzip.avail_in = (uInt)(s->end - s->begin);
    s->gzip.next_out = to;
    s->gzip.avail_out = capacity > BUFFER ? BUFFER : (uInt)capacity;
    uInt room = s->gzip.avail_out;
    int result = inflate(&s->gzip, Z_NO_FLUSH);
    s->begin = s->end - s->gzip.avail_in;
    *n = room - s->gzip.avail_out;
    if (result == Z_STREAM_END)
        s->inside = false;
    else if (result != Z_OK && result != Z_BUF_ERROR)
        return status_set(st, PLM_EFORMAT, "'%s' is damaged or not gzip, near byte %lld: %s", s->path,
                          (long long)(s->position - (int64_t)(s->end - s->begin)), s->gzip.msg ? s->gzip.msg : "invalid data");
    return PLM_OK;
}

static int zstd_step(struct byte_source *s, void *to, size_t capacity, size_t *n, struct plm_status *st)
{
    if (!s->inside && s->begin == s->end)
        return PLM_OK;
    ZSTD_inBuffer in = {s->buffer, s->end, s->begin};
    ZSTD_outBuffer out = {to, capacity, 0};
    size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
    s->begin = in.pos;
    *n = out.pos;
    if (ZSTD_isError(left))
        return status_set(st, PLM_EFORMAT, "'%s' is damaged or not zstd, near byte %lld: %s", s->path,
                          (long long)(s->position - (int64_t)(s->end - s->begin)), ZSTD_getErrorName(left));
    s->inside = left != 0;
    s->any = true;
    return PLM_OK;
}

int byte_source_read(struct byte_source *s, void *to, size_t capacity, size_t *n, struct plm_status *st)
{
    *n = 0;
    if (capacity == 0)
        return PLM_OK;
    if (s->encoding == ENCODING_PLAIN && s->begin < s->end) { /* what recognise looked at */
        *n = s->end - s->begin < capacity ? s->end - s->begin : capacity;
        memcpy(to, s->buffer + s->begin, *n);
        s->begin += *n;
        return PLM_OK;
    }
    if (s->encoding == ENCODING_PLAIN)
        return read_some(s, to, capacity, n, st);
    for (;;) {
        int code = s->encoding == ENCODING_GZIP ? gzip_step(s, to, capacity, n, st) : zstd_step(s, to, capacity, n, st);
        if (code || *n > 0)
            return code;
        if (s->begin < s->end)
            continue;
        if (s->end_of_file)
            break;
        s->begin = s->end = 0;
        code = read_some(s, s->buffer, BUFFER, &s->end, st);
        if (code)
            return code;
    }
    if (s->inside || !s->any)
        return status_set(st, PLM_EFORMAT, "'%s' ends after %lld bytes in the middle of its compressed stream: it is truncated; "
                          "copy it again", s->path, (long long)s->position);
    return PLM_OK;
}

int64_t byte_source_position(const struct byte_source *s)
{
    return s->position;
}
