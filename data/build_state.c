#include "data/build_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "data/files.h"
#include "data/shard_layout.h"
#include "infer/base/output.h"

#define FORMAT "plm-data-build"

/* The numbers of a report, as they are called in build.json. */
static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
#define NUMBER(field) {#field, offsetof(struct build_report, field)}
    NUMBER(reader.files), NUMBER(reader.ignored_files), NUMBER(reader.documents), NUMBER(reader.bytes),
    NUMBER(reader.stored_bytes), NUMBER(reader.cut), NUMBER(reader.binary_files), NUMBER(reader.empty), NUMBER(reader.bad_json),
    NUMBER(reader.missing_field), NUMBER(reader.wrong_type), NUMBER(reader.long_lines), NUMBER(reader.repaired_documents),
    NUMBER(reader.repaired_sequences), NUMBER(duplicates), NUMBER(token_bytes),
    NUMBER(train.documents), NUMBER(train.text_bytes), NUMBER(train.tokens), NUMBER(train.stored_bytes), NUMBER(train.shards),
    NUMBER(valid.documents), NUMBER(valid.text_bytes), NUMBER(valid.tokens), NUMBER(valid.stored_bytes), NUMBER(valid.shards),
#undef NUMBER
};

static int join(char **out, const char *directory, const char *name, struct plm_status *st)
{
    if (asprintf(out, "%s/%s", directory, name) < 0) {
        *out = NULL;
        return status_no_memory(st, strlen(directory) + strlen(name), "a file name");
    }
    return PLM_OK;
}

/* Digest of the bytes of a file, with its name: the name decides how it is read. */
static int digest_file(XXH3_state_t *state, const char *path, int64_t *bytes, struct plm_status *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    XXH3_128bits_update(state, name, strlen(name) + 1);
    enum { BLOCK = 1 << 18 };
    char *block = malloc(BLOCK);
    int64_t size = 0;
    ssize_t got = -1;
    while (block && (got = read(fd, block, BLOCK)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        XXH3_128bits_update(state, block, (size_t)got);
        size += got;
    }
    int code = !block ? status_no_memory(st, BLOCK, "a read buffer")
               : got < 0 ? status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno)) : PLM_OK;
    free(block);
    close(fd);
    XXH3_128bits_update(state, &size, sizeof size);
    *bytes += size;
    return code;
}

int build_settings(json_t **out, const struct build_options *o, const char *tokenizer_sha256, const char *const *files,
                   int64_t n_files, int64_t chunk_tokens, struct plm_status *st)
{
    *out = NULL;
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return status_no_memory(st, sizeof *state, "a digest");
    XXH3_128bits_reset(state);
    int64_t bytes = 0;
    int code = PLM_OK;
    for (int64_t i = 0; !code && i < n_files; i++)
        code = digest_file(state, files[i], &bytes, st);
    XXH128_hash_t digest = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    if (code)
        return code;
    char hex[33];
    snprintf(hex, sizeof hex, "%016llx%016llx", (unsigned long long)digest.high64, (unsigned long long)digest.low64);
    *out = json_pack("{s:i, s:s, s:s, s:f, s:I, s:s, s:I, s:I, s:i, s:{s:I, s:I, s:s}}", "shard_format", SHARD_FORMAT_VERSION,
                     "name", o->name ? o->name : "", "tokenizer_sha256", tokenizer_sha256, "valid_fraction", o->valid_fraction,
                     "seed", (json_int_t)o->seed, "text_field", o->text_field ? o->text_field : "text",
                     "max_document", (json_int_t)o->max_document, "chunk_tokens", (json_int_t)chunk_tokens, "level",
                     o->level, "inputs", "files", (json_int_t)n_files, "bytes", (json_int_t)bytes, "xxh3_128", hex);
    return *out ? PLM_OK : status_set(st, PLM_EINVAL, "a setting of the build is not valid UTF-8 (name or text field)");
}

/* All shards that build.json lists exist with the sizes they were written with. */
static bool shards_intact(const char *directory, const json_t *state)
{
    size_t i;
    const json_t *shard, *shards = json_object_get(state, "shards");
    if (json_array_size(shards) == 0)
        return false;
    json_array_foreach(shards, i, shard) {
        const char *name = json_string_value(json_object_get(shard, "path"));
        char *path;
        struct stat info;
        if (!name || join(&path, directory, name, NULL))
            return false;
        bool same = stat(path, &info) == 0 && info.st_size == json_integer_value(json_object_get(shard, "bytes"));
        free(path);
        if (!same)
            return false;
    }
    return true;
}

static void report_from_json(struct build_report *report, const json_t *result)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *(int64_t *)((char *)report + numbers[i].offset) = json_integer_value(json_object_get(result, numbers[i].name));
    report->seconds = json_number_value(json_object_get(result, "seconds"));
    report->up_to_date = true;
}

/* The first setting in which two builds differ. */
static const char *difference(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value)
        if (!json_equal(value, json_object_get(b, key)))
            return key;
    return "settings";
}

/* Entries of the directory that are no hidden files and not what a killed build left; 0 when it does not exist. */
static int count_entries(const char *directory)
{
    DIR *dir = opendir(directory);
    int n = 0;
    for (const struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.' && strcmp(e->d_name, "build.json.tmp");
    if (dir)
        closedir(dir);
    return n;
}

int build_inspect(enum build_status *out, const char *directory, const json_t *settings, bool force,
                  struct build_report *report, struct plm_status *st)
{
    *out = BUILD_NEEDED;
    char *path;
    int code = join(&path, directory, "build.json", st);
    if (code)
        return code;
    json_error_t error;
    json_t *state = json_load_file(path, 0, &error);
    const char *format = json_string_value(json_object_get(state, "format"));
    const json_t *old = json_object_get(state, "settings");
    if (!format || strcmp(format, FORMAT)) {
        if (!force && count_entries(directory) > 0)
            code = status_set(st, PLM_EINVAL, "directory '%s' is not empty and holds no build.json of plm data build: choose "
                              "another directory, or --force to write into this one", directory);
    } else if (json_is_true(json_object_get(state, "complete"))) {
        if (json_equal(old, settings) && shards_intact(directory, state)) {
            *out = BUILD_FINISHED;
            report_from_json(report, json_object_get(state, "result"));
        } else if (!json_equal(old, settings) && !force) {
            code = status_set(st, PLM_EINVAL, "directory '%s' holds another build (it differs in '%s'): choose another "
                              "directory, or --force to replace it", directory, difference(settings, old));
        }
    }
    json_decref(state);
    free(path);
    return code;
}

/* Make DIR/side and remove the shards in it, and what an interrupted writer left. */
static int clear_side(const char *directory, const char *side, struct plm_status *st)
{
    char *path;
    struct file_list files = {0};
    int code = join(&path, directory, side, st);
    if (!code)
        code = directory_create_own(path, st);
    if (!code)
        code = file_list_add(&files, path, ".h5", st);
    if (!code)
        code = file_list_add(&files, path, ".h5.tmp", st);
    for (int64_t i = 0; !code && i < files.n; i++)
        if (unlink(files.paths[i]) != 0)
            code = status_set(st, PLM_EIO, "cannot remove the old shard '%s': %s", files.paths[i], strerror(errno));
    file_list_free(&files);
    free(path);
    return code;
}

/* Write build.json under a temporary name, sync and rename. Takes the reference to `state`. */
static int write_state(const char *directory, json_t *state, struct plm_status *st)
{
    char *path = NULL, *temporary = NULL;
    char *text = state ? json_dumps(state, JSON_INDENT(2)) : NULL;
    json_decref(state);
    int code = text ? join(&path, directory, "build.json", st) : status_no_memory(st, 4096, "build.json");
    if (!code)
        code = join(&temporary, directory, "build.json.tmp", st);
    if (!code) {
        FILE *f;
        code = output_create_stream(&f, temporary, st);
        bool ok = f && fprintf(f, "%s\n", text) > 0 && fflush(f) == 0 && fsync(fileno(f)) == 0;
        int error = errno;
        if (f && fclose(f) != 0 && ok) {
            error = errno;
            ok = false;
        }
        if (ok && rename(temporary, path) != 0) {
            error = errno;
            ok = false;
        }
        if (!ok && !code) {
            code = status_set(st, PLM_EIO, "cannot write '%s': %s", path, strerror(error));
            unlink(temporary);
        }
    }
    free(text);
    free(path);
    free(temporary);
    return code;
}

int build_begin(const char *directory, const json_t *settings, struct plm_status *st)
{
    int code = directory_create(directory, st);
    if (!code) /* first, so that whatever happens from here on the directory is known as an unfinished build */
        code = write_state(directory, json_pack("{s:s, s:b, s:O}", "format", FORMAT, "complete", 0, "settings", settings), st);
    if (!code)
        code = clear_side(directory, "train", st);
    if (!code)
        code = clear_side(directory, "valid", st);
    return code;
}

int build_complete(const char *directory, const json_t *settings, const struct build_report *report, json_t *shards,
                   struct plm_status *st)
{
    json_t *result = json_object();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(result, numbers[i].name,
                            json_integer(*(const int64_t *)((const char *)report + numbers[i].offset)));
    json_object_set_new(result, "seconds", json_real(report->seconds));
    return write_state(directory, json_pack("{s:s, s:b, s:s, s:O, s:o, s:O}", "format", FORMAT, "complete", 1, "tool_version",
                                            PLM_VERSION, "settings", settings, "result", result, "shards", shards), st);
}
