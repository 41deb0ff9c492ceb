#include "infer/model/lookup.h"

#include <stdlib.h>

#include "infer/model/sequence.h"
#include "infer/text/sampling.h"

enum { SHORTEST_MATCH = 2, LONGEST_MATCH = 4 };

int lookup_create(struct lookup *l, int max_draft, int vocab, struct plm_status *st)
{
    const size_t rows = LOOKUP_BATCH, v = (size_t)vocab;
    *l = (struct lookup){.max_draft = max_draft, .tokens = malloc(rows * sizeof *l->tokens), .logits = malloc(rows * v * sizeof *l->logits),
                         .scratch = malloc(8 * v)};
    return l->tokens && l->logits && l->scratch ? PLM_OK : status_no_memory(st, rows * v * sizeof *l->logits, "the logits of a draft");
}

void lookup_release(struct lookup *l)
{
    free(l->tokens);
    free(l->logits);
    free(l->scratch);
}

int64_t lookup_draft(const int32_t *tokens, int64_t n, int32_t token, int32_t *draft, int64_t most)
{
    int64_t length = SHORTEST_MATCH - 1, from = -1;
    for (int64_t i = n; i-- > 0 && length < LONGEST_MATCH;) {
        int64_t same = tokens[i] == token;
        while (same && same < LONGEST_MATCH && same <= i && tokens[i - same] == tokens[n - same])
            same++;
        if (same > length)
            length = same, from = i + 1;
    }
    for (int64_t k = 0; from >= 0 && k < most; k++, from++)
        draft[k] = from < n ? tokens[from] : from == n ? token : draft[from - n - 1];
    return from >= 0 && most > 0 ? most : 0;
}

int lookup_append(struct lookup *l, struct engine *e, struct sequence *s, const struct plm_sampling *sampling, int32_t token, int64_t most,
                  int64_t *n, struct plm_status *st)
{
    const int64_t begin = s->length, room = s->capacity - begin - 1;
    const int vocab = engine_model(e)->config.vocab_size;
    most = most < lookup_batch(l->max_draft) ? most : lookup_batch(l->max_draft) - 1;
    most = s->options.policy.policy != POLICY_FULL ? 0 : most < room ? most : room;
    const int64_t drafted = lookup_draft(s->tokens, begin, l->tokens[0] = token, l->tokens + 1, most);
    const struct engine_item item = {.sequence = s, .tokens = l->tokens, .n = 1 + drafted, .decode = true, .all = true, .logits = l->logits};
    int code = engine_step(e, &item, 1, st);
    *n = 0;
    if (code)
        return code;
    for (int32_t next; *n < drafted; ++*n) {
        const size_t history = (size_t)(begin + 1 + *n);
        code = sampling_draw(sampling, l->logits + *n * vocab, vocab, s->tokens, history, history, 0, l->scratch, &next, st);
        if (code || next != l->tokens[1 + *n])
            break;
    }
    if (drafted)
        sequence_truncate(s, code ? begin : begin + 1 + *n, NULL);
    l->drafted += drafted;
    l->accepted += *n;
    return code;
}
