#include "train/settings.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/mapped.h"
#include "train/files.h"

#define MAX_FILE (16 << 20) /* bytes of a configuration file: more is some other file */
#define MAX_KNOWN_DEPTH 16  /* nesting of sections */

const char setting_required_text[] = "";

struct settings {
    json_t *root;
    json_t *known;           /* {section path: {key: true}}: what getters asked for */
    char *where;
    struct plm_status first; /* the first problem; code PLM_OK: none */
};

/* The core's own JSON reader has a json_integer and a json_string too: in one program only one of each can be linked. */
static json_t *new_integer(int64_t value)
{
    return json_pack("I", (json_int_t)value);
}

static json_t *new_text(const char *text)
{
    return json_stringn(text, strlen(text));
}

int settings_parse(struct settings **out, const char *text, size_t length, const char *where, struct plm_status *st)
{
    *out = NULL;
    if (length > MAX_FILE)
        return status_set(st, PLM_ELIMIT, "%s: %zu bytes, but a configuration has at most %d", where, length, MAX_FILE);
    json_error_t error;
    if (length >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) /* a byte order mark: editors on Windows write one */
        text += 3, length -= 3;
    json_t *root = json_loadb(text ? text : "", length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!root)
        return status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", where, error.line, error.column, error.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return status_set(st, PLM_EFORMAT, "%s: expected an object: { \"key\": value, ... }", where);
    }
    struct settings *s = calloc(1, sizeof *s);
    if (s) {
        s->root = root;
        s->known = json_object();
        s->where = strdup(where);
    }
    if (!s || !s->known || !s->where) {
        if (s)
            settings_close(s);
        else
            json_decref(root);
        return status_no_memory(st, length, "a configuration");
    }
    *out = s;
    return PLM_OK;
}

int settings_open(struct settings **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct mapped_file file;
    int code = mapped_open(&file, path, st);
    if (!code)
        code = settings_parse(out, (const char *)file.data, file.size, path, st);
    mapped_close(&file);
    return code;
}

void settings_close(struct settings *s)
{
    if (!s)
        return;
    json_decref(s->root);
    json_decref(s->known);
    free(s->where);
    free(s);
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "text";
    case JSON_INTEGER: return "a whole number";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

/* Overrides */

static json_t *step_into(json_t *node, const char *key, json_t *value, const char *assignment, struct plm_status *st)
{
    if (json_is_object(node)) {
        if (value ? json_object_set(node, key, value) : 0) {
            status_set(st, PLM_EINVAL, "--set %s: cannot set '%s'", assignment, key);
            return NULL;
        }
        json_t *child = json_object_get(node, key);
        if (!child) {
            child = json_object();
            if (json_object_set_new(node, key, child)) {
                status_set(st, PLM_EINVAL, "--set %s: cannot create '%s'", assignment, key);
                return NULL;
            }
        }
        return child;
    }
    if (!json_is_array(node)) {
        status_set(st, PLM_EINVAL, "--set %s: '%s' is not inside an object or array but inside %s", assignment, key,
                   type_name(node));
        return NULL;
    }
    char *end;
    errno = 0;
    long index = strtol(key, &end, 10);
    if (end == key || *end || errno || index < 0 || (size_t)index >= json_array_size(node)) {
        status_set(st, PLM_EINVAL, "--set %s: '%s' is not an entry of an array of %zu (the first is 0)", assignment, key,
                   json_array_size(node));
        return NULL;
    }
    if (value)
        json_array_set(node, (size_t)index, value);
    return json_array_get(node, (size_t)index);
}

int settings_override(struct settings *s, const char *assignment, struct plm_status *st)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return status_set(st, PLM_EINVAL, "--set %s: expected key=value, for example schedule.peak=1e-3", assignment);
    char path[256];
    size_t length = 0;
    for (const char *p = assignment; p < equals; p++) { /* phases[0].tokens becomes phases.0.tokens */
        if (*p == ']')
            continue;
        if (length + 1 >= sizeof path)
            return status_set(st, PLM_EINVAL, "--set %.40s...: the key is too long", assignment);
        path[length++] = *p == '[' ? '.' : *p;
    }
    path[length] = 0;
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!value)
        value = new_text(equals + 1);
    if (!value)
        return status_set(st, PLM_EINVAL, "--set %s: the value is not UTF-8", assignment);
    json_t *node = s->root;
    for (char *key = path; node && key;) {
        char *dot = strchr(key, '.');
        if (dot)
            *dot = 0;
        if (!*key) {
            status_set(st, PLM_EINVAL, "--set %s: empty key", assignment);
            node = NULL;
            break;
        }
        node = step_into(node, key, dot ? NULL : value, assignment, st);
        key = dot ? dot + 1 : NULL;
    }
    json_decref(value);
    return node ? PLM_OK : PLM_EINVAL;
}

/* Sections */

static void child_path(char *out, size_t size, const char *path, const char *key)
{
    snprintf(out, size, "%s%s%s", path, *path ? "." : "", key);
}

static struct section section_make(struct settings *s, json_t *object, const char *path)
{
    struct section section = {.settings = s, .object = json_is_object(object) ? object : NULL};
    snprintf(section.path, sizeof section.path, "%s", path);
    if (section.object && !json_object_get(s->known, path))
        json_object_set_new(s->known, path, json_object());
    return section;
}

struct section settings_root(struct settings *s)
{
    return section_make(s, s->root, "");
}

bool settings_failed(const struct settings *s)
{
    return s->first.code != PLM_OK;
}

void section_error(struct section *s, const char *key, const char *fmt, ...)
{
    if (settings_failed(s->settings))
        return;
    char text[768];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char path[256];
    child_path(path, sizeof path, s->path, key ? key : "");
    if (!key)
        snprintf(path, sizeof path, "%s", s->path);
    status_set(&s->settings->first, PLM_EINVAL, "%s: %s%s%s", s->settings->where, path, *path ? ": " : "", text);
}

/* The value of a key, which becomes known; NULL when it is missing. */
static json_t *lookup(struct section *s, const char *key)
{
    if (!s->object)
        return NULL;
    json_t *known = json_object_get(s->settings->known, s->path);
    if (known)
        json_object_set_new(known, key, json_true());
    return json_object_get(s->object, key);
}

static void fill_in(struct section *s, const char *key, json_t *value)
{
    if (s->object && json_object_set_new(s->object, key, value))
        section_error(s, key, "cannot store the default");
    else if (!s->object)
        json_decref(value);
}

static void missing(struct section *s, const char *key, const char *expected)
{
    if (s->object)
        section_error(s, key, "missing; expected %s", expected);
}

static void mistyped(struct section *s, const char *key, const json_t *found, const char *expected)
{
    char *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);
    section_error(s, key, "expected %s, found %s: %.60s%s", expected, type_name(found), text ? text : "",
                  text && strlen(text) > 60 ? "..." : "");
    free(text);
}

int64_t section_int(struct section *s, const char *key, int64_t value, int64_t min, int64_t max)
{
    char expected[96];
    if (max == INT64_MAX)
        snprintf(expected, sizeof expected, "a whole number, at least %lld", (long long)min);
    else
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)min, (long long)max);
    json_t *v = lookup(s, key);
    if (!v) {
        if (value == SETTING_REQUIRED_INT) {
            missing(s, key, expected);
            return min;
        }
        fill_in(s, key, new_integer(value));
        return value;
    }
    double real = json_is_real(v) ? json_real_value(v) : 0.5;
    if (real == floor(real) && fabs(real) <= 9007199254740992.0) { /* 1e9: exact up to 2^53 */
        fill_in(s, key, new_integer((int64_t)real));
        v = lookup(s, key);
    }
    if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max)
        return json_integer_value(v);
    mistyped(s, key, v, expected);
    return value == SETTING_REQUIRED_INT ? min : value;
}

double section_number(struct section *s, const char *key, double value, double min, double max)
{
    char expected[96];
    if (max == HUGE_VAL)
        snprintf(expected, sizeof expected, "a number, at least %g", min);
    else
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    json_t *v = lookup(s, key);
    if (!v) {
        if (value == SETTING_REQUIRED_NUMBER) {
            missing(s, key, expected);
            return min;
        }
        fill_in(s, key, json_real(value));
        return value;
    }
    if (json_is_integer(v)) { /* 1 and 1.0 are the same setting: in the saved file, and in its hash */
        fill_in(s, key, json_real(json_number_value(v)));
        v = lookup(s, key);
    }
    if (json_is_number(v) && json_number_value(v) >= min && json_number_value(v) <= max)
        return json_number_value(v);
    mistyped(s, key, v, expected);
    return value == SETTING_REQUIRED_NUMBER ? min : value;
}

bool section_bool(struct section *s, const char *key, bool value)
{
    json_t *v = lookup(s, key);
    if (!v)
        fill_in(s, key, json_boolean(value));
    else if (json_is_boolean(v))
        return json_is_true(v);
    else
        mistyped(s, key, v, "true or false");
    return value;
}

const char *section_text(struct section *s, const char *key, const char *value)
{
    json_t *v = lookup(s, key);
    if (v && json_is_string(v) && json_string_length(v) > 0)
        return json_string_value(v);
    if (v) {
        if (json_is_string(v))
            section_error(s, key, "expected text, found none: \"\"");
        else if (json_is_number(v) || json_is_boolean(v))
            mistyped(s, key, v, "text in quotes (with --set: key='\"...\"')");
        else
            mistyped(s, key, v, "text");
    } else if (value == setting_required_text) {
        missing(s, key, "text");
    } else if (value) {
        fill_in(s, key, new_text(value));
        v = lookup(s, key);
        return v ? json_string_value(v) : value;
    }
    return value;
}

int section_choice(struct section *s, const char *key, int value, const char *const *names)
{
    char expected[256] = "one of";
    size_t length = strlen(expected);
    for (int i = 0; names[i] && length < sizeof expected; i++)
        length += (size_t)snprintf(expected + length, sizeof expected - length, "%s \"%s\"", i ? "," : "", names[i]);
    json_t *v = lookup(s, key);
    if (!v) {
        if (value < 0)
            missing(s, key, expected);
        else
            fill_in(s, key, new_text(names[value]));
        return value < 0 ? 0 : value;
    }
    for (int i = 0; names[i] && json_is_string(v); i++)
        if (strcmp(names[i], json_string_value(v)) == 0)
            return i;
    mistyped(s, key, v, expected);
    return value < 0 ? 0 : value;
}

bool section_has(struct section *s, const char *key)
{
    return lookup(s, key) != NULL;
}

struct section section_object(struct section *s, const char *key)
{
    json_t *v = lookup(s, key);
    if (v && !json_is_object(v))
        mistyped(s, key, v, "an object");
    if (!v && s->object) {
        fill_in(s, key, json_object());
        v = lookup(s, key);
    }
    char path[sizeof s->path];
    child_path(path, sizeof path, s->path, key);
    return section_make(s->settings, v, path);
}

int section_array(struct section *s, const char *key, int min, int max)
{
    char expected[96];
    snprintf(expected, sizeof expected, "an array of %d to %d objects", min, max);
    json_t *v = lookup(s, key);
    if (!v) {
        if (min > 0)
            missing(s, key, expected);
        else
            fill_in(s, key, json_array());
        return 0;
    }
    if (!json_is_array(v)) {
        mistyped(s, key, v, expected);
        return 0;
    }
    size_t n = json_array_size(v);
    if (n < (size_t)min || n > (size_t)max) {
        section_error(s, key, "expected %s, found %zu", expected, n);
        return 0;
    }
    return (int)n;
}

struct section section_entry(struct section *s, const char *key, int index)
{
    json_t *v = json_array_get(lookup(s, key), (size_t)index);
    char name[160], path[sizeof s->path];
    snprintf(name, sizeof name, "%s[%d]", key, index);
    if (v && !json_is_object(v))
        mistyped(s, name, v, "an object");
    child_path(path, sizeof path, s->path, name);
    return section_make(s->settings, v, path);
}

/* Unknown keys */

/* Edits (insert, delete, replace, swap neighbours) that turn a into b; names of up to 63 bytes, others are far. */
static int edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX)
        return MAX;
    int row[3][MAX]; /* the last two rows and the current one */
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

static int report_unknown(const struct settings *s, const char *path, const char *key, json_t *known, struct plm_status *st)
{
    char full[256], list[512] = "";
    child_path(full, sizeof full, path, key);
    const char *nearest = NULL, *name;
    json_t *unused;
    int least = (int)strlen(key) / 2 + 1;
    size_t length = 0;
    json_object_foreach(known, name, unused) {
        int d = edit_distance(key, name);
        if (d <= least && (!nearest || d < least)) {
            least = d;
            nearest = name;
        }
        if (length < sizeof list)
            length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", length ? ", " : "", name);
    }
    if (nearest)
        return status_set(st, PLM_EINVAL, "%s: %s: unknown key; did you mean '%s'?", s->where, full, nearest);
    return status_set(st, PLM_EINVAL, "%s: %s: unknown key; the keys here are: %s", s->where, full, list);
}

static int check_known(const struct settings *s, json_t *v, const char *path, int depth, struct plm_status *st)
{
    int code = PLM_OK;
    char child[256];
    if (depth > MAX_KNOWN_DEPTH)
        return PLM_OK;
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v) && !code; i++) {
            snprintf(child, sizeof child, "%s[%zu]", path, i);
            code = check_known(s, json_array_get(v, i), child, depth + 1, st);
        }
        return code;
    }
    json_t *known = json_is_object(v) ? json_object_get(s->known, path) : NULL;
    if (!known)
        return PLM_OK;
    const char *key;
    json_t *value;
    json_object_foreach(v, key, value) {
        if (!json_object_get(known, key))
            return report_unknown(s, path, key, known, st);
        child_path(child, sizeof child, path, key);
        code = check_known(s, value, child, depth + 1, st);
        if (code)
            return code;
    }
    return PLM_OK;
}

int settings_finish(struct settings *s, struct plm_status *st)
{
    int code = check_known(s, s->root, "", 0, st);
    if (code || !settings_failed(s))
        return code;
    return status_set(st, s->first.code, "%s", s->first.message);
}

/* Writing */

char *settings_to_json(const struct settings *s)
{
    return json_dumps(s->root, JSON_INDENT(2));
}

char *settings_canonical(const struct settings *s, const char *const *keys)
{
    json_t *subset = json_object();
    if (!subset)
        return NULL;
    char *text = NULL;
    bool ok = true;
    for (int i = 0; keys[i] && ok; i++) {
        json_t *v = json_object_get(s->root, keys[i]);
        ok = !v || json_object_set(subset, keys[i], v) == 0;
    }
    if (ok)
        text = json_dumps(subset, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(subset);
    return text;
}

int settings_save(const struct settings *s, const char *path, struct plm_status *st)
{
    char *text = settings_to_json(s);
    if (!text)
        return status_no_memory(st, 0, "the configuration as text");
    int code = file_update(path, text, strlen(text), st);
    free(text);
    return code;
}

int settings_open_with(struct settings **out, const char *path, const char *const *overrides, int n, struct plm_status *st)
{
    int code = settings_open(out, path, st);
    for (int i = 0; i < n && !code; i++)
        code = settings_override(*out, overrides[i], st);
    if (code) {
        settings_close(*out);
        *out = NULL;
    }
    return code;
}

int settings_hash(const struct settings *s, const char *const *keys, char hex[SHA256_HEX], struct plm_status *st)
{
    char *text = settings_canonical(s, keys);
    if (!text)
        return status_no_memory(st, 0, "the configuration as text");
    const int code = sha256_bytes(text, strlen(text), hex, st);
    free(text);
    return code;
}
