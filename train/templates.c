#include "train/templates.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* The file to open for a template: `asked`, or the model directory's own file of that name when it has one (its path in `path`), or NULL for the built-in one. */
static const char *choose(const char *asked, const char *model_dir, const char *name, char path[PATH_MAX])
{
    if (asked)
        return asked;
    const bool there = model_dir && snprintf(path, PATH_MAX, "%s/%s", model_dir, name) < PATH_MAX && access(path, F_OK) == 0;
    return there ? path : NULL;
}

/* The special tokens of a Jinja template are the tokenizer's of the directory, where it has one. */
static int open_chat(struct chat_template **out, const char *asked, const char *model_dir, struct plm_status *st)
{
    char path[PATH_MAX];
    struct tokenizer *tokenizer = NULL;
    int code = choose(NULL, model_dir, "tokenizer.json", path) ? tokenizer_open(&tokenizer, path, st) : PLM_OK;
    if (!code)
        code = asked || !model_dir ? chat_template_open(out, asked, tokenizer, st)
                                   : directory_chat_template(out, model_dir, tokenizer, st);
    tokenizer_free(tokenizer);
    return code;
}

int templates_open(struct templates *t, const char *chat_path, const char *refine_path, const char *model_dir, struct plm_status *st)
{
    char path[PATH_MAX];
    *t = (struct templates){0};
    int code = open_chat(&t->chat, chat_path, model_dir, st);
    return code ? code : refine_template_open(&t->refine, choose(refine_path, model_dir, REFINE_TEMPLATE_FILE, path), st);
}

void templates_close(struct templates *t)
{
    chat_template_free(t->chat);
    refine_template_free(t->refine);
    *t = (struct templates){0};
}

void templates_keep(const struct templates *t, struct trainer *trainer)
{
    trainer_add_text(trainer, CHAT_TEMPLATE_FILE, chat_template_json(t->chat));
    trainer_add_text(trainer, REFINE_TEMPLATE_FILE, refine_template_text(t->refine));
}
