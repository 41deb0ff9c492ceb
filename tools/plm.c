/* plm: the program. Only here and in argp does the process end. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "infer/ops/ops.h"
#include "tools/command.h"
#include "tools/exit_status.h"
#include "tools/standard_streams.h"

static const struct command commands[] = {
    {"tokenizer", "train a byte-level BPE, encode and decode", command_tokenizer},
    {"data", "turn text into shards, and look into shards", command_data},
    {"plan", "memory of a model or a training run, before it runs", command_plan},
    {"pretrain", "pretrain a model, alone or under mpirun", command_pretrain},
    {"sft", "fine-tune a model on conversations, alone or under mpirun", command_sft},
    {"align", "learn from preferences in rounds (ARIES, DPO, GRPO ...), alone or under mpirun", command_align},
    {"reward", "train a reward model on pairs, alone or under mpirun", command_reward},
    {"score", "score answers by a rule, by tests, by a command: try a reward before it is trained on", command_score},
    {"export", "write a model as GGUF or as a Hugging Face directory", command_export},
    {"quantize", "write a model as GGUF of another type", command_quantize},
    {"import", "make a directory to train from of any model", command_import},
    {"generate", "continue a text", command_generate},
    {"chat", "talk with a model", command_chat},
    {"answer", "answer questions in bulk: directly, by chains of refinements, by a vote", command_answer},
    {"logits", "the logits of a list of tokens", command_logits},
    {"eval", "how good a model is: perplexity, choices, answers, recall", command_eval},
    {"report", "a page with the curves of runs, side by side", command_report},
    {"verify", "compute a reference case with the trainer", command_verify},
    {"bench", "measure the machine and the kernels", command_bench},
    {NULL, NULL, NULL},
};

static int version(void)
{
    puts("plm " PLM_VERSION);
#ifdef HAVE_MPI
    puts("MPI: yes");
#else
    puts("MPI: no (one process)");
#endif
#ifdef HAVE_DNNL
    puts("oneDNN: yes");
#else
    puts("oneDNN: no (the core's own matrix products)");
#endif
#ifdef HAVE_LIBEDIT
    puts("line editing: yes");
#else
    puts("line editing: no");
#endif
    printf("kernels here: %s\n", ops_select(OPS_BEST)->name);
    return STATUS_DONE;
}

int main(int argc, char **argv)
{
    standard_streams_open();
    argp_err_exit_status = STATUS_USAGE;
    if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")))
        return version();
    return command_dispatch(commands, "plm generate model.gguf --prompt 'The hacker' -n 64", argc, argv);
}
