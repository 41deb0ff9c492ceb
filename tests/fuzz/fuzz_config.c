/* config.json of any bytes: refused with a message, or a configuration that passes its own check and is the same when
 * written and read again. The first byte chooses whether the rest is the whole text or the rotary settings of a small
 * model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void silent(void *user, enum log_level level, const char *line)
{
    (void)user, (void)level, (void)line;
}

static const char small[] =
    "{\"model_type\":\"plm\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"kv_lora_rank\":32,"
    "\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":8,\"v_head_dim\":16,\"intermediate_size\":128,\"vocab_size\":100,"
    "\"rope_scaling\":{\"factor\":4,";

static void read_again(const struct model_config *c)
{
    struct model_config again;
    struct plm_status st = {0};
    char *text = model_config_to_json(c);
    if (!text || model_config_from_json(&again, text, strlen(text), "again", &st)) {
        fprintf(stderr, "%s\n%s\n", text ? text : "no text", st.message);
        abort();
    }
    for (int i = 0; i < c->qk_rope_head_dim / 2 && i < 64; i++) {
        const double f = rope_frequency(c->rope_theta, c->qk_rope_head_dim, &c->rope_scaling, i);
        const double g = rope_frequency(again.rope_theta, again.qk_rope_head_dim, &again.rope_scaling, i);
        if (isnan(f) || f != g) {
            fprintf(stderr, "%s\npair %d: %g, %g\n", text, i, f, g);
            abort();
        }
    }
    if (rope_magnitude(&c->rope_scaling) != rope_magnitude(&again.rope_scaling)) {
        fprintf(stderr, "%s\nmagnitude\n", text);
        abort();
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config c;
    struct plm_status st = {0};
    if (size == 0)
        return 0;
    log_set_sink(silent, NULL);
    const size_t before = data[0] % 2 ? sizeof small - 1 : 0;
    char *text = malloc(before + size + 2);
    if (!text)
        abort();
    memcpy(text, small, before);
    memcpy(text + before, data + 1, size - 1);
    memcpy(text + before + size - 1, "}}", 2);
    if (model_config_from_json(&c, text, before + size - 1 + (before ? 2 : 0), "config.json", &st) == PLM_OK)
        read_again(&c);
    else if (!st.message[0])
        abort();
    free(text);
    return 0;
}
