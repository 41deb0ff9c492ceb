/* A run configuration: a JSON file, overridden from the command line, read by typed getters.
 *
 * Reading is one pass without error checks: a getter that meets a problem remembers it and returns the default. The pass
 * ends with settings_finish, which reports unknown keys first (a mistyped key is why its value is missing) and otherwise
 * the first problem. What the getters asked for is what is known: nothing lists the keys a second time. */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"
#include "train/manifest.h"

struct settings;

/* An object of the configuration. Copied freely, valid until settings_close. */
struct section {
    struct settings *settings;
    void *object;   /* json_t; NULL when the section is missing or not an object: getters return defaults */
    char path[192]; /* "phases[1]"; empty for the root */
};

/* Read a file, or text (`where` names it in messages). A syntax error gives file:line:column. */
int settings_open(struct settings **out, const char *path, struct plm_status *st);
int settings_parse(struct settings **out, const char *text, size_t length, const char *where, struct plm_status *st);
void settings_close(struct settings *s);

/* settings_open, then n overrides ("a.b=c"). NULL in *out after an error. */
int settings_open_with(struct settings **out, const char *path, const char *const *overrides, int n, struct plm_status *st);

/* "a.b=c", "phases.0.tokens=1000", "phases[0].tokens=1000": set a value, which is JSON when it parses as JSON and text
 * otherwise. Missing objects are created; entries of arrays must exist. Before the first getter. */
int settings_override(struct settings *s, const char *assignment, struct plm_status *st);

struct section settings_root(struct settings *s);

/* Defaults that say: the key must be there. */
#define SETTING_REQUIRED_INT INT64_MIN
#define SETTING_REQUIRED_NUMBER (-HUGE_VAL)
extern const char setting_required_text[];

/* Getters: the value of `key`, which must be of that type and in [min, max], or the default when the key is missing. A
 * default is written into the document, so that what is saved is complete. Whole numbers may be written as 1e9. Text is
 * owned by the settings; a NULL default makes it optional and is returned as it is; empty text is an error. */
int64_t section_int(struct section *s, const char *key, int64_t value, int64_t min, int64_t max);
double section_number(struct section *s, const char *key, double value, double min, double max);
bool section_bool(struct section *s, const char *key, bool value);
const char *section_text(struct section *s, const char *key, const char *value);

/* One of `names` (NULL-terminated): its index. `value` is the default index, or -1 when the key must be there. */
int section_choice(struct section *s, const char *key, int value, const char *const *names);

/* Does the section have this key? Asking makes the key known. */
bool section_has(struct section *s, const char *key);

/* A nested object; an empty one is created when it is missing. */
struct section section_object(struct section *s, const char *key);

/* Entries of an array of objects: their number (between min and max; 0 when missing and min is 0), then each. */
int section_array(struct section *s, const char *key, int min, int max);
struct section section_entry(struct section *s, const char *key, int index);

/* Remember a problem found by the reader itself, as the getters do: "FILE: PATH.KEY: MESSAGE" (key may be NULL). */
void section_error(struct section *s, const char *key, const char *fmt, ...) PLM_PRINTF(3, 4);

/* Has a problem been remembered? */
bool settings_failed(const struct settings *s);

/* PLM_EINVAL with the message when there was an unknown key or a problem. */
int settings_finish(struct settings *s, struct plm_status *st);

/* The resolved configuration as JSON text (malloc'ed, the caller frees; NULL when out of memory): everything, or only
 * the named members of the root (NULL-terminated), compact with sorted keys, for a hash. */
char *settings_to_json(const struct settings *s);
char *settings_canonical(const struct settings *s, const char *const *keys);

/* SHA-256 of settings_canonical: what tells one configuration from another. */
int settings_hash(const struct settings *s, const char *const *keys, char hex[SHA256_HEX], struct plm_status *st);

/* Write settings_to_json to a file. */
int settings_save(const struct settings *s, const char *path, struct plm_status *st);

#endif
