/* What the kinds of scorers share, and the kinds that are more than a rule. */
#ifndef TRAIN_ALIGN_SCORER_KINDS_H
#define TRAIN_ALIGN_SCORER_KINDS_H

#include "train/align/judge.h"
#include "train/align/scorer.h"
#include "train/align/verifiers.h"

/* argv[0..] of a program: from the configuration, owned by it, NULL-terminated. */
struct scorer_program {
    const char **argv;
};

struct scorer {
    int kind;                       /* index into the names */
    struct verifier verifier;       /* the rules */
    struct scorer_program program;  /* tests, command */
    bool judged;                    /* tests: of Python programs, run by a judge */
    double timeout_s;
    int64_t memory_bytes;
    int processes, restarts;
    enum child_confine confine;     /* tests */
    const char **paths; /* tests: more directories that programs may read; NULL-terminated, owned with what it holds */
    const char *path;               /* file */
    const char *model;              /* reward, implicit */
    const char *reference;          /* implicit */
    double beta;
    bool normalise;                 /* reward */
};

enum outcome { OUTCOME_SCORED, OUTCOME_TIMEOUT, OUTCOME_CRASH, OUTCOME_MALFORMED, OUTCOME_MISSING };

/* Count one answer as not scored for this reason; the first reason of all is kept as a message. */
void scorer_failed(struct scorer_stats *stats, enum outcome why, const struct answer *a, const char *message);

/* What came of one answer. */
struct verdict {
    double score;
    enum outcome outcome;
    unsigned missing;     /* tests: guards the sandbox could not have (enum child_guard) */
    char why[160];        /* tests: how the program ended, when it did not pass */
};

/* The task's tests on the program in `text`: 1 when they pass (Python: in the judge; else: it ends with status 0). A
 * program that runs into a limit or a signal has failed its tests: 0, and the outcome tells. judge: this thread's, all
 * zero at first; the caller stops it. */
int scorer_run_tests(const struct scorer *s, struct judge *judge, const struct row *task, const char *text,
                     struct verdict *v, struct plm_status *st);

/* The program in an answer: the last fenced code block (one that is not closed ends with the text), else all of it. */
void scorer_code(const char *text, const char **begin, size_t *bytes);

int scorer_file_score(const struct scorer *s, struct answer *answers, int64_t n, struct scorer_stats *stats, struct plm_status *st);
int scorer_command_score(const struct scorer *s, const struct row_set *tasks, struct answer *answers, int64_t n, struct scorer_stats *stats,
                         struct plm_status *st);

/* The score in a line that a scorer printed: {"score": x} or a bare number, finite. */
enum score_line { SCORE_LINE_OK, SCORE_LINE_NO_SCORE /* a JSON object or value without one */, SCORE_LINE_RUBBISH };
enum score_line scorer_read_line(const char *line, size_t n, double *score);

#endif
