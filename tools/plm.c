/* plm: the program. Only here and in argp does the process end. */
#include <stddef.h>

#include "tools/command.h"

static const struct command commands[] = {
    {"tokenizer", "train a byte-level BPE, encode and decode", command_tokenizer},
    {"data", "turn text into shards, and look into shards", command_data},
    {"plan", "memory of a model or a training run, before it runs", command_plan},
    {"pretrain", "pretrain a model, alone or under mpirun", command_pretrain},
    {"export", "write a model as GGUF or as a Hugging Face directory", command_export},
    {"quantize", "write a model as GGUF of another type", command_quantize},
    {"import", "make a directory to train from of any model", command_import},
    {"generate", "continue a text", command_generate},
    {"chat", "talk with a model", command_chat},
    {"logits", "the logits of a list of tokens", command_logits},
    {"eval", "how good a model is: perplexity, choices, answers, recall", command_eval},
    {"verify", "compute a reference case with the trainer", command_verify},
    {"bench", "measure the machine and the kernels", command_bench},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    return command_dispatch(commands, "plm generate model.gguf --prompt 'The hacker' -n 64", argc, argv);
}
