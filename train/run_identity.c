#include "train/run_identity.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DIFFERENCES = 4, VALUE_BYTES = 60, PATH_BYTES = 200 };

struct difference {
    char *out;
    size_t size, used;
    int n; /* found; the first MOST_DIFFERENCES are written */
    const char *was, *is;
};

static void put(struct difference *d, const char *fmt, ...) PLM_PRINTF(2, 3);
static void put(struct difference *d, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(d->out + d->used, d->size - d->used, fmt, args);
    va_end(args);
    if (n > 0)
        d->used += (size_t)n < d->size - d->used ? (size_t)n : d->size - d->used - 1;
}

static void put_value(struct difference *d, const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;
    if (!value)
        put(d, "missing");
    else if (text && strlen(text) <= VALUE_BYTES)
        put(d, "%s", text);
    else
        put(d, "%.*s...", VALUE_BYTES, text ? text : "");
    free(text);
}

static void compare(struct difference *d, const char *path, const json_t *before, const json_t *now);

static void compare_member(struct difference *d, const char *path, const char *key, const json_t *before,
                           const json_t *now)
{
    char member[PATH_BYTES];
    snprintf(member, sizeof member, "%s%s%s", path, *path ? "." : "", key);
    compare(d, member, json_object_get(before, key), json_object_get(now, key));
}

static void compare(struct difference *d, const char *path, const json_t *before, const json_t *now)
{
    const char *key;
    json_t *value;
    if (json_equal(before, now) || (!before && !now))
        return;
    if (json_is_object(before) && json_is_object(now)) {
        json_object_foreach((json_t *)before, key, value) compare_member(d, path, key, before, now);
        json_object_foreach((json_t *)now, key, value)
        {
            if (!json_object_get(before, key))
                compare_member(d, path, key, before, now);
        }
        return;
    }
    if (json_is_array(before) && json_is_array(now) && json_array_size(before) == json_array_size(now)) {
        for (size_t i = 0; i < json_array_size(before); i++) {
            char entry[PATH_BYTES];
            snprintf(entry, sizeof entry, "%s[%zu]", path, i);
            compare(d, entry, json_array_get(before, i), json_array_get(now, i));
        }
        return;
    }
    if (d->n++ >= MOST_DIFFERENCES)
        return;
    put(d, "%s%s %s ", d->n > 1 ? "; " : "", path, d->was);
    put_value(d, before);
    put(d, ", %s ", d->is);
    put_value(d, now);
}

static bool is_one_of(const char *key, const char *const *keys)
{
    for (int i = 0; keys && keys[i]; i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

void json_difference(const json_t *before, const json_t *now, const char *const *keys, const char *const *free_keys,
                     const char *was, const char *is, char *out, size_t size)
{
    struct difference d = {.out = out, .size = size, .was = was, .is = is};
    const char *key;
    json_t *value;
    *out = 0;
    for (int side = 0; side < 2; side++)
        json_object_foreach((json_t *)(side ? now : before), key, value)
        {
            if ((!keys || is_one_of(key, keys)) && !is_one_of(key, free_keys) &&
                !(side && json_object_get(before, key)))
                compare_member(&d, "", key, before, now);
        }
    if (d.n > MOST_DIFFERENCES)
        put(&d, "; and %d more", d.n - MOST_DIFFERENCES);
}

int run_identity_differs(const char *checkpoint, const char *run_dir, const struct settings *settings,
                         const char *const *keys, const json_t *data_before, const json_t *data_now,
                         struct plm_status *st)
{
    char path[PATH_MAX], what[900] = "";
    char *text = settings ? settings_to_json(settings) : NULL;
    snprintf(path, sizeof path, "%s/run.json", run_dir);
    json_t *before = json_load_file(path, 0, NULL), *now = text ? json_loads(text, 0, NULL) : NULL;
    if (before && now)
        json_difference(before, now, keys, NULL, "was", "is", what, sizeof what);
    json_decref(before);
    json_decref(now);
    free(text);
    if (*what)
        return status_set(
            st, PLM_EINVAL,
            "'%s' belongs to a run with another configuration: %s; set it back, or give this run another run_dir",
            checkpoint, what);
    if (data_before && data_now)
        json_difference(data_before, data_now, NULL, NULL, "was", "is", what, sizeof what);
    return status_set(
        st, PLM_EINVAL,
        "'%s' belongs to a run with other data%s%s (the configuration is the same, but not what its files hold: "
        "data, templates or the model it starts from); restore them, or give this run another run_dir",
        checkpoint, *what ? ": " : "", what);
}

/* The documents differ: in what. */
static int differs(const struct comm *comm, const char *what, const char *first, const char *mine,
                   const char *const *free_keys, struct plm_status *st)
{
    char difference[700];
    json_t *a = json_loads(first, 0, NULL), *b = json_loads(mine, 0, NULL);
    json_difference(a, b, NULL, free_keys, "is there", "here", difference, sizeof difference);
    json_decref(a);
    json_decref(b);
    if (!*difference)
        return PLM_OK; /* only in what may differ */
    return status_set(st, PLM_EINVAL, "rank %d has another %s than rank 0: %s", comm->rank, what, difference);
}

int ranks_agree(struct comm *comm, const char *what, const char *text, const char *const *free_keys,
                struct plm_status *st)
{
    if (comm->size == 1)
        return PLM_OK;
    int64_t bytes = text ? (int64_t)strlen(text) + 1 : 0;
    int code = comm_broadcast(comm, &bytes, sizeof bytes, 0, st);
    char *first = !code && bytes > 0 ? malloc((size_t)bytes) : NULL;
    int have = code                  ? code
               : first || bytes == 0 ? PLM_OK
                                     : status_no_memory(st, (size_t)bytes, "what rank 0 was started with");
    code = comm_agree(comm, have, st);
    if (!code && bytes > 0) {
        if (comm->rank == 0)
            memcpy(first, text, (size_t)bytes);
        code = comm_broadcast(comm, first, (size_t)bytes, 0, st);
    }
    if (!code)
        code = comm_agree(
            comm, bytes && text && strcmp(first, text) != 0 ? differs(comm, what, first, text, free_keys, st) : PLM_OK,
            st);
    free(first);
    return code;
}
