/* Chat templates in Jinja: the template itself is run on every conversation, so that what it declares is what is
 * rendered. The origin that every byte of its output has (infer/text/jinja.h) tells text of the template from contents.
 */
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat_template_internal.h"
#include "infer/text/jinja.h"

/* Messages that stand for any: only what the template writes around them is looked at. */
static const struct chat_message some_user = {"user", "x", 1, false}, some_answer = {"assistant", "x", 1, false};

struct text {
    jinja_byte *data;
    size_t n;
};

static int run(const struct chat_template *t, const struct chat_message *messages, int n, bool generation,
               struct text *out, struct plm_status *st)
{
    const struct jinja_input input = {messages, n, generation, t->bos, t->eos};
    *out = (struct text){0};
    return jinja_render(t->jinja, &input, &out->data, &out->n, st);
}

static uint32_t origin(const struct text *x, size_t i)
{
    return x->data[i] >> 8;
}

/* Where content i begins and where it ends; n for both when it is not there. */
static size_t begin_of(const struct text *x, uint32_t i)
{
    size_t at = 0;
    while (at < x->n && origin(x, at) != i + 1)
        at++;
    return at;
}

static size_t end_of(const struct text *x, uint32_t i)
{
    size_t at = x->n;
    while (at > 0 && origin(x, at - 1) != i + 1)
        at--;
    return at ? at : x->n;
}

static void copy(char *to, const struct text *x, size_t from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (char)x->data[from + i];
}

static size_t shared_beginning(struct span a, struct span b)
{
    size_t i = 0;
    while (i < a.bytes && i < b.bytes && a.text[i] == b.text[i])
        i++;
    return i;
}

static bool begins_with(struct span s, struct span with)
{
    return shared_beginning(s, with) == with.bytes;
}

/* The first thing that looks like a special token: the model's own end of a text, or <...>. */
static struct span find_end(struct span s, const char *eos)
{
    const size_t eos_bytes = eos ? strlen(eos) : 0;
    for (size_t i = 0; i < s.bytes; i++) {
        size_t j = i + 1;
        if (eos_bytes && s.bytes - i >= eos_bytes && !memcmp(s.text + i, eos, eos_bytes))
            return (struct span){s.text + i, eos_bytes};
        while (s.text[i] == '<' && j < s.bytes && !strchr("<> \n", s.text[j]))
            j++;
        if (s.text[i] == '<' && j > i + 1 && j < s.bytes && s.text[j] == '>')
            return (struct span){s.text + i, j + 1 - i};
    }
    return (struct span){s.text, 0};
}

/* last: what follows the last answer of a conversation; next: what stands between an answer and the next message. */
static int find_ending(struct chat_template *t, struct span last, struct span next, struct plm_status *st)
{
    struct span in = last;
    t->end = find_end(last, t->eos);
    if (!t->end.bytes)
        t->end = find_end(in = next, t->eos);
    if (!t->end.bytes ||
        (in.text == next.text && !begins_with(last, (struct span){next.text, (size_t)(t->end.text - next.text)})))
        return status_set(
            st, PLM_EUNSUPPORTED,
            "%s: the template writes no token after an answer (it writes \"%.*s\"), so that none could end", t->where,
            (int)(last.bytes < 40 ? last.bytes : 40), last.text);
    t->ending = (struct span){in.text, (size_t)(t->end.text - in.text) + t->end.bytes};
    const size_t after = last.bytes - (last.bytes < t->ending.bytes ? last.bytes : t->ending.bytes);
    t->after_end =
        (struct span){t->ending.text + t->ending.bytes, in.text == last.text && begins_with(next, last) ? after : 0};
    return PLM_OK;
}

/* Three conversations show what the template does around an answer and whether it has a system message of its own. */
static int probe(struct chat_template *t, struct plm_status *st)
{
    const struct chat_message messages[] = {some_user, some_answer, some_user};
    struct text one = {0}, two = {0};
    int code = run(t, messages, 2, false, &one, st);
    if (!code)
        code = run(t, messages, 3, true, &two, st);
    if (!code && (begin_of(&one, 1) == one.n || begin_of(&two, 2) == two.n || end_of(&two, 1) > begin_of(&two, 2)))
        code =
            status_set(st, PLM_EUNSUPPORTED,
                       "%s: the template does not show the messages of a conversation one after the other", t->where);
    const size_t last = one.n - end_of(&one, 1), first = begin_of(&two, 0), from = end_of(&two, 1),
                 next = code ? 0 : begin_of(&two, 2) - from;
    if (!code && !(t->tail = malloc(last + next + first + 1)))
        code = status_no_memory(st, last + next + first + 1, "a chat template");
    if (!code) {
        copy(t->tail, &one, one.n - last, last);
        copy(t->tail + last, &two, from, next);
        copy(t->tail + last + next, &two, 0, first);
        t->tail[last + next + first] = 0;
        const struct span between = {t->tail + last, next}, opening = {t->tail + last + next, first};
        code = find_ending(t, (struct span){t->tail, last}, between, st);
        const size_t closed = t->ending.bytes + t->after_end.bytes, bos = t->bos ? strlen(t->bos) : 0;
        const size_t skip =
            bos && begins_with(opening, (struct span){t->bos, bos}) && closed + first == next + bos ? bos : 0;
        t->own_system = code || closed > next || closed + first - skip != next ||
                        memcmp(opening.text + skip, between.text + closed, first - skip) != 0;
    }
    free(one.data);
    free(two.data);
    return code;
}

int chat_jinja_open(struct chat_template *t, size_t bytes, const char *where, struct plm_status *st)
{
    t->where = strdup(where);
    if (!t->where)
        return status_no_memory(st, strlen(where), "a chat template");
    int code = jinja_parse(&t->jinja, t->source, bytes, t->where, st);
    return code ? code : probe(t, st);
}

void chat_jinja_close(struct chat_template *t)
{
    jinja_free(t->jinja);
    free(t->where);
    free(t->tail);
}

void chat_template_missing(const struct chat_template *t, const struct tokenizer *tokenizer,
                           void (*f)(void *ctx, const char *text, size_t bytes), void *ctx)
{
    struct span rest = {t->tail, t->tail ? strlen(t->tail) : 0}, mark = {0};
    for (; (mark = find_end(rest, NULL)).bytes;
         rest.bytes -= (size_t)(mark.text + mark.bytes - rest.text), rest.text = mark.text + mark.bytes)
        if (mark.text[1] == '|' && tokenizer_find(tokenizer, mark.text, mark.bytes) < 0)
            f(ctx, mark.text, mark.bytes);
}

/* Every message that says something is seen somewhere. */
static int check_all_there(const struct chat_template *t, const struct text *x, const struct chat_message *messages,
                           int n, struct plm_status *st)
{
    bool *seen = calloc((size_t)n + 1, 1);
    int code = seen ? PLM_OK : status_no_memory(st, (size_t)n, "messages");
    for (size_t i = 0; i < x->n && !code; i++)
        if (origin(x, i) && origin(x, i) <= (uint32_t)n)
            seen[origin(x, i) - 1] = true;
    for (int i = 0; i < n && !code; i++)
        for (size_t k = 0; k < messages[i].content_bytes && !seen[i] && !code; k++)
            if (!strchr(" \t\r\n", messages[i].content[k]))
                code = status_set(st, PLM_EUNSUPPORTED,
                                  "%s: the template leaves out message %d of a conversation of %d, of the role '%.40s'",
                                  t->where, i + 1, n, messages[i].role);
    free(seen);
    return code;
}

/* What of x is from `from` on: contents are plain text, whatever they look like. */
static void emit(const struct chat_template *t, struct output *o, const struct text *x, size_t from, size_t to,
                 const struct chat_message *messages)
{
    char *text = malloc(to - from + 1);
    const struct chat_message *answer = NULL; /* ends here */
    if (!text && !o->code)
        o->code = status_no_memory(o->st, to - from, "a conversation");
    for (size_t i = from, j; i < to && !o->code; i = j) {
        const uint32_t of = origin(x, i);
        struct span s = {text, 0};
        for (j = i; j < to && origin(x, j) == of; j++)
            text[s.bytes++] = (char)x->data[j];
        if (of != JINJA_TEMPLATE) {
            const struct chat_message *m = of == JINJA_ROLE ? NULL : &messages[of - 1];
            chat_put(o, s, false, m && m->target);
            answer = m && !strcmp(m->role, "assistant") ? m : NULL;
            continue;
        }
        const struct span ends[] = {t->ending, t->after_end};
        for (int k = 0; k < 2 && answer && begins_with(s, ends[k]); k++) {
            chat_put(o, ends[k], true, k == 0 && answer->target);
            s = (struct span){s.text + ends[k].bytes, s.bytes - ends[k].bytes};
        }
        chat_put(o, s, true, false);
        answer = NULL;
    }
    free(text);
}

void chat_jinja_render(const struct chat_template *t, struct output *o, const struct chat_message *messages, int n,
                       enum chat_begin begin, bool generation)
{
    const bool empty_system =
        begin == CHAT_BEGINS_WITHOUT && t->own_system && (n == 0 || strcmp(messages[0].role, "system"));
    const int more = begin == CHAT_CONTINUES ? 2 : empty_system;
    const size_t bytes = ((size_t)n + 2) * sizeof *messages;
    struct chat_message *all = malloc(bytes);
    struct text x = {0};
    if (!all && !o->code)
        o->code = status_no_memory(o->st, bytes, "messages");
    if (!o->code) {
        all[0] = empty_system ? (struct chat_message){"system", "", 0, false} : some_user;
        all[1] = some_answer;
        if (n)
            memcpy(all + more, messages, (size_t)n * sizeof *messages);
        o->code = run(t, all, more + n, generation, &x, o->st);
    }
    if (!o->code)
        o->code = check_all_there(t, &x, all, more + n, o->st);
    if (!o->code) {
        size_t from = begin == CHAT_CONTINUES ? end_of(&x, 1) : 0;
        const struct span ends[] = {t->ending, t->after_end};
        for (int k = 0; k < 2 && begin == CHAT_CONTINUES; k++) {
            size_t i = 0;
            while (i < ends[k].bytes && from + i < x.n && x.data[from + i] == (unsigned char)ends[k].text[i])
                i++;
            if (i < ends[k].bytes)
                break;
            from += i;
        }
        emit(t, o, &x, from, x.n, all);
    }
    free(x.data);
    free(all);
}

void chat_jinja_answer(const struct chat_template *t, struct output *o, const char *text, size_t bytes)
{
    const struct chat_message messages[] = {some_user, {"assistant", text, bytes, true}};
    struct text prompt = {0}, whole = {0};
    if (!o->code)
        o->code = run(t, messages, 1, true, &prompt, o->st);
    if (!o->code)
        o->code = run(t, messages, 2, false, &whole, o->st);
    size_t from = 0;
    while (from < prompt.n && from < whole.n && prompt.data[from] == whole.data[from])
        from++;
    if (!o->code && begin_of(&whole, 1) < whole.n) {
        from = from == prompt.n ? from : begin_of(&whole, 1);
        const size_t before = o->ids->length;
        emit(t, o, &whole, from, end_of(&whole, 1), messages);
        if (!o->code && o->targets) /* what the template writes inside an answer is the model's to write */
            memset(o->targets->data + o->targets->length - (o->ids->length - before), 1, o->ids->length - before);
    }
    free(prompt.data);
    free(whole.data);
}
