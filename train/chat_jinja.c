#include "train/chat_jinja.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A part of a Jinja string literal. */
static void put_text(FILE *f, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\'' || text[i] == '\\' || text[i] == '\r')
            fputc('\\', f);
        fputc(text[i] == '\r' ? 'r' : text[i], f); /* a raw one would be read as a newline */
    }
}

static void put_literal(FILE *f, const char *text, size_t bytes)
{
    fputc('\'', f);
    put_text(f, text, bytes);
    fputc('\'', f);
}

/* " + 'text'", or nothing when it is empty. */
static void put_more(FILE *f, const char *text, size_t bytes)
{
    if (!bytes)
        return;
    fputs(" + ", f);
    put_literal(f, text, bytes);
}

static void put_template(FILE *f, const char *system, const char *turn, const char *end, const char *generation)
{
    const char *role = strstr(turn, "{role}"), *content = strstr(turn, "{content}");
    const char *after_role = role + strlen("{role}"), *ending = content + strlen("{content}"), *after_end = strstr(ending, end) + strlen(end);
    fputs("{% for message in messages %}", f);
    if (*system) { /* the whole turn of the default system message */
        fputs("{% if loop.first and messages[0]['role'] != 'system' %}{{ '", f);
        put_text(f, turn, (size_t)(role - turn));
        put_text(f, "system", strlen("system"));
        put_text(f, after_role, (size_t)(content - after_role));
        put_text(f, system, strlen(system));
        put_text(f, ending, strlen(ending));
        fputs("' }}{% endif %}", f);
    }
    fputs("{{", f);
    put_literal(f, turn, (size_t)(role - turn));
    fputs(" + message['role']", f);
    put_more(f, after_role, (size_t)(content - after_role));
    fputs(" + message['content']", f);
    put_more(f, ending, (size_t)(after_end - ending));
    put_more(f, after_end, strlen(after_end));
    fputs("}}{% endfor %}{% if add_generation_prompt %}{{ ", f);
    put_literal(f, generation, strlen(generation));
    fputs(" }}{% endif %}", f);
}

int chat_template_jinja(char **out, const struct chat_template *t, struct plm_status *st)
{
    const char *system, *turn, *end, *generation;
    size_t length = 0;
    const char *brought = chat_template_jinja_text(t);
    *out = NULL;
    if (brought) {
        *out = strdup(brought);
        return *out ? PLM_OK : status_no_memory(st, strlen(brought), "a chat template");
    }
    json_t *root = json_loads(chat_template_json(t), 0, NULL); /* complete and checked: all four keys, the slots in their order */
    if (json_unpack(root, "{s:s, s:s, s:s, s:s}", "system", &system, "turn", &turn, "end", &end, "generation", &generation)) {
        json_decref(root);
        return status_set(st, PLM_EUNSUPPORTED, "the chat template cannot be written as Jinja: it has a NUL character, or memory ran out");
    }
    FILE *f = open_memstream(out, &length);
    bool failed = !f;
    if (f) {
        put_template(f, system, turn, end, generation);
        failed = fclose(f) != 0;
    }
    json_decref(root);
    return failed ? status_no_memory(st, 0, "a chat template as Jinja") : PLM_OK;
}
