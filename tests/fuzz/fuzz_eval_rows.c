/* Bytes as a file of evaluation rows, and every string of them as a text with an answer in it: rows are objects with growing lines, an
 * answer is never longer than its text and one character. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/eval_answer.h"
#include "tools/eval_rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void extract(const char *text, size_t length)
{
    char *exact = malloc(length ? length : 1); /* so that the sanitizer sees the end */
    if (!exact)
        return;
    memcpy(exact, text, length);
    for (int rule = ANSWER_LAST_NUMBER; rule <= ANSWER_ALL; rule++) {
        char *answer, *again;
        if (answer_extract((enum answer_rule)rule, exact, length, &answer, NULL))
            abort();
        /* 2e-8 becomes 0.00000002: the digits of the text, and zeros up to number.h's largest exponent */
        const size_t most = length + 400;
        if (answer && strlen(answer) > most)
            abort();
        /* a number in its shortest form is its own shortest form */
        if (answer && rule == ANSWER_LAST_NUMBER) {
            if (answer_extract(ANSWER_LAST_NUMBER, answer, strlen(answer), &again, NULL) || !again || strcmp(again, answer))
                abort();
            free(again);
        }
        free(answer);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "fuzz-eval-rows-%ld.jsonl", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    fwrite(data, 1, size, f);
    fclose(f);
    struct plm_status st = {0};
    struct json_rows *rows;
    json_t *row;
    int64_t line = 0, last = 0;
    if (json_rows_open(&rows, path, &st)) { /* compressed in a way that is not read, by its first bytes */
        if (!*st.message)
            abort();
        unlink(path);
        return 0;
    }
    while (json_rows_next(rows, &row, &line, &st) == PLM_OK && row) {
        const char *key;
        json_t *value;
        if (!json_is_object(row) || line < last)
            abort();
        last = line;
        json_object_foreach(row, key, value)
            if (json_is_string(value))
                extract(json_string_value(value), json_string_length(value));
    }
    json_rows_close(rows);
    unlink(path);
    extract((const char *)data, size);
    return 0;
}
