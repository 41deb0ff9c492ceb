#include "train/align/align_config.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "train/run_settings.h"

#define MAX_SOURCES 10000
#define MAX_COUNT ((int64_t)1 << 40)

const char *const align_method_names[] = {"aries", "dpo", "iterative-dpo", "rejection-sft", "grpo", NULL};
static const char *const reference_names[] = {"previous", "start", NULL};

static void read_learning_rate(struct align_config *c, struct section *root)
{
    struct section s = section_object(root, "learning_rate");
    const char *shapes[DECAY_SHAPES + 1] = {NULL};
    for (int i = 0; i < DECAY_SHAPES; i++)
        shapes[i] = decay_shape_name((enum decay_shape)i);
    c->peak = section_number(&s, "peak", 1e-6, 0, 1);
    c->floor = section_number(&s, "floor", 0, 0, 1);
    c->warmup = section_number(&s, "warmup", 0.1, 0, 1e9);
    c->shape = (enum decay_shape)section_choice(&s, "decay_shape", DECAY_LINEAR, shapes);
    c->round_factor = section_number(&s, "round_factor", 1, 0, 100);
    if (!settings_failed(c->settings) && !(c->peak > 0 && c->floor <= c->peak))
        section_error(&s, "floor", "expected 0 to peak (%g), which must be above 0; found %g", c->peak, c->floor);
}

static void read_loss(struct align_config *c, struct section *root)
{
    struct section s = section_object(root, "loss");
    const char *name = section_text(&s, "kind", "sigmoid");
    c->loss = preference_loss_find(name ? name : "sigmoid");
    if (!c->loss) {
        char names[512] = "";
        size_t at = 0;
        for (const struct preference_loss *l = preference_losses; l->name && at < sizeof names; l++)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", l->name);
        section_error(&s, "kind", "unknown loss \"%s\"; known: %s", name, names);
        c->loss = preference_losses;
    }
    c->params = c->loss->defaults;
    const double most = 1e6;
    c->params.beta = section_number(&s, "beta", c->params.beta, 0, most);
    c->params.label_smoothing = section_number(&s, "label_smoothing", c->params.label_smoothing, 0, 0.5);
    c->params.gamma = section_number(&s, "gamma", c->params.gamma, 0, most);
    c->params.lambda = section_number(&s, "lambda", c->params.lambda, 0, most);
    c->params.nll_weight = section_number(&s, "nll_weight", c->params.nll_weight, 0, most);
    c->params.desirable_weight = section_number(&s, "desirable_weight", c->params.desirable_weight, 0, most);
    c->params.undesirable_weight = section_number(&s, "undesirable_weight", c->params.undesirable_weight, 0, most);
    c->alpha = section_number(&s, "alpha", c->method == METHOD_ARIES ? 0.8 : 0, 0, 1);
    c->beta_refine = section_number(&s, "beta_refine", 0.1, 0, most);
    struct plm_status st = {0};
    if (!settings_failed(c->settings) && preference_params_check(c->loss, &c->params, &st))
        section_error(&s, NULL, "%s", st.message);
    if (!settings_failed(c->settings) && c->alpha > 0 && !(c->beta_refine > 0))
        section_error(&s, "beta_refine", "expected a number above 0, found %g", c->beta_refine);
}

static void read_rollout(struct rollout_options *o, struct section *s, int chains, int refinements, double temperature)
{
    o->chains = (int)section_int(s, "chains", chains, 1, 4096);
    o->refinements = (int)section_int(s, "refinements", refinements, 0, 64);
    o->max_tokens = section_int(s, "max_tokens", 256, 1, 1 << 20);
    o->sampling = plm_sampling_default();
    o->sampling.temperature = (float)section_number(s, "temperature", temperature, 0, 100);
    o->sampling.top_p = (float)section_number(s, "top_p", 1, 1e-6, 1);
    o->sampling.top_k = (int)section_int(s, "top_k", 0, 0, INT_MAX);
    o->batch = (int)section_int(s, "batch", 64, 1, 1 << 16);
    o->chunk = section_int(s, "chunk", 64, 1, MAX_COUNT);
}

static void read_offline(struct align_config *c, struct section *root)
{
    if (!section_has(root, "offline"))
        return;
    struct section s = section_object(root, "offline");
    const int n = section_array(&s, "sources", 1, MAX_SOURCES);
    c->offline = settings_entries(&s, "sources", n, sizeof *c->offline);
    for (int i = 0; i < n && c->offline; i++) {
        struct section e = section_entry(&s, "sources", i);
        c->offline[i] = (struct example_source){section_text(&e, "path", setting_required_text), settings_read_fields(&e), section_number(&e, "weight", 1, 0, 1e6)};
        c->n_offline++;
    }
    c->offline_skip_bad = section_bool(&s, "skip_bad", false);
    c->offline_unpaired = section_bool(&s, "unpaired", false);
    if (c->offline_unpaired && (!c->loss->single || c->alpha > 0))
        section_error(&s, "unpaired", "loss \"%s\"%s takes pairs", c->loss->name, c->alpha > 0 ? " with a refinement term (alpha)" : "");
    c->offline_rounds = (int)section_int(&s, "rounds", 1, 1, c->rounds > 0 ? c->rounds : 1);
}

/* Settings that cannot give what the method learns from, whatever the model answers. */
static void check_rollout(struct align_config *c, struct section *root)
{
    if (settings_failed(c->settings))
        return;
    const bool pairs = c->method != METHOD_REJECTION_SFT && c->method != METHOD_GRPO;
    if (pairs && c->rollout.chains == 1 && c->rollout.refinements == 0)
        section_error(root, "rollout", "one answer to a task makes no pair: raise chains or refinements");
    else if (pairs && c->selection.rule == SELECT_REFINED && c->rollout.refinements == 0)
        section_error(root, "selection", "rule \"refined\" takes refinements; rollout.refinements is 0");
    else if (c->method == METHOD_GRPO && c->rollout.chains == 1)
        section_error(root, "rollout", "a group of one answer has nothing to be compared with: set chains to the size of a group");
}

static void read_prompts(struct align_config *c, struct section *root)
{
    const bool sampled = c->offline_rounds < c->rounds || c->method == METHOD_GRPO;
    if (!sampled && !section_has(root, "prompts"))
        return;
    struct section p = section_object(root, "prompts");
    c->prompts_path = section_text(&p, "path", setting_required_text);
    c->prompts_fields = settings_read_fields(&p);
    c->per_round = section_int(&p, "per_round", 0, 0, MAX_COUNT);
    struct section r = section_object(root, "rollout");
    read_rollout(&c->rollout, &r, c->method == METHOD_ARIES ? 1 : 4, c->method == METHOD_ARIES ? 3 : 0, 0.8);
    struct section selection = section_object(root, "selection");
    c->selection = selection_read(&selection);
    check_rollout(c, root);
}

static void read_scorer(struct align_config *c, struct section *root)
{
    if (!c->prompts_path && !section_has(root, "scorer"))
        return;
    struct section scorer = section_object(root, "scorer");
    struct plm_status st = {0};
    const bool failed = settings_failed(c->settings);
    if (scorer_open(&c->scorer, &scorer, &st) && !failed)
        section_error(&scorer, NULL, "%s", st.message);
}

static void read_eval(struct align_config *c, struct section *root)
{
    if (!section_has(root, "eval"))
        return;
    struct section s = section_object(root, "eval");
    c->eval.path = section_text(&s, "path", setting_required_text);
    c->eval.fields = settings_read_fields(&s);
    c->eval.count = section_int(&s, "count", 0, 0, MAX_COUNT);
    c->eval.samples = (int)section_int(&s, "samples", 4, 0, 1000);
    read_rollout(&c->eval.rollout, &s, 1, c->rollout.refinements, 0);
}

int align_config_read(struct align_config *c, struct settings *settings, struct plm_status *st)
{
    *c = (struct align_config){.settings = settings};
    struct section root = settings_root(settings);
    struct section model = section_object(&root, "model");
    c->model_path = section_text(&model, "path", setting_required_text);
    c->tokenizer = section_text(&root, "tokenizer", NULL);
    c->template = section_text(&root, "template", NULL);
    c->refine_template = section_text(&root, "refine_template", NULL);
    c->run_dir = section_text(&root, "run_dir", setting_required_text);
    c->seed = (uint64_t)section_int(&root, "seed", 1, 0, INT64_MAX);
    c->threads = (int)section_int(&root, "threads", 0, 0, 4096);
    c->micro_batch = (int)section_int(&root, "micro_batch", 4, 1, 1 << 16);
    c->seq_len = (int)section_int(&root, "seq_len", SETTING_REQUIRED_INT, 2, 1 << 24);
    settings_read_optimizer(&root, &c->adamw, &c->clip);
    c->adapt = section_has(&root, "lora");
    if (c->adapt) {
        struct section s = section_object(&root, "lora");
        c->lora.rank = (int)section_int(&s, "rank", 16, 1, 1 << 16);
        c->lora.alpha = section_number(&s, "alpha", 2.0 * c->lora.rank, 0, 1e6);
    }
    c->method = (enum align_method)section_choice(&root, "method", METHOD_ARIES, align_method_names);
    c->rounds = (int)section_int(&root, "rounds", 3, 1, 1000);
    c->epochs = section_number(&root, "epochs", 1, 1e-6, 1e6);
    c->batch_pairs = (int)section_int(&root, "batch_pairs", 32, 1, 1 << 24);
    read_learning_rate(c, &root);
    read_loss(c, &root);
    struct section reference = section_object(&root, "reference");
    c->reference = (enum reference_model)section_choice(&reference, "model", REFERENCE_PREVIOUS, reference_names);
    c->reference_cache = section_bool(&reference, "cache", true);
    read_offline(c, &root);
    read_prompts(c, &root);
    read_scorer(c, &root);
    struct section policy = section_object(&root, "policy");
    c->policy = grpo_options_read(&policy);
    c->policy_tasks = (int)section_int(&policy, "batch_tasks", 16, 1, 1 << 20);
    c->policy_updates = (int)section_int(&policy, "updates", 1, 1, 1000);
    read_eval(c, &root);
    settings_read_saving(&root, 0, 2, &c->checkpoint_every, &c->checkpoint_keep, &c->log_every, &c->max_skipped);
    if (!settings_failed(settings) && c->alpha > 0 && (c->method == METHOD_REJECTION_SFT || c->method == METHOD_GRPO))
        section_error(&root, "loss", "the refinement loss (alpha) goes with pairs, not with method \"%s\"", align_method_names[c->method]);
    if (!settings_failed(settings) && c->method == METHOD_GRPO && c->rollout.refinements > 0)
        section_error(&root, "rollout", "method \"grpo\" learns from first answers: set rollout.refinements to 0 (found %d) and rollout.chains to the size of a group",
                      c->rollout.refinements);
    if (!settings_failed(settings) && c->method == METHOD_GRPO && c->n_offline)
        section_error(&root, "offline", "method \"grpo\" samples its answers; leave the offline pairs out");
    if (!settings_failed(settings) && c->eval.path && !c->scorer)
        section_error(&root, "scorer", "an evaluation of answers needs one");
    return settings_finish(settings, st);
}

int align_config_load(struct align_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st)
{
    *c = (struct align_config){0};
    struct settings *settings;
    const int code = settings_open_with(&settings, path, overrides, n, st);
    return code ? code : align_config_read(c, settings, st);
}

void align_config_free(struct align_config *c)
{
    scorer_close(c->scorer);
    free(c->offline);
    settings_close(c->settings);
    *c = (struct align_config){0};
}

const char *const align_config_identity[] = {"model", "tokenizer", "template", "refine_template", "seed", "seq_len", "optimizer", "lora", "method", "rounds", "epochs", "batch_pairs", "learning_rate", "loss", "reference", "offline", "prompts", "rollout", "scorer", "selection", "policy", NULL};

int align_config_hash(const struct align_config *c, char hex[65], struct plm_status *st)
{
    return settings_hash(c->settings, align_config_identity, hex, st);
}
