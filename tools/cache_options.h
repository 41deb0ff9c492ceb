/* The cache options of every command that runs a model, as an argp child whose input is a struct plm_session_options. */
#ifndef TOOLS_CACHE_OPTIONS_H
#define TOOLS_CACHE_OPTIONS_H

#include <argp.h>

extern const struct argp cache_argp;

#endif
