#include "tests/train/events.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

uint32_t crc32c(const unsigned char *data, size_t size)
{
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < 8 * size; i++) {
        const uint32_t bit = (c ^ data[i / 8] >> i % 8) & 1;
        c = c >> 1 ^ (bit ? 0x82f63b78u : 0);
    }
    return ~c;
}

uint32_t crc32c_masked(const unsigned char *data, size_t size)
{
    const uint32_t c = crc32c(data, size);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static uint64_t little_endian(const unsigned char *p, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++)
        x |= (uint64_t)p[i] << 8 * i;
    return x;
}

/* One field of a protobuf message. */
struct field {
    int number, wire;
    uint64_t value;            /* of a varint, 32 or 64 bits */
    const unsigned char *data; /* of bytes */
    size_t size;
};

static uint64_t varint(const unsigned char **p, const unsigned char *end)
{
    uint64_t x = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(*p < end && shift < 70);
        const unsigned char byte = *(*p)++;
        x |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return x;
    }
}

static bool next_field(const unsigned char **p, const unsigned char *end, struct field *f)
{
    if (*p == end)
        return false;
    const uint64_t key = varint(p, end);
    *f = (struct field){.number = (int)(key >> 3), .wire = (int)(key & 7)};
    const int bytes = f->wire == 1 ? 8 : f->wire == 5 ? 4 : 0;
    if (f->wire == 0) {
        f->value = varint(p, end);
    } else if (bytes) {
        assert_true(end - *p >= bytes);
        f->value = little_endian(*p, bytes);
        *p += bytes;
    } else {
        assert_int_equal(f->wire, 2);
        f->size = varint(p, end);
        assert_true(f->size <= (size_t)(end - *p));
        f->data = *p;
        *p += f->size;
    }
    return true;
}

static void copy_text(char *out, size_t size, const struct field *f)
{
    assert_true(f->size < size);
    memcpy(out, f->data, f->size);
    out[f->size] = 0;
}

/* The bytes of a nested field of that number: the only one. */
static struct field nested(const struct field *message, int number)
{
    struct field f, found = {0};
    for (const unsigned char *p = message->data; next_field(&p, message->data + message->size, &f);)
        if (f.number == number)
            found = f;
    assert_int_equal(found.number, number);
    return found;
}

static void read_value(const struct field *value, struct event *e)
{
    struct field f, part;
    for (const unsigned char *p = value->data; next_field(&p, value->data + value->size, &f);) {
        if (f.number == 1) {
            copy_text(e->tag, sizeof e->tag, &f);
        } else if (f.number == 2) {
            assert_int_equal(f.wire, 5);
            const uint32_t bits = (uint32_t)f.value;
            memcpy(&e->scalar, &bits, sizeof bits);
            e->has_scalar = true;
        } else if (f.number == 8) {
            e->dtype = (int)nested(&f, 1).value;
            part = nested(&f, 8);
            copy_text(e->text, sizeof e->text, &part);
        } else if (f.number == 9) {
            part = nested(&f, 1);
            part = nested(&part, 1);
            copy_text(e->plugin, sizeof e->plugin, &part);
        } else {
            fail_msg("field %d of a value", f.number);
        }
    }
}

static void read_event(const unsigned char *data, size_t size, struct event *e)
{
    struct field f, part;
    *e = (struct event){0};
    for (const unsigned char *p = data; next_field(&p, data + size, &f);) {
        if (f.number == 1) {
            memcpy(&e->wall_time, &f.value, sizeof f.value);
        } else if (f.number == 2) {
            e->step = (int64_t)f.value;
        } else if (f.number == 3) {
            copy_text(e->version, sizeof e->version, &f);
        } else if (f.number == 5) {
            part = nested(&f, 1);
            read_value(&part, e);
        } else if (f.number == 7) {
            e->session_status = (int)nested(&f, 1).value;
        } else {
            fail_msg("field %d of an event", f.number);
        }
    }
}

int events_read(const char *path, struct event *out, int limit)
{
    static unsigned char data[1 << 20];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t size = fread(data, 1, sizeof data, file);
    assert_true(size < sizeof data);
    fclose(file);
    int n = 0;
    for (size_t at = 0; at < size;) {
        assert_true(size - at >= 16);
        const uint64_t length = little_endian(data + at, 8);
        assert_true(length <= size - at - 16);
        assert_int_equal(little_endian(data + at + 8, 4), crc32c_masked(data + at, 8));
        assert_int_equal(little_endian(data + at + 12 + length, 4), crc32c_masked(data + at + 12, length));
        assert_true(n < limit);
        read_event(data + at + 12, length, &out[n++]);
        at += 16 + length;
    }
    return n;
}

bool events_path(const char *dir, int i, char *path, size_t size)
{
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/events.out.tfevents.*", dir);
    const bool there = glob(pattern, 0, NULL, &found) == 0 && (size_t)i < found.gl_pathc;
    if (there)
        snprintf(path, size, "%s", found.gl_pathv[i]);
    globfree(&found);
    return there;
}
