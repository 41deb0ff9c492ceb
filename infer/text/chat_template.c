#include "infer/text/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/mapped.h"
#include "infer/format/json.h"
#include "infer/text/chat_template_internal.h"

enum { KEY_SYSTEM, KEY_TURN, KEY_END, KEY_GENERATION, KEY_JINJA, KEY_BOS, KEY_EOS, N_KEYS };
static const char *const keys[N_KEYS] = {"system", "turn", "end", "generation", "jinja", "bos", "eos"};

static const char chatml[] = "{\"system\": \"You are a helpful assistant\", \"turn\": \"<|im_start|>{role}\\n{content}<|im_end|>\\n\", "
                             "\"end\": \"<|im_end|>\"}";
static const char role_slot[] = "{role}", content_slot[] = "{content}", assistant[] = "assistant";

static struct span find(struct span in, struct span what)
{
    const char *at = memmem(in.text, in.bytes, what.text, what.bytes);
    return (struct span){at, at ? what.bytes : 0};
}

static struct span between(const char *begin, const char *end)
{
    return (struct span){begin, (size_t)(end - begin)};
}

/* Find a slot, which must be there exactly once. */
static int find_slot(struct span turn, const char *slot, const char **at, const char *where, struct plm_status *st)
{
    const struct span name = {slot, strlen(slot)}, first = find(turn, name);
    if (!first.text)
        return status_set(st, PLM_EINVAL, "%s: \"turn\" has no %s: a turn is written like \"<|im_start|>{role}\\n{content}<|im_end|>\\n\"", where, slot);
    if (find(between(first.text + first.bytes, turn.text + turn.bytes), name).text)
        return status_set(st, PLM_EINVAL, "%s: \"turn\" has %s more than once", where, slot);
    *at = first.text;
    return PLM_OK;
}

/* The pieces of "turn" and whether "end" and "generation" agree with it. */
static int split(struct chat_template *t, const struct span *values, const char *where, struct plm_status *st)
{
    const struct span turn = values[KEY_TURN], end = values[KEY_END], generation = values[KEY_GENERATION];
    const char *role, *content;
    int code = find_slot(turn, role_slot, &role, where, st);
    if (!code)
        code = find_slot(turn, content_slot, &content, where, st);
    if (code)
        return code;
    if (content < role)
        return status_set(st, PLM_EINVAL, "%s: \"turn\" has {content} before {role}; expected the role first", where);
    const char *turn_end = turn.text + turn.bytes;
    t->before_role = between(turn.text, role);
    t->after_role = between(role + sizeof role_slot - 1, content);
    content += sizeof content_slot - 1;
    if (!end.bytes)
        return status_set(st, PLM_EINVAL, "%s: \"end\" is empty: it is what the model writes when its turn is over", where);
    const struct span found = find(between(content, turn_end), end);
    if (!found.text)
        return status_set(st, PLM_EINVAL, "%s: \"end\" is \"%.*s\", which does not follow {content} in \"turn\"", where, (int)end.bytes, end.text);
    t->end = found;
    t->ending = between(content, found.text + found.bytes);
    t->after_end = between(found.text + found.bytes, turn_end);
    t->system = values[KEY_SYSTEM];
    if (!generation.text)
        return PLM_OK;
    const size_t before = t->before_role.bytes, after = t->after_role.bytes, role_bytes = sizeof assistant - 1;
    if (generation.bytes != before + role_bytes + after || memcmp(generation.text, t->before_role.text, before) ||
        memcmp(generation.text + before, assistant, role_bytes) || memcmp(generation.text + before + role_bytes, t->after_role.text, after))
        return status_set(st, PLM_EINVAL, "%s: \"generation\" is not what \"turn\" begins with for the role assistant: \"%.*sassistant%.*s\"", where,
                          (int)before, t->before_role.text, (int)after, t->after_role.text);
    return PLM_OK;
}

static int write_jinja_json(struct chat_template *t, const struct span *values, struct plm_status *st)
{
    struct json_buffer text = {0};
    for (int i = KEY_JINJA; i <= KEY_EOS; i++) {
        if (!values[i].text)
            continue;
        json_printf(&text, i == KEY_JINJA ? "{\"%s\": " : ", \"%s\": ", keys[i]);
        json_put_string(&text, values[i].text, values[i].bytes);
    }
    json_printf(&text, "}");
    t->json = text.data;
    return text.failed ? status_no_memory(st, text.length, "a chat template") : PLM_OK;
}

static int write_json(struct chat_template *t, struct plm_status *st)
{
    struct json_buffer text = {0}, generation = {0};
    const size_t turn_bytes = (size_t)(t->after_end.text + t->after_end.bytes - t->before_role.text);
    json_put(&generation, t->before_role.text, t->before_role.bytes);
    json_put(&generation, assistant, sizeof assistant - 1);
    json_put(&generation, t->after_role.text, t->after_role.bytes);
    json_printf(&text, "{\"system\": ");
    json_put_string(&text, t->system.text, t->system.bytes);
    json_printf(&text, ", \"turn\": ");
    json_put_string(&text, t->before_role.text, turn_bytes);
    json_printf(&text, ", \"end\": ");
    json_put_string(&text, t->end.text, t->end.bytes);
    json_printf(&text, ", \"generation\": ");
    if (!generation.failed)
        json_put_string(&text, generation.data, generation.length);
    json_printf(&text, "}");
    const bool failed = text.failed || generation.failed;
    free(generation.data);
    t->json = text.data;
    return failed ? status_no_memory(st, text.length, "a chat template") : PLM_OK;
}

static int key_index(const char *key, size_t bytes)
{
    int i = 0;
    while (i < N_KEYS && (strlen(keys[i]) != bytes || memcmp(key, keys[i], bytes)))
        i++;
    return i;
}

/* Behind each other, each with a NUL. */
static int copy_values(struct chat_template *t, struct span *values, size_t total, struct plm_status *st)
{
    char *to = t->memory = malloc(total + N_KEYS);
    if (!to)
        return status_no_memory(st, total, "a chat template");
    for (int i = 0; i < N_KEYS; i++) {
        if (!values[i].text)
            continue;
        memcpy(to, values[i].text, values[i].bytes);
        to[values[i].bytes] = 0;
        values[i].text = to;
        to += values[i].bytes + 1;
    }
    if (!values[KEY_SYSTEM].text)
        values[KEY_SYSTEM] = (struct span){to, 0};
    return PLM_OK;
}

/* Copy the strings of the object behind each other; values[i].text NULL: not there. */
static int read_values(struct chat_template *t, const struct json_value *root, struct span *values, const char *where, struct plm_status *st)
{
    size_t total = 1;
    if (json_typeof(root) != JSON_OBJECT)
        return status_set(st, PLM_EINVAL, "%s: a chat template is an object with \"system\", \"turn\", \"end\" and \"generation\"", where);
    for (const struct json_value *v = json_first(root); v; v = json_next(v)) {
        size_t key_bytes;
        const char *key = json_key(v, &key_bytes);
        const int i = key_index(key, key_bytes);
        if (i == N_KEYS)
            return status_set(st, PLM_EINVAL,
                              "%s: unknown key \"%.64s\"; a chat template has \"system\", \"turn\", \"end\" and "
                              "\"generation\", or \"jinja\"",
                              where, key);
        values[i].text = json_as_string(v, &values[i].bytes);
        if (!values[i].text)
            return status_set(st, PLM_EINVAL, "%s: \"%s\" is not a string", where, key);
        total += values[i].bytes;
    }
    for (int i = 0; i < N_KEYS; i++) {
        const bool of_jinja = i >= KEY_JINJA, needed = i == KEY_TURN || i == KEY_END;
        if (values[KEY_JINJA].text ? !of_jinja && values[i].text : of_jinja && values[i].text)
            return status_set(st, PLM_EINVAL, "%s: \"%s\" does not go %s \"jinja\"", where, keys[i],
                              of_jinja ? "without" : "with");
        if (!values[KEY_JINJA].text && needed && !values[i].text)
            return status_set(st, PLM_EINVAL, "%s: \"%s\" is missing", where, keys[i]);
    }
    return copy_values(t, values, total, st);
}
/* Take what was read. */
static int create(struct chat_template *t, const struct span *values, const char *where, struct plm_status *st)
{
    if (!values[KEY_JINJA].text) {
        int code = split(t, values, where, st);
        return code ? code : write_json(t, st);
    }
    t->bos = values[KEY_BOS].text;
    t->eos = values[KEY_EOS].text;
    t->source = values[KEY_JINJA].text;
    int code = write_jinja_json(t, values, st);
    return code ? code : chat_jinja_open(t, values[KEY_JINJA].bytes, where, st);
}

static int finish(struct chat_template **out, struct chat_template *t, int code)
{
    if (code) {
        chat_template_free(t);
        t = NULL;
    }
    *out = t;
    return code;
}

int chat_template_from_json(struct chat_template **out, const char *text, size_t length, const char *where, struct plm_status *st)
{
    struct json_doc *doc;
    struct span values[N_KEYS] = {{0}};
    *out = NULL;
    int code = json_parse(&doc, text, length, where, st);
    if (code)
        return code;
    struct chat_template *t = calloc(1, sizeof *t);
    code = t ? read_values(t, json_root(doc), values, where, st) : status_no_memory(st, sizeof *t, "a chat template");
    json_free(doc);
    return finish(out, t, code ? code : create(t, values, where, st));
}

int chat_template_from_jinja(struct chat_template **out, const char *text, size_t length,
                             const struct tokenizer *tokenizer, const char *where, struct plm_status *st)
{
    struct span values[N_KEYS] = {[KEY_JINJA] = {text, length}};
    struct chat_template *t = calloc(1, sizeof *t);
    if (tokenizer) {
        const struct tokenizer_marks *m = tokenizer_marks(tokenizer);
        values[KEY_BOS].text = tokenizer_token(tokenizer, m->bos, &values[KEY_BOS].bytes, NULL);
        values[KEY_EOS].text = tokenizer_token(tokenizer, m->eos, &values[KEY_EOS].bytes, NULL);
    }
    int code = t ? copy_values(t, values, length + values[KEY_BOS].bytes + values[KEY_EOS].bytes + 1, st)
                 : status_no_memory(st, sizeof *t, "a chat template");
    return finish(out, t, code ? code : create(t, values, where, st));
}

/* Jinja may begin with a brace too, but JSON does not go on with a second one, a percent sign or a hash. */
static bool is_json(const char *text, size_t length)
{
    static const char blank[] = " \t\r\n";
    size_t i = 0;
    while (i < length && text[i] && strchr(blank, text[i]))
        i++;
    return i < length && text[i] == '{' && !(i + 1 < length && text[i + 1] && strchr("{%#", text[i + 1]));
}

int chat_template_open(struct chat_template **out, const char *path, const struct tokenizer *tokenizer,
                       struct plm_status *st)
{
    struct mapped_file file;
    *out = NULL;
    if (!path)
        return chat_template_from_json(out, chatml, sizeof chatml - 1, "ChatML", st);
    int code = mapped_open(&file, path, st);
    if (code)
        return code;
    const char *text = (const char *)file.data;
    const bool jinja = memmem(text, file.size, "{%", 2) || memmem(text, file.size, "{{", 2);
    if (!is_json(text, file.size) && jinja)
        code = chat_template_from_jinja(out, text, file.size, tokenizer, path, st);
    else
        code = chat_template_from_json(out, text, file.size, path, st);
    mapped_close(&file);
    return code;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    chat_jinja_close(t);
    free(t->json);
    free(t->memory);
    free(t);
}

const char *chat_template_json(const struct chat_template *t)
{
    return t->json;
}

const char *chat_template_jinja_text(const struct chat_template *t)
{
    return t->source;
}

/* --- rendering --- */

int target_list_add(struct target_list *targets, size_t n, bool target, struct plm_status *st)
{
    if (targets->capacity - targets->length < n) {
        const size_t capacity = 2 * targets->capacity > targets->length + n ? 2 * targets->capacity : targets->length + n + 256;
        uint8_t *data = realloc(targets->data, capacity);
        if (!data)
            return status_no_memory(st, capacity, "a list of targets");
        targets->data = data;
        targets->capacity = capacity;
    }
    memset(targets->data + targets->length, target, n);
    targets->length += n;
    return PLM_OK;
}

static struct output begin_output(struct encoder *e, struct token_list *ids, struct target_list *targets, struct plm_status *st)
{
    return (struct output){e, ids, targets, ids->length, targets ? targets->length : 0, st, PLM_OK};
}

static int end_output(struct output *o)
{
    if (o->code) {
        o->ids->length = o->n_ids;
        if (o->targets)
            o->targets->length = o->n_targets;
    }
    return o->code;
}

void chat_put(struct output *o, struct span s, bool special, bool target)
{
    const size_t before = o->ids->length;
    if (o->code || !s.bytes)
        return;
    o->code = encoder_encode(o->encoder, s.text, s.bytes, special, o->ids, o->st);
    if (!o->code && o->targets)
        o->code = target_list_add(o->targets, o->ids->length - before, target, o->st);
}

/* "turn" up to its content. */
static void put_header(const struct chat_template *t, struct output *o, const char *role)
{
    chat_put(o, t->before_role, true, false);
    chat_put(o, (struct span){role, strlen(role)}, false, false);
    chat_put(o, t->after_role, true, false);
}

static void put_turn(const struct chat_template *t, struct output *o, const char *role, struct span content, bool target)
{
    put_header(t, o, role);
    chat_put(o, content, false, target);
    chat_put(o, t->ending, true, target);
    chat_put(o, t->after_end, true, false);
}

/* What begins every text is there once, whether the template writes it or the tokenizer asks for it. */
static void drop_second_beginning(struct output *o)
{
    struct token_list *ids = o->ids;
    if (o->code || ids->length < 2 || ids->data[0] != ids->data[1])
        return;
    memmove(ids->data, ids->data + 1, --ids->length * sizeof *ids->data);
    if (o->targets)
        memmove(o->targets->data + o->n_targets, o->targets->data + o->n_targets + 1,
                --o->targets->length - o->n_targets);
}

static void put_turns(const struct chat_template *t, struct output *o, const struct chat_message *messages, int n,
                      enum chat_begin begin, bool generation)
{
    if (begin == CHAT_BEGINS && t->system.bytes && (n == 0 || strcmp(messages[0].role, "system")))
        put_turn(t, o, "system", t->system, false);
    for (int i = 0; i < n; i++)
        put_turn(t, o, messages[i].role, (struct span){messages[i].content, messages[i].content_bytes},
                 messages[i].target);
    if (generation)
        put_header(t, o, assistant);
}

int chat_template_render(const struct chat_template *t, struct encoder *e, const struct chat_message *messages, int n,
                         enum chat_begin begin, bool generation, struct token_list *ids, struct target_list *targets,
                         struct plm_status *st)
{
    struct output o = begin_output(e, ids, targets, st);
    if (begin != CHAT_CONTINUES)
        o.code = encoder_begin(e, ids, st);
    const bool begun = ids->length > o.n_ids;
    if (!o.code && begun && targets)
        o.code = target_list_add(targets, 1, false, st);
    if (t->jinja)
        chat_jinja_render(t, &o, messages, n, begin, generation);
    else
        put_turns(t, &o, messages, n, begin, generation);
    if (begun)
        drop_second_beginning(&o);
    return end_output(&o);
}

int chat_template_answer(const struct chat_template *t, struct encoder *e, const char *text, size_t bytes, bool ended,
                         struct token_list *ids, struct target_list *targets, struct plm_status *st)
{
    struct output o = begin_output(e, ids, targets, st);
    if (t->jinja)
        chat_jinja_answer(t, &o, text, bytes);
    else
        chat_put(&o, (struct span){text, bytes}, false, true);
    if (ended)
        chat_put(&o, t->ending, true, true);
    return end_output(&o);
}

int chat_template_close(const struct chat_template *t, struct encoder *e, bool ended, struct token_list *ids, struct plm_status *st)
{
    struct output o = begin_output(e, ids, NULL, st);
    if (!ended)
        chat_put(&o, t->ending, true, false);
    chat_put(&o, t->after_end, true, false);
    return end_output(&o);
}

int chat_template_end(const struct chat_template *t, const struct tokenizer *tokenizer, int32_t *id, struct plm_status *st)
{
    struct encoder *e;
    struct token_list ids = {0};
    int code = encoder_create(&e, tokenizer, st);
    if (!code)
        code = encoder_encode(e, t->end.text, t->end.bytes, true, &ids, st);
    if (!code && ids.length != 1)
        code = status_set(st, PLM_EUNSUPPORTED, "the tokenizer has no token \"%.*s\", with which a turn of this chat template ends (it makes %zu of it): "
                          "the model was not made for it; give it another template", (int)t->end.bytes, t->end.text, ids.length);
    if (!code)
        *id = ids.data[0];
    encoder_free(e);
    free(ids.data);
    return code;
}
