/* Out of memory: the n-th allocation fails, for n = 1, 2, ... until none does. Every failure must be PLM_ENOMEM and leave
 * nothing behind (the leak checker of a sanitizer build sees to the latter). The linker sends the library's allocations here
 * (--wrap). */
#include "tests/format/files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/gguf.h"
#include "infer/format/json.h"
#include "infer/model/config.h"

static long countdown = -1; /* negative: never fail */

static int fails(void)
{
    return countdown > 0 && --countdown == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
    return fails() ? NULL : __real_strndup(s, n);
}

static const char *path;

static int write_safetensors(struct plm_status *st)
{
    struct safetensors_writer *w;
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    for (int i = 0; i < 3; i++)
        safetensors_declare(w, (const char *[]){"a", "b", "c"}[i], DTYPE_F32, 1, (int64_t[]){1}, st);
    safetensors_set_metadata(w, "k", "v", st);
    safetensors_write(w, "1234", 4, st);
    safetensors_write(w, "1234", 4, st);
    safetensors_write(w, "1234", 4, st);
    return safetensors_finish(w, st);
}

static int write_gguf(struct plm_status *st)
{
    struct gguf_writer *w;
    int code = gguf_create(&w, path, st);
    if (code)
        return code;
    gguf_set_u32(w, "u", 1, st);
    gguf_set_strings(w, "s", (const char *const[]){"x", "y"}, (const size_t[]){1, 1}, 2, st);
    gguf_declare(w, "a", DTYPE_F32, 1, (int64_t[]){1}, st);
    gguf_declare(w, "b", DTYPE_F32, 1, (int64_t[]){1}, st);
    gguf_write(w, "1234", 4, st);
    gguf_write(w, "1234", 4, st);
    return gguf_finish(w, st);
}

static int read_safetensors(struct plm_status *st)
{
    struct safetensors s;
    int code = safetensors_open(&s, path, st);
    if (!code)
        safetensors_close(&s);
    return code;
}

static int read_gguf(struct plm_status *st)
{
    struct gguf *g;
    int code = gguf_open(&g, path, st);
    gguf_close(g);
    return code;
}

static int read_json(struct plm_status *st)
{
    static const char text[] = "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":[[],{}]}";
    struct json_doc *doc;
    int code = json_parse(&doc, text, sizeof text - 1, "text", st);
    json_free(doc);
    return code;
}

static int config_text(struct plm_status *st)
{
    struct model_config c = model_config_default();
    char *text = model_config_to_json(&c);
    free(text);
    return text ? PLM_OK : status_set(st, PLM_ENOMEM, "out of memory");
}

/* Returns how many allocations could fail. A shrinking realloc may fail unnoticed, hence `unnoticed`. */
static long fail_each(int (*run)(struct plm_status *), long unnoticed)
{
    bool writes = run == write_safetensors || run == write_gguf;
    for (long n = 1;; n++) {
        struct plm_status st = {0};
        if (writes)
            unlink(path);
        countdown = n;
        int code = run(&st);
        long left = countdown;
        countdown = -1;
        if (left > 0) {
            assert_int_equal(code, PLM_OK);
            return n - 1;
        }
        if (code == PLM_OK)
            assert_true(unnoticed-- > 0);
        else
            assert_message(&st, PLM_ENOMEM, "out of memory", NULL);
        if (writes && code)
            assert_int_not_equal(access(path, F_OK), 0); /* nothing unfinished stays */
    }
}

static void test_all(void **state)
{
    (void)state;
    path = file_path("memory");
    assert_true(fail_each(read_json, 1) >= 4);
    assert_true(fail_each(config_text, 0) >= 2);
    assert_true(fail_each(write_safetensors, 0) >= 8);
    assert_true(fail_each(read_safetensors, 1) >= 7);
    assert_true(fail_each(write_gguf, 0) >= 8);
    assert_true(fail_each(read_gguf, 0) >= 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
