/* plm bench model: a GGUF file of random weights, to measure speeds of shapes nobody has trained here.
 * plm bench decode: speed of decoding and prefill of any model.
 * plm bench rollouts: speed of many completions together, as preference learning samples them. */
#ifndef TOOLS_BENCH_MODEL_H
#define TOOLS_BENCH_MODEL_H

/* argv[0] is "plm bench model", "plm bench decode" or "plm bench rollouts". Return the exit status. */
int bench_model(int argc, char **argv);
int bench_decode(int argc, char **argv);
int bench_rollouts(int argc, char **argv);

#endif
