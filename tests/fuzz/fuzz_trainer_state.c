/* trainer.json: what is accepted reads back as the same after it is written. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "train/trainer_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trainer_state s, again;
    struct plm_status st = {0};
    if (trainer_state_from_json(&s, (const char *)data, size, "fuzz.json", &st) != PLM_OK)
        return 0;
    char *text = trainer_state_to_json(&s);
    if (!text || trainer_state_from_json(&again, text, strlen(text), "again.json", &st) != PLM_OK || !json_equal(s.data, again.data) != !s.data)
        abort();
    trainer_state_free(&s);
    trainer_state_free(&again);
    if (memcmp(&s, &again, sizeof s) != 0)
        abort();
    free(text);
    return 0;
}
