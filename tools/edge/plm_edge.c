/* plm-edge: a program that embeds the core and nothing else. Continues text read line by line from standard input, one
 * conversation-free completion per line, as an assistant on a device would.
 *
 *     plm-edge MODEL.gguf [TOKENS [TEMPERATURE]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/plm.h"

struct edge {
    struct plm_model *model;
    struct plm_session *session;
    struct plm_sampling sampling;
    int32_t *tokens;
    size_t capacity;
    int n;
};

/* Continue one line; returns a code of enum plm_code. */
static int complete(struct edge *e, const char *line, struct plm_status *st)
{
    size_t n;
    int code = plm_session_truncate(e->session, 0, st);
    if (!code)
        code = plm_tokenize(e->model, line, strlen(line), false, e->tokens, e->capacity, &n, st);
    for (int i = 0; i < e->n && !code; i++, n = 1) {
        code = plm_session_append(e->session, e->tokens, n, st);
        if (!code)
            code = plm_session_sample(e->session, &e->sampling, &e->tokens[0], st);
        if (code || plm_token_ends(e->model, e->tokens[0]) || plm_session_length(e->session) == e->capacity)
            break;
        const char *bytes;
        const size_t length = plm_token_bytes(e->model, e->tokens[0], false, &bytes);
        fwrite(bytes, 1, length, stdout);
        fflush(stdout);
    }
    putchar('\n');
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL.gguf [TOKENS [TEMPERATURE]]\n", argv[0]);
        return 2;
    }
    struct plm_status st = {0};
    struct edge e = {.n = argc > 2 ? atoi(argv[2]) : 64, .sampling = plm_sampling_default()};
    if (argc > 3)
        e.sampling.temperature = (float)atof(argv[3]);
    int code = plm_model_open(&e.model, argv[1], &st);
    if (!code)
        code = plm_session_open(&e.session, e.model, NULL, &st);
    if (!code) {
        e.capacity = (size_t)plm_model_context_length(e.model);
        e.tokens = malloc(e.capacity * sizeof *e.tokens);
        code = e.tokens ? PLM_OK : PLM_ENOMEM;
    }
    char line[4096];
    while (!code && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (*line && complete(&e, line, &st)) { /* a line that does not fit is no reason to stop */
            fprintf(stderr, "%s\n", st.message);
            st = (struct plm_status){0};
        }
    }
    if (code)
        fprintf(stderr, "%s: %s\n", plm_code_name(code), st.message);
    free(e.tokens);
    plm_session_close(e.session);
    plm_model_close(e.model);
    return code ? 1 : 0;
}
