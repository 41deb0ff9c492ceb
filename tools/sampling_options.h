/* The sampling options of every command that generates text, as an argp child whose input is a struct plm_sampling. */
#ifndef TOOLS_SAMPLING_OPTIONS_H
#define TOOLS_SAMPLING_OPTIONS_H

#include <argp.h>

extern const struct argp sampling_argp;

#endif
