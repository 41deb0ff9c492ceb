#include "train/curriculum.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run_settings.h"

#define MAX_PHASES 1000
#define MAX_SOURCES 10000
#define MAX_ROWS (1 << 24)
#define MAX_STEPS ((int64_t)1 << 48)

static const char *const part_names[] = {"stable", "decay", "constant", NULL};
static const char *const unit_names[] = {"tokens", "steps", NULL};

/* A float's default in the fewest digits, so that the saved configuration says 1e-06 and not 9.99999997e-07. */
static double short_double(float x)
{
    char text[32];
    snprintf(text, sizeof text, "%g", (double)x);
    return strtod(text, NULL);
}

/* "rope_scaling" or "rope_parameters" of the model, as config.json has them. */
static void read_rope(struct run_config *c, struct section *s)
{
    const bool has_scaling = section_has(s, "rope_scaling"), has_parameters = section_has(s, "rope_parameters");
    struct plm_status st = {0};
    if (!s->object || (!has_scaling && !has_parameters))
        return;
    char *text = json_dumps(s->object, 0);
    const int code = text ? model_config_rope_from_json(&c->model, text, strlen(text), "model", &st)
                          : status_no_memory(&st, 0, "the model's settings");
    free(text);
    if (code)
        section_error(s, NULL, "%s", st.message);
}

static void read_model(struct run_config *c, struct section *root)
{
    struct section s = section_object(root, "model");
    c->model_path = section_text(&s, "path", NULL);
    if (c->model_path)
        return;
    c->model = model_config_default();
    for (int i = 0; i < model_config_n_fields; i++) {
        const struct model_config_field *f = &model_config_fields[i];
        char *field = (char *)&c->model + f->offset;
        if (f->is_float) {
            double value = f->required ? SETTING_REQUIRED_NUMBER : short_double(*(float *)field);
            *(float *)field = (float)section_number(&s, f->name, value, 0, HUGE_VAL);
        } else {
            int64_t value = f->required ? SETTING_REQUIRED_INT : *(int *)field;
            *(int *)field = (int)section_int(&s, f->name, value, 1, INT_MAX);
        }
    }
    read_rope(c, &s);
    struct plm_status st = {0};
    if (!settings_failed(c->settings) && model_config_check(&c->model, "model", &st))
        section_error(root, NULL, "%s", st.message);
}

static void read_phase(struct run_config *c, struct phase *p, struct section *s)
{
    p->name = section_text(s, "name", setting_required_text);
    p->part = (enum schedule_part)section_choice(s, "schedule", -1, part_names);
    int max_len = c->model_path ? MAX_ROWS : c->model.max_position_embeddings;
    p->seq_len = (int)section_int(s, "seq_len", SETTING_REQUIRED_INT, 1, max_len > 0 ? max_len : 1);
    p->batch_rows = (int)section_int(s, "batch_rows", SETTING_REQUIRED_INT, 1, MAX_ROWS);
    p->step_tokens = (int64_t)p->batch_rows * p->seq_len;
    bool by_tokens = section_has(s, "tokens"), by_steps = section_has(s, "steps");
    if (by_tokens == by_steps)
        section_error(s, NULL, "give the budget either as \"tokens\" or as \"steps\", %s",
                      by_tokens ? "not both" : "found neither");
    if (by_steps) {
        p->steps = section_int(s, "steps", SETTING_REQUIRED_INT, 1, MAX_STEPS);
    } else {
        int64_t tokens = section_int(s, "tokens", 1, 1, INT64_MAX / 2);
        p->steps = (tokens - 1) / p->step_tokens + 1;
    }
    p->n_sources = section_array(s, "mixture", 1, MAX_SOURCES);
    p->mixture = settings_entries(s, "mixture", p->n_sources, sizeof *p->mixture);
    for (int i = 0; i < p->n_sources && p->mixture; i++) {
        struct section e = section_entry(s, "mixture", i);
        p->mixture[i].path = section_text(&e, "path", setting_required_text);
        p->mixture[i].weight = section_number(&e, "weight", 1, 0, 1e9);
        if (e.object && !(p->mixture[i].weight > 0))
            section_error(&e, "weight", "expected a number above 0, found %g; to leave a source out, remove it",
                          p->mixture[i].weight);
    }
}

static void read_phases(struct run_config *c, struct section *root)
{
    int n = section_array(root, "phases", 1, MAX_PHASES);
    c->phases = settings_entries(root, "phases", n, sizeof *c->phases);
    for (int i = 0; i < n && c->phases; i++) {
        struct section s = section_entry(root, "phases", i);
        struct phase *p = &c->phases[c->n_phases++];
        read_phase(c, p, &s);
        p->first_step = c->total_steps;
        p->first_tokens = c->total_tokens;
        int64_t tokens;
        if (__builtin_mul_overflow(p->steps, p->step_tokens, &tokens) ||
            __builtin_add_overflow(c->total_tokens, tokens, &c->total_tokens)) {
            section_error(&s, NULL, "the run has more than 2^63 tokens");
            c->total_tokens = 0;
        }
        c->total_steps += p->steps;
        if (i > 0 && p->part < p[-1].part)
            section_error(&s, "schedule", "\"%s\" after \"%s\"; phases come in the order stable, decay, constant",
                          part_names[p->part], part_names[p[-1].part]);
    }
}

/* The parts end where the last phase of each ends, so that learning rate and mixture change at the same update. */
static void read_schedule(struct run_config *c, struct section *root)
{
    struct section s = section_object(root, "schedule");
    const char *shapes[DECAY_SHAPES + 1] = {NULL};
    for (int i = 0; i < DECAY_SHAPES; i++)
        shapes[i] = decay_shape_name((enum decay_shape)i);
    c->schedule_in_tokens = section_choice(&s, "unit", 0, unit_names) == 0;
    c->schedule.peak = section_number(&s, "peak", SETTING_REQUIRED_NUMBER, 0, HUGE_VAL);
    c->schedule.floor = section_number(&s, "floor", 0, 0, HUGE_VAL);
    c->schedule.warmup = section_number(&s, "warmup", 0, 0, HUGE_VAL);
    c->schedule.shape = (enum decay_shape)section_choice(&s, "decay_shape", DECAY_LINEAR, shapes);
    double stable = 0, decay = 0;
    for (int i = 0; i < c->n_phases; i++) {
        const struct phase *p = &c->phases[i];
        double size = (double)p->steps * (c->schedule_in_tokens ? (double)p->step_tokens : 1);
        stable += p->part == PART_STABLE ? size : 0;
        decay += p->part == PART_DECAY ? size : 0;
    }
    double constant = 0;
    for (int i = 0; i < c->n_phases; i++)
        constant += c->phases[i].part == PART_CONSTANT ? 1 : 0;
    c->schedule.warmup = schedule_warmup(c->schedule.warmup, c->schedule_in_tokens ? (double)c->total_tokens : (double)c->total_steps);
    c->schedule.stable_end = stable;
    c->schedule.decay_end = stable + decay;
    if (c->n_phases > 0 && c->phases[c->n_phases - 1].part == PART_STABLE)
        c->schedule.stable_end = c->schedule.decay_end = HUGE_VAL; /* update number stable_end would be at the floor */
    if (c->schedule.floor == 0 && decay > 0) { /* the last update would be at zero: the fall ends at the one after it */
        const struct phase *last = &c->phases[c->n_phases - 1];
        c->schedule.decay_end += c->schedule_in_tokens ? (double)last->step_tokens : 1;
    }
    struct plm_status st = {0};
    if (!settings_failed(c->settings) && constant > 0 && c->schedule.floor == 0)
        section_error(&s, "floor", "a \"constant\" phase trains at schedule.floor, which is 0: give a floor above 0, or leave the phase out");
    if (!settings_failed(c->settings) && schedule_check(&c->schedule, &st))
        section_error(&s, NULL, "%s", st.message);
    else if (!settings_failed(c->settings) && c->schedule.warmup > stable)
        section_error(&s, "warmup", "%g %s are more than the stable phases have (%g)", c->schedule.warmup,
                      unit_names[!c->schedule_in_tokens], stable);
}

static void read_eval(struct run_config *c, struct section *root)
{
    struct section s = section_object(root, "eval");
    c->eval_every = section_int(&s, "every_steps", 0, 0, MAX_STEPS);
    c->eval_max_tokens = section_int(&s, "max_tokens", 0, 0, INT64_MAX);
    int n = section_array(&s, "sources", 0, MAX_SOURCES);
    c->eval = settings_entries(&s, "sources", n, sizeof *c->eval);
    for (int i = 0; i < n && c->eval; i++) {
        struct section e = section_entry(&s, "sources", i);
        c->eval[i].name = section_text(&e, "name", setting_required_text);
        c->eval[i].path = section_text(&e, "path", setting_required_text);
        for (int j = 0; j < i; j++)
            if (strcmp(c->eval[i].name, c->eval[j].name) == 0 && *c->eval[i].name)
                section_error(&e, "name", "\"%s\" is also the name of sources[%d]", c->eval[i].name, j);
        c->n_eval++;
    }
}

int run_config_read(struct run_config *c, struct settings *settings, struct plm_status *st)
{
    *c = (struct run_config){.settings = settings};
    struct section root = settings_root(settings);
    read_model(c, &root);
    c->tokenizer = section_text(&root, "tokenizer", setting_required_text);
    c->run_dir = section_text(&root, "run_dir", setting_required_text);
    c->seed = (uint64_t)section_int(&root, "seed", 1, 0, INT64_MAX);
    c->threads = (int)section_int(&root, "threads", 0, 0, 4096);
    c->micro_batch = (int)section_int(&root, "micro_batch", SETTING_REQUIRED_INT, 1, MAX_ROWS);
    settings_read_optimizer(&root, &c->adamw, &c->clip);
    read_phases(c, &root);
    read_schedule(c, &root);
    read_eval(c, &root);
    settings_read_saving(&root, 1000, 3, &c->checkpoint_every, &c->checkpoint_keep, &c->log_every, &c->max_skipped);
    return settings_finish(settings, st);
}

int run_config_load(struct run_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st)
{
    *c = (struct run_config){0};
    struct settings *settings;
    const int code = settings_open_with(&settings, path, overrides, n, st);
    return code ? code : run_config_read(c, settings, st);
}

void run_config_free(struct run_config *c)
{
    for (int i = 0; i < c->n_phases; i++)
        free(c->phases[i].mixture);
    free(c->phases);
    free(c->eval);
    settings_close(c->settings);
    *c = (struct run_config){0};
}

int run_config_check_world(const struct run_config *c, int world_size, struct plm_status *st)
{
    const int64_t round = (int64_t)c->micro_batch * world_size;
    for (int i = 0; i < c->n_phases; i++) {
        const int64_t rows = c->phases[i].batch_rows;
        if (rows % round == 0)
            continue;
        char micro[64] = "", down[32] = "";
        if (rows > round)
            snprintf(down, sizeof down, "%lld or ", (long long)(rows / round * round));
        if (rows % world_size == 0) {
            int64_t m = c->micro_batch < rows / world_size ? c->micro_batch : rows / world_size;
            while (rows / world_size % m)
                m--;
            snprintf(micro, sizeof micro, ", or micro_batch to %lld", (long long)m);
        }
        return status_set(st, PLM_EINVAL, "phases[%d].batch_rows is %lld, but %d rank%s with micro_batch %d process%s %lld "
                          "rows at a time; set batch_rows to %s%lld%s", i, (long long)rows, world_size,
                          world_size == 1 ? "" : "s", c->micro_batch, world_size == 1 ? "es" : "", (long long)round, down,
                          (long long)((rows / round + 1) * round), micro);
    }
    return PLM_OK;
}

const char *const run_config_identity[] = {"model", "tokenizer", "seed", "optimizer", "schedule", "phases", NULL};

int run_config_hash(const struct run_config *c, char hex[65], struct plm_status *st)
{
    return settings_hash(c->settings, run_config_identity, hex, st);
}

bool curriculum_at(const struct run_config *c, int64_t step, struct curriculum_point *out)
{
    if (step < 0 || step >= c->total_steps)
        return false;
    int i = 0;
    while (i + 1 < c->n_phases && c->phases[i + 1].first_step <= step)
        i++;
    const struct phase *p = &c->phases[i];
    int64_t in_phase = step - p->first_step;
    *out = (struct curriculum_point){
        .phase = i, .step = step, .step_in_phase = in_phase, .first_sample = in_phase * p->batch_rows,
        .tokens_before = p->first_tokens + in_phase * p->step_tokens,
        .tokens_after = p->first_tokens + (in_phase + 1) * p->step_tokens,
    };
    double position = c->schedule_in_tokens ? (double)out->tokens_after : (double)(step + 1);
    out->learning_rate = schedule_rate(&c->schedule, position);
    return true;
}

int curriculum_micro_batches(const struct run_config *c, int phase, int world_size)
{
    return (int)(c->phases[phase].batch_rows / ((int64_t)c->micro_batch * world_size));
}

int64_t curriculum_micro_sample(const struct run_config *c, const struct curriculum_point *p, int world_size, int rank,
                                int micro)
{
    return p->first_sample + ((int64_t)micro * world_size + rank) * c->micro_batch;
}
