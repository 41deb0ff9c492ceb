#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "infer/base/random.h"
#include "infer/model/completions.h"
#include "tools/arguments.h"
#include "train/matmul.h"
#include "tools/bench_model.h"
#include "tools/bench_peak.h"
#include "tools/command.h"
#include "tools/open_model.h"

#define MAX_ROUNDS 31

struct arguments {
    const char *model;
    int batch, prompt, shared, generate, sequences, chains, rounds, threads;
    bool json, trainers;
    struct matmul matmul; /* what the trainer multiplies with */
};

static const struct argp_option options[] = {
    {"batch", 'b', "N", 0, "completions sampled together, against one (default 64)", 0},
    {"sequences", 's', "N", 0, "completions in all (default 128)", 0},
    {"chains", 'c', "N", 0, "completions of the same prompt, in a row (default 8)", 0},
    {"prompt", 'p', "N", 0, "tokens of a prompt (default 100)", 0},
    {"shared", 'k', "N", 0, "of them: the first that all prompts have in common (default 30)", 0},
    {"generate", 'n', "N", 0, "tokens sampled after it (default 128)", 0},
    {"rounds", 'r', "N", 0, "measurements of both, in turns; medians are printed (default 3)", 0},
    {"trainer-products", 'u', 0, 0, "the trainer's matrix products (oneDNN) instead of the core's, which rollouts use", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'b': a->batch = (int)argument_range(state, "batch", arg, 2, 1 << 12); return 0;
    case 's': a->sequences = (int)argument_range(state, "sequences", arg, 1, 1 << 20); return 0;
    case 'c': a->chains = (int)argument_range(state, "chains", arg, 1, 1 << 20); return 0;
    case 'p': a->prompt = (int)argument_range(state, "prompt", arg, 1, 1 << 20); return 0;
    case 'k': a->shared = argument_whole(state, "shared", arg); return 0;
    case 'n': a->generate = (int)argument_range(state, "generate", arg, 1, 1 << 20); return 0;
    case 'r': a->rounds = (int)argument_range(state, "rounds", arg, 1, MAX_ROUNDS); return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case 'j': a->json = true; return 0;
    case 'u': a->trainers = true; return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "MODEL is required");
        if (a->shared > a->prompt)
            argp_error(state, "--shared %d is more than --prompt %d", a->shared, a->prompt);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "MODEL",
    "Speed of rollouts, as `plm align` makes them: completions of random prompts sampled at temperature 1, many at a time and, the first eighth of "
    "them, one at a time. " MODEL_HELP " A checkpoint has the weights that training samples with, in float32.\v"
    "Example: plm bench rollouts run --batch 64 --generate 128", 0, 0, 0};

/* The requests of one run, handed out in order. */
struct requests {
    const struct arguments *a;
    const int32_t *prompts; /* (questions, prompt) */
    int next, n;
};

static bool next_request(void *ctx, struct completion_request *request)
{
    struct requests *r = ctx;
    if (r->next == r->n)
        return false;
    *request = (struct completion_request){.prompt = r->prompts + (int64_t)(r->next / r->a->chains) * r->a->prompt, .n_prompt = r->a->prompt,
        .max_tokens = r->a->generate, .seed = (uint64_t)r->next};
    r->next++;
    return true;
}

static int take_completion(void *ctx, const struct completion_request *request, const struct completion *completion, struct plm_status *st)
{
    (void)ctx, (void)request, (void)completion, (void)st;
    return PLM_OK;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One batch size: a completer and what was measured, all rounds. */
struct contender {
    struct completer *completer;
    int batch;
    double rate[MAX_ROUNDS], cpu_rate[MAX_ROUNDS], prefill_share[MAX_ROUNDS]; /* tokens/s, tokens per second of processor time */
};

static int contender_open(struct contender *c, const struct plm_model *model, const struct arguments *a, int batch, struct plm_status *st)
{
    struct completer_options o = {.n_threads = a->threads, .max_batch = batch, .context = a->prompt + a->generate, .sampling = plm_sampling_default(),
        .ops = a->trainers ? &a->matmul.ops : NULL, .packed = true};
    o.sampling.temperature = 1, o.sampling.top_k = 0, o.sampling.top_p = 1, o.sampling.min_p = 0;
    c->batch = batch;
    return completer_create(&c->completer, model, &o, st);
}

/* One at a time takes the first eighth of the completions: it would take five times as long over all. */
static int contender_run(struct contender *c, const struct arguments *a, const int32_t *prompts, int round, struct plm_status *st)
{
    struct requests r = {.a = a, .prompts = prompts, .n = c->batch > 1 ? a->sequences : (a->sequences + 7) / 8};
    const struct completion_source source = {.next = next_request, .done = take_completion, .ctx = &r};
    const struct completer_stats before = completer_stats(c->completer);
    const double begin = seconds_now(), cpu_begin = cpu_seconds();
    const int code = completer_run(c->completer, &source, st);
    const double seconds = seconds_now() - begin, cpu = cpu_seconds() - cpu_begin;
    const struct completer_stats after = completer_stats(c->completer);
    const double tokens = (double)(after.generated - before.generated);
    c->rate[round] = tokens / seconds;
    c->cpu_rate[round] = tokens / cpu;
    c->prefill_share[round] = (after.prefill_s - before.prefill_s) / seconds;
    return code;
}

static int32_t *random_prompts(const struct arguments *a, int vocab, struct plm_status *st)
{
    const int64_t questions = (a->sequences + a->chains - 1) / a->chains;
    int32_t *prompts = malloc((size_t)questions * (size_t)a->prompt * sizeof *prompts);
    if (!prompts)
        status_no_memory(st, (size_t)questions * (size_t)a->prompt * sizeof *prompts, "prompts");
    for (int64_t q = 0; q < questions && prompts; q++)
        for (int i = 0; i < a->prompt; i++)
            prompts[q * a->prompt + i] = (int32_t)(random_u64(1, RANDOM_TEST, i < a->shared ? 0 : (uint32_t)q + 1, (uint64_t)i) % (uint64_t)vocab);
    return prompts;
}

static void report(const struct arguments *a, struct contender *one, struct contender *many, int threads)
{
    double ratio[MAX_ROUNDS], cpu_ratio[MAX_ROUNDS];
    for (int i = 0; i < a->rounds; i++) /* before the medians sort them */
        ratio[i] = many->rate[i] / one->rate[i], cpu_ratio[i] = many->cpu_rate[i] / one->cpu_rate[i];
    const double times = bench_median(ratio, a->rounds), cpu_times = bench_median(cpu_ratio, a->rounds);
    struct contender *both[2] = {one, many};
    json_t *rows = json_array();
    if (!a->json)
        printf("%d completions of %d tokens after prompts of %d (%d of each, %d tokens common to all), %d threads\n\n%8s %12s %18s %9s\n", a->sequences,
               a->generate, a->prompt, a->chains, a->shared, threads, "batch", "tokens/s", "per processor-s", "prefill");
    for (int i = 0; i < 2; i++) {
        const double rate = bench_median(both[i]->rate, a->rounds), cpu = bench_median(both[i]->cpu_rate, a->rounds);
        const double share = bench_median(both[i]->prefill_share, a->rounds);
        json_array_append_new(rows, json_pack("{s:i, s:f, s:f, s:f}", "batch", both[i]->batch, "tokens_per_s", rate, "tokens_per_cpu_s", cpu,
                                              "prefill_share", share));
        if (!a->json)
            printf("%8d %12.1f %18.1f %7.0f %%\n", both[i]->batch, rate, cpu, 100 * share);
    }
    if (a->json) {
        json_t *all = json_pack("{s:i, s:O, s:f, s:f}", "threads", threads, "rows", rows, "ratio", times, "cpu_ratio", cpu_times);
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    } else {
        printf("%8s %11.2fx %17.2fx\n", "ratio", times, cpu_times);
    }
    json_decref(rows);
}

int bench_rollouts(int argc, char **argv)
{
    struct arguments a = {.batch = 64, .sequences = 128, .chains = 8, .prompt = 100, .shared = 30, .generate = 128, .rounds = 3};
    struct plm_status st = {0};
    struct plm_model *model = NULL;
    struct contender one = {0}, many = {0};
    int32_t *prompts = NULL;
    matmul_select(&a.matmul);
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_model(&model, a.model, NULL, &st);
    if (!code)
        code = (prompts = random_prompts(&a, model->config.vocab_size, &st)) ? PLM_OK : st.code;
    if (!code)
        code = contender_open(&one, model, &a, 1, &st);
    if (!code)
        code = contender_open(&many, model, &a, a.batch, &st);
    for (int round = 0; round < a.rounds && !code; round++) {
        code = contender_run(&many, &a, prompts, round, &st);
        if (!code)
            code = contender_run(&one, &a, prompts, round, &st);
    }
    if (!code)
        report(&a, &one, &many, a.threads ? a.threads : threads_available());
    completer_destroy(one.completer);
    completer_destroy(many.completer);
    free(prompts);
    plm_model_close(model);
    return code ? command_fail(&st) : 0;
}
