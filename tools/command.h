/* The subcommands of `plm`. Each takes its own argv (argv[0] is its name) and returns the process's exit status: 0, or 1
 * after printing "plm NAME: error: MESSAGE". Options are argp tables; every --help ends with an example. */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include "infer/base/status.h"

struct command {
    const char *name;
    const char *summary; /* one line for `plm --help` */
    int (*run)(int argc, char **argv);
};

/* Print the message as an error of the running command ("plm data build: error: ...") and return exit status 1. */
int command_fail(const struct plm_status *st);

/* Run the command of a table (ended by a NULL name) that argv[1] names, or show its usage with one example: exit status 0 when
 * asked for, 2 for a command that is not there. */
int command_dispatch(const struct command *table, const char *example, int argc, char **argv);

int command_tokenizer(int argc, char **argv);
int command_data(int argc, char **argv);
int command_data_recall(int argc, char **argv);
int command_data_preview(int argc, char **argv);
int command_data_arithmetic(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_eval_kv(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_pretrain(int argc, char **argv);
int command_sft(int argc, char **argv);
int command_align(int argc, char **argv);
int command_reward(int argc, char **argv);
int command_score(int argc, char **argv);
int command_export(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_import(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_answer(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_report(int argc, char **argv);

#endif
