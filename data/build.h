/* From text to shards: read, drop exact duplicates, split off held-out documents, tokenise, write.
 *
 *   DIR/train/train-00000.h5 ...  DIR/valid/valid-00000.h5 ...  DIR/build.json
 *
 * The result depends on the inputs and the settings only, not on the number of threads. A document is held out when a number
 * drawn from (seed, digest of its text) is below valid_fraction, so that equal documents share a side. */
#ifndef DATA_BUILD_H
#define DATA_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/reader.h"
#include "infer/base/status.h"

struct build_options {
    const char *const *inputs; /* files and directories */
    int n_inputs;
    const char *tokenizer_path; /* tokenizer.json, or a directory that has one; its end of text (tokenizer_eos) ends documents */
    const char *directory;
    const char *name;           /* of the data set; NULL: "" */
    const char *valid_text;     /* write the held-out text to this file, documents joined; NULL: no */
    double valid_fraction;      /* of the documents, [0, 1) */
    int64_t seed;
    const char *text_field;     /* of JSON lines; NULL: "text" */
    size_t max_document;        /* bytes; 0: as the reader */
    int64_t chunk_tokens;       /* 0: 65,536 for inputs below 64 MiB, else 1,048,576 */
    int level;                  /* zstd; 0: 3 */
    int n_threads;              /* 0: one per processor */
    bool force;                 /* replace what another build left in the directory */
};

/* One side of the split. */
struct build_split {
    int64_t documents, text_bytes, tokens, stored_bytes, shards;
};

struct build_report {
    struct reader_stats reader;
    int64_t duplicates;         /* documents dropped */
    int64_t token_bytes;        /* 2 or 4 */
    struct build_split train, valid;
    bool up_to_date;            /* nothing was done: the same build was there */
    double seconds;
};

/* Build, or find that the same inputs were built with the same settings already. A directory with another finished build is
 * refused without `force`; an interrupted build is started again. */
int data_build(const struct build_options *o, struct build_report *report, struct plm_status *st);

#endif
