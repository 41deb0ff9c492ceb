/* Damaged files: every truncation and every single-byte change of small valid files gives an error or a valid object. */
#include "tests/format/files.h"

#include <stdlib.h>
#include <string.h>

#include "tests/format/memory_file.h"
#include "tests/format/touch.h"

struct format {
    int (*open)(void **object, struct plm_status *st);
    uint64_t (*touch)(void *object);
    void (*close)(void *object);
};

static int open_safetensors(void **object, struct plm_status *st)
{
    static struct safetensors s;
    *object = &s;
    return safetensors_open(&s, "file.safetensors", st);
}

static uint64_t touch_s(void *object)
{
    return touch_safetensors(object);
}

static void close_s(void *object)
{
    safetensors_close(object);
}

static int open_gguf(void **object, struct plm_status *st)
{
    return gguf_open((struct gguf **)object, "file.gguf", st);
}

static uint64_t touch_g(void *object)
{
    return touch_gguf(object);
}

static void close_g(void *object)
{
    gguf_close(object);
}

static const struct format safetensors_format = {open_safetensors, touch_s, close_s};
static const struct format gguf_format = {open_gguf, touch_g, close_g};

/* Open these bytes; returns the code, after checking that it is one a file can cause. */
static int try_bytes(const struct format *f, const unsigned char *data, size_t bytes)
{
    void *object;
    struct plm_status st = {0};
    memory_file_set(data, bytes);
    int code = f->open(&object, &st);
    if (code == PLM_OK) {
        f->touch(object);
        f->close(object);
    } else {
        assert_true(code == PLM_EFORMAT || code == PLM_EUNSUPPORTED);
        assert_non_null(strstr(st.message, "'file."));
    }
    return code;
}

static void damage(const struct format *f, unsigned char *data, size_t bytes)
{
    assert_int_equal(try_bytes(f, data, bytes), PLM_OK);
    for (size_t n = 0; n < bytes; n++)
        assert_int_not_equal(try_bytes(f, data, n), PLM_OK);
    size_t refused = 0;
    for (size_t at = 0; at < bytes; at++) {
        unsigned char was = data[at];
        for (int byte = 0; byte < 256; byte++) {
            data[at] = (unsigned char)byte;
            refused += try_bytes(f, data, bytes) != PLM_OK;
        }
        data[at] = was;
    }
    assert_true(refused > 10000);
}

static void test_safetensors(void **state)
{
    (void)state;
    const char *path = file_path("d.safetensors");
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, path, NULL), PLM_OK);
    assert_int_equal(safetensors_declare(w, "a", DTYPE_F32, 2, (int64_t[]){2, 1}, NULL), PLM_OK);
    assert_int_equal(safetensors_declare(w, "bb", DTYPE_BF16, 1, (int64_t[]){3}, NULL), PLM_OK);
    assert_int_equal(safetensors_set_metadata(w, "format", "pt", NULL), PLM_OK);
    assert_int_equal(safetensors_write(w, "12345678", 8, NULL), PLM_OK);
    assert_int_equal(safetensors_write(w, "abcdef", 6, NULL), PLM_OK);
    assert_int_equal(safetensors_finish(w, NULL), PLM_OK);
    size_t bytes;
    unsigned char *data = file_read(path, &bytes);
    damage(&safetensors_format, data, bytes);
    free(data);
}

static void test_gguf(void **state)
{
    (void)state;
    const char *path = file_path("d.gguf");
    struct gguf_writer *w;
    static const char block[34] = {0};
    assert_int_equal(gguf_create(&w, path, NULL), PLM_OK);
    assert_int_equal(gguf_set_u32(w, "general.alignment", 32, NULL), PLM_OK);
    assert_int_equal(gguf_set_strings(w, "s", (const char *const[]){"ab", "", "c"}, (const size_t[]){2, 0, 1}, 3, NULL), PLM_OK);
    assert_int_equal(gguf_set_i32s(w, "i", (const int32_t[]){1, 2}, 2, NULL), PLM_OK);
    assert_int_equal(gguf_set_f32(w, "f", 1.0f, NULL), PLM_OK);
    assert_int_equal(gguf_set_bool(w, "b", true, NULL), PLM_OK);
    assert_int_equal(gguf_declare(w, "x", DTYPE_F32, 2, (int64_t[]){2, 1}, NULL), PLM_OK);
    assert_int_equal(gguf_declare(w, "yy", DTYPE_Q8_0, 1, (int64_t[]){32}, NULL), PLM_OK);
    assert_int_equal(gguf_write(w, "12345678", 8, NULL), PLM_OK);
    assert_int_equal(gguf_write(w, block, 34, NULL), PLM_OK);
    assert_int_equal(gguf_finish(w, NULL), PLM_OK);
    size_t bytes;
    unsigned char *data = file_read(path, &bytes);
    bytes -= 64 - 34; /* without the padding at the end, whose loss is harmless */
    damage(&gguf_format, data, bytes);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
