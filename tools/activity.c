#include "tools/activity.h"

#include <stdio.h>

#include "infer/model/model.h"
#include "infer/model/sequence.h"

/* Of layers [first, end); -1 when nothing was computed. */
static double share(const struct engine *e, int first, int end)
{
    int64_t active = 0, neurons = 0;
    for (int layer = first; layer < end; layer++) {
        int64_t of_layer, all;
        engine_activity(e, layer, &of_layer, &all);
        active += of_layer;
        neurons += all;
    }
    return neurons ? (double)active / (double)neurons : -1;
}

void activity_add(json_t *result, const struct engine *e)
{
    const int n = engine_model(e)->config.num_hidden_layers;
    if (share(e, 0, n) < 0)
        return;
    json_t *layers = json_array();
    for (int layer = 0; layer < n; layer++)
        json_array_append_new(layers, json_real(share(e, layer, layer + 1)));
    json_object_set_new(result, "active_neurons", json_real(share(e, 0, n)));
    json_object_set_new(result, "active_neurons_by_layer", layers);
}

void activity_print(const struct engine *e)
{
    const int n = engine_model(e)->config.num_hidden_layers;
    if (share(e, 0, n) < 0)
        return;
    printf("active neurons: %.1f %%; by layer:", 100 * share(e, 0, n));
    for (int layer = 0; layer < n; layer++)
        printf(" %.1f", 100 * share(e, layer, layer + 1));
    putchar('\n');
}
