/* plm bench train: speed of a whole training step. */
#ifndef TOOLS_BENCH_TRAIN_H
#define TOOLS_BENCH_TRAIN_H

/* argv[0] is "plm bench train". Returns the exit status. */
int bench_train(int argc, char **argv);

#endif
