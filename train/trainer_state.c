#include "train/trainer_state.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/settings.h"

#define STATE_VERSION 1

void trainer_state_free(struct trainer_state *s)
{
    json_decref(s->data);
    s->data = NULL;
}

void trainer_state_add_loss(struct trainer_state *s, double loss)
{
    if (!isfinite(loss))
        return;
    if (s->n_recent == RECENT_LOSSES)
        memmove(s->recent_loss, s->recent_loss + 1, sizeof *s->recent_loss * (size_t)--s->n_recent);
    s->recent_loss[s->n_recent++] = loss;
}

char *trainer_state_to_json(const struct trainer_state *s)
{
    json_t *losses = json_array();
    for (int i = 0; i < s->n_recent && losses; i++)
        json_array_append_new(losses, json_real(s->recent_loss[i]));
    char *text = NULL;
    json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:s, s:i, s:O}", "version", STATE_VERSION,
                             "step", (json_int_t)s->step, "updates", (json_int_t)s->updates, "learned", (json_int_t)s->learned,
                             "skipped_in_row", (json_int_t)s->skipped_in_row, "phase", s->phase,
                             "step_in_phase", (json_int_t)s->step_in_phase, "tokens", (json_int_t)s->tokens,
                             "samples", (json_int_t)s->samples, "seed", (json_int_t)s->seed,
                             "config_sha256", s->config_sha256, "world_size", s->world_size, "recent_loss", losses);
    if (root && s->data && json_object_set(root, "data", s->data) != 0) {
        json_decref(root);
        root = NULL;
    }
    if (root && json_array_size(losses) == (size_t)s->n_recent)
        text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(root);
    json_decref(losses);
    return text;
}

static bool read_losses(struct trainer_state *s, const json_t *losses)
{
    if (!json_is_array(losses) || json_array_size(losses) > RECENT_LOSSES)
        return false;
    for (size_t i = 0; i < json_array_size(losses); i++) {
        const json_t *v = json_array_get(losses, i);
        if (!json_is_number(v))
            return false;
        s->recent_loss[s->n_recent++] = json_number_value(v);
    }
    return true;
}

int trainer_state_from_json(struct trainer_state *s, const char *text, size_t length, const char *where,
                            struct plm_status *st)
{
    *s = (struct trainer_state){0};
    json_error_t error;
    json_t *root = json_loadb(text ? text : "", length, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", where, error.line, error.column, error.text);
    const struct {
        const char *name;
        int64_t *wide;
        int *narrow;
        bool added; /* older states do not have it */
    } fields[] = {
        {"step", &s->step, NULL}, {"updates", &s->updates, NULL}, {"phase", NULL, &s->phase},
        {"step_in_phase", &s->step_in_phase, NULL}, {"tokens", &s->tokens, NULL}, {"samples", &s->samples, NULL},
        {"seed", (int64_t *)&s->seed, NULL}, {"world_size", NULL, &s->world_size},
        {"learned", &s->learned, NULL, true}, {"skipped_in_row", &s->skipped_in_row, NULL, true},
    };
    int code = PLM_OK;
    const json_t *version = json_object_get(root, "version"), *hash = json_object_get(root, "config_sha256");
    if (json_integer_value(version) != STATE_VERSION)
        code = status_set(st, PLM_EFORMAT, "%s: expected a trainer state of version %d", where, STATE_VERSION);
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !code; i++) {
        const json_t *v = json_object_get(root, fields[i].name);
        int64_t value = json_integer_value(v);
        if (!v && fields[i].added)
            continue;
        if (!json_is_integer(v) || value < 0 || (fields[i].narrow && value > INT_MAX))
            code = status_set(st, PLM_EFORMAT, "%s: %s: expected a whole number, at least 0", where, fields[i].name);
        else if (fields[i].narrow)
            *fields[i].narrow = (int)value;
        else
            *fields[i].wide = value;
    }
    if (!code && (!json_is_string(hash) || json_string_length(hash) >= sizeof s->config_sha256))
        code = status_set(st, PLM_EFORMAT, "%s: config_sha256: expected 64 hexadecimal digits", where);
    if (!code && !read_losses(s, json_object_get(root, "recent_loss")))
        code = status_set(st, PLM_EFORMAT, "%s: recent_loss: expected up to %d numbers", where, RECENT_LOSSES);
    if (!json_object_get(root, "learned"))
        s->learned = s->updates;
    json_t *data = json_object_get(root, "data");
    if (!code && data && !json_is_object(data))
        code = status_set(st, PLM_EFORMAT, "%s: data: expected an object of texts", where);
    else if (!code && data)
        s->data = json_incref(data);
    if (!code)
        snprintf(s->config_sha256, sizeof s->config_sha256, "%s", json_string_value(hash));
    json_decref(root);
    return code;
}
