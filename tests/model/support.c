#include "tests/model/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/random.h"
#include "infer/format/json.h"
#include "infer/model/tensor_table.h"

/* Support code has no test to fail: it says what went wrong and ends the process. */
static void must(int code, const struct plm_status *st)
{
    if (code) {
        fprintf(stderr, "test support: %s\n", st->message);
        exit(1);
    }
}

double relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return sqrt(difference / norm); /* NaN when something is: every comparison with it fails */
}

size_t read_integers(const char *path, const char *key, int row, int32_t *out, size_t capacity)
{
    struct plm_status st = {0};
    struct mapped_file m;
    struct json_doc *doc;
    size_t n = 0;
    must(mapped_open(&m, path, &st), &st);
    must(json_parse(&doc, (const char *)m.data, m.size, path, &st), &st);
    const struct json_value *v = json_get(json_root(doc), key);
    if (row >= 0)
        for (v = v ? json_first(v) : NULL; v && row > 0; row--)
            v = json_next(v);
    for (v = v ? json_first(v) : NULL; v && n < capacity; v = json_next(v)) {
        int64_t value = 0;
        if (json_as_integer(v, &value))
            out[n++] = (int32_t)value;
    }
    json_free(doc);
    mapped_close(&m);
    return n;
}

struct model_config small_config(void)
{
    struct model_config c = model_config_default();
    c.num_hidden_layers = 2, c.hidden_size = 64, c.num_attention_heads = 3, c.kv_lora_rank = 32, c.qk_nope_head_dim = 12, c.qk_rope_head_dim = 8;
    c.v_head_dim = 32, c.intermediate_size = 96, c.vocab_size = 101, c.max_position_embeddings = 700;
    return c;
}

void write_random_model(const struct model_config *c, enum dtype type, char *path, size_t size)
{
    struct plm_status st = {0};
    struct tensor_table table;
    char file[256], name[] = "model-XXXXXX";
    if (!mkdtemp(name)) {
        perror("mkdtemp");
        exit(1);
    }
    snprintf(path, size, "%s", name);
    snprintf(file, sizeof file, "%s/config.json", name);
    char *text = model_config_to_json(c);
    FILE *f = fopen(file, "w");
    if (!text || !f || fputs(text, f) < 0 || fclose(f) != 0) {
        perror(file);
        exit(1);
    }
    free(text);
    must(tensor_table_build(&table, c, 1, &st), &st);
    struct safetensors_writer *w;
    snprintf(file, sizeof file, "%s/model.safetensors", name);
    must(safetensors_create(&w, file, &st), &st);
    for (int i = 0; i < table.n_tensors; i++) {
        const struct tensor_desc *d = &table.tensors[i];
        const int64_t shape[2] = {d->n_dims == 2 ? d->rows : d->cols, d->cols};
        must(safetensors_declare(w, d->name, type, d->n_dims, shape, &st), &st);
    }
    for (int i = 0; i < table.n_tensors; i++) {
        const struct tensor_desc *d = &table.tensors[i];
        const size_t bytes = dtype_row_bytes(type, d->cols);
        float *row = malloc((size_t)d->cols * sizeof *row);
        void *stored = malloc(bytes);
        for (int64_t r = 0; r < d->rows; r++) {
            for (int64_t k = 0; k < d->cols; k++) {
                double z = random_normal(5, RANDOM_TEST, (uint32_t)i, (uint64_t)(r * d->cols + k));
                row[k] = (float)(d->n_dims == 1 ? 1 + 0.2 * z : 0.15 * z);
            }
            dtype_from_f32(type, stored, row, d->cols);
            must(safetensors_write(w, stored, bytes, &st), &st);
        }
        free(row);
        free(stored);
    }
    must(safetensors_finish(w, &st), &st);
    tensor_table_free(&table);
}

void byte_tokenizer(struct tokenizer **out)
{
    static const struct special_token specials[] = {{"<|endoftext|>", 256}, {"<|im_start|>", 257}, {"<|im_end|>", 258}};
    struct plm_status st = {0};
    char bytes[256];
    const char *text[259];
    size_t length[259];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        text[i] = &bytes[i];
        length[i] = 1;
    }
    for (int i = 0; i < 3; i++) {
        text[256 + i] = specials[i].text;
        length[256 + i] = strlen(specials[i].text);
    }
    must(tokenizer_create(out, text, length, 259, NULL, 0, specials, 3, &st), &st);
}

void remove_model(const char *path)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char file[256];
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        remove(file);
    }
    rmdir(path);
}
