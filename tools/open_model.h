/* The MODEL argument of every subcommand. */
#ifndef TOOLS_OPEN_MODEL_H
#define TOOLS_OPEN_MODEL_H

#include <limits.h>

#include "infer/plm.h"

/* What the argument says in `plm COMMAND --help`. */
#define MODEL_HELP "MODEL is a GGUF file, a checkpoint or Hugging Face directory, or a run directory (its newest checkpoint)."

/* Open it; `path` (NULL allowed) receives the file or directory that was opened. Close with plm_model_close. */
int open_model(struct plm_model **out, const char *model, char path[PATH_MAX], struct plm_status *st);

#endif
