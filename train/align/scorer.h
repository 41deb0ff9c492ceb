/* Scorers: a number for every answer, the higher the better. Rule-based verifiers give 1 or 0. */
#ifndef TRAIN_ALIGN_SCORER_H
#define TRAIN_ALIGN_SCORER_H

#include "train/align/task.h"
#include "train/settings.h"

struct scorer;

struct scorer_stats {
    int64_t scored, failed;     /* failed: the scorer crashed, hung, printed rubbish, or has nothing to compare with */
    int64_t timeouts, crashes;  /* of the scorer's command (failed), or of programs under test (scored 0: they do not pass) */
    int64_t malformed, missing; /* rubbish, also rows of a scores' file; not in the file, or the task has no reference or tests */
    char first_failure[512];
};

/* What the configuration's "scorer" object says. Kinds ("kind"):
 *     gsm8k      the number after the last "####" equals the reference's (strip , and $), aries.md 5.2; "flexible":
 * true: else the last number number     the last number of the answer equals the reference's last number, by value
 * (number.h) boxed      the last \boxed{...} equals the reference: one canonical notation, numbers by value (formula.h)
 *     choice     the letter chosen ("(B)", "B.", "answer is B", "answer: B") equals the reference's
 *     exact      the same text after trimming; "ignore_case", "normalise" (case, punctuation, articles, spaces)
 *     regex      "pattern" (PCRE2: Perl's; ^ and $ match at every line) matches the answer; with a group, the last
 * match's group 1 equals the reference tests      the task's tests pass on the answer's program (the last fenced code
 * block, else all of it): "command" (default
 *                ["python3", "-s", "-"], program on stdin), "timeout_s", "memory_mib", "processes"; "python" (default:
 * the command's name begins so): a judge in a process of its own runs the tests and calls into the answer's (judge.h).
 * Else the tests follow the program, which runs with status 0. All in the sandbox (child.h), or nothing runs:
 * "confine": "weak" lets them run with what there is; "paths" are directories that they may read beside the system's
 * (["/opt/venv"]). memory_mib and processes are for an answer's processes together file       "path": scores of
 * {"task", "chain", "turn", "score"} rows (chain and turn default to 0) command    "command": started once per scoring;
 * gets one JSON object per line on stdin ({"task", "chain", "turn", "prompt", "messages", "answer_text", "answer"}),
 * prints one {"score": x} (or a bare number) per line; "timeout_s" per answer; "restarts" (default 10) after a crash, a
 * hang or a line that is no score at all. It is the user's own program: not confined, only ended with us reward
 * "model": a reward model (plm reward), or its run; "normalise" (default true): by mean and deviation of its held-out
 * rewards implicit   "model", "reference", "beta" (default 0.1): beta (ln p of the model - ln p of the reference) of
 * the answer A "command" is an array of texts, or one text for /bin/sh. reward and implicit (a model scores) are the
 * caller's: scorer_needs_model.
 *
 * What is wrong with the configuration is remembered as by any getter, and reported by settings_finish: call it before
 * scoring. */
int scorer_open(struct scorer **out, struct section *config, struct plm_status *st);
void scorer_close(struct scorer *s);
const char *scorer_kind(const struct scorer *s);
bool scorer_needs_model(const struct scorer *s); /* "reward", "implicit": config "model" names the directory (scorer_model) */
const char *scorer_model(const struct scorer *s);
const char *scorer_reference(const struct scorer *s);
double scorer_beta(const struct scorer *s);
bool scorer_normalise(const struct scorer *s);

/* Score answers [0, n) of the set's rows. What fails is counted and left unscored; only what makes scoring as a whole impossible (a command
 * that cannot be started, a file that is not there) is an error. threads: children that may run side by side (tests). */
int scorer_score(struct scorer *s, const struct row_set *tasks, struct answer *answers, int64_t n, int threads, struct scorer_stats *stats,
                 struct plm_status *st);

/* One text against one reference, by a rule: 1 or 0 (kinds gsm8k to regex, tests). */
int scorer_check(struct scorer *s, const struct row *task, const char *text, double *score, struct plm_status *st);

/* In words, for a person: what a rule read out of the text and out of the reference, or how the program under test ended. "" for other kinds. */
int scorer_explain(struct scorer *s, const struct row *task, const char *text, char *why, size_t capacity, struct plm_status *st);

/* What a verifier reads out of an answer (the number, letter, boxed text) as a normalised text into key (capacity), for majority votes;
 * false when there is none. */
bool scorer_extract(const struct scorer *s, const char *text, char *key, size_t capacity);

#endif
