#include "tools/refined_chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/status.h"
#include "tools/interrupt.h"
#include "tools/text_stream.h"

struct view {
    const struct refined_chat *chat;
    const volatile sig_atomic_t *interrupted;
    bool dim;
    int turn;  /* shown now; -1: none */
    bool last; /* the last turn has been shown as it was made */
    struct text_stream out;
    struct plm_status written; /* what went wrong as it was shown */
};

static int add_message(struct refined_chat *c, const char *role, const char *content, struct plm_status *st)
{
    if (c->n == c->capacity) {
        const int capacity = 2 * c->capacity + 8;
        struct plm_message *grown = realloc(c->messages, (size_t)capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, (size_t)capacity * sizeof *grown, "the conversation");
        c->messages = grown;
        c->capacity = capacity;
    }
    char *copy = strdup(content);
    if (!copy)
        return status_no_memory(st, strlen(content), "the conversation");
    c->messages[c->n++] = (struct plm_message){role, copy};
    return PLM_OK;
}

static void drop_message(struct refined_chat *c) { free((char *)c->messages[--c->n].content); }

void refined_chat_reset(struct refined_chat *c)
{
    while (c->n > 0)
        drop_message(c);
    free(c->messages);
    c->messages = NULL;
    c->capacity = 0;
}

/* The text of a turn is over: a character that is not complete is replaced. */
static void end_turn(struct view *v, bool draft)
{
    if (!v->written.code)
        text_stream_end(&v->out, stdout, &v->written);
    puts(draft && v->dim ? "\033[0m" : "");
    fflush(stdout);
}

/* Drafts are shown when asked for, the last turn of a single chain always. */
static bool show(void *ctx, int chain, int turn, const char *bytes, size_t n)
{
    struct view *v = ctx;
    const struct plm_answer_options *o = &v->chat->options;
    const bool draft = turn < o->refinements;
    (void)chain;
    if (o->parallel <= 1 && (!draft || v->chat->show_drafts)) {
        if (draft && v->turn != turn)
            printf(v->dim ? "\033[2m" : "[draft %d] ", turn);
        v->turn = n ? turn : -1;
        v->last = v->last || !draft;
        if (!v->written.code && n)
            text_stream_put(&v->out, stdout, bytes, n, &v->written);
        if (!n)
            end_turn(v, draft);
    }
    return !*v->interrupted && !v->written.code;
}

int refined_chat_answer(struct refined_chat *c, const char *message, struct plm_status *st)
{
    struct view v = {.chat = c, .dim = isatty(STDOUT_FILENO), .turn = -1};
    struct plm_answer_options o = c->options;
    char *answer = NULL;
    o.text = show, o.ctx = &v;
    int code = c->n == 0 && c->system ? add_message(c, "system", c->system, st) : PLM_OK;
    if (!code)
        code = add_message(c, "user", message, st);
    if (code)
        return code;
    v.interrupted = interrupt_catch();
    code = plm_answer(c->model, c->messages, c->n, &o, &answer, st);
    interrupt_release();
    if (v.turn >= 0) /* stopped in its middle */
        end_turn(&v, v.dim);
    if (!code && !v.last && !text_stream_put(&v.out, stdout, answer, strlen(answer), &v.written))
        end_turn(&v, false);
    if (v.written.code)
        code = status_set(st, v.written.code, "%s", v.written.message);
    if (!code)
        code = add_message(c, "assistant", answer, st);
    else
        drop_message(c);
    free(answer);
    return code == PLM_ESTOPPED ? PLM_OK : code;
}
