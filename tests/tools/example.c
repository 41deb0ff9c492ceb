/* Continue a text with a GGUF model, greedily: infer/plm.h in thirty lines.
 * usage: example MODEL.gguf PROMPT N */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/plm.h"

int main(int argc, char **argv)
{
    struct plm_status st = {0};
    struct plm_model *model = NULL;
    struct plm_session *session = NULL;
    const struct plm_sampling greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    int32_t tokens[1024];
    const char *bytes;
    size_t n = 0;
    if (argc != 4)
        return fprintf(stderr, "usage: %s MODEL.gguf PROMPT N\n", argv[0]), 2;
    int code = plm_model_open(&model, argv[1], &st);
    if (!code)
        code = plm_session_open(&session, model, NULL, &st);
    if (!code)
        code = plm_tokenize(model, argv[2], strlen(argv[2]), false, tokens, 1024, &n, &st);
    for (int i = 0; i < atoi(argv[3]) && !code; i++, n = 1) { /* first the prompt, then token by token */
        code = plm_session_append(session, tokens, n, &st);
        if (!code)
            code = plm_session_sample(session, &greedy, &tokens[0], &st);
        if (code || plm_token_ends(model, tokens[0]))
            break;
        n = plm_token_bytes(model, tokens[0], false, &bytes);
        fwrite(bytes, 1, n, stdout);
    }
    plm_session_close(session);
    plm_model_close(model);
    return code ? fprintf(stderr, "%s\n", st.message), 1 : 0;
}
