#include "train/run_settings.h"

#include <limits.h>
#include <stdlib.h>

#define MAX_STEPS ((int64_t)1 << 48)

void settings_read_optimizer(struct section *root, struct adamw *adamw, double *clip)
{
    struct section s = section_object(root, "optimizer");
    const struct adamw o = adamw_default();
    adamw->beta1 = section_number(&s, "beta1", o.beta1, 0, 1);
    adamw->beta2 = section_number(&s, "beta2", o.beta2, 0, 1);
    adamw->eps = section_number(&s, "eps", o.eps, 0, 1);
    adamw->weight_decay = section_number(&s, "weight_decay", o.weight_decay, 0, HUGE_VAL);
    *clip = section_number(&s, "clip", 1, 0, HUGE_VAL);
    struct plm_status st = {0};
    if (!settings_failed(root->settings) && adamw_check(adamw, &st))
        section_error(&s, NULL, "%s", st.message);
}

void settings_read_saving(struct section *root, int64_t every, int keep, int64_t *checkpoint_every, int *checkpoint_keep, int64_t *log_every,
                          int64_t *max_skipped)
{
    struct section checkpoint = section_object(root, "checkpoint");
    *checkpoint_every = section_int(&checkpoint, "every_steps", every, 0, MAX_STEPS);
    *checkpoint_keep = (int)section_int(&checkpoint, "keep", keep, 0, INT_MAX);
    struct section log = section_object(root, "log");
    *log_every = section_int(&log, "every_steps", 10, 1, MAX_STEPS);
    *max_skipped = section_int(root, "max_skipped_steps", 10, 0, MAX_STEPS);
}

const json_t *settings_read_fields(struct section *s)
{
    if (!section_has(s, "fields"))
        return NULL;
    struct section fields = section_object(s, "fields");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)fields.object, name, value)
        section_text(&fields, name, NULL); /* known from here on */
    return fields.object;
}

void *settings_entries(struct section *s, const char *key, int n, size_t size)
{
    void *p = calloc((size_t)(n ? n : 1), size);
    if (!p)
        section_error(s, key, "out of memory");
    return p;
}
