#include "data/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "data/files.h"

int64_t corpus_window_tokens(int seq_len)
{
    /* 256 rows at least: about one row a window is not full, and rows are shuffled in groups of windows */
    int64_t rows = 256 * (int64_t)seq_len, least = 2 << 20;
    return rows > least ? rows : least;
}

static int check_shard(const struct shard *s, const struct corpus_options *o, struct plm_status *st)
{
    const struct shard_info *info = shard_information(s);
    if (o->tokenizer_sha256 && strcasecmp(o->tokenizer_sha256, info->tokenizer_sha256))
        return status_set(st, PLM_EINVAL, "shard '%s' was made with another tokenizer (SHA-256 %.12s..., this one is %.12s...): "
                          "build the data again with this tokenizer", shard_path(s), info->tokenizer_sha256, o->tokenizer_sha256);
    if (o->vocab_size > 0 && info->vocab_size > o->vocab_size)
        return status_set(st, PLM_EINVAL, "shard '%s' has a vocabulary of %lld tokens, the model one of %d: set the model's "
                          "vocab_size to at least that of its tokenizer", shard_path(s), (long long)info->vocab_size,
                          o->vocab_size);
    return PLM_OK;
}

static int add_window(struct corpus *c, struct corpus_window window, struct plm_status *st)
{
    if (c->n_windows == c->capacity) {
        size_t capacity = c->capacity ? 2 * (size_t)c->capacity : 64;
        struct corpus_window *windows = realloc(c->windows, capacity * sizeof *windows);
        if (windows)
            c->windows = windows;
        int64_t *rows = windows ? realloc(c->window_rows, capacity * sizeof *rows) : NULL;
        if (!rows)
            return status_no_memory(st, capacity * sizeof *windows, "the windows of a source");
        c->window_rows = rows;
        c->capacity = (int64_t)capacity;
    }
    struct packing p;
    int code = pack_documents(&p, shard_doc_offsets(c->shards[window.shard]) + window.first_document, window.n_documents,
                              c->seq_len, st);
    if (code)
        return code;
    c->windows[c->n_windows] = window;
    c->window_rows[c->n_windows++] = p.n_rows;
    c->n_rows += p.n_rows;
    c->n_inputs += p.n_inputs;
    packing_free(&p);
    return PLM_OK;
}

static int add_shard(struct corpus *c, const char *path, const struct corpus_options *o, struct plm_status *st)
{
    struct shard *s;
    int code = shard_open(&s, path, st);
    if (code)
        return code;
    c->shards[c->n_shards++] = s;
    code = check_shard(s, o, st);
    const struct shard_info *info = shard_information(s);
    const uint64_t *offsets = shard_doc_offsets(s);
    c->n_tokens += info->n_tokens;
    c->token_bytes = info->token_bytes > c->token_bytes ? info->token_bytes : c->token_bytes;
    uint64_t limit = (uint64_t)corpus_window_tokens(c->seq_len);
    for (int64_t first = 0, end = 0; !code && first < info->n_documents; first = end) {
        while (end < info->n_documents && offsets[end] - offsets[first] < limit)
            end++;
        code = add_window(c, (struct corpus_window){c->n_shards - 1, first, end - first}, st);
    }
    return code;
}

int corpus_describe(const char *path, char out[96], struct plm_status *st)
{
    struct file_list files = {0};
    int64_t tokens = 0, documents = 0;
    uint64_t hash = 0;
    int code = file_list_add(&files, path, ".h5", st);
    for (int64_t i = 0; !code && i < files.n; i++) {
        struct shard *s;
        code = shard_open(&s, files.paths[i], st);
        if (code)
            break;
        const struct shard_info *info = shard_information(s);
        tokens += info->n_tokens;
        documents += info->n_documents;
        hash = (hash ^ info->content_hash) * 0x9E3779B97F4A7C15u; /* in order: the order of the shards is that of the data */
        shard_close(s);
    }
    file_list_free(&files);
    snprintf(out, 96, "%lld tokens, %lld documents, %016llx", (long long)tokens, (long long)documents, (unsigned long long)hash);
    return code;
}

int corpus_open(struct corpus *c, const char *path, const struct corpus_options *o, struct plm_status *st)
{
    *c = (struct corpus){.seq_len = o->seq_len};
    for (int i = 0; i < CORPUS_PACKINGS; i++)
        c->packed_window[i] = -1;
    struct file_list files = {0};
    int code = file_list_add(&files, path, ".h5", st);
    if (!code && files.n == 0)
        code = status_set(st, PLM_EINVAL, "directory '%s' holds no shard (*.h5): make some with plm data build", path);
    if (!code && !(c->shards = calloc((size_t)files.n, sizeof *c->shards)))
        code = status_no_memory(st, (size_t)files.n * sizeof *c->shards, "the shards of a source");
    for (int64_t i = 0; !code && i < files.n; i++)
        code = add_shard(c, files.paths[i], o, st);
    if (!code && c->n_rows == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has nothing to predict: none of its documents has two tokens", path);
    file_list_free(&files);
    if (code)
        corpus_close(c);
    return code;
}

void corpus_close(struct corpus *c)
{
    for (int64_t i = 0; i < c->n_shards; i++)
        shard_close(c->shards[i]);
    for (int i = 0; i < CORPUS_PACKINGS; i++)
        packing_free(&c->packings[i]);
    free(c->shards);
    free(c->windows);
    free(c->window_rows);
    *c = (struct corpus){0};
}

int corpus_packing(struct corpus *c, int64_t window, const struct packing **out, struct plm_status *st)
{
    int slot = 0;
    for (int i = 0; i < CORPUS_PACKINGS; i++) {
        if (c->packed_window[i] == window) {
            slot = i;
            break;
        }
        if (c->last_use[i] < c->last_use[slot])
            slot = i;
    }
    c->last_use[slot] = ++c->clock;
    *out = &c->packings[slot];
    if (c->packed_window[slot] == window)
        return PLM_OK;
    packing_free(&c->packings[slot]);
    c->packed_window[slot] = -1;
    const struct corpus_window *w = &c->windows[window];
    int code = pack_documents(&c->packings[slot], shard_doc_offsets(c->shards[w->shard]) + w->first_document, w->n_documents,
                              c->seq_len, st);
    if (!code)
        c->packed_window[slot] = window;
    return code;
}
