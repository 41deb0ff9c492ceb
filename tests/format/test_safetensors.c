#include "tests/format/files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/safetensors.h"

static const float values[6] = {0.0f, -1.0f, 2.5f, 3.0f, -4.0f, 0x1p-20f};

static void test_round_trip(void **state)
{
    (void)state;
    const char *path = file_path("round.safetensors");
    struct plm_status st = {0};
    struct safetensors_writer *w;
    uint16_t half[6], brain[6];
    dtype_from_f32(DTYPE_F16, half, values, 6);
    dtype_from_f32(DTYPE_BF16, brain, values, 6);
    assert_int_equal(safetensors_create(&w, path, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "b.weight", DTYPE_F32, 2, (int64_t[]){2, 3}, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "scalar", DTYPE_F32, 0, NULL, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "empty", DTYPE_F32, 2, (int64_t[]){0, 7}, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "a \"\xc3\xa9\"", DTYPE_F16, 4, (int64_t[]){1, 3, 1, 2}, &st), PLM_OK);
    assert_int_equal(safetensors_set_metadata(w, "format", "pt", &st), PLM_OK);
    assert_int_equal(safetensors_set_metadata(w, "a\"b", "c\\d", &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "brain", DTYPE_BF16, 1, (int64_t[]){6}, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, values, 5, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, (const char *)values + 5, 19, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, &values[2], 4, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, NULL, 0, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, half, sizeof half, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, brain, sizeof brain, &st), PLM_OK);
    assert_int_equal(safetensors_finish(w, &st), PLM_OK);

    struct safetensors s;
    assert_int_equal(safetensors_open(&s, path, &st), PLM_OK);
    assert_int_equal(s.n_tensors, 5);
    assert_string_equal(s.metadata, "{\"format\":\"pt\",\"a\\\"b\":\"c\\\\d\"}");
    assert_string_equal(s.tensors[0].name, "b.weight");
    assert_int_equal(((const unsigned char *)s.tensors[0].data - s.file.data) % 64, 0);
    for (int i = 1; i < s.n_tensors; i++)
        assert_true(s.tensors[i].data >= s.tensors[i - 1].data);
    const struct stored_tensor *t = safetensors_find(&s, "b.weight");
    assert_true(t && t->type == DTYPE_F32 && t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->bytes == sizeof values);
    assert_memory_equal(t->data, values, sizeof values);
    t = safetensors_find(&s, "a \"\xc3\xa9\"");
    assert_true(t && t->type == DTYPE_F16 && t->n_dims == 4 && t->shape[1] == 3 && t->shape[3] == 2);
    assert_memory_equal(t->data, half, sizeof half);
    t = safetensors_find(&s, "brain");
    assert_true(t && t->type == DTYPE_BF16);
    assert_memory_equal(t->data, brain, sizeof brain);
    t = safetensors_find(&s, "scalar");
    assert_true(t && t->n_dims == 0 && t->bytes == 4 && *(const float *)t->data == 2.5f);
    t = safetensors_find(&s, "empty");
    assert_true(t && t->bytes == 0 && t->shape[0] == 0 && t->shape[1] == 7);
    assert_null(safetensors_find(&s, "b.weigh"));
    safetensors_close(&s);
}

static void test_golden(void **state)
{
    (void)state;
    const char *path = file_path("golden.safetensors");
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, path, NULL), PLM_OK);
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, (int64_t[]){2}, NULL), PLM_OK);
    assert_int_equal(safetensors_write(w, (const float[]){1.0f, -2.0f}, 8, NULL), PLM_OK);
    assert_int_equal(safetensors_finish(w, NULL), PLM_OK);
    static const char want[] = "\x38\0\0\0\0\0\0\0{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}  "
                               "\0\0\x80\x3f\0\0\0\xc0";
    size_t bytes;
    unsigned char *data = file_read(path, &bytes);
    assert_int_equal(bytes, sizeof want - 1);
    assert_memory_equal(data, want, bytes);
    free(data);
}

/* Open a file of this header, padded with spaces to a multiple of `align`, and `data_bytes` zeros. */
static int open_header(const char *header, size_t align, size_t data_bytes, struct plm_status *st)
{
    struct bytes b = {.length = 0};
    static const unsigned char zeros[64];
    size_t spaces = (align - strlen(header) % align) % align;
    bytes_u64(&b, strlen(header) + spaces);
    bytes_put(&b, header, strlen(header));
    bytes_put(&b, "        ", spaces);
    bytes_put(&b, zeros, data_bytes);
    struct safetensors s;
    int code = safetensors_open(&s, file_write("bad.safetensors", b.data, b.length), st);
    if (code)
        assert_null(s.file.data);
    safetensors_close(&s);
    return code;
}

#define X(dtype, shape, offsets) "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_bad_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        int code;
        const char *message;
    } bad[] = {
        {"[]", 0, PLM_EFORMAT, "does not begin like a safetensors file"},
        {"{\"x\":1}", 0, PLM_EFORMAT, "tensor 'x' has no \"dtype\""},
        {"{\"x\":", 0, PLM_EFORMAT, "header: line 1, column 9: expected a value"},
        {"{\"x\\u0000y\":1}", 0, PLM_EFORMAT, "tensor 'x' contains a NUL"},
        {X("1", "[1]", "[0,4]"), 4, PLM_EFORMAT, "no \"dtype\""},
        {X("\"F64\"", "[1]", "[0,4]"), 4, PLM_EFORMAT, "'x' has 4 bytes of data, but its shape needs 8"},
        {X("\"F64\"", "[1,1,1,1,1]", "[0,8]"), 8, PLM_EUNSUPPORTED, "'x' has 5 dimensions"},
        {X("\"I32\"", "[3]", "[0,4]"), 4, PLM_EFORMAT, "'x' has 4 bytes of data, but its shape needs 12"},
        {X("\"I64\"", "[-3]", "[0,4]"), 4, PLM_EFORMAT, "dimension 0 of tensor 'x'"},
        {X("\"F32\"", "null", "[0,4]"), 4, PLM_EFORMAT, "no \"shape\""},
        {X("\"F32\"", "[1,1,1,1,1]", "[0,4]"), 4, PLM_EUNSUPPORTED, "'x' has 5 dimensions"},
        {X("\"F32\"", "[-1]", "[0,4]"), 4, PLM_EFORMAT, "dimension 0 of tensor 'x'"},
        {X("\"F32\"", "[1,1.0]", "[0,4]"), 4, PLM_EFORMAT, "dimension 1 of tensor 'x'"},
        {X("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, PLM_EFORMAT, "dimension 1 of tensor 'x'"},
        {X("\"F32\"", "[1]", "[0]"), 4, PLM_EFORMAT, "no \"data_offsets\""},
        {X("\"F32\"", "[1]", "[4,0]"), 4, PLM_EFORMAT, "no \"data_offsets\""},
        {X("\"F32\"", "[1]", "[-4,0]"), 4, PLM_EFORMAT, "no \"data_offsets\""},
        {X("\"F32\"", "[2]", "[0,8]"), 7, PLM_EFORMAT, "'x' ends at byte 8 of the data, but only 7 are there"},
        {X("\"F32\"", "[2]", "[0,4]"), 4, PLM_EFORMAT, "'x' has 4 bytes of data, but its shape needs 8"},
        {X("\"F16\"", "[2]", "[2,6]"), 6, PLM_EFORMAT, "'x' begins at byte 2 of the data, expected 0"},
        {X("\"F16\"", "[2]", "[0,4]"), 6, PLM_EFORMAT, "2 bytes after the last tensor"},
        {"{}", 1, PLM_EFORMAT, "1 bytes after the last tensor"},
        {"{\"x\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
         "\"y\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[2,6]}}",
         6, PLM_EFORMAT, "'y' begins at byte 2 of the data, expected 4"},
        {"{\"x\":{},\"x\":{}}", 0, PLM_EFORMAT, "key \"x\" twice"},
        {"{\"__metadata__\":[]}", 0, PLM_EFORMAT, "\"__metadata__\" is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, PLM_EFORMAT, "\"k\" in \"__metadata__\" is not a string"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct plm_status st = {0};
        if (open_header(bad[i].header, 8, bad[i].data_bytes, &st) == PLM_OK)
            fail_msg("accepted: %s", bad[i].header);
        assert_message(&st, bad[i].code, "bad.safetensors'", bad[i].message, NULL);
    }
    assert_int_equal(open_header("{}", 8, 0, NULL), PLM_OK);
    assert_int_equal(open_header("{\"__metadata__\":null}", 8, 0, NULL), PLM_OK);
}

/* What the format allows and others write: data at any address, float64, tensors of types that are only listed. */
static void test_foreign(void **state)
{
    (void)state;
    static const char header[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,6]},"
                                 "\"d\":{\"dtype\":\"F64\",\"shape\":[1,2],\"data_offsets\":[6,22]},\"__metadata__\":null,"
                                 "\"i\":{\"dtype\":\"I64\",\"shape\":[1,1,1,1,1],\"data_offsets\":[22,30]},"
                                 "\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[30,38]},"
                                 "\"g\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[38,40]},"
                                 "\"e\":{\"dtype\":\"F64\",\"shape\":[0,4],\"data_offsets\":[40,40]}}";
    const double wide[2] = {0.1, -1e-50};
    uint16_t half[3];
    dtype_from_f32(DTYPE_F16, half, values, 3);
    for (size_t spaces = 0; spaces < 9; spaces++) {
        struct bytes b = {.length = 0};
        struct plm_status st = {0};
        struct safetensors s;
        bytes_u64(&b, strlen(header) + spaces);
        bytes_put(&b, header, strlen(header));
        bytes_put(&b, "         ", spaces);
        bytes_put(&b, half, sizeof half);
        bytes_put(&b, wide, sizeof wide);
        bytes_put(&b, "12345678", 8);
        bytes_put(&b, values + 1, 8);
        bytes_put(&b, "ab", 2);
        if (safetensors_open(&s, file_write("foreign.safetensors", b.data, b.length), &st))
            fail_msg("%s", st.message);
        assert_true(s.n_tensors == 4 && s.n_others == 2 && s.n_narrowed == 2 && !s.metadata);
        const struct stored_tensor *h = safetensors_find(&s, "h"), *f = safetensors_find(&s, "f"), *d = safetensors_find(&s, "d");
        assert_true(h && f && d && (uintptr_t)h->data % 2 == 0 && (uintptr_t)f->data % 4 == 0);
        assert_memory_equal(h->data, half, sizeof half);
        assert_memory_equal(f->data, values + 1, 8);
        assert_true(d->type == DTYPE_F32 && d->n_dims == 2 && d->bytes == 8);
        assert_true(((const float *)d->data)[0] == 0.1f && ((const float *)d->data)[1] == 0.0f);
        assert_null(safetensors_find(&s, "i"));
        assert_string_equal(safetensors_other_type(&s, "i"), "I64");
        assert_string_equal(safetensors_other_type(&s, "g"), "F4");
        assert_null(safetensors_other_type(&s, "f"));
        safetensors_close(&s);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    struct safetensors s;
    struct plm_status st = {0};
    safetensors_open(&s, file_path("absent"), &st);
    assert_message(&st, PLM_EIO, "absent", "No such file", NULL);
    safetensors_open(&s, file_write("empty", "", 0), &st);
    assert_message(&st, PLM_EFORMAT, "empty", "0 bytes", NULL);
    safetensors_open(&s, file_write("huge", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), &st);
    assert_message(&st, PLM_EFORMAT, "huge", "18446744073709551615", NULL);
    safetensors_open(&s, file_write("cut", "\x40\0\0\0\0\0\0\0{\"x\":", 13), &st);
    assert_message(&st, PLM_EFORMAT, "cut", "header has 64 bytes, but only 5", NULL);
    assert_null(safetensors_find(&s, "x"));
}

static struct safetensors_writer *create(const char *name)
{
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, file_path(name), NULL), PLM_OK);
    return w;
}

static void test_writer_errors(void **state)
{
    (void)state;
    struct plm_status st = {0};
    const int64_t two[] = {2}, negative[] = {-1}, huge[] = {INT64_MAX, 4};
    struct safetensors_writer *w = create("w");
    safetensors_declare(w, "q", DTYPE_Q8_0, 1, (int64_t[]){32}, &st);
    assert_message(&st, PLM_EUNSUPPORTED, "tensor 'q'", "q8_0", NULL);
    st = (struct plm_status){0};
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_EUNSUPPORTED); /* the first error stays */
    assert_int_equal(safetensors_write(w, two, 8, NULL), PLM_EUNSUPPORTED);
    assert_int_equal(safetensors_finish(w, &st), PLM_EUNSUPPORTED);
    assert_message(&st, PLM_EUNSUPPORTED, "tensor 'q'", NULL);
    assert_int_not_equal(access(file_path("w"), F_OK), 0);

    const struct {
        const char *name, *message;
        const int64_t *shape;
        int n_dims;
    } bad[] = {{"x", "'x' has a negative or too large", negative, 1}, {"x", "'x' has a negative or too large", huge, 2},
               {"x", "'x' has 5 dimensions", two, 5}, {"__metadata__", "cannot be named", two, 1}};
    for (int i = 0; i < 4; i++) {
        w = create("w");
        assert_int_equal(safetensors_declare(w, bad[i].name, DTYPE_F32, bad[i].n_dims, bad[i].shape, &st), PLM_EINVAL);
        assert_message(&st, PLM_EINVAL, bad[i].message, NULL);
        safetensors_discard(w);
    }

    w = create("w"); /* a bf16 tensor of odd length would misalign the f32 behind it */
    assert_int_equal(safetensors_declare(w, "b", DTYPE_BF16, 1, (int64_t[]){3}, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "'x' would begin at byte 6", NULL);
    safetensors_discard(w);

    w = create("w");
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, values, 8, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "tensor 'x' is declared twice", NULL);
    safetensors_discard(w);

    w = create("w");
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, values, 12, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "'x' needs 8 more bytes, got 12", NULL);
    safetensors_discard(w);

    w = create("w");
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, values, 4, &st), PLM_OK);
    assert_int_equal(safetensors_finish(w, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "'x' lacks 4 bytes", NULL);
    assert_int_not_equal(access(file_path("w"), F_OK), 0);

    w = create("w");
    assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, two, &st), PLM_OK);
    assert_int_equal(safetensors_write(w, values, 8, &st), PLM_OK);
    assert_int_equal(safetensors_declare(w, "y", DTYPE_F32, 1, two, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "'y' is declared after the first data", NULL);
    safetensors_discard(w);

    w = create("w");
    assert_int_equal(safetensors_write(w, values, 1, &st), PLM_EINVAL);
    assert_message(&st, PLM_EINVAL, "1 bytes of data after the last declared tensor", NULL);
    safetensors_discard(w);
    assert_int_not_equal(access(file_path("w"), F_OK), 0);

    assert_int_equal(safetensors_create(&w, file_path("no/such/directory"), &st), PLM_EIO);
    assert_message(&st, PLM_EIO, "no/such/directory", "No such file", NULL);
    assert_null(w);
    assert_int_equal(safetensors_finish(NULL, &st), PLM_OK);
    safetensors_discard(NULL);
}

static void test_disk_full(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0)
        skip();
    enum { LARGE = 1 << 20 };
    float *data = calloc(LARGE, sizeof *data);
    assert_non_null(data);
    for (int large = 0; large < 2; large++) { /* the error appears at finish, or at a write that exceeds the buffer */
        int64_t shape[] = {large ? LARGE : 4};
        struct plm_status st = {0};
        struct safetensors_writer *w;
        assert_int_equal(safetensors_create(&w, "/dev/full", &st), PLM_OK);
        assert_int_equal(safetensors_declare(w, "x", DTYPE_F32, 1, shape, &st), PLM_OK);
        assert_int_equal(safetensors_write(w, data, (size_t)shape[0] * sizeof *data, &st), large ? PLM_EIO : PLM_OK);
        st = (struct plm_status){0};
        assert_int_equal(safetensors_finish(w, &st), PLM_EIO);
        assert_message(&st, PLM_EIO, "cannot write '/dev/full' at byte 0", "No space left", NULL);
    }
    assert_int_equal(access("/dev/full", F_OK), 0);
    free(data);
}

static void test_large_data(void **state)
{
    (void)state;
    enum { N = 300001 };
    float *data = malloc(N * sizeof *data);
    assert_non_null(data);
    for (int i = 0; i < N; i++)
        data[i] = (float)i;
    struct safetensors_writer *w = create("large");
    for (int t = 0; t < 3; t++)
        assert_int_equal(safetensors_declare(w, (const char *[]){"a", "b", "c"}[t], DTYPE_F32, 1, (int64_t[]){N}, NULL), PLM_OK);
    static const size_t pieces[] = {N * 4, 100000, 7};
    for (int t = 0; t < 3; t++) /* in one write, in pieces smaller than the buffer, in crumbs */
        for (size_t at = 0; at < N * 4; at += pieces[t])
            assert_int_equal(
                safetensors_write(w, (const char *)data + at, N * 4 - at < pieces[t] ? N * 4 - at : pieces[t], NULL), PLM_OK);
    assert_int_equal(safetensors_finish(w, NULL), PLM_OK);
    struct safetensors s;
    assert_int_equal(safetensors_open(&s, file_path("large"), NULL), PLM_OK);
    assert_int_equal(s.n_tensors, 3);
    for (int t = 0; t < 3; t++)
        assert_memory_equal(s.tensors[t].data, data, N * 4);
    safetensors_close(&s);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_golden),    cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_bad_files),     cmocka_unit_test(test_disk_full), cmocka_unit_test(test_large_data),
        cmocka_unit_test(test_writer_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
