#include "data/zstd_filter.h"

#include <stdint.h>
#include <stdlib.h>

#include <zstd.h>

enum { DEFAULT_LEVEL = 3 };

/* Replace HDF5's buffer by ours: both come from malloc. Returns the bytes in it. */
static size_t replace(void **buf, size_t *buf_size, void *with, size_t capacity, size_t n)
{
    free(*buf);
    *buf = with;
    *buf_size = capacity;
    return n;
}

static size_t decode(const unsigned values[], size_t n_values, size_t n, size_t *buf_size, void **buf)
{
    unsigned long long size = ZSTD_getFrameContentSize(*buf, n);
    unsigned long long limit = n_values > 1 ? values[1] : UINT32_MAX; /* a chunk of HDF5 is below 4 GiB */
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size == 0 || size > limit)
        return 0;
    void *to = malloc((size_t)size);
    if (!to)
        return 0;
    size_t got = ZSTD_decompress(to, (size_t)size, *buf, n);
    if (ZSTD_isError(got) || got != size) {
        free(to);
        return 0;
    }
    return replace(buf, buf_size, to, (size_t)size, got);
}

static size_t encode(const unsigned values[], size_t n_values, size_t n, size_t *buf_size, void **buf)
{
    size_t capacity = ZSTD_compressBound(n);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    void *to = malloc(capacity);
    size_t got = 0;
    if (context && to) {
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, n_values > 0 ? (int)values[0] : DEFAULT_LEVEL);
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        got = ZSTD_compress2(context, to, capacity, *buf, n);
        if (ZSTD_isError(got))
            got = 0;
    }
    ZSTD_freeCCtx(context);
    if (got == 0) {
        free(to);
        return 0;
    }
    return replace(buf, buf_size, to, capacity, got);
}

/* H5Z_func_t: 0 means failure and leaves the buffer as it was. */
static size_t filter(unsigned flags, size_t n_values, const unsigned values[], size_t n, size_t *buf_size, void **buf)
{
    return flags & H5Z_FLAG_REVERSE ? decode(values, n_values, n, buf_size, buf) : encode(values, n_values, n, buf_size, buf);
}

const H5Z_class2_t *zstd_filter_class(void)
{
    static const H5Z_class2_t class = {H5Z_CLASS_T_VERS, ZSTD_FILTER_ID, 1, 1, "zstd", NULL, NULL, filter};
    return &class;
}
