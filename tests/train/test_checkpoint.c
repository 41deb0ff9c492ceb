/* Checkpoints: exact round trip, corruption, incomplete directories, retention, and a disk that fills up anywhere. */
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "infer/base/log.h"
#include "infer/base/random.h"
#include "infer/format/safetensors.h"
#include "train/checkpoint.h"
#include "data/files.h"
#include "train/files.h"

static struct model_config config;
static struct tensor_table table;
static char run_dir[] = "test_checkpoint_XXXXXX";
static float *arenas; /* (3, padded): params, m, v */
static int warnings;
static const char tokenizer[] = "{\"version\": \"1.0\"}\n";

static void count_warnings(void *user, enum log_level level, const char *line)
{
    (void)user, (void)line;
    warnings += level == LOG_WARN;
}

static float *arena(int i)
{
    return arenas + (size_t)i * (size_t)table.padded;
}

static int setup_all(void **state)
{
    (void)state;
    config = model_config_default();
    config.num_hidden_layers = 2, config.hidden_size = 24, config.num_attention_heads = 2, config.kv_lora_rank = 12;
    config.qk_nope_head_dim = 8, config.qk_rope_head_dim = 4, config.v_head_dim = 6, config.intermediate_size = 40;
    config.vocab_size = 99;
    struct plm_status st = {0};
    if (tensor_table_build(&table, &config, 1, &st))
        return fprintf(stderr, "%s\n", st.message), 1;
    arenas = calloc(3 * (size_t)table.padded, sizeof *arenas);
    return arenas == NULL;
}

static int teardown_all(void **state)
{
    (void)state;
    free(arenas);
    tensor_table_free(&table);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    strcpy(run_dir, "test_checkpoint_XXXXXX");
    warnings = 0;
    log_set_sink(count_warnings, NULL);
    for (int a = 0; a < 3; a++)
        for (int i = 0; i < table.n_tensors; i++)
            for (int64_t j = 0; j < tensor_elements(&table.tensors[i]); j++)
                arena(a)[table.tensors[i].offset + j] =
                    (float)random_normal((uint64_t)a, RANDOM_TEST, (uint32_t)i, (uint64_t)j);
    return mkdtemp(run_dir) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    log_set_sink(NULL, NULL);
    DIR *d = opendir(run_dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", run_dir, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            directory_remove(path, NULL);
    }
    closedir(d);
    return rmdir(run_dir);
}

/* Entries of the run directory whose name starts so. */
static int count(const char *prefix)
{
    DIR *d = opendir(run_dir);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(d);
    return n;
}

static struct trainer_state state_at(int64_t step)
{
    struct trainer_state s = {.step = step, .updates = step - 1, .phase = 1, .step_in_phase = 3, .tokens = step * 512,
                              .samples = step * 8, .seed = INT64_MAX, .world_size = 2};
    memset(s.config_sha256, 'a', 64);
    for (int i = 0; i < 70; i++)
        trainer_state_add_loss(&s, 1.0 / (i + 3));
    trainer_state_add_loss(&s, NAN);
    return s;
}

static int save(int64_t step, int keep, struct plm_status *st)
{
    const struct optimizer_slot slots[] = {{"m", arena(1)}, {"v", arena(2)}};
    const struct checkpoint c = {&config, &table, arena(0), slots, 2, tokenizer, sizeof tokenizer - 1};
    const struct trainer_state s = state_at(step);
    return checkpoint_save(run_dir, &c, &s, keep, NULL, st);
}

static int load(int64_t step, float *into, struct trainer_state *state, struct plm_status *st)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/step-%08lld", run_dir, (long long)step);
    const struct optimizer_slot slots[] = {{"m", into + table.padded}, {"v", into + 2 * table.padded}};
    const struct checkpoint c = {.table = &table, .params = into, .slots = slots, .n_slots = 2};
    return checkpoint_load(path, &c, state, st);
}

static void file_path(char out[PATH_MAX], int64_t step, const char *name)
{
    snprintf(out, PATH_MAX, "%s/step-%08lld/%s", run_dir, (long long)step, name);
}

/* XOR a byte: counted from the end when `at` is negative. */
static void damage(int64_t step, const char *name, long at)
{
    char path[PATH_MAX];
    file_path(path, step, name);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    fputc(c ^ 0x40, f);
    fclose(f);
}

static void round_trip_is_exact(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char path[PATH_MAX];
    const struct optimizer_slot slots[] = {{"m", arena(1)}, {"v", arena(2)}};
    const struct checkpoint c = {&config, &table, arena(0), slots, 2, tokenizer, sizeof tokenizer - 1};
    const struct trainer_state s = state_at(123);
    if (checkpoint_save(run_dir, &c, &s, 3, path, &st))
        fail_msg("%s", st.message);
    assert_string_equal(path + strlen(run_dir), "/step-00000123");
    assert_int_equal(count(".step-"), 0);
    float *back = calloc(3 * (size_t)table.padded, sizeof *back);
    struct trainer_state read;
    if (load(123, back, &read, &st))
        fail_msg("%s", st.message);
    assert_memory_equal(back, arenas, 3 * sizeof *back * (size_t)table.padded);
    assert_memory_equal(&read.recent_loss, &s.recent_loss, sizeof s.recent_loss);
    assert_int_equal(read.n_recent, RECENT_LOSSES);
    assert_true(read.step == 123 && read.updates == 122 && read.phase == 1 && read.step_in_phase == 3);
    assert_true(read.tokens == 123 * 512 && read.samples == 123 * 8 && read.seed == INT64_MAX && read.world_size == 2);
    assert_string_equal(read.config_sha256, s.config_sha256);
    struct model_config c2;
    assert_int_equal(checkpoint_config(path, &c2, &st), PLM_OK);
    assert_memory_equal(&c2, &config, sizeof config);
    assert_int_equal(checkpoint_latest(run_dir, path, &st), PLM_OK);
    assert_string_equal(path + strlen(run_dir), "/step-00000123");
    free(back);
}

static void nothing_to_continue(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct plm_status st = {0};
    assert_int_equal(checkpoint_latest(run_dir, path, &st), PLM_OK);
    assert_string_equal(path, "");
    assert_int_equal(checkpoint_latest("no-such-directory", path, &st), PLM_OK);
    assert_string_equal(path, "");
}

static void expect_refused(int64_t step, const char *want, const char *and)
{
    struct plm_status st = {0};
    float *back = calloc(3 * (size_t)table.padded, sizeof *back);
    int code = load(step, back, NULL, &st);
    if (!code || !strstr(st.message, want) || !strstr(st.message, and))
        fail_msg("expected '%s' and '%s', got '%s'", want, and, st.message);
    for (int64_t i = 0; i < 3 * table.padded; i++) /* nothing was filled in */
        assert_true(back[i] == 0);
    free(back);
}

static void broken_ones_are_refused_and_skipped(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char path[PATH_MAX];
    for (int step = 1; step <= 6; step++)
        assert_int_equal(save(step, 0, &st), PLM_OK);
    damage(6, "model.safetensors", -100);
    expect_refused(6, "model.safetensors' is corrupt: its SHA-256 is", "expected");
    file_path(path, 5, "optimizer.safetensors");
    assert_int_equal(truncate(path, 1000), 0);
    expect_refused(5, "optimizer.safetensors' has 1000 bytes, expected", "cut off");
    file_path(path, 4, "manifest.json");
    assert_int_equal(unlink(path), 0);
    expect_refused(4, "incomplete", "manifest.json");
    file_path(path, 3, "trainer.json");
    assert_int_equal(unlink(path), 0);
    expect_refused(3, "trainer.json", "cannot open");
    damage(2, "manifest.json", 0);
    expect_refused(2, "manifest.json:1:", "step-00000002");
    assert_int_equal(checkpoint_latest(run_dir, path, &st), PLM_OK);
    assert_string_equal(path + strlen(run_dir), "/step-00000001");
    assert_int_equal(warnings, 5);
}

static void retention(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char path[PATH_MAX];
    for (int step = 10; step <= 50; step += 10)
        assert_int_equal(save(step, 2, &st), PLM_OK);
    assert_int_equal(count("step-"), 2);
    damage(50, "model.safetensors", -1); /* the run is taken back to step 40 and saves at 45 */
    assert_int_equal(save(45, 1, &st), PLM_OK);
    file_path(path, 45, "manifest.json");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(count("step-"), 2); /* 45, and 50, which a later save of step 50 will replace */
    assert_int_equal(save(50, 1, &st), PLM_OK);
    assert_int_equal(count("step-"), 1);
    assert_int_equal(count(".step-"), 0);
    assert_int_equal(checkpoint_latest(run_dir, path, &st), PLM_OK);
    assert_string_equal(path + strlen(run_dir), "/step-00000050");
    assert_int_equal(warnings, 0);
}

/* What a killed writer leaves behind is not a checkpoint, and goes with the next save. */
static void left_over_temporary(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.step-00000007.tmp", run_dir);
    assert_int_equal(directory_create(path, &st), PLM_OK);
    strcat(path, "/model.safetensors");
    assert_int_equal(file_write_synced(path, "x", 1, &st), PLM_OK);
    assert_int_equal(checkpoint_latest(run_dir, path, &st), PLM_OK);
    assert_string_equal(path, "");
    assert_int_equal(save(8, 0, &st), PLM_OK);
    assert_int_equal(count(".step-"), 0);
}

/* Files may not grow beyond a limit: whichever write hits it, the save fails with a message, leaves nothing behind and
 * the older checkpoint stays valid. */
static void disk_full(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char path[PATH_MAX];
    assert_int_equal(save(1, 1, &st), PLM_OK);
    struct stat info;
    file_path(path, 1, "optimizer.safetensors");
    assert_int_equal(stat(path, &info), 0);
    const long limits[] = {0, 1, 10, 100, 500, 1000, 1500, 5000, 20000, info.st_size / 2, info.st_size - 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            signal(SIGXFSZ, SIG_IGN);
            const struct rlimit limit = {(rlim_t)limits[i], (rlim_t)limits[i]};
            setrlimit(RLIMIT_FSIZE, &limit);
            int code = save(2, 1, &st);
            _exit(code == PLM_EIO && strstr(st.message, "step 2 not saved") && strstr(st.message, "cannot write") ? 0 : 1);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        if (!WIFEXITED(how) || WEXITSTATUS(how) != 0)
            fail_msg("limit %ld: status %d", limits[i], how);
        assert_int_equal(count(".step-"), 0);
        assert_int_equal(count("step-"), 1);
    }
    file_path(path, 1, ".");
    assert_int_equal(checkpoint_verify(path, &st), PLM_OK);
}

static void unusable_directory(void **state)
{
    (void)state;
    struct plm_status st = {0};
    const struct checkpoint c = {&config, &table, arena(0), NULL, 0, tokenizer, sizeof tokenizer - 1};
    const struct trainer_state s = state_at(1);
    assert_int_equal(checkpoint_save("/dev/null/run", &c, &s, 1, NULL, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "/dev/null"));
}

static void another_model(void **state)
{
    (void)state;
    struct plm_status st = {0};
    assert_int_equal(save(1, 0, &st), PLM_OK);
    struct tensor_table other;
    struct model_config wide = config;
    wide.intermediate_size = 48;
    assert_int_equal(tensor_table_build(&other, &wide, 1, &st), PLM_OK);
    float *params = calloc((size_t)other.padded, sizeof *params);
    char path[PATH_MAX];
    file_path(path, 1, ".");
    const struct checkpoint c = {.table = &other, .params = params};
    assert_int_equal(checkpoint_load(path, &c, NULL, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "mlp.up_proj.weight' has shape (40, 24), expected (48, 24)"));
    free(params);
    tensor_table_free(&other);
}

/* A model of the ecosystem: bf16, no optimizer, no manifest. */
static void weights_of_another_type(void **state)
{
    (void)state;
    struct plm_status st = {0};
    char dir[PATH_MAX], path[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/hf", run_dir);
    assert_int_equal(directory_create(dir, &st), PLM_OK);
    snprintf(path, sizeof path, "%s/hf/model.safetensors", run_dir);
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, path, &st), PLM_OK);
    for (int i = 0; i < table.n_tensors; i++) {
        const struct tensor_desc *d = &table.tensors[i];
        const int64_t shape[2] = {d->n_dims == 1 ? d->cols : d->rows, d->cols};
        assert_int_equal(safetensors_declare(w, d->name, DTYPE_BF16, d->n_dims, shape, &st), PLM_OK);
    }
    for (int i = 0; i < table.n_tensors; i++) {
        const struct tensor_desc *d = &table.tensors[i];
        for (int64_t j = 0; j < tensor_elements(d); j++) {
            uint16_t value = f32_to_bf16(arena(0)[d->offset + j]);
            assert_int_equal(safetensors_write(w, &value, 2, &st), PLM_OK);
        }
    }
    assert_int_equal(safetensors_finish(w, &st), PLM_OK);
    float *back = calloc((size_t)table.padded, sizeof *back);
    if (checkpoint_load_weights(dir, &table, back, &st))
        fail_msg("%s", st.message);
    for (int i = 0; i < table.n_tensors; i++)
        for (int64_t j = table.tensors[i].offset; j < table.tensors[i].offset + tensor_elements(&table.tensors[i]); j++)
            assert_true(back[j] == bf16_to_f32(f32_to_bf16(arena(0)[j])));
    free(back);
}

static void malformed_state(void **state)
{
    (void)state;
    struct trainer_state s = state_at(5), back;
    char *good = trainer_state_to_json(&s);
    assert_int_equal(trainer_state_from_json(&back, good, strlen(good), "trainer.json", NULL), PLM_OK);
    static const struct {
        const char *from, *to, *want;
    } cases[] = {
        {"\"step\": 5", "\"step\": -5", "step: expected a whole number"},
        {"\"phase\": 1", "\"phase\": 9999999999", "phase: expected a whole number"},
        {"\"tokens\": 2560", "\"tokens\": 0.5", "tokens: expected a whole number"},
        {"\"version\": 1", "\"version\": 2", "version 1"},
        {"\"recent_loss\"", "\"recent_loss_\"", "recent_loss"},
        {"\"config_sha256\": \"", "\"config_sha256\": \"aaaaaaaa", "config_sha256"},
        {"{", "[", "trainer.json:2:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[8192];
        char *at = strstr(good, cases[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, cases[i].to, at + strlen(cases[i].from));
        struct plm_status st = {0};
        assert_int_equal(trainer_state_from_json(&back, text, strlen(text), "trainer.json", &st), PLM_EFORMAT);
        if (!strstr(st.message, cases[i].want))
            fail_msg("expected '%s', got '%s'", cases[i].want, st.message);
    }
    assert_int_equal(trainer_state_from_json(&back, "", 0, "trainer.json", NULL), PLM_EFORMAT);
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip_is_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_to_continue, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_ones_are_refused_and_skipped, setup, teardown),
        cmocka_unit_test_setup_teardown(retention, setup, teardown),
        cmocka_unit_test_setup_teardown(left_over_temporary, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(unusable_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(another_model, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_of_another_type, setup, teardown),
        cmocka_unit_test(malformed_state),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
