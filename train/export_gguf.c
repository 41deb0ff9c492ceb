#include "train/export.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/base/log.h"
#include "infer/model/templates.h"

#define GGUF_QUANTIZATION_VERSION 2

/* As llama.cpp reads it, which makes the attention factor of YaRN larger by 1 + 0.1 ln(factor). */
static int put_rope_scaling(struct gguf_writer *w, const struct rope_scaling *s, struct plm_status *st)
{
    const char *name = rope_scaling_name(s);
    const bool yarn = s->type == ROPE_YARN;
    const double attention = rope_magnitude(s) / (yarn && s->mix != 0 ? 1 + 0.1 * log((double)s->factor) : 1);
    if (s->logit_factor > 0 && s->logit_factor != 1)
        return status_set(st, PLM_EUNSUPPORTED, "GGUF has no word for this model's mscale_all_dim (attention logits times %g)", (double)s->logit_factor);
    if (yarn && s->untruncated)
        return status_set(st, PLM_EUNSUPPORTED, "GGUF has no word for YaRN with \"truncate\": false");
    int code = s->type == ROPE_UNSCALED ? PLM_OK : gguf_set_string(w, "plm.rope.scaling.type", name, strlen(name), st);
    if (!code && s->type != ROPE_UNSCALED)
        code = gguf_set_f32(w, "plm.rope.scaling.factor", s->factor, st);
    if (!code && fabs(attention - 1) > 1e-6)
        code = gguf_set_f32(w, "plm.rope.scaling.attn_factor", (float)attention, st);
    if (!code && yarn)
        code = gguf_set_u32(w, "plm.rope.scaling.original_context_length", (uint32_t)s->original, st);
    if (!code && yarn && s->mix != 1)
        code = gguf_set_f32(w, "plm.rope.scaling.yarn_ext_factor", s->mix, st);
    if (!code && yarn && s->beta_fast != 32)
        code = gguf_set_f32(w, "plm.rope.scaling.yarn_beta_fast", s->beta_fast, st);
    if (!code && yarn && s->beta_slow != 1)
        code = gguf_set_f32(w, "plm.rope.scaling.yarn_beta_slow", s->beta_slow, st);
    return code;
}

int export_put_config(struct gguf_writer *w, const struct model_config *c, enum dtype type, const char *name, struct plm_status *st)
{
    int code = gguf_set_string(w, "general.architecture", "plm", 3, st);
    if (!code)
        code = gguf_set_string(w, "general.name", name, strlen(name), st);
    if (!code)
        code = gguf_set_u32(w, "general.file_type", dtype_info(type)->gguf_file_type, st);
    if (!code)
        code = gguf_set_u32(w, "general.quantization_version", GGUF_QUANTIZATION_VERSION, st);
    for (int i = 0; i < model_config_n_fields && !code; i++) {
        const struct model_config_field *f = &model_config_fields[i];
        if (!f->gguf_key)
            continue;
        char key[96];
        const char *at = (const char *)c + f->offset;
        snprintf(key, sizeof key, "plm.%s", f->gguf_key);
        code = f->is_float ? gguf_set_f32(w, key, *(const float *)(const void *)at, st) : gguf_set_u32(w, key, (uint32_t)*(const int *)(const void *)at, st);
    }
    if (!code)
        code = gguf_set_u32(w, "plm.attention.head_count_kv", (uint32_t)c->num_attention_heads, st);
    if (!code)
        code = gguf_set_u32(w, "plm.attention.key_length", (uint32_t)model_qk_head_dim(c), st);
    if (!code)
        code = gguf_set_u32(w, "plm.attention.value_length", (uint32_t)c->v_head_dim, st);
    return code ? code : put_rope_scaling(w, &c->rope_scaling, st);
}

/* Texts of a growing list: all in one buffer, as offsets until it stops moving. */
struct texts {
    char *data;
    size_t used, capacity;
    size_t *start, *length;
    uint64_t n;
};

static bool texts_reserve(struct texts *t, uint64_t n, size_t bytes)
{
    t->capacity = bytes;
    t->data = malloc(bytes ? bytes : 1);
    t->start = calloc(n ? n : 1, sizeof *t->start);
    t->length = calloc(n ? n : 1, sizeof *t->length);
    return t->data && t->start && t->length;
}

static void texts_free(struct texts *t)
{
    free(t->data);
    free(t->start);
    free(t->length);
}

static void texts_begin(struct texts *t) { t->start[t->n] = t->used; }

static void texts_end(struct texts *t)
{
    t->length[t->n] = t->used - t->start[t->n];
    t->n++;
}

/* A token as vocab files hold it: the printable form of its bytes, added tokens as they are. */
static void texts_put_token(struct texts *t, const struct tokenizer *k, int32_t id)
{
    size_t n;
    const enum tokenizer_kind kind = tokenizer_kind(k, id);
    const char *bytes = tokenizer_token(k, id, &n, NULL);
    if (kind != TOKEN_NORMAL && kind != TOKEN_BYTE && n <= t->capacity - t->used) {
        memcpy(t->data + t->used, bytes, n);
        t->used += n;
    } else {
        t->used += tokenizer_printable(bytes, n, t->data + t->used, t->capacity - t->used);
    }
}

static int put_texts(struct gguf_writer *w, const char *key, const struct texts *t, struct plm_status *st)
{
    const char **text = calloc(t->n ? t->n : 1, sizeof *text);
    if (!text)
        return status_no_memory(st, t->n * sizeof *text, key);
    for (uint64_t i = 0; i < t->n; i++)
        text[i] = t->data + t->start[i];
    int code = gguf_set_strings(w, key, text, t->length, t->n, st);
    free(text);
    return code;
}

static size_t vocabulary_bytes(const struct tokenizer *k, int32_t vocab)
{
    size_t total = 0;
    for (int32_t id = 0; id < vocab; id++) {
        size_t n = 0;
        if (!tokenizer_token(k, id, &n, NULL))
            tokenizer_unused(k, id, &n);
        total += n;
    }
    return total;
}

static int put_tokens(struct gguf_writer *w, const struct plm_model *m, struct plm_status *st)
{
    const int32_t vocab = m->config.vocab_size;
    struct texts t = {0};
    int32_t *types = calloc((size_t)vocab, sizeof *types);
    int code = PLM_OK;
    if (!types || !texts_reserve(&t, (uint64_t)vocab, 2 * vocabulary_bytes(m->tokenizer, vocab) + 24 * (size_t)vocab))
        code = status_no_memory(st, 32 * (size_t)vocab, "the token list");
    for (int32_t id = 0; id < vocab && !code; id++) {
        size_t n;
        const char *text = tokenizer_unused(m->tokenizer, id, &n);
        const enum tokenizer_kind kind = tokenizer_kind(m->tokenizer, id);
        texts_begin(&t);
        types[id] = kind == TOKEN_NONE ? TOKEN_UNUSED : (int32_t)kind;
        if (kind != TOKEN_NONE) {
            texts_put_token(&t, m->tokenizer, id);
        } else if (text) {
            memcpy(t.data + t.used, text, n);
            t.used += n;
        } else { /* rows of the embedding without a token */
            t.used += (size_t)snprintf(t.data + t.used, t.capacity - t.used, "[PAD%d]", (int)id);
        }
        texts_end(&t);
    }
    if (!code)
        code = put_texts(w, "tokenizer.ggml.tokens", &t, st);
    if (!code)
        code = gguf_set_i32s(w, "tokenizer.ggml.token_type", types, (uint64_t)vocab, st);
    texts_free(&t);
    free(types);
    return code;
}

static int put_merges(struct gguf_writer *w, const struct tokenizer *k, struct plm_status *st)
{
    const int32_t n = tokenizer_n_merges(k);
    struct texts t = {0};
    size_t bytes = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t side[2];
        tokenizer_merge(k, i, &side[0], &side[1]);
        for (int s = 0; s < 2; s++) {
            size_t length = 0;
            tokenizer_token(k, side[s], &length, NULL);
            bytes += 2 * length + 1;
        }
    }
    int code = texts_reserve(&t, (uint64_t)n, bytes) ? PLM_OK : status_no_memory(st, bytes, "the merge list");
    for (int32_t i = 0; i < n && !code; i++) {
        int32_t left, right;
        tokenizer_merge(k, i, &left, &right);
        texts_begin(&t);
        texts_put_token(&t, k, left);
        t.data[t.used++] = ' ';
        texts_put_token(&t, k, right);
        texts_end(&t);
    }
    if (!code)
        code = put_texts(w, "tokenizer.ggml.merges", &t, st);
    texts_free(&t);
    return code;
}

/* What llama.cpp does not know about added tokens: [id, traits, ...] of those that have any. */
static int put_traits(struct gguf_writer *w, const struct tokenizer *k, struct plm_status *st)
{
    const int32_t vocab = tokenizer_vocab_size(k);
    int32_t *pairs = calloc(2 * (size_t)vocab + 1, sizeof *pairs);
    uint64_t n = 0;
    if (!pairs)
        return status_no_memory(st, 2 * (size_t)vocab * sizeof *pairs, "traits of added tokens");
    for (int32_t id = 0; id < vocab; id++) {
        const unsigned traits = tokenizer_traits(k, id);
        if (traits & ~(unsigned)ADDED_PLAIN) {
            pairs[n++] = id;
            pairs[n++] = (int32_t)traits;
        }
    }
    if (n)
        log_info("%llu added tokens have traits (normalized, lstrip, rstrip, single_word) that llama.cpp does not "
                 "know; " ADDED_TRAITS_KEY " keeps them",
                 (unsigned long long)(n / 2));
    const int code = n ? gguf_set_i32s(w, ADDED_TRAITS_KEY, pairs, n, st) : PLM_OK;
    free(pairs);
    return code;
}

/* What begins and ends a text, in llama.cpp's keys and exactly. */
static int put_ends(struct gguf_writer *w, const struct plm_model *m, const struct model_card *card,
                    struct plm_status *st)
{
    const struct tokenizer_marks *marks = tokenizer_marks(m->tokenizer);
    struct end_tokens ends;
    int code = model_card_ends(&ends, card, m, st);
    if (!code && marks->bos >= 0)
        code = gguf_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)marks->bos, st);
    if (!code && card->eos >= 0)
        code = gguf_set_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)card->eos, st);
    if (!code && card->turn_end >= 0)
        code = gguf_set_u32(w, "tokenizer.ggml.eot_token_id", (uint32_t)card->turn_end, st);
    if (!code)
        code = gguf_set_bool(w, "tokenizer.ggml.add_bos_token", marks->add_bos, st);
    if (!code && marks->add_eos)
        code = gguf_set_bool(w, "tokenizer.ggml.add_eos_token", true, st);
    if (!code && ends.n)
        code = gguf_set_i32s(w, END_TOKENS_KEY, ends.ids, (uint64_t)ends.n, st);
    free(ends.ids);
    return code;
}

int export_put_no_tokenizer(struct gguf_writer *w, struct plm_status *st) { return gguf_set_string(w, "tokenizer.ggml.model", "no_vocab", 8, st); }

static int put_tokenizer(struct gguf_writer *w, const struct plm_model *m, const struct model_card *card, struct plm_status *st)
{
    if (!m->tokenizer)
        return export_put_no_tokenizer(w, st);
    int code = gguf_set_string(w, "tokenizer.ggml.model", "gpt2", 4, st);
    if (!code)
        code = gguf_set_string(w, "tokenizer.ggml.pre", "qwen2", 5, st);
    if (!code)
        code = put_tokens(w, m, st);
    if (!code)
        code = put_merges(w, m->tokenizer, st);
    if (!code)
        code = put_traits(w, m->tokenizer, st);
    const struct tokenizer_pipeline *pipeline = tokenizer_pipeline(m->tokenizer);
    if (!code && pipeline->no_nfc)
        code = gguf_set_bool(w, NO_NFC_KEY, true, st);
    if (!code && pipeline->ignore_merges)
        log_info("llama.cpp applies merges where this tokenizer ignores them (ignore_merges); " IGNORE_MERGES_KEY
                 " keeps that");
    if (!code && pipeline->ignore_merges)
        code = gguf_set_bool(w, IGNORE_MERGES_KEY, true, st);
    if (!code)
        code = put_ends(w, m, card, st);
    if (!code && card->chat_template)
        code = gguf_set_string(w, "tokenizer.chat_template", card->chat_template, strlen(card->chat_template), st);
    if (!code && m->chat_template)
        code = gguf_set_string(w, CHAT_TEMPLATE_KEY, m->chat_template, strlen(m->chat_template), st);
    if (!code && m->refine_template)
        code = gguf_set_string(w, REFINE_TEMPLATE_KEY, m->refine_template, strlen(m->refine_template), st);
    return code;
}

/* llama.cpp's use_more_bits. */
static bool gets_more_bits(const struct tensor_desc *d, int n_layer)
{
    int eighth = n_layer / 8;
    return d->role == TENSOR_EMBED ||
           (d->role == TENSOR_DOWN && (d->layer < eighth || d->layer >= 7 * n_layer / 8 || (d->layer - eighth) % 3 == 2));
}

static enum dtype wanted_type(const struct tensor_desc *d, const struct export_type *type, int n_layer)
{
    if (d->n_dims == 1)
        return DTYPE_F32;
    return type->more_bits && gets_more_bits(d, n_layer) ? DTYPE_Q6_K : type->type;
}

static enum dtype stored_type(const struct tensor_desc *d, const struct export_type *type, int n_layer)
{
    enum dtype wanted = wanted_type(d, type, n_layer);
    if (dtype_row_bytes(wanted, d->cols))
        return wanted;
    return dtype_row_bytes(DTYPE_Q8_0, d->cols) ? DTYPE_Q8_0 : DTYPE_F16;
}

static void note_fallback(struct export_summary *summary, const struct tensor_desc *d, enum dtype type)
{
    if (!summary->n_fallback++)
        snprintf(summary->first_fallback, sizeof summary->first_fallback, "%s", d->gguf_name);
    const char *kind = d->layer < 0 ? d->gguf_name : strchr(d->gguf_name + strlen("blk."), '.') + 1;
    char text[96];
    snprintf(text, sizeof text, "%s (%s)", kind, dtype_info(type)->name);
    size_t used = strlen(summary->fallbacks);
    if (!strstr(summary->fallbacks, text))
        snprintf(summary->fallbacks + used, sizeof summary->fallbacks - used, "%s%s", used ? ", " : "", text);
}

static int write_gguf(void *w, const void *data, size_t bytes, struct plm_status *st) { return gguf_write(w, data, bytes, st); }

static int put_tensors(struct gguf_writer *w, const struct plm_model *m, const struct export_type *type, struct export_summary *summary,
                       struct plm_status *st)
{
    struct model_weights weights = m->weights;
    const int n_layer = m->config.num_hidden_layers;
    int code = PLM_OK;
    for (int i = 0; i < m->table.n_tensors && !code; i++) {
        const struct tensor_desc *d = &m->table.tensors[i];
        const enum dtype stored = stored_type(d, type, n_layer);
        export_count(summary, weights_slot(&weights, d), stored);
        if (stored != wanted_type(d, type, n_layer))
            note_fallback(summary, d, stored);
        const int64_t shape[2] = {d->n_dims == 2 ? d->rows : d->cols, d->cols};
        code = gguf_declare(w, d->gguf_name, stored, d->n_dims, shape, st);
    }
    for (int i = 0; i < m->table.n_tensors && !code; i++) {
        const struct tensor_desc *d = &m->table.tensors[i];
        code = export_tensor(weights_slot(&weights, d), d->gguf_name, stored_type(d, type, n_layer), write_gguf, w, st);
    }
    return code;
}

int export_gguf(const struct plm_model *m, const struct model_card *card, const struct export_type *type, const char *name, const char *path,
                struct export_summary *summary, struct plm_status *st)
{
    *summary = (struct export_summary){0};
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", path);
    struct stat there;
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode)) /* the rename below would replace a device or a pipe */
        return status_set(st, PLM_EINVAL, "'%s' is there and not a regular file; give a new file's name", path);
    struct gguf_writer *w;
    int code = gguf_create(&w, temporary, st);
    if (code)
        return code;
    code = export_put_config(w, &m->config, type->type, name, st);
    if (!code)
        code = put_tokenizer(w, m, card, st);
    if (!code)
        code = put_tensors(w, m, type, summary, st);
    if (code) {
        gguf_discard(w);
        return code;
    }
    code = gguf_finish(w, st);
    if (!code && rename(temporary, path) != 0)
        code = status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, path, strerror(errno));
    if (code)
        remove(temporary);
    const char *slash = strrchr(path, '/');
    return code ? code : export_add_file(summary, path, slash ? slash + 1 : path, summary->n_tensors, st);
}
