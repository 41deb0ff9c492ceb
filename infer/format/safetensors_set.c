#include "infer/format/safetensors_set.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/json.h"

static const char suffix[] = ".safetensors";

static int join(char path[PATH_MAX], const char *dir, const char *name, struct plm_status *st)
{
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
        return PLM_OK;
    return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, name);
}

/* The files an index names, in order of appearance; names belong to the document. */
struct names {
    const char *list[SAFETENSORS_MAX_FILES];
    int n;
};

/* Number of the file that an entry of the weight map names. */
static int file_of(struct names *names, const struct json_value *entry, int *file, struct plm_status *st)
{
    size_t length = 0;
    const char *name = json_as_string(entry, &length);
    const size_t end = sizeof suffix - 1;
    if (!name || length != strlen(name) || length <= end || strcmp(name + length - end, suffix) != 0 || name[0] == '.' || strpbrk(name, "/\\"))
        return status_set(st, PLM_EFORMAT, "tensor '%.80s' is said to be in '%.80s'; expected the plain name of a %s file in the same directory",
                          json_key(entry, NULL), name ? name : "(not a string)", suffix);
    int i = 0;
    while (i < names->n && strcmp(names->list[i], name) != 0)
        i++;
    if (i == SAFETENSORS_MAX_FILES)
        return status_set(st, PLM_ELIMIT, "more than %d files", SAFETENSORS_MAX_FILES);
    names->list[i] = name;
    names->n += i == names->n;
    *file = i;
    return PLM_OK;
}

/* Count the file that has been opened; fits: SAFETENSORS_MAX_FILES headers of limited length. */
static void add_file(struct safetensors_set *s)
{
    const struct safetensors *f = &s->files[s->n_files++];
    s->n_tensors += f->n_tensors;
    s->n_others += f->n_others;
    s->n_narrowed += f->n_narrowed;
}

static int open_file(struct safetensors_set *s, const char *dir, const char *name, struct plm_status *st)
{
    char path[PATH_MAX];
    int code = join(path, dir, name, st);
    if (!code)
        code = safetensors_open(&s->files[s->n_files], path, st);
    if (!code)
        add_file(s);
    return code;
}

/* Name of tensor i of a file, those of other types behind the rest. */
static const char *name_at(const struct safetensors *f, int i)
{
    return i < f->n_tensors ? f->tensors[i].name : f->others[i - f->n_tensors].name;
}

/* A tensor that lies in a file the index does not give it: there are more of them than entries. */
static int fail_extra(const struct safetensors_set *s, const struct json_value *map, const struct names *names, struct plm_status *st)
{
    for (int f = 0; f < s->n_files; f++)
        for (int i = 0; i < s->files[f].n_tensors + s->files[f].n_others; i++) {
            const char *tensor = name_at(&s->files[f], i), *said = json_as_string(json_get(map, tensor), NULL);
            if (!said || strcmp(said, names->list[f]) != 0)
                return status_set(st, PLM_EFORMAT, "tensor '%s' is in %s, but the index %s%s", tensor, names->list[f],
                                  said ? "says " : "does not list it", said ? said : "");
        }
    return status_set(st, PLM_EINTERNAL, "the tensors of the files are not counted right");
}

static int open_files(struct safetensors_set *s, const char *dir, const struct json_value *map, struct names *names, struct plm_status *st)
{
    int code = PLM_OK, file;
    for (const struct json_value *e = json_first(map); e && !code; e = json_next(e))
        code = file_of(names, e, &file, st);
    s->files = calloc((size_t)names->n + 1, sizeof *s->files);
    if (!s->files)
        return status_no_memory(st, (size_t)names->n * sizeof *s->files, dir);
    for (int i = 0; i < names->n && !code; i++)
        code = open_file(s, dir, names->list[i], st);
    for (const struct json_value *e = json_first(map); e && !code; e = json_next(e)) {
        file_of(names, e, &file, NULL);
        const char *name = json_key(e, NULL);
        if (!safetensors_find(&s->files[file], name) && !safetensors_other_type(&s->files[file], name))
            code = status_set(st, PLM_EFORMAT, "tensor '%s' is missing in %s, where the index says it is", name, names->list[file]);
    }
    if (!code && (size_t)s->n_tensors + (size_t)s->n_others != json_count(map))
        code = fail_extra(s, map, names, st);
    return code;
}

static int open_index(struct safetensors_set *s, const char *dir, const char *path, struct plm_status *st)
{
    struct mapped_file text;
    struct json_doc *doc = NULL;
    struct names *names = calloc(1, sizeof *names);
    if (!names)
        return status_no_memory(st, sizeof *names, path);
    int code = mapped_open(&text, path, st);
    if (!code && text.size > SAFETENSORS_INDEX_MAX)
        code = status_set(st, PLM_ELIMIT, "'%s' has %zu bytes, at most %zu are expected", path, text.size, SAFETENSORS_INDEX_MAX);
    if (!code)
        code = json_parse(&doc, (const char *)text.data, text.size, path, st);
    mapped_close(&text);
    if (!code) {
        const struct json_value *map = json_get(json_root(doc), "weight_map");
        code = json_typeof(map) != JSON_OBJECT || json_count(map) == 0
                   ? status_set(st, PLM_EFORMAT, "\"weight_map\" must be an object that says in which file each tensor is")
                   : open_files(s, dir, map, names, st);
        if (code)
            status_prefix(st, "'%s'", path);
    }
    json_free(doc);
    free(names);
    return code;
}

int safetensors_set_open_file(struct safetensors_set *s, const char *path, struct plm_status *st)
{
    *s = (struct safetensors_set){.files = calloc(1, sizeof *s->files)};
    int code = s->files ? safetensors_open(s->files, path, st) : status_no_memory(st, sizeof *s->files, path);
    if (code) {
        free(s->files);
        *s = (struct safetensors_set){0};
        return code;
    }
    add_file(s);
    return PLM_OK;
}

int safetensors_set_open(struct safetensors_set *s, const char *dir, struct plm_status *st)
{
    char path[PATH_MAX], index[PATH_MAX];
    *s = (struct safetensors_set){0};
    int code = join(index, dir, SAFETENSORS_INDEX, st);
    if (!code)
        code = join(path, dir, "model.safetensors", st);
    if (code)
        return code;
    if (access(path, F_OK) == 0 || access(index, F_OK) != 0)
        return safetensors_set_open_file(s, path, st);
    code = open_index(s, dir, index, st);
    if (code)
        safetensors_set_close(s);
    return code;
}

void safetensors_set_close(struct safetensors_set *s)
{
    for (int i = 0; i < s->n_files; i++)
        safetensors_close(&s->files[i]);
    free(s->files);
    *s = (struct safetensors_set){0};
}

const struct stored_tensor *safetensors_set_find(const struct safetensors_set *s, const char *name)
{
    const struct stored_tensor *t = NULL;
    for (int i = 0; i < s->n_files && !t; i++)
        t = safetensors_find(&s->files[i], name);
    return t;
}

const struct stored_tensor *safetensors_set_at(const struct safetensors_set *s, int i)
{
    for (int f = 0; f < s->n_files; i -= s->files[f++].n_tensors)
        if (i < s->files[f].n_tensors)
            return &s->files[f].tensors[i];
    return NULL;
}

const char *safetensors_set_other_type(const struct safetensors_set *s, const char *name)
{
    const char *type = NULL;
    for (int f = 0; f < s->n_files && !type; f++)
        type = safetensors_other_type(&s->files[f], name);
    return type;
}

const char *safetensors_set_other_name(const struct safetensors_set *s, int i)
{
    for (int f = 0; f < s->n_files; i -= s->files[f++].n_others)
        if (i < s->files[f].n_others)
            return s->files[f].others[i].name;
    return NULL;
}
