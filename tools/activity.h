/* The share of neurons that squared ReLU leaves active, per layer: what sparse decoding lives on. */
#ifndef TOOLS_ACTIVITY_H
#define TOOLS_ACTIVITY_H

#include <jansson.h>

#include "infer/model/engine.h"

/* Add "active_neurons", the share over all layers of everything the engine has computed, and "active_neurons_by_layer"; nothing when it
 * has not computed anything. */
void activity_add(json_t *result, const struct engine *e);

/* One line for a table. */
void activity_print(const struct engine *e);

#endif
