/* What build.json remembers: the settings and inputs of a build, whether it was finished, its numbers and its files. */
#ifndef DATA_BUILD_STATE_H
#define DATA_BUILD_STATE_H

#include <jansson.h>

#include "data/build.h"

enum build_status {
    BUILD_NEEDED,   /* nothing there, or an interrupted build */
    BUILD_FINISHED, /* the same build, complete, with all its files */
};

/* The settings that decide the result, with a digest of the inputs' names and contents. The caller owns *out. */
int build_settings(json_t **out, const struct build_options *o, const char *tokenizer_sha256, const char *const *files,
                   int64_t n_files, int64_t chunk_tokens, struct plm_status *st);

/* Look at the directory; *report is filled when the build is finished. Another build, or files that are not of a build, are an
 * error unless `force`. */
int build_inspect(enum build_status *out, const char *directory, const json_t *settings, bool force,
                  struct build_report *report, struct plm_status *st);

/* Make the directories, remove old shards and write build.json as unfinished. */
int build_begin(const char *directory, const json_t *settings, struct plm_status *st);

/* shards: array of {"path", "bytes"}. Atomic: the build counts as finished only afterwards. */
int build_complete(const char *directory, const json_t *settings, const struct build_report *report, json_t *shards,
                   struct plm_status *st);

#endif
