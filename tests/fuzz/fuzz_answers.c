/* The bytes as a file of answers, and as a file of scores for three answers: what is read of the first is written and read again alike; of
 * the second every score is finite, and the counts add up. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_files.h"
#include "train/align/scorer.h"
#include "train/align/scorer_kinds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answers(void)
{
    char path[512];
    struct answer_set set = {0}, again = {0};
    struct plm_status st = {0};
    snprintf(path, sizeof path, "%s", fuzz_path("answers.jsonl"));
    if (answer_set_read(&set, path, 4, &st)) {
        if (!strstr(st.message, "answers.jsonl"))
            abort();
    } else {
        snprintf(path, sizeof path, "%s", fuzz_path("again.jsonl"));
        if (answer_set_write(&set, 0, set.n, path, &st) || answer_set_read(&again, path, 4, &st) || again.n != set.n)
            abort();
        for (int64_t i = 0; i < set.n; i++) {
            const struct answer *a = &set.answers[i], *b = &again.answers[i];
            if (a->task != b->task || a->n != b->n || strcmp(a->text, b->text) != 0 || memcmp(a->log_probs, b->log_probs, (size_t)a->n * sizeof(float)) != 0 ||
                a->scored != b->scored || a->score != b->score)
                abort();
        }
    }
    answer_set_free(&set);
    answer_set_free(&again);
}

static void check_scores(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s", fuzz_path("answers.jsonl"));
    struct answer answers[3] = {{.task = 0}, {.task = 1, .chain = 1}, {.task = 1, .chain = 1, .turn = 1}};
    struct scorer_stats stats = {0};
    const struct scorer s = {.path = path};
    if (scorer_file_score(&s, answers, 3, &stats, NULL))
        return;
    int64_t scored = 0;
    for (int i = 0; i < 3; i++) {
        scored += answers[i].scored;
        if (answers[i].scored && !isfinite(answers[i].score))
            abort();
    }
    if (scored == 0 || stats.scored != scored || stats.missing != 3 - scored)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char good[] = "{\"task\": 1, \"chain\": 1, \"turn\": 1, \"text\": \"an answer\", \"tokens\": [1, 2], \"log_probs\": [-0.5, -1e-3], \"ended\": true, "
                               "\"score\": 1}\n{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"\", \"tokens\": [], \"log_probs\": [], \"ended\": false, \"score\": 0.25}\n";
    if (size == 0)
        return 0;
    fuzz_write_text("answers.jsonl", good, data, size);
    check_answers();
    check_scores();
    return 0;
}
