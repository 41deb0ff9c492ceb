/* The bytes as an answer: every rule reads it, as reference too; a number is its own shortest form, code lies inside its text, and a line of a
 * scorer's output gives a finite score or none. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "train/align/number.h"
#include "train/align/scorer_kinds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_rule(const struct verifier *v, const char *text)
{
    char *key, *again;
    bool correct;
    if (verifier_extract(v, text, &key, NULL))
        abort();
    if (key && (v->kind == VERIFY_GSM8K || v->kind == VERIFY_NUMBER)) {
        char *out = malloc(strlen(key) + DECIMAL_ROOM);
        if (!out || !number_whole(key, strlen(key), out) || strcmp(out, key) != 0)
            abort();
        free(out);
    }
    if (key && v->kind == VERIFY_CHOICE && (strlen(key) != 1 || *key < 'A' || *key > 'Z'))
        abort();
    if (verifier_reference(v, text, &again, NULL))
        abort();
    /* a text that says something as an answer says it as a reference too */
    if (key && again && v->kind != VERIFY_GSM8K && v->kind != VERIFY_REGEX && strcmp(key, again) != 0)
        abort();
    free(key);
    if (again && verifier_check(v, text, text, &correct, NULL))
        abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* its end is where the sanitizer looks */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    for (enum verifier_kind kind = VERIFY_GSM8K; kind < VERIFY_REGEX; kind++)
        for (int option = 0; option < 2; option++)
            check_rule(&(struct verifier){.kind = kind, .flexible = option, .normalise = option}, text);
    struct verifier regex = {.kind = VERIFY_REGEX};
    if (verifier_regex(&regex, "answer: *([a-z0-9]*)", NULL))
        abort();
    check_rule(&regex, text);
    verifier_free(&regex);
    const char *code;
    size_t bytes;
    scorer_code(text, &code, &bytes);
    if (code < text || code + bytes > text + strlen(text))
        abort();
    double score = 0;
    scorer_read_line(text, strlen(text), &score);
    if (!isfinite(score))
        abort();
    free(text);
    return 0;
}
