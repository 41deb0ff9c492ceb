#include "train/tensorboard.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/utf8.h"

enum { NAME_TRIES = 10000 };

/* Protobuf: field number and wire type make a key. */
enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* The fields of tensorflow's event.proto, summary.proto and tensor.proto that are written here. */
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION_LOG = 7 };
enum { SESSION_LOG_STATUS = 1, SESSION_START = 1 };
enum { SUMMARY_VALUE = 1 };
enum { VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_TENSOR = 8, VALUE_METADATA = 9 };
enum { METADATA_PLUGIN = 1, PLUGIN_NAME = 1 };
enum { TENSOR_DTYPE = 1, TENSOR_SHAPE = 2, TENSOR_STRING = 8, DTYPE_STRING = 7 };

/* Bytes of a message. Nested messages are written into a buffer of their own first, since their length goes before them. */
struct message {
    unsigned char *data;
    size_t size, capacity;
    bool failed; /* out of memory: nothing more is written */
};

struct tensorboard {
    FILE *file;
    char *path;
    struct message event, summary, value, part; /* reused from event to event */
    uint32_t crc[256];
};

/* CRC32C (Castagnoli), reflected: polynomial 0x82f63b78. */
static void crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
        table[i] = c;
    }
}

/* The masked checksum of TFRecord: rotated and shifted, so that a checksum of bytes that hold checksums stays a good one. */
static uint32_t crc_masked(const uint32_t table[256], const unsigned char *data, size_t size)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < size; i++)
        c = table[(c ^ data[i]) & 255] ^ c >> 8;
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void put_bytes(struct message *m, const void *bytes, size_t n)
{
    if (m->failed || n == 0)
        return;
    if (n > m->capacity - m->size) {
        const size_t capacity = 2 * (m->size + n);
        unsigned char *data = realloc(m->data, capacity);
        if (!data) {
            m->failed = true;
            return;
        }
        m->data = data;
        m->capacity = capacity;
    }
    memcpy(m->data + m->size, bytes, n);
    m->size += n;
}

static void put_little_endian(struct message *m, uint64_t x, int bytes)
{
    unsigned char b[8];
    for (int i = 0; i < bytes; i++)
        b[i] = (unsigned char)(x >> 8 * i);
    put_bytes(m, b, (size_t)bytes);
}

static void put_varint(struct message *m, uint64_t x)
{
    unsigned char b[10];
    size_t n = 0;
    for (; x > 127; x >>= 7)
        b[n++] = (unsigned char)(x | 128);
    b[n++] = (unsigned char)x;
    put_bytes(m, b, n);
}

static void put_key(struct message *m, int field, enum wire wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

static void put_int(struct message *m, int field, int64_t x)
{
    put_key(m, field, WIRE_VARINT);
    put_varint(m, (uint64_t)x);
}

static void put_text(struct message *m, int field, const void *text, size_t n)
{
    put_key(m, field, WIRE_BYTES);
    put_varint(m, n);
    put_bytes(m, text, n);
}

static void put_message(struct message *m, int field, const struct message *nested)
{
    put_text(m, field, nested->data, nested->size);
    m->failed |= nested->failed;
}

static void put_double(struct message *m, int field, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_key(m, field, WIRE_64);
    put_little_endian(m, bits, 8);
}

static void put_float(struct message *m, int field, double x)
{
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    put_key(m, field, WIRE_32);
    put_little_endian(m, bits, 4);
}

/* An event begins with the time and, when there is one, the step. */
static void event_begin(struct tensorboard *t, int64_t step)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->event.size = 0;
    put_double(&t->event, EVENT_WALL_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    if (step != 0)
        put_int(&t->event, EVENT_STEP, step);
}

static int write_error(const struct tensorboard *t, struct plm_status *st)
{
    return status_set(st, PLM_EIO, "cannot write '%s': %s", t->path, strerror(errno));
}

/* TFRecord: length, its checksum, the bytes, their checksum; little-endian. */
static int event_write(struct tensorboard *t, struct plm_status *st)
{
    struct message *head = &t->part, *tail = &t->value;
    head->size = tail->size = 0;
    put_little_endian(head, t->event.size, 8);
    if (!head->failed)
        put_little_endian(head, crc_masked(t->crc, head->data, 8), 4);
    put_little_endian(tail, crc_masked(t->crc, t->event.data, t->event.size), 4);
    if (t->event.failed || head->failed || tail->failed) {
        t->event.failed = t->summary.failed = head->failed = tail->failed = false;
        return status_no_memory(st, t->event.size, "a TensorBoard event");
    }
    errno = 0;
    if (fwrite(head->data, head->size, 1, t->file) != 1 || fwrite(t->event.data, t->event.size, 1, t->file) != 1 ||
        fwrite(tail->data, tail->size, 1, t->file) != 1)
        return write_error(t, st);
    return PLM_OK;
}

/* An event with one value, which is in t->value. */
static int value_write(struct tensorboard *t, int64_t step, struct plm_status *st)
{
    t->summary.size = 0;
    put_message(&t->summary, SUMMARY_VALUE, &t->value);
    event_begin(t, step);
    put_message(&t->event, EVENT_SUMMARY, &t->summary);
    return event_write(t, st);
}

/* The first free name from now on. */
static int file_create(struct tensorboard *t, const char *dir, struct plm_status *st)
{
    char path[PATH_MAX];
    const time_t now = time(NULL);
    for (int i = 0; i < NAME_TRIES && !t->file; i++) {
        if (snprintf(path, sizeof path, "%s/events.out.tfevents.%010lld.plm", dir, (long long)now + i) >= (int)sizeof path)
            return status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", dir);
        t->file = fopen(path, "wxe");
        if (!t->file && errno != EEXIST)
            break;
    }
    if (!t->file)
        return status_set(st, PLM_EIO, "cannot create '%s': %s", path, strerror(errno));
    t->path = strdup(path);
    return t->path ? PLM_OK : status_no_memory(st, strlen(path), "the path of an event file");
}

int tensorboard_open(struct tensorboard **out, const char *dir, struct plm_status *st)
{
    *out = NULL;
    struct tensorboard *t = calloc(1, sizeof *t);
    if (!t)
        return status_no_memory(st, sizeof *t, "the TensorBoard event file");
    crc_table(t->crc);
    static const char version[] = "brain.Event:2";
    int code = file_create(t, dir, st);
    if (!code) {
        event_begin(t, 0);
        put_text(&t->event, EVENT_FILE_VERSION, version, sizeof version - 1);
        code = event_write(t, st);
    }
    if (!code)
        code = tensorboard_flush(t, st);
    if (code) {
        tensorboard_close(t);
        return code;
    }
    *out = t;
    return PLM_OK;
}

int tensorboard_restart(struct tensorboard *t, int64_t step, struct plm_status *st)
{
    t->value.size = 0;
    put_int(&t->value, SESSION_LOG_STATUS, SESSION_START);
    event_begin(t, step);
    put_message(&t->event, EVENT_SESSION_LOG, &t->value);
    return event_write(t, st);
}

static bool is_utf8(const char *text)
{
    return utf8_valid_prefix(text, strlen(text)) == strlen(text);
}

int tensorboard_scalar(struct tensorboard *t, const char *tag, int64_t step, double value, struct plm_status *st)
{
    if (!is_utf8(tag))
        return status_set(st, PLM_EINVAL, "'%s': the tag of a value is not UTF-8", t->path);
    t->value.size = 0;
    put_text(&t->value, VALUE_TAG, tag, strlen(tag));
    put_float(&t->value, VALUE_SIMPLE, value);
    return value_write(t, step, st);
}

/* The text plugin reads a string tensor without dimensions and renders it as Markdown. */
int tensorboard_text(struct tensorboard *t, const char *tag, int64_t step, const char *text, struct plm_status *st)
{
    if (!is_utf8(tag) || !is_utf8(text))
        return status_set(st, PLM_EINVAL, "'%s': a text or its tag is not UTF-8", t->path);
    static const char plugin[] = "text";
    struct message *part = &t->part, *v = &t->value;
    v->size = part->size = 0;
    put_text(v, VALUE_TAG, tag, strlen(tag));
    put_text(part, PLUGIN_NAME, plugin, sizeof plugin - 1);
    t->summary.size = 0;
    put_message(&t->summary, METADATA_PLUGIN, part);
    put_message(v, VALUE_METADATA, &t->summary);
    part->size = 0;
    put_int(part, TENSOR_DTYPE, DTYPE_STRING);
    put_text(part, TENSOR_SHAPE, NULL, 0);
    put_text(part, TENSOR_STRING, text, strlen(text));
    put_message(v, VALUE_TENSOR, part);
    return value_write(t, step, st);
}

int tensorboard_flush(struct tensorboard *t, struct plm_status *st)
{
    errno = 0;
    return fflush(t->file) != 0 || ferror(t->file) ? write_error(t, st) : PLM_OK;
}

void tensorboard_close(struct tensorboard *t)
{
    if (!t)
        return;
    if (t->file)
        fclose(t->file);
    free(t->path);
    free(t->event.data);
    free(t->summary.data);
    free(t->value.data);
    free(t->part.data);
    free(t);
}
