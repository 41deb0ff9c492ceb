/* The core on any processor: prefill and decode of a golden case against the float64 reference, or of any model against what the
 * core computed on another processor. Needs nothing but the core, so that it can be cross-compiled and run under an emulator.
 * usage: edge_logits GOLDEN_CASE_DIRECTORY [TOLERANCE]      exit status 1 when an error is above it (default 1e-5)
 *        edge_logits --write MODEL LOGITS                   logits of some tokens to a file
 *        edge_logits --compare MODEL LOGITS TOLERANCE       against those of the file */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/format/json.h"
#include "infer/format/safetensors.h"
#include "infer/model/model.h"
#include "infer/model/session.h"

#define MAX_TOKENS 256
#define MODEL_TOKENS 12 /* more than go through a matrix-vector product */

static double relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return sqrt(difference / norm);
}

/* tokens[0] of batch.json */
static int read_tokens(const char *path, int32_t *tokens, size_t *n, struct plm_status *st)
{
    char *text;
    size_t length;
    struct json_doc *doc;
    int code = file_read_text(&text, &length, path, 1 << 20, st);
    if (code)
        return code;
    code = json_parse(&doc, text, length, path, st);
    free(text);
    if (code)
        return code;
    const struct json_value *v = json_first(json_get(json_root(doc), "tokens"));
    *n = 0;
    for (v = v ? json_first(v) : NULL; v && *n < MAX_TOKENS; v = json_next(v)) {
        int64_t id = 0;
        json_as_integer(v, &id);
        tokens[(*n)++] = (int32_t)id;
    }
    json_free(doc);
    return PLM_OK;
}

/* Prefill and decode of the tokens: logits receives (2, n, vocab). */
static int run(struct plm_model *model, const int32_t *tokens, size_t n, float *logits, struct plm_status *st)
{
    struct plm_session *session = NULL;
    int code = plm_session_open(&session, model, NULL, st);
    for (int decode = 0; decode < 2 && !code; decode++) {
        code = plm_session_truncate(session, 0, st);
        if (!code)
            code = session_append_logits(session, tokens, n, decode, logits + (size_t)decode * n * (size_t)plm_model_vocab_size(model), st);
    }
    plm_session_close(session);
    return code;
}

static bool report(const char *what, size_t n, const float *logits, const float *want, size_t values, double tolerance)
{
    const double error = relative_error(logits, want, values);
    printf("%s of %zu tokens: relative error %.2e\n", what, n, error);
    return error < tolerance;
}

static int golden(const char *directory, double tolerance, bool *good, struct plm_status *st)
{
    char path[1024];
    int32_t tokens[MAX_TOKENS];
    size_t n = 0;
    struct plm_model *model = NULL;
    struct safetensors expected = {0};
    float *logits = NULL;
    snprintf(path, sizeof path, "%s/batch.json", directory);
    int code = read_tokens(path, tokens, &n, st);
    snprintf(path, sizeof path, "%s/expected.safetensors", directory);
    if (!code)
        code = safetensors_open(&expected, path, st);
    snprintf(path, sizeof path, "%s/model", directory);
    if (!code)
        code = plm_model_open(&model, path, st);
    const struct stored_tensor *want = code ? NULL : safetensors_find(&expected, "logits");
    const size_t values = code ? 0 : n * (size_t)plm_model_vocab_size(model);
    if (!code && (!want || want->bytes < values * sizeof(float) || n == 0 || !(logits = malloc(2 * values * sizeof *logits))))
        code = status_set(st, PLM_EFORMAT, "'%s' is not a golden case", directory);
    if (!code)
        code = run(model, tokens, n, logits, st);
    if (!code) { /* both are reported */
        *good = report("prefill", n, logits, want->data, values, tolerance);
        *good = report("decode", n, logits + values, want->data, values, tolerance) && *good;
    }
    free(logits);
    plm_model_close(model);
    safetensors_close(&expected);
    return code;
}

/* Two halves of a file: prefill and decode. A tolerance of 0 writes it. */
static int compare(const char *model_path, const char *path, double tolerance, bool *good, struct plm_status *st)
{
    int32_t tokens[MODEL_TOKENS];
    struct plm_model *model = NULL;
    int code = plm_model_open(&model, model_path, st);
    if (code)
        return code;
    const size_t values = MODEL_TOKENS * (size_t)plm_model_vocab_size(model);
    float *logits = malloc(4 * values * sizeof *logits);
    for (int i = 0; i < MODEL_TOKENS; i++)
        tokens[i] = (7 + 37 * i) % (int32_t)plm_model_vocab_size(model);
    code = logits ? run(model, tokens, MODEL_TOKENS, logits, st) : status_set(st, PLM_ENOMEM, "no memory for logits");
    FILE *f = code ? NULL : fopen(path, tolerance > 0 ? "rb" : "wb");
    if (!code && !f)
        code = status_set(st, PLM_EIO, "cannot open '%s'", path);
    if (!code && tolerance > 0) {
        if (fread(logits + 2 * values, sizeof *logits, 2 * values, f) != 2 * values)
            code = status_set(st, PLM_EFORMAT, "'%s' does not hold the logits of this model", path);
        else {
            *good = report("prefill", MODEL_TOKENS, logits, logits + 2 * values, values, tolerance);
            *good = report("decode", MODEL_TOKENS, logits + values, logits + 3 * values, values, tolerance) && *good;
        }
    } else if (!code && fwrite(logits, sizeof *logits, 2 * values, f) != 2 * values) {
        code = status_set(st, PLM_EIO, "cannot write '%s'", path);
    }
    if (f && fclose(f) && !code)
        code = status_set(st, PLM_EIO, "cannot write '%s'", path);
    free(logits);
    plm_model_close(model);
    return code;
}

int main(int argc, char **argv)
{
    struct plm_status st = {0};
    bool good = true;
    int code;
    if (argc == 4 && !strcmp(argv[1], "--write"))
        code = compare(argv[2], argv[3], 0, &good, &st);
    else if (argc == 5 && !strcmp(argv[1], "--compare") && atof(argv[4]) > 0)
        code = compare(argv[2], argv[3], atof(argv[4]), &good, &st);
    else if (argc == 2 || argc == 3)
        code = golden(argv[1], argc > 2 ? atof(argv[2]) : 1e-5, &good, &st);
    else
        return 2;
    if (code)
        fprintf(stderr, "%s\n", st.message);
    return code || !good;
}
