#include "tests/format/files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/gguf.h"

static float values[64];

static void fill(void)
{
    for (int i = 0; i < 64; i++)
        values[i] = (float)(i - 20) * 0.37f;
}

static void test_round_trip(void **state)
{
    (void)state;
    fill();
    const char *path = file_path("round.gguf"), *text;
    struct plm_status st = {0};
    struct gguf_writer *w;
    _Alignas(4) static unsigned char rows[DTYPE_COUNT][2 * 256 * 4];
    static float wide[512]; /* two rows of the widest block */
    for (int i = 0; i < 512; i++)
        wide[i] = values[i % 64];
    static const char *const strings[] = {"a", "", "h\xc3\xa9llo"};
    static const size_t lengths[] = {1, 0, 6};
    assert_int_equal(gguf_create(&w, path, &st), PLM_OK);
    assert_int_equal(gguf_set_string(w, "general.architecture", "plm", 3, &st), PLM_OK);
    assert_int_equal(gguf_declare(w, "odd", DTYPE_F32, 1, (int64_t[]){3}, &st), PLM_OK);
    for (int t = 0; t < DTYPE_COUNT; t++) {
        dtype_from_f32((enum dtype)t, rows[t], wide, 512);
        assert_int_equal(gguf_declare(w, dtype_info((enum dtype)t)->name, (enum dtype)t, 2, (int64_t[]){2, 256}, &st), PLM_OK);
    }
    assert_int_equal(gguf_set_u32(w, "n", 4000000000u, &st), PLM_OK);
    assert_int_equal(gguf_set_f32(w, "f", 1e-6f, &st), PLM_OK);
    assert_int_equal(gguf_set_bool(w, "yes", true, &st), PLM_OK);
    assert_int_equal(gguf_set_strings(w, "strings", strings, lengths, 3, &st), PLM_OK);
    assert_int_equal(gguf_set_i32s(w, "integers", (const int32_t[]){1, -2, INT32_MAX}, 3, &st), PLM_OK);
    assert_int_equal(gguf_set_strings(w, "none", NULL, NULL, 0, &st), PLM_OK);
    assert_int_equal(gguf_write(w, values, 12, &st), PLM_OK);
    for (int t = 0; t < DTYPE_COUNT; t++) {
        size_t bytes = dtype_row_bytes((enum dtype)t, 512);
        assert_int_equal(gguf_write(w, rows[t], 1, &st), PLM_OK);
        assert_int_equal(gguf_write(w, rows[t] + 1, bytes - 1, &st), PLM_OK);
    }
    assert_int_equal(gguf_finish(w, &st), PLM_OK);

    struct gguf *g;
    uint64_t n;
    double d;
    size_t length;
    assert_int_equal(gguf_open(&g, path, &st), PLM_OK);
    assert_true(gguf_has(g, "yes") && !gguf_has(g, "no") && !gguf_has(g, "ye"));
    assert_int_equal(gguf_get_string(g, "general.architecture", &text, &length, &st), PLM_OK);
    assert_int_equal(length, 3);
    assert_memory_equal(text, "plm", 3);
    assert_true(gguf_get_u64(g, "n", &n, &st) == PLM_OK && n == 4000000000u);
    assert_true(gguf_get_u64(g, "yes", &n, &st) == PLM_OK && n == 1);
    assert_true(gguf_get_f64(g, "f", &d, &st) == PLM_OK && d == (double)1e-6f);
    assert_true(gguf_get_f64(g, "n", &d, &st) == PLM_OK && d == 4e9);
    assert_true(gguf_get_array(g, "strings", GGUF_STRING, &n, &st) == PLM_OK && n == 3);
    for (uint64_t i = 0; i < 3; i++) {
        gguf_array_string(g, "strings", i, &text, &length);
        assert_int_equal(length, lengths[i]);
        assert_memory_equal(text, strings[i], length);
    }
    gguf_array_string(g, "strings", 3, &text, &length);
    assert_true(!text && length == 0);
    assert_true(gguf_get_array(g, "integers", GGUF_I32, &n, &st) == PLM_OK && n == 3);
    assert_true(gguf_array_i32(g, "integers", 1) == -2 && gguf_array_i32(g, "integers", 2) == INT32_MAX);
    assert_true(gguf_get_array(g, "none", GGUF_STRING, &n, &st) == PLM_OK && n == 0);

    assert_int_equal(gguf_n_tensors(g), 1 + DTYPE_COUNT);
    assert_string_equal(gguf_tensor_name(g, 0), "odd");
    assert_null(gguf_tensor_name(g, 1 + DTYPE_COUNT));
    for (int t = 0; t < DTYPE_COUNT; t++) {
        struct stored_tensor s;
        assert_int_equal(gguf_tensor(g, dtype_info((enum dtype)t)->name, &s, &st), PLM_OK);
        assert_true(s.type == (enum dtype)t && s.n_dims == 2 && s.shape[0] == 2 && s.shape[1] == 256);
        assert_int_equal(s.bytes, dtype_row_bytes((enum dtype)t, 512));
        assert_int_equal((uintptr_t)s.data % 32, 0);
        assert_memory_equal(s.data, rows[t], s.bytes);
    }
    struct stored_tensor s;
    assert_int_equal(gguf_tensor(g, "missing", &s, &st), PLM_EFORMAT);
    assert_message(&st, PLM_EFORMAT, "round.gguf'", "tensor 'missing' is missing", NULL);
    gguf_get_u64(g, "missing", &n, &st);
    assert_message(&st, PLM_EFORMAT, "key 'missing' is missing; expected an unsigned integer", NULL);
    gguf_get_u64(g, "f", &n, &st);
    assert_message(&st, PLM_EFORMAT, "key 'f' has type f32; expected an unsigned integer", NULL);
    gguf_get_f64(g, "strings", &d, &st);
    assert_message(&st, PLM_EFORMAT, "key 'strings' is an array of string; expected a number", NULL);
    gguf_get_string(g, "n", &text, &length, &st);
    assert_message(&st, PLM_EFORMAT, "key 'n' has type u32; expected a string", NULL);
    gguf_get_array(g, "integers", GGUF_STRING, &n, &st);
    assert_message(&st, PLM_EFORMAT, "key 'integers' is an array of i32; expected an array of string", NULL);
    gguf_get_array(g, "n", GGUF_I32, &n, &st);
    assert_message(&st, PLM_EFORMAT, "key 'n' has type u32; expected an array of i32", NULL);
    gguf_close(g);
    gguf_close(NULL);
}

static void header(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_entries)
{
    b->length = 0;
    bytes_put(b, "GGUF", 4);
    bytes_u32(b, version);
    bytes_u64(b, n_tensors);
    bytes_u64(b, n_entries);
}

static void key_u32(struct bytes *b, const char *key, uint32_t v)
{
    bytes_string(b, key);
    bytes_u32(b, GGUF_U32);
    bytes_u32(b, v);
}

/* One-dimensional. */
static void tensor(struct bytes *b, const char *name, uint32_t type, uint64_t ne, uint64_t offset)
{
    bytes_string(b, name);
    bytes_u32(b, 1);
    bytes_u64(b, ne);
    bytes_u32(b, type);
    bytes_u64(b, offset);
}

static void data(struct bytes *b, size_t n)
{
    static const unsigned char zeros[512];
    bytes_put(b, zeros, (32 - b->length % 32) % 32);
    bytes_put(b, zeros, n);
}

static int open_bytes(struct gguf **g, const struct bytes *b, struct plm_status *st)
{
    return gguf_open(g, file_write("hand.gguf", b->data, b->length), st);
}

static void test_golden(void **state)
{
    (void)state;
    const char *path = file_path("golden.gguf");
    struct gguf_writer *w;
    assert_int_equal(gguf_create(&w, path, NULL), PLM_OK);
    assert_int_equal(gguf_set_u32(w, "a.b", 7, NULL), PLM_OK);
    assert_int_equal(gguf_declare(w, "t", DTYPE_F16, 2, (int64_t[]){2, 3}, NULL), PLM_OK);
    assert_int_equal(gguf_write(w, (const uint16_t[]){1, 2, 3, 4, 5, 6}, 12, NULL), PLM_OK);
    assert_int_equal(gguf_finish(w, NULL), PLM_OK);

    struct bytes want; /* the layout of the specification, by hand */
    header(&want, 3, 1, 1);
    key_u32(&want, "a.b", 7);
    bytes_string(&want, "t");
    bytes_u32(&want, 2);
    bytes_u64(&want, 3); /* ne: innermost first */
    bytes_u64(&want, 2);
    bytes_u32(&want, 1);
    bytes_u64(&want, 0);
    data(&want, 0);
    bytes_put(&want, "\1\0\2\0\3\0\4\0\5\0\6\0", 12);
    data(&want, 0);
    size_t bytes;
    unsigned char *got = file_read(path, &bytes);
    assert_int_equal(bytes, want.length);
    assert_memory_equal(got, want.data, bytes);
    free(got);
}

static void test_foreign(void **state)
{
    (void)state;
    struct bytes b;
    struct gguf *g;
    struct plm_status st = {0};
    struct stored_tensor s;
    uint64_t n;
    double d;
    header(&b, 2, 3, 9); /* version 2, other widths, alignment 64, a type we cannot compute with, a hole */
    key_u32(&b, "general.alignment", 64);
    bytes_string(&b, "u64");
    bytes_u32(&b, GGUF_U64);
    bytes_u64(&b, UINT64_MAX);
    bytes_string(&b, "i64");
    bytes_u32(&b, GGUF_I64);
    bytes_u64(&b, (uint64_t)-5);
    bytes_string(&b, "i8");
    bytes_u32(&b, GGUF_I8);
    bytes_put(&b, "\x7f", 1);
    bytes_string(&b, "i16");
    bytes_u32(&b, GGUF_I16);
    bytes_put(&b, "\xff\xff", 2);
    bytes_string(&b, "f64");
    bytes_u32(&b, GGUF_F64);
    bytes_u64(&b, 0x3ff8000000000000);
    for (int bad = 0; bad < 2; bad++) {
        bytes_string(&b, bad ? "u32s.bad" : "u32s");
        bytes_u32(&b, GGUF_ARRAY);
        bytes_u32(&b, GGUF_U32);
        bytes_u64(&b, 2);
        bytes_u32(&b, 3);
        bytes_u32(&b, bad ? 0x80000000u : 9);
    }
    bytes_string(&b, "u8s");
    bytes_u32(&b, GGUF_ARRAY);
    bytes_u32(&b, GGUF_U8);
    bytes_u64(&b, 3);
    bytes_put(&b, "abc", 3);
    tensor(&b, "z", 13, 256, 128);
    tensor(&b, "q", 999, 256, 128);
    tensor(&b, "f", 0, 4, 0);
    data(&b, 0);
    if (b.length % 64)
        data(&b, 32);
    data(&b, 128 + 144);
    assert_int_equal(open_bytes(&g, &b, &st), PLM_OK);
    assert_true(gguf_get_u64(g, "u64", &n, &st) == PLM_OK && n == UINT64_MAX);
    gguf_get_u64(g, "i64", &n, &st);
    assert_message(&st, PLM_EFORMAT, "key 'i64' is -5; expected an unsigned integer", NULL);
    assert_true(gguf_get_f64(g, "i64", &d, &st) == PLM_OK && d == -5.0);
    assert_true(gguf_get_u64(g, "i8", &n, &st) == PLM_OK && n == 127);
    assert_true(gguf_get_f64(g, "i16", &d, &st) == PLM_OK && d == -1.0);
    assert_true(gguf_get_f64(g, "f64", &d, &st) == PLM_OK && d == 1.5);
    assert_true(gguf_get_array(g, "u32s", GGUF_I32, &n, &st) == PLM_OK && n == 2 && gguf_array_i32(g, "u32s", 1) == 9);
    gguf_get_array(g, "u32s.bad", GGUF_I32, &n, &st);
    assert_message(&st, PLM_EFORMAT, "'u32s.bad' has 2147483648 as element 1", NULL);
    assert_int_equal(gguf_tensor(g, "f", &s, &st), PLM_OK);
    gguf_tensor(g, "z", &s, &st);
    assert_message(&st, PLM_EUNSUPPORTED, "tensor 'z' has type q5_K (13); this build computes with", NULL);
    gguf_tensor(g, "q", &s, &st);
    assert_message(&st, PLM_EUNSUPPORTED, "tensor 'q' has type unknown (999)", NULL);
    gguf_close(g);

    header(&b, 3, 1, 1); /* an alignment smaller than the elements */
    key_u32(&b, "general.alignment", 1);
    tensor(&b, "f", 0, 1, 1);
    bytes_put(&b, "12345", 5);
    b.data[b.length] = 0;
    assert_int_equal(open_bytes(&g, &b, &st), PLM_OK);
    assert_int_equal(gguf_tensor(g, "f", &s, &st), PLM_OK); /* copied where it has to be */
    assert_int_equal((uintptr_t)s.data % 4, 0);
    assert_memory_equal(s.data, "2345", 4);
    gguf_close(g);
}

/* Arrays of other integers read as i32, as far as their values fit. */
static void test_integer_arrays(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        size_t bytes;
    } types[] = {{GGUF_U8, 1}, {GGUF_I8, 1}, {GGUF_U16, 2}, {GGUF_I16, 2}, {GGUF_U32, 4}, {GGUF_I32, 4}, {GGUF_U64, 8}, {GGUF_I64, 8}};
    struct plm_status st = {0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int far = 0; far < 2; far++) {
            const bool is_signed = types[t].type % 2 == 1, wide = types[t].bytes == 8;
            const uint64_t second = far && wide ? (uint64_t)INT32_MAX + 1 : is_signed ? (uint64_t)-3 : 3;
            struct bytes b;
            struct gguf *g;
            uint64_t n;
            header(&b, 3, 0, 1);
            bytes_string(&b, "k");
            bytes_u32(&b, GGUF_ARRAY);
            bytes_u32(&b, types[t].type);
            bytes_u64(&b, 2);
            bytes_put(&b, "\x05\0\0\0\0\0\0", types[t].bytes);
            bytes_put(&b, &second, types[t].bytes);
            assert_int_equal(open_bytes(&g, &b, &st), PLM_OK);
            const int want = far && wide && types[t].type != GGUF_I32 ? PLM_EFORMAT : PLM_OK;
            assert_int_equal(gguf_get_array(g, "k", GGUF_I32, &n, &st), want);
            if (!want) {
                assert_int_equal(n, 2);
                assert_int_equal(gguf_array_i32(g, "k", 0), 5);
                assert_int_equal(gguf_array_i32(g, "k", 1), is_signed ? -3 : 3);
            } else {
                assert_message(&st, PLM_EFORMAT, "'k' has 2147483648 as element 1, beyond i32", NULL);
            }
            gguf_close(g);
        }
}

/* Part `no` of `count`: two tensors, named after it, of which the second is last + no. */
static const char *write_part(const char *file, unsigned no, unsigned count, unsigned total, const char *first_name)
{
    struct bytes b;
    char name[16];
    header(&b, 3, 2, 4);
    bytes_string(&b, "split.no");
    bytes_u32(&b, GGUF_U16);
    bytes_put(&b, &(uint16_t){(uint16_t)no}, 2);
    key_u32(&b, "split.count", count);
    key_u32(&b, "split.tensors.count", total);
    key_u32(&b, "of.part", no);
    snprintf(name, sizeof name, "t%u", no);
    tensor(&b, first_name ? first_name : name, 0, 2, 0);
    snprintf(name, sizeof name, "u%u", no);
    tensor(&b, name, 0, 1, 32);
    data(&b, 0);
    bytes_put(&b, (const float[]){(float)no, 0.5f}, 8);
    data(&b, 0);
    bytes_put(&b, &(float){10.0f + (float)no}, 4);
    return file_write(file, b.data, b.length);
}

static const char part0[] = "m-00001-of-00003.gguf", part1[] = "m-00002-of-00003.gguf", part2[] = "m-00003-of-00003.gguf";

static void expect_parts(const char *path, int want, const char *message)
{
    struct plm_status st = {0};
    struct gguf *g;
    assert_int_equal(gguf_open(&g, path, &st), want);
    assert_null(g);
    assert_message(&st, want, message, NULL);
}

static void test_parts(void **state)
{
    (void)state;
    const char *paths[] = {write_part(part0, 0, 3, 6, NULL), write_part(part1, 1, 3, 6, NULL), write_part(part2, 2, 3, 6, NULL)};
    for (int i = 0; i < 3; i++) { /* whichever is given */
        struct plm_status st = {0};
        struct gguf *g;
        struct stored_tensor s;
        uint64_t n;
        if (gguf_open(&g, paths[i], &st))
            fail_msg("%s", st.message);
        assert_int_equal(gguf_n_tensors(g), 6);
        assert_string_equal(gguf_tensor_name(g, 3), "u1");
        assert_true(gguf_get_u64(g, "of.part", &n, &st) == PLM_OK && n == 0);
        assert_true(gguf_tensor(g, "u2", &s, &st) == PLM_OK && *(const float *)s.data == 12.0f);
        assert_true(gguf_tensor(g, "t0", &s, &st) == PLM_OK && ((const float *)s.data)[1] == 0.5f);
        gguf_close(g);
    }
    struct plm_status st = {0};
    struct gguf *g;
    const char *whole = write_part("whole.gguf", 0, 1, 2, NULL); /* a count of one is no split */
    assert_int_equal(gguf_open(&g, whole, &st), PLM_OK);
    gguf_close(g);
    expect_parts(write_part("renamed.gguf", 0, 3, 6, NULL), PLM_EFORMAT, "must end in '-00001-of-00003.gguf'");
    expect_parts(write_part("m-00002-of-00002.gguf", 1, 3, 6, NULL), PLM_EFORMAT, "must end in '-00002-of-00003.gguf'");
    expect_parts(write_part("x-00001-of-00003.gguf", 3, 3, 6, NULL), PLM_EFORMAT, "split.no is 3 and split.count 3");
    expect_parts(write_part("x-00001-of-00001.gguf", 0, 4000000000u, 6, NULL), PLM_EFORMAT, "split.count 4000000000");
    write_part(part1, 0, 3, 6, NULL); /* the first one, copied */
    expect_parts(file_path(part0), PLM_EFORMAT, "one part twice");
    write_part(part1, 1, 3, 8, NULL); /* of another model */
    expect_parts(file_path(part0), PLM_EFORMAT, "parts of different models");
    write_part(part1, 1, 3, 6, "t0");
    expect_parts(file_path(part0), PLM_EFORMAT, "tensor 't0' occurs twice");
    write_part(part0, 0, 3, 7, NULL), write_part(part1, 1, 3, 7, NULL), write_part(part2, 2, 3, 7, NULL);
    expect_parts(file_path(part2), PLM_EFORMAT, "the 3 parts hold 6 tensors, but split.tensors.count is 7");
    unlink(file_path(part1));
    expect_parts(file_path(part0), PLM_EIO, "part 2 of 3: cannot open");
    file_write(part1, "GGUF", 4);
    expect_parts(file_path(part0), PLM_EFORMAT, "part 2 of 3: '");
}

static void expect(const struct bytes *b, int code, const char *message)
{
    struct gguf *g;
    struct plm_status st = {0};
    if (open_bytes(&g, b, &st) == PLM_OK)
        fail_msg("accepted; expected: %s", message);
    assert_null(g);
    assert_message(&st, code, "hand.gguf'", message, NULL);
}

static void test_bad_metadata(void **state)
{
    (void)state;
    struct bytes b = {.length = 0};
    expect(&b, PLM_EFORMAT, "is not a GGUF file");
    bytes_put(&b, "GGML....", 8);
    expect(&b, PLM_EFORMAT, "is not a GGUF file");
    header(&b, 3, 0, 0);
    b.length--;
    expect(&b, PLM_EFORMAT, "ends inside the header");
    header(&b, 1, 0, 0);
    expect(&b, PLM_EUNSUPPORTED, "GGUF version 1");
    header(&b, 0x03000000, 0, 0);
    expect(&b, PLM_EUNSUPPORTED, "big-endian");
    header(&b, 3, 0, 1ull << 60);
    expect(&b, PLM_EFORMAT, "1152921504606846976 metadata entries do not fit");
    header(&b, 3, 1ull << 60, 0);
    expect(&b, PLM_EFORMAT, "1152921504606846976 tensors do not fit");

    header(&b, 3, 0, 1);
    bytes_u64(&b, UINT64_MAX - 3);
    bytes_put(&b, "aaaaaaaaaaaa", 12);
    expect(&b, PLM_EFORMAT, "ends inside a metadata key");
    header(&b, 3, 0, 1);
    key_u32(&b, "", 1);
    expect(&b, PLM_EFORMAT, "key has 0 bytes");
    header(&b, 3, 0, 2);
    key_u32(&b, "twice", 1);
    key_u32(&b, "twice", 2);
    expect(&b, PLM_EFORMAT, "key 'twice' occurs twice");
    header(&b, 3, 0, 1);
    bytes_string(&b, "k");
    bytes_u32(&b, 13);
    bytes_u64(&b, 0);
    expect(&b, PLM_EFORMAT, "key 'k' has a value of unknown type 13");
    header(&b, 3, 0, 1);
    bytes_string(&b, "kkkk");
    bytes_u32(&b, GGUF_U64);
    bytes_u32(&b, 0);
    expect(&b, PLM_EFORMAT, "ends inside the value of key 'kkkk'");
    header(&b, 3, 0, 1);
    bytes_string(&b, "k");
    bytes_u32(&b, GGUF_BOOL);
    bytes_put(&b, "\2", 1);
    expect(&b, PLM_EFORMAT, "key 'k' is a bool of value 2");
    header(&b, 3, 0, 1);
    bytes_string(&b, "k");
    bytes_u32(&b, GGUF_STRING);
    bytes_u64(&b, UINT64_MAX);
    expect(&b, PLM_EFORMAT, "ends inside the value of key 'k'");

    static const struct {
        uint32_t element;
        uint64_t count;
        int code;
        const char *message;
    } arrays[] = {{GGUF_U64, UINT64_MAX / 8 + 2, PLM_EFORMAT, "ends inside the array of key 'k'"},
                  {GGUF_STRING, UINT64_MAX, PLM_EFORMAT, "ends inside the array of key 'k'"},
                  {GGUF_STRING, 1, PLM_EFORMAT, "ends inside a string of key 'k'"},
                  {GGUF_ARRAY, 1, PLM_EUNSUPPORTED, "key 'k' is an array of arrays"},
                  {77, 1, PLM_EFORMAT, "key 'k' is an array of unknown type 77"}};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        header(&b, 3, 0, 1);
        bytes_string(&b, "k");
        bytes_u32(&b, GGUF_ARRAY);
        bytes_u32(&b, arrays[i].element);
        bytes_u64(&b, arrays[i].count);
        bytes_u64(&b, 100);
        expect(&b, arrays[i].code, arrays[i].message);
    }
    static const uint32_t alignments[] = {0, 3, 33};
    for (int i = 0; i < 3; i++) {
        header(&b, 3, 0, 1);
        key_u32(&b, "general.alignment", alignments[i]);
        expect(&b, PLM_EFORMAT, "general.alignment is ");
    }
}

static void test_bad_tensors(void **state)
{
    (void)state;
    struct bytes b;
    static const struct {
        uint32_t type;
        uint64_t ne, offset;
        const char *message;
    } bad[] = {
        {0, 1ull << 63, 0, "tensor 't' has impossible dimensions"},
        {0, 1ull << 61, 0, "tensor 't' has impossible dimensions"},
        {0, 65, 0, "tensor 't' reaches byte 260 of the data, but only 256"},
        {0, 1, 256, "tensor 't' reaches byte 260"},
        {0, 1, 8, "tensor 't' begins at 8, not a multiple of the alignment 32"},
        {0, 1, UINT64_MAX - 1, "tensor 't' has an impossible offset"},
        {0, 1, UINT64_MAX - 31, "tensor 't' reaches byte"},
        {8, 33, 0, "tensor 't' has rows of 33 elements, which are no whole blocks of 32"},
        {13, 256, 288, "tensor 't' reaches byte 288"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        header(&b, 3, 1, 0);
        tensor(&b, "t", bad[i].type, bad[i].ne, bad[i].offset);
        data(&b, 256);
        expect(&b, PLM_EFORMAT, bad[i].message);
    }
    header(&b, 3, 2, 0);
    tensor(&b, "t", 0, 16, 0);
    tensor(&b, "u", 0, 1, 32);
    data(&b, 256);
    expect(&b, PLM_EFORMAT, "tensors 't' and 'u' overlap");
    header(&b, 3, 2, 0);
    tensor(&b, "t", 0, 1, 0);
    tensor(&b, "t", 0, 1, 32);
    data(&b, 256);
    expect(&b, PLM_EFORMAT, "tensor 't' occurs twice");
    header(&b, 3, 1, 0);
    tensor(&b, "", 0, 1, 0);
    data(&b, 256);
    expect(&b, PLM_EFORMAT, "tensor 0 has an empty name");
    header(&b, 3, 1, 0);
    bytes_string(&b, "t");
    bytes_u32(&b, 5);
    data(&b, 256);
    expect(&b, PLM_EFORMAT, "tensor 't' has 5 dimensions");
    header(&b, 3, 1, 0);
    bytes_string(&b, "t");
    bytes_u32(&b, 2);
    bytes_u64(&b, 1ull << 40);
    bytes_u64(&b, 1ull << 40);
    data(&b, 256);
    expect(&b, PLM_EFORMAT, "tensor 't' has impossible dimensions (ne[1]");
    header(&b, 3, 1, 0);
    tensor(&b, "t", 0, 1, 0);
    expect(&b, PLM_EFORMAT, "ends inside the padding");
}

static struct gguf_writer *create(void)
{
    struct gguf_writer *w;
    assert_int_equal(gguf_create(&w, file_path("w.gguf"), NULL), PLM_OK);
    return w;
}

static void test_writer_errors(void **state)
{
    (void)state;
    struct plm_status st = {0};
    const int64_t shape[] = {32}, odd[] = {2, 33};
    struct gguf_writer *w = create();
    assert_int_equal(gguf_set_u32(w, "k", 1, &st), PLM_OK);
    assert_int_equal(gguf_set_u32(w, "k", 1, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "key 'k' is set twice", NULL);
    assert_int_equal(gguf_declare(w, "t", DTYPE_F32, 1, shape, NULL), PLM_EINVAL); /* the first error stays */
    assert_int_equal(gguf_finish(w, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "key 'k' is set twice", NULL);
    assert_int_not_equal(access(file_path("w.gguf"), F_OK), 0);

    w = create();
    assert_int_equal(gguf_set_string(w, "", "x", 1, &st), PLM_EINVAL);
    gguf_discard(w);

    w = create();
    assert_int_equal(gguf_declare(w, "t", DTYPE_Q8_0, 2, odd, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "tensor 't' has", "whole blocks of 32 elements (q8_0)", NULL);
    gguf_discard(w);

    w = create();
    char name[65] = {0};
    memset(name, 'n', 64);
    assert_int_equal(gguf_declare(w, name, DTYPE_F32, 1, shape, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "has 64 bytes; GGUF has 1 to 63", NULL);
    gguf_discard(w);

    w = create();
    assert_int_equal(gguf_declare(w, "t", DTYPE_Q8_0, 1, shape, &st), PLM_OK);
    assert_int_equal(gguf_write(w, values, 34, &st), PLM_OK);
    assert_int_equal(gguf_set_u32(w, "late", 1, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "key 'late' is set after the first data", NULL);
    gguf_discard(w);
    assert_int_not_equal(access(file_path("w.gguf"), F_OK), 0);

    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(gguf_create(&w, "/dev/full", &st), PLM_OK);
        assert_int_equal(gguf_declare(w, "t", DTYPE_Q8_0, 1, shape, &st), PLM_OK);
        assert_int_equal(gguf_write(w, values, 34, &st), PLM_OK);
        assert_int_equal(gguf_finish(w, &st), PLM_EIO);
        assert_message(&st, PLM_EIO, "cannot write '/dev/full'", "No space left", NULL);
    }
    assert_int_equal(gguf_finish(NULL, &st), PLM_OK);
    gguf_discard(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_golden),      cmocka_unit_test(test_foreign), cmocka_unit_test(test_integer_arrays), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bad_metadata), cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_writer_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
