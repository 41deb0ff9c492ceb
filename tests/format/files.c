#include "tests/format/files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[256];

static void remove_directory(void)
{
    DIR *d = opendir(directory);
    struct dirent *e;
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(directory);
}

const char *file_path(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    if (!directory[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%s/plm-test-XXXXXX", base && *base ? base : P_tmpdir);
        assert_non_null(mkdtemp(directory));
        atexit(remove_directory);
    }
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

const char *file_write(const char *name, const void *data, size_t bytes)
{
    const char *path = file_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    return path;
}

unsigned char *file_read(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *bytes = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*bytes + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

void bytes_put(struct bytes *b, const void *data, size_t n)
{
    assert_true(n <= sizeof b->data - b->length);
    memcpy(b->data + b->length, data, n);
    b->length += n;
}

void bytes_u32(struct bytes *b, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        bytes_put(b, &(unsigned char){(unsigned char)(v >> 8 * i)}, 1);
}

void bytes_u64(struct bytes *b, uint64_t v)
{
    bytes_u32(b, (uint32_t)v);
    bytes_u32(b, (uint32_t)(v >> 32));
}

void bytes_string(struct bytes *b, const char *s)
{
    bytes_u64(b, strlen(s));
    bytes_put(b, s, strlen(s));
}

void assert_message(const struct plm_status *st, int code, ...)
{
    va_list args;
    va_start(args, code);
    const char *part;
    while ((part = va_arg(args, const char *)))
        if (st->code != (enum plm_code)code || !strstr(st->message, part))
            fail_msg("expected code %d and '%s', got %d: %s", code, part, (int)st->code, st->message);
    va_end(args);
}
