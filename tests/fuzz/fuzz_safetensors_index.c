/* model.safetensors.index.json over two good files: any text, or (first byte odd) edits of a right one. */
#include "infer/format/safetensors_set.h"
#include "tests/fuzz/fuzz_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char good[] = "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"x.safetensors\",\"c\":\"y.safetensors\"}}";

static void write_file(const char *name, const char *tensors)
{
    struct safetensors_writer *w;
    if (safetensors_create(&w, fuzz_path(name), NULL))
        abort();
    for (const char *t = tensors; *t; t++)
        safetensors_declare(w, (const char[2]){*t}, DTYPE_F32, 1, (const int64_t[]){1}, NULL);
    for (const char *t = tensors; *t; t++)
        safetensors_write(w, &(float){1}, sizeof(float), NULL);
    if (safetensors_finish(w, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors_set s;
    struct plm_status st = {0};
    static bool started;
    if (!started) {
        write_file("x.safetensors", "ab");
        write_file("y.safetensors", "c");
        started = true;
    }
    fuzz_write_text(SAFETENSORS_INDEX, good, data, size);
    if (safetensors_set_open(&s, fuzz_directory(), &st) == PLM_OK) { /* only the right index is accepted, whatever it looks like */
        float sum = 0;
        for (int i = 0; i < s.n_tensors; i++)
            sum += *(const float *)safetensors_set_find(&s, safetensors_set_at(&s, i)->name)->data;
        if (sum != (float)s.n_tensors || s.n_tensors < 1 || s.n_tensors > 3)
            abort();
        safetensors_set_close(&s);
    } else if (!st.message[0]) {
        abort();
    }
    return 0;
}
