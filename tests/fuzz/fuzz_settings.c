/* A run configuration: text up to the first NUL, then an override. */
#include <stdlib.h>
#include <string.h>

#include "train/curriculum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t length = end ? (size_t)(end - data) : size;
    char *override = end ? strndup((const char *)end + 1, size - length - 1) : NULL;
    struct plm_status st = {0};
    struct settings *s;
    if (settings_parse(&s, (const char *)data, length, "fuzz.json", &st) == PLM_OK) {
        struct run_config c;
        if (override)
            settings_override(s, override, &st);
        if (run_config_read(&c, s, &st) == PLM_OK) {
            char hex[65];
            struct curriculum_point p;
            run_config_hash(&c, hex, &st);
            run_config_check_world(&c, 2, &st);
            for (int64_t step = 0; step < c.total_steps; step = 2 * step + 1)
                if (!curriculum_at(&c, step, &p) || !(p.learning_rate >= 0 && p.learning_rate <= c.schedule.peak * (1 + 1e-12)))
                    abort();
        }
        run_config_free(&c);
    }
    free(override);
    return 0;
}
