#include "infer/model/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/base/log.h"
#include "infer/model/neurons.h"
#include "infer/model/templates.h"

#define CONFIG_LIMIT ((size_t)1 << 20)     /* bytes of a config.json */
#define TOKENIZER_LIMIT ((size_t)256 << 20) /* bytes of a tokenizer.json */

int file_read_text(char **out, size_t *length, const char *path, size_t limit, struct plm_status *st)
{
    *out = NULL;
    struct mapped_file m;
    int code = mapped_open(&m, path, st);
    if (code)
        return code;
    if (m.size > limit)
        code = status_set(st, PLM_ELIMIT, "'%s' has %zu bytes, at most %zu are expected", path, m.size, limit);
    else if (!(*out = malloc(m.size + 1)))
        code = status_no_memory(st, m.size + 1, path);
    if (!code) {
        if (m.size)
            memcpy(*out, m.data, m.size);
        (*out)[m.size] = 0;
        *length = m.size;
    }
    mapped_close(&m);
    return code;
}

/* GGUF counts dimensions of 1 behind the last as not there; some writers store them. */
static void drop_outer_ones(struct stored_tensor *s, int n_dims)
{
    while (s->n_dims > n_dims && s->shape[0] == 1) {
        s->n_dims--;
        memmove(s->shape, s->shape + 1, (size_t)s->n_dims * sizeof *s->shape);
    }
}

static int check_shape(const struct stored_tensor *s, const struct tensor_desc *d, struct plm_status *st)
{
    int64_t rows = d->n_dims == 2 ? d->rows : 1;
    bool fits = s->n_dims == d->n_dims && s->shape[s->n_dims - 1] == d->cols && (d->n_dims == 1 || s->shape[0] == rows);
    if (fits)
        return PLM_OK;
    return status_set(st, PLM_EFORMAT, "tensor '%s': shape has %d dimensions (%lld, ...), the configuration wants (%lld, %lld)", s->name,
                      s->n_dims, (long long)s->shape[0], (long long)rows, (long long)d->cols);
}

static int lookup(const struct plm_model *m, const struct tensor_desc *d, struct stored_tensor *out, struct plm_status *st)
{
    if (m->gguf) {
        int code = gguf_tensor(m->gguf, d->gguf_name, out, st);
        if (!code)
            drop_outer_ones(out, d->n_dims);
        return code;
    }
    const struct stored_tensor *s = safetensors_set_find(&m->safetensors, d->name);
    const char *type = s ? NULL : safetensors_set_other_type(&m->safetensors, d->name);
    if (type)
        return status_set(st, PLM_EUNSUPPORTED, "tensor '%s' has type %.32s; F32, F16, BF16 and F64 can be read: convert it", d->name, type);
    if (!s)
        return status_set(st, PLM_EFORMAT, "tensor '%s' is missing", d->name);
    *out = *s;
    return PLM_OK;
}

/* Norms take part in every number that follows and are small: they are looked at when a model is opened. (Matrices are not read
 * before they are used; a NaN there is found in the logits, and by name when the model is exported.) */
static int check_norm(const struct weight *w, const char *name, struct plm_status *st)
{
    for (int64_t i = 0; i < w->cols; i++)
        if (!isfinite(weight_f32(w)[i]))
            return status_set(st, PLM_EFORMAT, "tensor '%s': element %lld is %g; the file is damaged, or training diverged", name, (long long)i,
                              (double)weight_f32(w)[i]);
    return PLM_OK;
}

/* A separate output head is fine when it says what tying says. */
static int check_head(const struct stored_tensor *head, const struct weight *embed, struct plm_status *st)
{
    const size_t bytes = dtype_row_bytes(embed->type, embed->cols) * (size_t)embed->rows;
    if (head->n_dims == 2 && head->shape[0] == embed->rows && head->type == embed->type && head->bytes == bytes && !memcmp(head->data, embed->data, bytes))
        return PLM_OK;
    return status_set(st, PLM_EUNSUPPORTED, "tensor '%s' differs from the embedding; a PLM's output head is the embedding (tied): untied models cannot be run",
                      head->name);
}

/* Name of stored tensor i, those of types that nothing here computes with behind the rest. */
static const char *stored_name(const struct plm_model *m, int i)
{
    if (m->gguf)
        return gguf_tensor_name(m->gguf, i);
    const struct stored_tensor *s = safetensors_set_at(&m->safetensors, i);
    return s ? s->name : safetensors_set_other_name(&m->safetensors, i - m->safetensors.n_tensors);
}

/* Tensors beyond those of the table. */
static int check_others(const struct plm_model *m, struct plm_status *st)
{
    const int n_stored = m->gguf ? gguf_n_tensors(m->gguf) : m->safetensors.n_tensors + m->safetensors.n_others;
    int code = PLM_OK, n_derived = 0;
    const char *derived = NULL;
    for (int i = 0; i < n_stored && n_stored != m->table.n_tensors && !code; i++) {
        const char *name = stored_name(m, i);
        struct stored_tensor head;
        if (tensor_table_find(&m->table, name))
            continue;
        if (tensor_is_derived(name)) {
            derived = n_derived++ ? derived : name;
            continue;
        }
        if (!m->gguf && safetensors_set_other_type(&m->safetensors, name))
            return status_set(st, PLM_EFORMAT, "unknown tensor '%s' (of type %.32s)", name,
                              safetensors_set_other_type(&m->safetensors, name));
        if (strcmp(name, m->gguf ? "output.weight" : "lm_head.weight") != 0)
            return status_set(st, PLM_EFORMAT, "unknown tensor '%s': a PLM of this configuration has %d tensors, the file has %d", name,
                              m->table.n_tensors, n_stored);
        if (m->gguf)
            code = gguf_tensor(m->gguf, name, &head, st);
        else
            head = *safetensors_set_at(&m->safetensors, i);
        if (!code)
            code = check_head(&head, &m->weights.embed, st);
    }
    if (!code && n_derived)
        log_info("%d tensors are left out, which hold what the configuration says: '%s'%s", n_derived, derived,
                 n_derived > 1 ? " and so on" : "");
    if (!code && m->safetensors.n_narrowed)
        log_info("%d tensors are F64 and were converted to float32", m->safetensors.n_narrowed);
    return code;
}

/* Point every weight into the mapped file; norms in 16 bits are widened into the arena `norms` (two passes: measure, fill). */
static int bind_weights(struct plm_model *m, struct plm_status *st)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < m->table.n_tensors; i++) {
            const struct tensor_desc *d = &m->table.tensors[i];
            struct stored_tensor s;
            int code = lookup(m, d, &s, st);
            if (!code)
                code = check_shape(&s, d, st);
            if (code)
                return code;
            struct weight *slot = weights_slot(&m->weights, d);
            *slot = (struct weight){.data = s.data, .type = s.type, .rows = d->rows, .cols = d->cols, .mapped = !s.copied};
            if (d->n_dims == 1 && s.type != DTYPE_F32) {
                float *wide = arena_alloc(&m->norms, (size_t)d->cols, sizeof *wide);
                if (pass)
                    dtype_to_f32(s.type, wide, s.data, d->cols);
                *slot = (struct weight){wide, DTYPE_F32, 1, d->cols};
            }
            if (pass && d->n_dims == 1)
                code = check_norm(slot, s.name, st);
            if (code)
                return code;
        }
        int code = pass ? PLM_OK : arena_commit(&m->norms, 0, "norm weights", st);
        if (code)
            return code;
    }
    return check_others(m, st);
}

static int open_tokenizer_json(struct plm_model *m, const char *path, struct plm_status *st)
{
    struct stat info;
    if (stat(path, &info) != 0 && errno == ENOENT)
        return PLM_OK; /* optional: such a model takes and gives token ids */
    char *text;
    size_t length;
    int code = file_read_text(&text, &length, path, TOKENIZER_LIMIT, st);
    if (!code)
        code = tokenizer_from_json(&m->tokenizer, text, length, path, st);
    free(text);
    return code;
}

static int open_directory(struct plm_model *m, const char *path, struct plm_status *st)
{
    char file[4096];
    char *text;
    size_t length;
    if (snprintf(file, sizeof file, "%s/config.json", path) >= (int)sizeof file - 32)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", path);
    int code = file_read_text(&text, &length, file, CONFIG_LIMIT, st);
    if (!code)
        code = model_config_from_json(&m->config, text, length, file, st);
    free(text);
    if (code)
        return code;
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    code = open_tokenizer_json(m, file, st);
    if (!code && m->tokenizer)
        code = tokenizer_read_config(m->tokenizer, file, st);
    if (code)
        return code;
    return safetensors_set_open(&m->safetensors, path, st);
}

static int open_gguf(struct plm_model *m, const char *path, struct plm_status *st)
{
    int code = gguf_open(&m->gguf, path, st);
    if (!code)
        code = gguf_read_config(&m->config, m->gguf, st);
    if (!code)
        code = gguf_read_tokenizer(&m->tokenizer, m->gguf, st);
    return code;
}

/* What the model's files say, and the end of a turn in the template it was trained with. */
static int read_ends(struct plm_model *m, const char *path, struct plm_status *st)
{
    struct chat_template *chat = NULL;
    int32_t turn_end = -1;
    int code = m->gguf ? end_tokens_read_gguf(&m->ends, m->tokenizer, m->config.vocab_size, m->gguf, st)
                       : end_tokens_read_directory(&m->ends, m->tokenizer, m->config.vocab_size, path, st);
    if (code || !model_has_chat_template(m) || !m->tokenizer)
        return code;
    if (model_chat_template(&chat, m, NULL, NULL) == PLM_OK &&
        chat_template_end(chat, m->tokenizer, &turn_end, NULL) == PLM_OK)
        code = end_tokens_add(&m->ends, turn_end, st); /* a template that is no good is an error where it is used */
    chat_template_free(chat);
    return code;
}

int plm_model_open(struct plm_model **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0)
        return status_set(st, PLM_EIO, "cannot open model '%s': %s", path, strerror(errno));
    struct plm_model *m = calloc(1, sizeof *m);
    if (!m)
        return status_no_memory(st, sizeof *m, "a model");
    int code = S_ISDIR(info.st_mode) ? open_directory(m, path, st) : open_gguf(m, path, st);
    if (!code)
        code = model_read_templates(m, path, st);
    if (!code)
        code = read_ends(m, path, st);
    if (!code)
        code = tensor_table_build(&m->table, &m->config, 1, st);
    if (!code)
        code = weights_create(&m->weights, &m->config, st);
    if (!code)
        code = neurons_create(&m->neurons, st);
    if (!code)
        code = bind_weights(m, st);
    if (!code && m->tokenizer && tokenizer_vocab_size(m->tokenizer) > m->config.vocab_size)
        code = status_set(st, PLM_EFORMAT, "the tokenizer has %d tokens, the embedding only %d rows", (int)tokenizer_vocab_size(m->tokenizer),
                          m->config.vocab_size);
    if (code) {
        plm_model_close(m);
        return status_prefix(st, "model '%s'", path);
    }
    *out = m;
    return PLM_OK;
}

void plm_model_close(struct plm_model *m)
{
    if (!m)
        return;
    tokenizer_free(m->tokenizer);
    free(m->ends.ids);
    free(m->chat_template);
    free(m->refine_template);
    brought_template_free(&m->brought);
    neurons_free(m->neurons);
    weights_free(&m->weights);
    tensor_table_free(&m->table);
    safetensors_set_close(&m->safetensors);
    gguf_close(m->gguf);
    arena_free(&m->norms);
    free(m);
}

int plm_model_vocab_size(const struct plm_model *m) { return m->config.vocab_size; }

int plm_model_context_length(const struct plm_model *m) { return m->config.max_position_embeddings; }

static int tokenize(const struct plm_model *m, const char *text, size_t text_bytes, bool whole, bool parse_special,
                    int32_t *tokens, size_t capacity, size_t *n_tokens, struct plm_status *st)
{
    *n_tokens = 0;
    if (!m->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer; give it token ids");
    struct encoder *e;
    struct token_list ids = {0};
    int code = encoder_create(&e, m->tokenizer, st);
    if (code)
        return code;
    code = whole ? encoder_encode_whole(e, text, text_bytes, parse_special, &ids, st)
                 : encoder_encode(e, text, text_bytes, parse_special, &ids, st);
    encoder_free(e);
    if (!code) {
        *n_tokens = ids.length;
        if (ids.length > capacity)
            code = status_set(st, PLM_ELIMIT, "the text has %zu tokens, there is room for %zu", ids.length, capacity);
        else if (ids.length)
            memcpy(tokens, ids.data, ids.length * sizeof *tokens);
    }
    free(ids.data);
    return code;
}

int plm_tokenize(const struct plm_model *m, const char *text, size_t text_bytes, bool parse_special, int32_t *tokens,
                 size_t capacity, size_t *n_tokens, struct plm_status *st)
{
    return tokenize(m, text, text_bytes, true, parse_special, tokens, capacity, n_tokens, st);
}

int plm_tokenize_piece(const struct plm_model *m, const char *text, size_t text_bytes, bool parse_special,
                       int32_t *tokens, size_t capacity, size_t *n_tokens, struct plm_status *st)
{
    return tokenize(m, text, text_bytes, false, parse_special, tokens, capacity, n_tokens, st);
}

size_t plm_token_bytes(const struct plm_model *m, int32_t token, bool special, const char **bytes)
{
    size_t length = 0;
    bool is_special = false;
    *bytes = m->tokenizer ? tokenizer_token(m->tokenizer, token, &length, &is_special) : NULL;
    return *bytes && (special || !is_special) ? length : 0;
}

int32_t plm_token_eos(const struct plm_model *m)
{
    const int32_t eos = m->tokenizer ? tokenizer_eos(m->tokenizer) : -1;
    return eos < 0 && m->ends.n ? m->ends.ids[0] : eos;
}

int32_t plm_token_bos(const struct plm_model *m)
{
    return m->tokenizer ? tokenizer_marks(m->tokenizer)->bos : -1;
}

const int32_t *plm_end_tokens(const struct plm_model *m, size_t *n)
{
    *n = (size_t)m->ends.n;
    return m->ends.ids;
}

bool plm_token_ends(const struct plm_model *m, int32_t token)
{
    return end_tokens_has(&m->ends, token);
}
