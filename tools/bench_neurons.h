/* plm bench neurons: active neurons of a text, and what a bound on half of their weights rules out. */
#ifndef TOOLS_BENCH_NEURONS_H
#define TOOLS_BENCH_NEURONS_H

int bench_neurons(int argc, char **argv);

#endif
