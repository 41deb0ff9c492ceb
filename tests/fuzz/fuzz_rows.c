/* Bytes as a file of rows, lines or an array: the first byte chooses. Every row is read as everything it could be, with and without renamed fields: what
 * comes out keeps the order of roles and has no empty answers, and two answers differ. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/conversation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct row *r)
{
    const char *before = "";
    for (int i = 0; i < r->n_messages; i++) {
        const struct chat_message *m = &r->messages[i];
        if (strlen(m->content) != m->content_bytes || (!strcmp(m->role, "system") && i > 0) || (!strcmp(m->role, "user") && !strcmp(before, "user")) ||
            (!strcmp(m->role, "assistant") && (i == 0 || !strcmp(before, "assistant"))) || (m->target && (strcmp(m->role, "assistant") || !*m->content)))
            abort();
        before = m->role;
    }
    if (r->kind == ROW_TEXT ? !r->text || !*r->text : r->n_messages < 1)
        abort();
    if (r->kind == ROW_PAIR && (!*r->chosen || !*r->rejected || !strcmp(r->chosen, r->rejected)))
        abort();
    if (r->kind == ROW_LABELLED && !*r->completion)
        abort();
    if (r->kind >= ROW_PAIR && !strcmp(before, "assistant"))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    if (size < 1)
        return 0;
    snprintf(path, sizeof path, "fuzz-rows-%ld.json%s", (long)getpid(), data[0] % 2 ? "l" : "");
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    fwrite(data + 1, 1, size - 1, f);
    fclose(f);
    struct plm_status st = {0};
    struct json_rows *rows;
    json_t *object, *fields = json_pack("{s:s, s:s, s:s}", "prompt", "q", "messages", "m", "content", "text");
    int64_t line, last = 0;
    int code;
    if (!fields)
        abort();
    if (json_rows_open(&rows, path, &st)) { /* compressed in a way that is not read, by its first bytes */
        if (!*st.message)
            abort();
        json_decref(fields);
        unlink(path);
        return 0;
    }
    while ((code = json_rows_next(rows, &object, &line, &st)) || object) {
        if (code && line == 0)
            break;
        if (line < last)
            abort();
        last = line;
        for (int i = 0; i < 20 && !code; i++) {
            const struct row_options o = {.wanted = (enum row_kind)(i % 5), .fields = i % 10 < 5 ? NULL : fields, .last_turn_only = i >= 10};
            struct row row;
            if (row_read(&row, object, &o, &st) == PLM_OK)
                check(&row);
            row_free(&row);
        }
    }
    json_rows_close(rows);
    json_decref(fields);
    unlink(path);
    return 0;
}
