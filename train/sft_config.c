#include "train/sft_config.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/run_settings.h"

#define MAX_PHASES 1000
#define MAX_SOURCES 10000
#define MAX_ROWS (1 << 24)
#define MAX_STEPS ((int64_t)1 << 48)

static const char *const use_names[] = {"conversation", "chosen", "refine", "refine_both", NULL};
static const char *const metric_names[] = {"loss", "score", NULL};

static void read_source(struct sft_source *source, struct section *s)
{
    source->path = section_text(s, "path", setting_required_text);
    source->fields = settings_read_fields(s);
    source->weight = section_number(s, "weight", 1, 0, 1e6);
    source->use = (enum sft_use)section_choice(s, "use", USE_CONVERSATION, use_names);
    if (s->object && !(source->weight > 0))
        section_error(s, "weight", "expected a number above 0, found %g; to leave a source out, remove it", source->weight);
}

static void read_phase(struct sft_phase *p, struct section *s)
{
    p->name = section_text(s, "name", setting_required_text);
    const bool by_epochs = section_has(s, "epochs"), by_steps = section_has(s, "steps");
    if (by_epochs == by_steps)
        section_error(s, NULL, "give the length either as \"epochs\" or as \"steps\", %s", by_epochs ? "not both" : "found neither");
    if (by_steps)
        p->steps = section_int(s, "steps", SETTING_REQUIRED_INT, 1, MAX_STEPS);
    else
        p->epochs = section_number(s, "epochs", 1, 1e-6, 1e6);
    p->batch_rows = (int)section_int(s, "batch_rows", SETTING_REQUIRED_INT, 1, MAX_ROWS);
    p->peak = section_number(s, "peak", SETTING_REQUIRED_NUMBER, 0, HUGE_VAL);
    p->floor = section_number(s, "floor", 0, 0, HUGE_VAL);
    p->warmup = section_number(s, "warmup", 0, 0, HUGE_VAL);
    const char *shapes[DECAY_SHAPES + 1] = {NULL};
    for (int i = 0; i < DECAY_SHAPES; i++)
        shapes[i] = decay_shape_name((enum decay_shape)i);
    p->shape = (enum decay_shape)section_choice(s, "decay_shape", DECAY_COSINE, shapes);
    const struct schedule schedule = {.peak = p->peak, .floor = p->floor, .shape = p->shape, .decay_end = 1};
    struct plm_status st = {0};
    if (!settings_failed(s->settings) && schedule_check(&schedule, &st))
        section_error(s, NULL, "%s", st.message);
    static const char *const long_names[] = {"drop", "truncate", NULL};
    p->truncate = section_choice(s, "over_long", 0, long_names) == 1;
    p->last_turn_only = section_bool(s, "last_turn_only", false);
    p->skip_bad = section_bool(s, "skip_bad", false);
    p->reset_optimizer = section_bool(s, "reset_optimizer", false);
    const int n = section_array(s, "sources", 1, MAX_SOURCES);
    p->sources = settings_entries(s, "sources", n, sizeof *p->sources);
    for (int i = 0; i < n && p->sources; i++) {
        struct section e = section_entry(s, "sources", i);
        read_source(&p->sources[p->n_sources++], &e);
    }
}

static void read_phases(struct sft_config *c, struct section *root)
{
    const int n = section_array(root, "phases", 1, MAX_PHASES);
    c->phases = settings_entries(root, "phases", n, sizeof *c->phases);
    for (int i = 0; i < n && c->phases; i++) {
        struct section s = section_entry(root, "phases", i);
        read_phase(&c->phases[c->n_phases++], &s);
    }
}

static void read_answers(struct sft_answers_config *a, struct section *eval)
{
    if (!section_has(eval, "answers"))
        return;
    struct section s = section_object(eval, "answers");
    a->path = section_text(&s, "path", setting_required_text);
    a->fields = settings_read_fields(&s);
    a->count = section_int(&s, "count", 64, 0, INT32_MAX);
    a->max_tokens = section_int(&s, "max_tokens", 256, 1, INT32_MAX);
    a->refinements = (int)section_int(&s, "refinements", 0, 0, 1000);
    a->temperature = section_number(&s, "temperature", 0, 0, 100);
    a->batch = (int)section_int(&s, "batch", 16, 1, 4096);
    a->samples = (int)section_int(&s, "samples", 4, 0, 1000);
    struct section scorer = section_object(&s, "scorer");
    struct plm_status st = {0};
    if (scorer_open(&a->scorer, &scorer, &st) && !settings_failed(eval->settings))
        section_error(&s, "scorer", "%s", st.message);
    if (a->scorer && scorer_needs_model(a->scorer))
        section_error(&scorer, "kind", "\"%s\" needs a second model; answers are scored by a rule, a program or a file here", scorer_kind(a->scorer));
}

static void read_eval(struct sft_config *c, struct section *root)
{
    struct section s = section_object(root, "eval");
    c->eval_every = section_int(&s, "every_steps", 0, 0, MAX_STEPS);
    c->eval_at_start = section_bool(&s, "at_start", true);
    c->eval_max_rows = section_int(&s, "max_rows", 0, 0, INT64_MAX);
    c->eval_last_turn_only = section_bool(&s, "last_turn_only", false);
    const int n = section_array(&s, "sources", 0, MAX_SOURCES);
    c->eval = settings_entries(&s, "sources", n, sizeof *c->eval);
    for (int i = 0; i < n && c->eval; i++) {
        struct section e = section_entry(&s, "sources", i);
        struct sft_source *source = &c->eval[c->n_eval++];
        *source = (struct sft_source){.name = section_text(&e, "name", setting_required_text),
            .path = section_text(&e, "path", setting_required_text), .fields = settings_read_fields(&e), .weight = 1};
        source->use = (enum sft_use)section_choice(&e, "use", USE_CONVERSATION, use_names);
        for (int j = 0; j < i; j++)
            if (strcmp(c->eval[j].name, source->name) == 0 && *source->name)
                section_error(&e, "name", "\"%s\" is also the name of sources[%d]", source->name, j);
        if (strcmp(source->name, "answers") == 0)
            section_error(&e, "name", "\"answers\" is the name of the generated answers' results");
    }
    read_answers(&c->answers, &s);
}

static void read_early_stop(struct sft_config *c, struct section *root)
{
    struct section s = section_object(root, "early_stop");
    c->patience = (int)section_int(&s, "patience", 0, 0, INT_MAX);
    c->metric = (enum sft_metric)section_choice(&s, "metric", c->n_eval ? METRIC_LOSS : METRIC_SCORE, metric_names);
    if (sft_config_evaluates(c) && c->metric == METRIC_LOSS && !c->n_eval)
        section_error(&s, "metric", "\"loss\" needs eval.sources");
    if (sft_config_evaluates(c) && c->metric == METRIC_SCORE && !c->answers.path)
        section_error(&s, "metric", "\"score\" needs eval.answers");
    if (c->patience && (!c->eval_every || !sft_config_evaluates(c)))
        section_error(&s, "patience", "stopping early needs eval.every_steps, and eval.sources or eval.answers");
}

int sft_config_read(struct sft_config *c, struct settings *settings, struct plm_status *st)
{
    *c = (struct sft_config){.settings = settings};
    struct section root = settings_root(settings);
    struct section model = section_object(&root, "model");
    c->model_path = section_text(&model, "path", setting_required_text);
    c->tokenizer = section_text(&root, "tokenizer", NULL);
    c->template = section_text(&root, "template", NULL);
    c->refine_template = section_text(&root, "refine_template", NULL);
    c->run_dir = section_text(&root, "run_dir", setting_required_text);
    c->seed = (uint64_t)section_int(&root, "seed", 1, 0, INT64_MAX);
    c->threads = (int)section_int(&root, "threads", 0, 0, 4096);
    c->micro_batch = (int)section_int(&root, "micro_batch", SETTING_REQUIRED_INT, 1, MAX_ROWS);
    c->seq_len = (int)section_int(&root, "seq_len", SETTING_REQUIRED_INT, 2, MAX_ROWS);
    settings_read_optimizer(&root, &c->adamw, &c->clip);
    if ((c->adapt = section_has(&root, "lora"))) {
        struct section lora = section_object(&root, "lora");
        c->lora.rank = (int)section_int(&lora, "rank", SETTING_REQUIRED_INT, 1, 1 << 20);
        c->lora.alpha = section_number(&lora, "alpha", 2.0 * c->lora.rank, 0, 1e6);
        if (!settings_failed(settings) && !(c->lora.alpha > 0))
            section_error(&lora, "alpha", "expected a number above 0, found %g", c->lora.alpha);
    }
    c->neftune_alpha = section_number(&root, "neftune_alpha", 0, 0, 1e6);
    read_phases(c, &root);
    read_eval(c, &root);
    read_early_stop(c, &root);
    settings_read_saving(&root, 500, 2, &c->checkpoint_every, &c->checkpoint_keep, &c->log_every, &c->max_skipped);
    return settings_finish(settings, st);
}

int sft_config_load(struct sft_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st)
{
    *c = (struct sft_config){0};
    struct settings *settings;
    const int code = settings_open_with(&settings, path, overrides, n, st);
    return code ? code : sft_config_read(c, settings, st);
}

void sft_config_free(struct sft_config *c)
{
    for (int i = 0; i < c->n_phases; i++)
        free(c->phases[i].sources);
    free(c->phases);
    free(c->eval);
    scorer_close(c->answers.scorer);
    settings_close(c->settings);
    *c = (struct sft_config){0};
}

bool sft_config_evaluates(const struct sft_config *c) { return c->n_eval > 0 || c->answers.path; }

const char *const sft_config_identity[] = {"model", "seed", "seq_len", "optimizer", "lora", "neftune_alpha", "phases", NULL};

int sft_config_hash(const struct sft_config *c, char hex[65], struct plm_status *st)
{
    return settings_hash(c->settings, sft_config_identity, hex, st);
}
