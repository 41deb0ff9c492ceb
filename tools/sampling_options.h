/* The sampling options of every command that generates text, as an argp child whose input is a struct plm_sampling. */
#ifndef TOOLS_SAMPLING_OPTIONS_H
#define TOOLS_SAMPLING_OPTIONS_H

#include <argp.h>

#include "infer/plm.h"

extern const struct argp sampling_argp;

/* Where nothing is drawn: name every option of sampling that was given, as one without effect. */
void sampling_unused(const char *why);

/* When --seed was not given and tokens are drawn: a seed of chance, which is shown on standard error. */
void sampling_seed_random(struct plm_sampling *s);

#endif
