#include "train/export.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/model/templates.h"
#include "train/files.h"

static int no_json(struct plm_status *st) { return status_no_memory(st, 0, "the JSON files of a model directory"); }

/* dir/name as JSON, checksummed; `root` is released. The directory is a prefix of ours: the path fits. */
static int put_json(json_t *root, const char *dir, const char *name, struct export_summary *summary, struct plm_status *st)
{
    char path[PATH_MAX];
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text)
        return no_json(st);
    const size_t length = strlen(text);
    text[length] = '\n'; /* in the place of the NUL */
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int code = file_write_synced(path, text, length + 1, st);
    free(text);
    return code ? code : export_add_file(summary, path, name, 0, st);
}

static json_t *token_id(int32_t id) { return id >= 0 ? json_integer(id) : json_null(); }

/* The text of a special token, or null. */
static json_t *token_text(const struct plm_model *m, int32_t id)
{
    size_t length = 0;
    const char *text = m->tokenizer ? tokenizer_token(m->tokenizer, id, &length, NULL) : NULL;
    return text ? json_stringn(text, length) : json_null();
}

/* Whose remote code transformers runs: it has no class of its own for this architecture. */
#define REMOTE_CODE "PLM-Team/PLM-1.8B-Instruct"

/* What PLMConfig of transformers has beyond the hyper-parameters. */
static int put_config(const struct plm_model *m, const struct model_card *card, enum dtype type, const char *dir, struct export_summary *summary,
                      struct plm_status *st)
{
    static const char *const torch_names[] = {[DTYPE_F32] = "float32", [DTYPE_F16] = "float16", [DTYPE_BF16] = "bfloat16"};
    char *text = model_config_to_json(&m->config);
    json_t *root = text ? json_loads(text, 0, NULL) : NULL;
    json_t *more = json_pack("{s:f, s:i, s:b, s:o, s:o, s:s, s:{s:s, s:s}}", "attention_dropout", 0.0, "pretraining_tp", 1, "use_cache",
                             1, "eos_token_id", token_id(card->eos), "pad_token_id", token_id(card->eos), "torch_dtype", torch_names[type],
                             "auto_map", "AutoConfig", REMOTE_CODE "--configuration_plm.PLMConfig", "AutoModelForCausalLM",
                             REMOTE_CODE "--modeling_plm.PLMForCausalLM");
    free(text);
    int code = root && more && json_object_update(root, more) == 0 ? PLM_OK : no_json(st);
    if (!code && !json_object_get(root, "rope_scaling"))
        json_object_set_new(root, "rope_scaling", json_null());
    json_decref(more);
    if (!code)
        return put_json(root, dir, "config.json", summary, st);
    json_decref(root);
    return code;
}

/* A chat ends at the end of a turn as well as at the end of a text. */
static int put_generation_config(const struct plm_model *m, const struct model_card *card, const char *dir,
                                 struct export_summary *summary, struct plm_status *st)
{
    struct end_tokens ends = {0};
    json_t *eos = json_array();
    int code = model_card_ends(&ends, card, m, st);
    for (int i = 0; i < ends.n; i++)
        json_array_append_new(eos, json_integer(ends.ids[i]));
    if (!code && ends.n < 2) {
        json_decref(eos);
        eos = token_id(ends.n ? ends.ids[0] : -1);
    }
    free(ends.ids);
    json_t *root = json_pack("{s:o, s:o}", "eos_token_id", eos, "pad_token_id", token_id(card->eos));
    if (m->tokenizer && tokenizer_marks(m->tokenizer)->bos >= 0)
        json_object_set_new(root, "bos_token_id", token_id(tokenizer_marks(m->tokenizer)->bos));
    if (!code)
        return put_json(root, dir, "generation_config.json", summary, st);
    json_decref(root);
    return code;
}

/* Every added token with its id, as transformers wants to know them. */
static json_t *added_tokens(const struct plm_model *m)
{
    json_t *all = json_object();
    for (int32_t id = 0; id < tokenizer_vocab_size(m->tokenizer); id++) {
        size_t length;
        char key[16];
        const enum tokenizer_kind kind = tokenizer_kind(m->tokenizer, id);
        const char *text = tokenizer_token(m->tokenizer, id, &length, NULL);
        const unsigned traits = tokenizer_traits(m->tokenizer, id);
        if (!text || kind == TOKEN_NORMAL || kind == TOKEN_BYTE)
            continue;
        snprintf(key, sizeof key, "%d", (int)id);
        json_object_set_new(all, key, json_pack("{s:s%, s:b, s:b, s:b, s:b, s:b}", "content", text, length, "lstrip",
                                                !!(traits & ADDED_LSTRIP), "normalized", !!(traits & ADDED_NORMALIZED),
                                                "rstrip", !!(traits & ADDED_RSTRIP), "single_word",
                                                !!(traits & ADDED_SINGLE_WORD), "special", !(traits & ADDED_PLAIN)));
    }
    return all;
}

/* Kinds that tokenizer.json has no word for: {"id": kind}, with GGUF's numbers; unused ids with their texts. */
static void add_kinds(json_t *root, const struct plm_model *m)
{
    json_t *kinds = json_object(), *unused = json_object();
    for (int32_t id = 0; id < m->config.vocab_size; id++) {
        char key[16];
        size_t length;
        const enum tokenizer_kind kind = tokenizer_kind(m->tokenizer, id);
        const char *text = tokenizer_unused(m->tokenizer, id, &length);
        snprintf(key, sizeof key, "%d", (int)id);
        if (kind == TOKEN_UNKNOWN || kind == TOKEN_BYTE)
            json_object_set_new(kinds, key, json_integer(kind));
        if (text)
            json_object_set_new(unused, key, json_stringn(text, length));
    }
    if (json_object_size(kinds))
        json_object_set(root, "plm_token_kinds", kinds);
    if (json_object_size(unused))
        json_object_set(root, "plm_unused_tokens", unused);
    json_decref(kinds);
    json_decref(unused);
}

static int put_text(const char *text, size_t bytes, const char *dir, const char *name, struct export_summary *summary, struct plm_status *st)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int code = file_write_synced(path, text, bytes, st);
    return code ? code : export_add_file(summary, path, name, 0, st);
}

/* How other programs load the directory. */
static int put_readme(const char *dir, struct export_summary *summary, struct plm_status *st)
{
    static const char text[] =
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [plm]\n---\n\n"
        "A Peripheral Language Model (multi-head latent attention, squared ReLU), written by plm.c.\n\n"
        "**transformers** has no class of its own for this architecture. It runs the remote code of " REMOTE_CODE "\n"
        "(`configuration_plm.py` and `modeling_plm.py`), which `config.json` names under `auto_map`:\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "model = AutoModelForCausalLM.from_pretrained(\".\", trust_remote_code=True)\n"
        "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n\n"
        "Without a network: copy these two files into this directory and take `" REMOTE_CODE "--` out of `auto_map`.\n\n"
        "**llama.cpp** knows the architecture as `plm` and needs `-fa off`: its graph of this architecture stops with flash\n"
        "attention, which is on by default.\n\n"
        "```sh\nplm export . --type q8_0 --out model.gguf\nllama-cli -m model.gguf -fa off\n```\n\n"
        "**plm.c**:\n\n```sh\nplm generate . --prompt \"Once\"\n```\n";
    return put_text(text, sizeof text - 1, dir, "README.md", summary, st);
}

static int put_tokenizer(const struct plm_model *m, const struct model_card *card, const char *dir, struct export_summary *summary,
                         struct plm_status *st)
{
    if (!card->tokenizer)
        return PLM_OK;
    int code = put_text(card->tokenizer, card->tokenizer_bytes, dir, "tokenizer.json", summary, st);
    if (!code && m->chat_template)
        code = put_text(m->chat_template, strlen(m->chat_template), dir, CHAT_TEMPLATE_FILE, summary, st);
    if (!code && m->refine_template)
        code = put_text(m->refine_template, strlen(m->refine_template), dir, REFINE_TEMPLATE_FILE, summary, st);
    if (code)
        return code;
    const struct tokenizer_marks *marks = tokenizer_marks(m->tokenizer);
    json_t *chat = card->chat_template ? json_string(card->chat_template) : json_null();
    json_t *root = json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:n, s:i, s:b, s:o}", "tokenizer_class", "PreTrainedTokenizerFast",
                             "add_prefix_space", 0, "added_tokens_decoder", added_tokens(m), "bos_token",
                             token_text(m, marks->bos), "eos_token", token_text(m, card->eos),
                             "pad_token", token_text(m, card->eos), "unk_token", "model_max_length", m->config.max_position_embeddings,
                             "clean_up_tokenization_spaces", 0, "chat_template", chat);
    json_object_set_new(root, "add_bos_token", json_boolean(marks->add_bos));
    json_object_set_new(root, "add_eos_token", json_boolean(marks->add_eos));
    add_kinds(root, m);
    return put_json(root, dir, "tokenizer_config.json", summary, st);
}

static int write_safetensors(void *w, const void *data, size_t bytes, struct plm_status *st) { return safetensors_write(w, data, bytes, st); }

/* Tensors [begin, end) of the table as one file. */
static int put_shard(const struct plm_model *m, enum dtype type, int begin, int end, const char *dir, const char *name,
                     struct export_summary *summary, struct plm_status *st)
{
    char path[PATH_MAX];
    struct model_weights weights = m->weights;
    struct safetensors_writer *w;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    code = safetensors_set_metadata(w, "format", "pt", st); /* what Hugging Face's loader insists on */
    for (int i = begin; i < end && !code; i++) {
        const struct tensor_desc *d = &m->table.tensors[i];
        const int64_t shape[2] = {d->n_dims == 2 ? d->rows : d->cols, d->cols};
        export_count(summary, weights_slot(&weights, d), type);
        code = safetensors_declare(w, d->name, type, d->n_dims, shape, st);
    }
    for (int i = begin; i < end && !code; i++)
        code = export_tensor(weights_slot(&weights, &m->table.tensors[i]), m->table.tensors[i].name, type, write_safetensors, w, st);
    if (code) {
        safetensors_discard(w);
        return code;
    }
    code = safetensors_finish(w, st);
    return code ? code : export_add_file(summary, path, name, end - begin, st);
}

/* The end of the shard that begins with tensor `begin`: as many as fit, at least one. */
static int shard_end(const struct tensor_table *t, enum dtype type, int begin, int64_t shard_bytes)
{
    int64_t left = shard_bytes ? shard_bytes : INT64_MAX;
    int end = begin;
    while (end < t->n_tensors) {
        left -= tensor_elements(&t->tensors[end]) * dtype_info(type)->block_bytes;
        if (left < 0 && end > begin)
            break;
        end++;
    }
    return end;
}

static int put_weights(const struct plm_model *m, enum dtype type, int64_t shard_bytes, const char *dir, struct export_summary *summary,
                       struct plm_status *st)
{
    const struct tensor_table *t = &m->table;
    int n_shards = 0, code = PLM_OK;
    for (int i = 0; i < t->n_tensors; i = shard_end(t, type, i, shard_bytes))
        n_shards++;
    if (n_shards == 1)
        return put_shard(m, type, 0, t->n_tensors, dir, "model.safetensors", summary, st);
    if (n_shards > SAFETENSORS_MAX_FILES)
        return status_set(st, PLM_EINVAL, "%d files would be written, at most %d can be; choose a larger shard size", n_shards,
                          SAFETENSORS_MAX_FILES);
    json_t *map = json_object();
    for (int i = 0, shard = 1; i < t->n_tensors && !code; shard++) {
        const int end = shard_end(t, type, i, shard_bytes);
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard, n_shards);
        code = put_shard(m, type, i, end, dir, name, summary, st);
        for (; i < end; i++)
            if (json_object_set_new(map, t->tensors[i].name, json_string(name)))
                code = no_json(st);
    }
    if (code) {
        json_decref(map);
        return code;
    }
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)summary->bytes_of_type[type], "weight_map", map);
    return put_json(root, dir, SAFETENSORS_INDEX, summary, st);
}

/* A name for the directory while it is written, beside the final one. */
static int temporary_name(char out[PATH_MAX], const char *dir, struct plm_status *st)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || snprintf(out, PATH_MAX, "%.*s.tmp", (int)n, dir) >= PATH_MAX - 64) /* room for the names in it */
        return status_set(st, PLM_EINVAL, "'%.200s' is no usable name of a directory", dir);
    return PLM_OK;
}

static int check_target(const char *dir, struct plm_status *st)
{
    struct stat info;
    if (lstat(dir, &info) != 0 && errno == ENOENT)
        return PLM_OK;
    if (S_ISDIR(info.st_mode) && rmdir(dir) == 0) /* it was empty */
        return PLM_OK;
    return status_set(st, PLM_EINVAL, "'%s' is there and not an empty directory; give a new name", dir);
}

int export_hf(const struct plm_model *m, const struct model_card *card, enum dtype type, int64_t shard_bytes, const char *dir,
              struct export_summary *summary, struct plm_status *st)
{
    *summary = (struct export_summary){0};
    char temporary[PATH_MAX];
    if (!dtype_info(type)->safetensors_name)
        return status_set(st, PLM_EUNSUPPORTED, "a Hugging Face directory holds f32, f16 or bf16, not %s; quantised weights go into GGUF",
                          dtype_info(type)->name);
    int code = temporary_name(temporary, dir, st);
    if (!code)
        code = check_target(dir, st);
    if (!code)
        code = directory_remove(temporary, st); /* what a killed export left */
    if (!code && mkdir(temporary, 0777) != 0)
        code = status_set(st, PLM_EIO, "cannot create directory '%s': %s", temporary, strerror(errno));
    if (code)
        return code;
    code = put_config(m, card, type, temporary, summary, st);
    if (!code)
        code = put_generation_config(m, card, temporary, summary, st);
    if (!code)
        code = put_tokenizer(m, card, temporary, summary, st);
    if (!code)
        code = put_weights(m, type, shard_bytes, temporary, summary, st);
    if (!code)
        code = put_readme(temporary, summary, st);
    if (!code)
        code = directory_sync(temporary, st);
    if (!code && rename(temporary, dir) != 0)
        code = status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, dir, strerror(errno));
    if (code) {
        directory_remove(temporary, NULL);
        return code;
    }
    return directory_sync(dirname(temporary), st);
}
