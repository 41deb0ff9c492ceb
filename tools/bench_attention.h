/* plm bench attention: absorbed attention over the rows of a latent cache, as decoding at depth needs it. */
#ifndef TOOLS_BENCH_ATTENTION_H
#define TOOLS_BENCH_ATTENTION_H

/* argv[0] is "plm bench attention". Returns the exit status. */
int bench_attention(int argc, char **argv);

#endif
