/* LoRA: the merged weights, gradients of A and B against finite differences, PEFT's names and files, bad adapters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/random.h"
#include "infer/format/safetensors.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/files.h"
#include "train/lora.h"
#include "train/matmul.h"

static struct tensor_table base;
static float *weights, *merged;
static struct thread_pool *pool;
static struct matmul matmul;

static float noise(uint32_t stream, int64_t i) { return (float)random_normal(11, RANDOM_TEST, stream, (uint64_t)i); }

static int setup(void **state)
{
    (void)state;
    struct model_config c = small_config();
    c.num_hidden_layers = 12; /* names of two digits */
    matmul_select(&matmul);
    if (pool_create(&pool, 2, NULL) || tensor_table_build(&base, &c, 3, NULL))
        return 1;
    weights = calloc((size_t)base.padded, sizeof *weights);
    merged = calloc((size_t)base.padded, sizeof *merged);
    if (!weights || !merged)
        return 1;
    for (int64_t i = 0; i < base.padded; i++)
        weights[i] = i % 7 ? 0.1f * noise(0, i) : -0.0f;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pool_destroy(pool);
    tensor_table_free(&base);
    free(weights);
    free(merged);
    return 0;
}

static struct lora create(int rank, double alpha, uint64_t seed, int world_size)
{
    struct lora l;
    struct plm_status st = {0};
    if (lora_create(&l, &base, &(struct lora_options){rank, alpha}, weights, seed, world_size, &st))
        fail_msg("%s", st.message);
    return l;
}

static void fill_b(struct lora *l)
{
    for (int i = 1; i < l->table.n_tensors; i += 2)
        for (int64_t e = 0; e < tensor_elements(&l->table.tensors[i]); e++)
            l->params[l->table.tensors[i].offset + e] = 0.05f * noise(1, l->table.tensors[i].offset + e);
}

static void the_table(void **state)
{
    (void)state;
    struct lora l = create(4, 8, 1, 5);
    int matrices = 0;
    int64_t parameters = 0, end = 0;
    for (int i = 0; i < base.n_tensors; i++) {
        const struct tensor_desc *d = &base.tensors[i];
        if (d->n_dims != 2 || d->role == TENSOR_EMBED)
            continue;
        matrices++;
        parameters += 4 * (d->rows + d->cols);
    }
    assert_int_equal(matrices, 12 * 6);
    assert_int_equal(l.table.n_tensors, 2 * matrices);
    assert_int_equal(l.table.parameters, parameters);
    assert_int_equal(l.table.padded % (16 * 5), 0);
    for (int i = 0; i < l.table.n_tensors; i++) {
        const struct tensor_desc *d = &l.table.tensors[i];
        assert_true(d->offset % 16 == 0 && d->offset >= end && d->decay && d->n_dims == 2);
        end = d->offset + tensor_elements(d);
        assert_ptr_equal(tensor_table_find(&l.table, d->name), d);
    }
    assert_true(end <= l.table.padded);
    static const char *const names[] = {
        "self_attn.q_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"};
    for (int i = 0; i < 12; i++) { /* layer 10's, as PEFT names them */
        char name[128];
        snprintf(name, sizeof name, "base_model.model.model.layers.10.%s.lora_%c.weight", names[i / 2], i % 2 ? 'B' : 'A');
        const struct tensor_desc *d = tensor_table_find(&l.table, name);
        assert_non_null(d);
        const struct tensor_desc *w = tensor_table_at(&base, d->role, 10);
        assert_true(d->layer == 10 && d->rows == (i % 2 ? w->rows : 4) && d->cols == (i % 2 ? 4 : w->cols));
    }
    lora_destroy(&l);
    assert_null(l.params);
}

static void start(void **state)
{
    (void)state;
    struct lora l = create(8, 16, 3, 1), same = create(8, 32, 3, 2), other = create(8, 16, 4, 1);
    memset(merged, 1, (size_t)base.padded * sizeof *merged);
    lora_merge(&l, merged, &matmul.ops, pool);
    assert_memory_equal(merged, weights, (size_t)base.padded * sizeof *merged); /* -0 too */
    assert_memory_equal(l.params, same.params, (size_t)l.table.parameters * sizeof *l.params);
    assert_memory_not_equal(l.params, other.params, 64 * sizeof *l.params);
    for (int i = 0; i < l.table.n_tensors; i++) {
        const struct tensor_desc *d = &l.table.tensors[i];
        const int64_t n = tensor_elements(d);
        double sum = 0, square = 0;
        for (int64_t e = 0; e < n; e++)
            sum += l.params[d->offset + e], square += (double)l.params[d->offset + e] * l.params[d->offset + e];
        if (i % 2) {
            assert_true(square == 0);
        } else { /* normal(0, 1 / sqrt(cols)) */
            assert_true(fabs(sum / (double)n) < 5 / sqrt((double)n * (double)d->cols));
            assert_true(fabs(square * (double)d->cols / (double)n - 1) < 5 * sqrt(2.0 / (double)n));
        }
    }
    lora_destroy(&l);
    lora_destroy(&same);
    lora_destroy(&other);
}

/* Element (r, c) of W0 + s B A, in double; A and B are entries i and i + 1. */
static double element(const struct lora *l, int i, int64_t r, int64_t c)
{
    const struct tensor_desc *a = &l->table.tensors[i], *b = a + 1, *w = tensor_table_at(&base, a->role, a->layer);
    double sum = 0;
    for (int64_t k = 0; k < a->rows; k++)
        sum += (double)l->params[b->offset + r * b->cols + k] * l->params[a->offset + k * a->cols + c];
    return weights[w->offset + r * w->cols + c] + l->options.alpha / l->options.rank * sum;
}

static void merge(void **state)
{
    (void)state;
    struct lora l = create(5, 12, 1, 1);
    fill_b(&l);
    lora_merge(&l, merged, &matmul.ops, pool);
    bool *touched = calloc((size_t)base.padded, sizeof *touched);
    double moved = 0;
    for (int i = 0; i < l.table.n_tensors; i += 2) {
        const struct tensor_desc *w = tensor_table_at(&base, l.table.tensors[i].role, l.table.tensors[i].layer);
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t c = 0; c < w->cols; c++) {
                const int64_t at = w->offset + r * w->cols + c;
                assert_true(fabs(merged[at] - element(&l, i, r, c)) < 1e-6);
                moved = fmax(moved, fabs((double)merged[at] - weights[at]));
                touched[at] = true;
            }
    }
    assert_true(moved > 0.1);
    for (int64_t i = 0; i < base.padded; i++)
        assert_true(touched[i] || !memcmp(&merged[i], &weights[i], sizeof *merged));
    lora_merge(&l, merged, &matmul.ops, NULL); /* made anew, not added up */
    for (int i = 0; i < 1000; i++) {
        const struct tensor_desc *w = tensor_table_at(&base, TENSOR_Q, 0);
        assert_true(fabs(merged[w->offset + i] - element(&l, 0, i / w->cols, i % w->cols)) < 1e-6);
    }
    free(touched);
    lora_destroy(&l);
}

/* f(W) = sum of u (W - T)^2 / 2 over one matrix, u and T random. */
static double quadratic(const struct lora *l, int i, float *d_w)
{
    const struct tensor_desc *w = tensor_table_at(&base, l->table.tensors[i].role, l->table.tensors[i].layer);
    double sum = 0;
    for (int64_t e = 0; e < tensor_elements(w); e++) {
        const double u = 1 + (double)(e % 3), off = element(l, i, e / w->cols, e % w->cols) - noise(2, w->offset + e);
        sum += u * off * off / 2;
        if (d_w)
            d_w[w->offset + e] = (float)(u * off);
    }
    return sum;
}

static void gradients(void **state)
{
    (void)state;
    struct lora l = create(3, 7, 1, 1);
    fill_b(&l);
    for (int i = 0; i < 12; i += 2) /* the matrices of a layer */
        quadratic(&l, i, merged);
    memset(l.grads, 1, (size_t)l.table.padded * sizeof *l.grads); /* overwritten */
    lora_gradients(&l, merged, &matmul.ops, pool);
    for (int i = 0; i < 12; i++) {
        const struct tensor_desc *d = &l.table.tensors[i];
        double norm = 0;
        for (int64_t e = 0; e < tensor_elements(d); e++)
            norm += (double)l.grads[d->offset + e] * l.grads[d->offset + e];
        norm = sqrt(norm / (double)tensor_elements(d));
        assert_true(norm > 0.1);
        for (int k = 0; k < 20; k++) {
            const int64_t n = tensor_elements(d), any = (int64_t)(random_u64(2, RANDOM_TEST, (uint32_t)i, (uint64_t)k) % (uint64_t)n);
            const int64_t at = d->offset + (k < 2 ? (n - 1) * k : any); /* the first, the last, and others */
            const float here = l.params[at], high = here + 0.5f, low = here - 0.5f; /* exact: f is quadratic in every element */
            l.params[at] = high;
            const double above = quadratic(&l, i / 2 * 2, NULL);
            l.params[at] = low;
            const double below = quadratic(&l, i / 2 * 2, NULL);
            l.params[at] = here;
            const double slope = (above - below) / ((double)high - low);
            if (!(fabs(slope - l.grads[at]) < 2e-6 * (fabs(slope) + norm)))
                fail_msg("%s[%lld]: %.9g, expected %.9g", d->name, (long long)(at - d->offset), (double)l.grads[at], slope);
        }
    }
    lora_destroy(&l);
}

/* ---- files ---- */

static char directory[32];

static void make_directory(void)
{
    strcpy(directory, "lora-XXXXXX");
    assert_non_null(mkdtemp(directory));
}

static void remove_directory(void) { assert_int_equal(directory_remove(directory, NULL), PLM_OK); }

static const char *in_directory(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void round_trip(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct lora l = create(6, 12.5, 1, 1), back = create(6, 12.5, 2, 4);
    fill_b(&l);
    make_directory();
    if (lora_save(&l, directory, "some/model", &st) || lora_load(&back, directory, &st))
        fail_msg("%s", st.message);
    for (int i = 0; i < l.table.n_tensors; i++) {
        const struct tensor_desc *d = &l.table.tensors[i], *e = &back.table.tensors[i];
        assert_memory_equal(l.params + d->offset, back.params + e->offset, (size_t)tensor_elements(d) * sizeof(float));
    }
    for (int64_t i = 0; i < back.table.padded; i++)
        assert_true(back.grads[i] == 0);

    json_t *c = json_load_file(in_directory("adapter_config.json"), 0, NULL);
    assert_non_null(c);
    assert_string_equal(json_string_value(json_object_get(c, "peft_type")), "LORA");
    assert_string_equal(json_string_value(json_object_get(c, "task_type")), "CAUSAL_LM");
    assert_string_equal(json_string_value(json_object_get(c, "base_model_name_or_path")), "some/model");
    assert_string_equal(json_string_value(json_object_get(c, "bias")), "none");
    assert_int_equal(json_integer_value(json_object_get(c, "r")), 6);
    assert_true(json_number_value(json_object_get(c, "lora_alpha")) == 12.5);
    assert_true(json_is_false(json_object_get(c, "fan_in_fan_out")));
    const json_t *modules = json_object_get(c, "target_modules");
    static const char *const expected[] = {"q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "up_proj", "down_proj"};
    assert_int_equal(json_array_size(modules), 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(json_string_value(json_array_get(modules, i)), expected[i]);
    json_decref(c);
    remove_directory();
    lora_destroy(&l);
    lora_destroy(&back);
}

static void refuse_load(struct lora *l, int code, const char *what)
{
    struct plm_status st = {0};
    const float before = l->params[5];
    const int got = lora_load(l, directory, &st);
    if (got != code || !strstr(st.message, what))
        fail_msg("expected %d and '%s', got %d and '%s'", code, what, got, st.message);
    assert_true(l->params[5] == before);
}

static void put_config(const char *text)
{
    assert_int_equal(file_replace(in_directory("adapter_config.json"), text, strlen(text), NULL), PLM_OK);
}

/* All tensors of l, except that `name` has another shape, is left out (rows 0), or is called otherwise. */
static void put_tensors(const struct lora *l, const char *name, int64_t rows, const char *other)
{
    struct safetensors_writer *w;
    float *zeros = calloc(1 << 20, sizeof *zeros);
    assert_int_equal(safetensors_create(&w, in_directory("adapter_model.safetensors"), NULL), PLM_OK);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < l->table.n_tensors; i++) {
            const struct tensor_desc *d = &l->table.tensors[i];
            const bool chosen = !strcmp(d->name, name);
            const int64_t r = chosen ? rows : d->rows;
            if (r && !pass)
                assert_int_equal(safetensors_declare(w, chosen ? other : d->name, DTYPE_F32, 2, (const int64_t[]){r, d->cols}, NULL), PLM_OK);
            else if (r)
                assert_int_equal(safetensors_write(w, zeros, (size_t)(r * d->cols) * sizeof *zeros, NULL), PLM_OK);
        }
    assert_int_equal(safetensors_finish(w, NULL), PLM_OK);
    free(zeros);
}

static void bad_adapters(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct lora l = create(4, 8, 1, 1), bad;
    make_directory();
    refuse_load(&l, PLM_EIO, "adapter_config.json");
    put_config("{\"peft_type\": \"LORA\", ");
    refuse_load(&l, PLM_EFORMAT, "adapter_config.json:1:");
    put_config("{\"peft_type\": \"IA3\"}");
    refuse_load(&l, PLM_EFORMAT, "peft_type");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4}");
    refuse_load(&l, PLM_EFORMAT, "lora_alpha");
    put_config("{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 8}");
    refuse_load(&l, PLM_EINVAL, "rank 4");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 16}");
    refuse_load(&l, PLM_EINVAL, "alpha 8");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_dora\": true}");
    refuse_load(&l, PLM_EUNSUPPORTED, "use_dora");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"modules_to_save\": [\"lm_head\"]}");
    refuse_load(&l, PLM_EUNSUPPORTED, "modules_to_save");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"bias\": \"all\"}");
    refuse_load(&l, PLM_EUNSUPPORTED, "bias");
    put_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_dora\": false, "
               "\"rank_pattern\": {}, \"modules_to_save\": null, \"revision\": null}");
    refuse_load(&l, PLM_EIO, "adapter_model.safetensors");
    const char *q = l.table.tensors[2].name;
    put_tensors(&l, q, 3, q);
    refuse_load(&l, PLM_EFORMAT, q);
    put_tensors(&l, q, 0, q);
    refuse_load(&l, PLM_EFORMAT, "missing");
    put_tensors(&l, q, 4, "base_model.model.lm_head.lora_A.weight");
    refuse_load(&l, PLM_EFORMAT, "lm_head");
    put_tensors(&l, q, 4, q);
    assert_int_equal(lora_load(&l, directory, &st), PLM_OK);
    l.params[l.table.tensors[3].offset + 6] = NAN;
    assert_int_equal(lora_save(&l, directory, "m", &st), PLM_OK);
    refuse_load(&l, PLM_EFORMAT, "row 1, column 2");
    assert_true(lora_save(&l, "no/such/directory", "m", &st) != PLM_OK);
    assert_true(lora_save(&l, directory, "\xff", &st) != PLM_OK);
    remove_directory();
    lora_destroy(&l);

    assert_int_equal(lora_create(&bad, &base, &(struct lora_options){0, 1}, weights, 1, 1, &st), PLM_EINVAL);
    assert_int_equal(lora_create(&bad, &base, &(struct lora_options){1, 0}, weights, 1, 1, &st), PLM_EINVAL);
    assert_int_equal(lora_create(&bad, &base, &(struct lora_options){1, NAN}, weights, 1, 1, &st), PLM_EINVAL);
    const struct lora_options huge = {1 << 20, 1};
    assert_int_not_equal(lora_create(&bad, &base, &huge, weights, 1, 1 << 20, &st), PLM_OK); /* no such machine */
    assert_null(bad.params);
    lora_destroy(&bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_table), cmocka_unit_test(start),      cmocka_unit_test(merge),
                                       cmocka_unit_test(gradients), cmocka_unit_test(round_trip), cmocka_unit_test(bad_adapters)};
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
