#include "tools/cache_options.h"

#include <string.h>

#include "infer/plm.h"
#include "tools/arguments.h"

enum { OPT_CONTEXT = 0x2000, OPT_TYPE, OPT_POLICY, OPT_BUDGET, OPT_DENSE, OPT_BATCH };

static const struct argp_option options[] = {
    {"context", OPT_CONTEXT, "N", 0, "positions of the cache (default: what the model was trained for)", 0},
    {"ctx", 0, 0, OPTION_ALIAS, 0, 0},
    {"cache-type", OPT_TYPE, "TYPE", 0, "f32 (default), f16 or q8_0", 0},
    {"cache-policy", OPT_POLICY, "POLICY", 0, "full (default), streaming, h2o, d2o or d2o+count: keep a budget of slots, drop or merge the rest", 0},
    {"cache-budget", OPT_BUDGET, "N|P%", 0, "slots per layer on average, or a share of the prompt (default with a policy: 20%)", 0},
    {"cache-batch", OPT_BATCH, "N", 0, "compress only when N slots are beyond the budget (default 1): cheaper, N - 1 slots more", 0},
    {"dense", OPT_DENSE, 0, 0, "do without the copy of ffn_down stored by neurons: less memory, but all neurons are read, also inactive ones", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct plm_session_options *o = state->input;
    switch (key) {
    case OPT_CONTEXT: o->context = argument_whole(state, "context", arg); return 0;
    case OPT_TYPE: o->cache_type = arg; return 0;
    case OPT_BATCH: o->cache_batch = (int)argument_range(state, "cache-batch", arg, 1, 1 << 20); return 0;
    case OPT_DENSE: o->dense = true; return 0;
    case OPT_POLICY: o->cache_policy = arg; return 0;
    case OPT_BUDGET: {
        const size_t n = strlen(arg);
        if (n > 1 && n < 16 && arg[n - 1] == '%') {
            char number[16];
            memcpy(number, arg, n - 1);
            number[n - 1] = 0;
            o->cache_share = argument_number(state, "cache-budget", number) / 100;
            if (!(o->cache_share > 0 && o->cache_share <= 1))
                argp_error(state, "--cache-budget is '%s', expected a share above 0%% and up to 100%%", arg);
        } else {
            o->cache_budget = (int)argument_range(state, "cache-budget", arg, 1, INT32_MAX);
        }
        return 0;
    }
    case ARGP_KEY_SUCCESS:
        if (!o->cache_policy || !strcmp(o->cache_policy, "full")) {
            if (o->cache_budget || o->cache_share)
                argp_error(state, "--cache-budget has no effect without a --cache-policy (streaming, h2o, d2o or d2o+count)");
            if (o->cache_batch > 1)
                argp_error(state, "--cache-batch has no effect without a --cache-policy (streaming, h2o, d2o or d2o+count)");
        }
        return 0;
    case ARGP_KEY_END:
        if (o->cache_policy && strcmp(o->cache_policy, "full") != 0 && o->cache_budget == 0 && o->cache_share == 0)
            o->cache_share = 0.2; /* the budget D2O was published with */
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cache_argp = {options, parse, 0, 0, 0, 0, 0};
