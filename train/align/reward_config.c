#include "train/align/reward_config.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/run_settings.h"

#define MAX_SOURCES 10000
#define MAX_STEPS ((int64_t)1 << 48)

static void read_learning_rate(struct reward_config *c, struct section *root)
{
    struct section s = section_object(root, "learning_rate");
    const char *shapes[DECAY_SHAPES + 1] = {NULL};
    for (int i = 0; i < DECAY_SHAPES; i++)
        shapes[i] = decay_shape_name((enum decay_shape)i);
    c->peak = section_number(&s, "peak", 1e-5, 0, 1);
    c->floor = section_number(&s, "floor", 0, 0, 1);
    c->warmup = section_number(&s, "warmup", 0.05, 0, 1e9);
    c->shape = (enum decay_shape)section_choice(&s, "decay_shape", DECAY_LINEAR, shapes);
    if (!settings_failed(c->settings) && !(c->peak > 0 && c->floor <= c->peak))
        section_error(&s, "floor", "expected 0 to peak (%g), which must be above 0; found %g", c->peak, c->floor);
}

static void read_pairs(struct reward_config *c, struct section *root)
{
    struct section s = section_object(root, "pairs");
    const int n = section_array(&s, "sources", 1, MAX_SOURCES);
    c->sources = settings_entries(&s, "sources", n, sizeof *c->sources);
    for (int i = 0; i < n && c->sources; i++) {
        struct section e = section_entry(&s, "sources", i);
        c->sources[i] = (struct example_source){section_text(&e, "path", setting_required_text), settings_read_fields(&e), section_number(&e, "weight", 1, 0, 1e6)};
        if (e.object && !(c->sources[i].weight > 0))
            section_error(&e, "weight", "expected a number above 0, found %g; to leave a source out, remove it", c->sources[i].weight);
        c->n_sources++;
    }
    c->skip_bad = section_bool(&s, "skip_bad", false);
    c->held_out = section_number(&s, "held_out", 0.05, 0, 0.9);
}

static void read_eval(struct reward_config *c, struct section *root)
{
    struct section s = section_object(root, "eval");
    c->eval_every = section_int(&s, "every_steps", 0, 0, MAX_STEPS);
    c->eval_at_start = section_bool(&s, "at_start", true);
    c->eval_max = section_int(&s, "max_pairs", 0, 0, INT64_MAX);
    const int n = section_array(&s, "sources", 0, MAX_SOURCES);
    c->eval = settings_entries(&s, "sources", n, sizeof *c->eval);
    for (int i = 0; i < n && c->eval; i++) {
        struct section e = section_entry(&s, "sources", i);
        c->eval[i].name = section_text(&e, "name", setting_required_text);
        c->eval[i].source = (struct example_source){section_text(&e, "path", setting_required_text), settings_read_fields(&e), 1};
        c->n_eval++;
        bool taken = strcmp(c->eval[i].name, "held-out") == 0;
        for (int j = 0; j < i; j++)
            taken = taken || strcmp(c->eval[j].name, c->eval[i].name) == 0;
        if (taken)
            section_error(&e, "name", "\"%s\" is the name of another set already", c->eval[i].name);
    }
}

int reward_config_read(struct reward_config *c, struct settings *settings, struct plm_status *st)
{
    *c = (struct reward_config){.settings = settings};
    struct section root = settings_root(settings);
    struct section model = section_object(&root, "model");
    c->model_path = section_text(&model, "path", setting_required_text);
    c->tokenizer = section_text(&root, "tokenizer", NULL);
    c->template = section_text(&root, "template", NULL);
    c->run_dir = section_text(&root, "run_dir", setting_required_text);
    c->seed = (uint64_t)section_int(&root, "seed", 1, 0, INT64_MAX);
    c->threads = (int)section_int(&root, "threads", 0, 0, 4096);
    c->micro_batch = (int)section_int(&root, "micro_batch", 4, 1, 1 << 16);
    c->seq_len = (int)section_int(&root, "seq_len", SETTING_REQUIRED_INT, 2, 1 << 24);
    settings_read_optimizer(&root, &c->adamw, &c->clip);
    if ((c->adapt = section_has(&root, "lora"))) {
        struct section lora = section_object(&root, "lora");
        c->lora.rank = (int)section_int(&lora, "rank", SETTING_REQUIRED_INT, 1, 1 << 20);
        c->lora.alpha = section_number(&lora, "alpha", 2.0 * c->lora.rank, 0, 1e6);
        if (!settings_failed(settings) && !(c->lora.alpha > 0))
            section_error(&lora, "alpha", "expected a number above 0, found %g", c->lora.alpha);
    }
    c->epochs = section_number(&root, "epochs", 1, 1e-6, 1e6);
    c->batch_pairs = (int)section_int(&root, "batch_pairs", 32, 1, 1 << 24);
    read_learning_rate(c, &root);
    struct section loss = section_object(&root, "loss");
    c->loss.margin = section_number(&loss, "margin", 0, 0, 1e6);
    c->loss.center = section_number(&loss, "center", 0.01, 0, 1e6);
    read_pairs(c, &root);
    read_eval(c, &root);
    struct section stop = section_object(&root, "early_stop");
    c->patience = (int)section_int(&stop, "patience", 0, 0, INT_MAX);
    if (c->patience && (!c->eval_every || !(c->n_eval || c->held_out > 0)))
        section_error(&stop, "patience", "stopping early needs eval.every_steps, and pairs.held_out or eval.sources");
    settings_read_saving(&root, 0, 2, &c->checkpoint_every, &c->checkpoint_keep, &c->log_every, &c->max_skipped);
    return settings_finish(settings, st);
}

int reward_config_load(struct reward_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st)
{
    *c = (struct reward_config){0};
    struct settings *settings;
    const int code = settings_open_with(&settings, path, overrides, n, st);
    return code ? code : reward_config_read(c, settings, st);
}

void reward_config_free(struct reward_config *c)
{
    free(c->sources);
    free(c->eval);
    settings_close(c->settings);
    *c = (struct reward_config){0};
}

const char *const reward_config_identity[] = {"model", "seed", "seq_len", "optimizer", "lora", "epochs", "batch_pairs", "learning_rate", "loss", "pairs", NULL};

int reward_config_hash(const struct reward_config *c, char hex[65], struct plm_status *st)
{
    return settings_hash(c->settings, reward_config_identity, hex, st);
}

double reward_learning_rate(const struct reward_config *c, int64_t step, int64_t steps)
{
    const double end = (double)steps + 1; /* the last update is above the floor */
    const double warmup = fmin(schedule_warmup(c->warmup, (double)steps), end);
    const struct schedule s = {.peak = c->peak, .floor = c->floor, .warmup = warmup, .stable_end = warmup, .decay_end = end, .shape = c->shape};
    return schedule_rate(&s, (double)step + 1);
}
