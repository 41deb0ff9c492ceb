/* The core on any processor against the float64 reference: prefill and decode of a golden case. Needs nothing but the core, so
 * that it can be cross-compiled and run under an emulator.
 * usage: edge_logits GOLDEN_CASE_DIRECTORY [TOLERANCE]; exit status 1 when an error is above it (default 1e-5). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "infer/format/json.h"
#include "infer/format/safetensors.h"
#include "infer/model/model.h"
#include "infer/model/session.h"

#define MAX_TOKENS 256

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

int main(int argc, char **argv)
{
    char path[1024];
    int32_t tokens[MAX_TOKENS];
    size_t n = 0;
    struct plm_status st = {0};
    struct plm_model *model = NULL;
    struct plm_session *session = NULL;
    struct safetensors expected = {0};
    float *logits = NULL;
    bool good = true;
    if (argc < 2)
        return 2;
    const double tolerance = argc > 2 ? atof(argv[2]) : 1e-5;
    snprintf(path, sizeof path, "%s/batch.json", argv[1]);
    int code = read_tokens(path, tokens, &n, &st);
    snprintf(path, sizeof path, "%s/expected.safetensors", argv[1]);
    if (!code)
        code = safetensors_open(&expected, path, &st);
    snprintf(path, sizeof path, "%s/model", argv[1]);
    if (!code)
        code = plm_model_open(&model, path, &st);
    if (!code)
        code = plm_session_open(&session, model, NULL, &st);
    const struct stored_tensor *want = code ? NULL : safetensors_find(&expected, "logits");
    const size_t values = code ? 0 : n * (size_t)plm_model_vocab_size(model);
    if (!code && (!want || want->bytes < values * sizeof(float) || n == 0 || !(logits = malloc(values * sizeof *logits))))
        code = status_set(&st, PLM_EFORMAT, "'%s' is not a golden case", argv[1]);
    for (int decode = 0; decode < 2 && !code; decode++) {
        code = plm_session_truncate(session, 0, &st);
        if (!code)
            code = session_append_logits(session, tokens, n, decode, logits, &st);
        if (!code) {
            const double error = relative_error(logits, want->data, values);
            printf("%s of %zu tokens: relative error %.2e\n", decode ? "decode" : "prefill", n, error);
            good = good && error < tolerance;
        }
    }
    if (code)
        fprintf(stderr, "%s\n", st.message);
    free(logits);
    plm_session_close(session);
    plm_model_close(model);
    safetensors_close(&expected);
    return code || !good;
}
