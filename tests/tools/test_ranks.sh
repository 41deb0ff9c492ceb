#!/usr/bin/env bash
# The number of ranks and threads does not change what is learned: 1 rank x accumulation 4, 2 x 2 and 4 x 1 over 50 steps.
# usage: test_ranks.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 30 12 8
# Sums over ranks differ from sums over micro-batches in the last bit. How far that carries is a matter of the learning rate:
# at 5e-3 this model is on the edge of stability, where 1e-8 becomes 1e-5 within three steps.
settings=(--set micro_batch=1 --set eval.every_steps=0 --set schedule.peak=1e-3)
# run NAME RANKS: one row per micro-batch, so that four rows are 4 / RANKS micro-batches of each rank
run() {
    local name=$1 ranks=$2
    need "$name" "${mpirun[@]}" -n "$ranks" "$plm" pretrain config.json --set run_dir="$name" "${settings[@]}"
}

need "one process" "$plm" pretrain config.json --set run_dir=single "${settings[@]}"
need "two threads" "$plm" pretrain config.json --set run_dir=threads "${settings[@]}" --set threads=2
check "1 and 2 threads: identical" results losses 0 single/metrics.jsonl threads/metrics.jsonl
check "... weights too" cmp single/step-00000050/model.safetensors threads/step-00000050/model.safetensors

if ! $have_mpi; then
    [ $failures = 0 ] || finish
    skip "this build has no MPI or there is no mpirun; ranks are not tested"
fi
run one-rank 1
run two-ranks 2
run four-ranks 4
check "a process alone and a rank alone: identical" results losses 0 single/metrics.jsonl one-rank/metrics.jsonl
check "1 x 4, 2 x 2, 4 x 1" results losses 1e-6 one-rank/metrics.jsonl two-ranks/metrics.jsonl four-ranks/metrics.jsonl
cat check.out
finish
