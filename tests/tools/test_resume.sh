#!/usr/bin/env bash
# A run that was stopped or killed and continued is the run that was not: the same losses and weights, bit by bit.
# usage: test_resume.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

steps=500
make_data
write_config config.json 300 100 100
train=("$plm" pretrain config.json --set schedule.peak=1e-3 --set eval.every_steps=100 --set checkpoint.every_steps=50)

evaluations() { grep '"eval"' "$1/metrics.jsonl"; }
# same_as_whole RUN WHOLE
same_as_whole() {
    check "$1: every step once" results steps $steps "$1/metrics.jsonl"
    check "$1: the same losses, bit by bit" results losses 0 "$2/metrics.jsonl" "$1/metrics.jsonl"
    check "$1: the same weights, bit by bit" cmp "$1/step-00000$steps/model.safetensors" "$2/step-00000$steps/model.safetensors"
    check "$1: the same optimizer state" cmp "$1/step-00000$steps/optimizer.safetensors" "$2/step-00000$steps/optimizer.safetensors"
    check "$1: the same evaluations on the way" cmp <(evaluations "$1") <(evaluations "$2")
    check "$1: the same held-out losses" cmp "$1/evaluation.json" "$2/evaluation.json"
}

need "uninterrupted" "${train[@]}" --set run_dir=whole

for signal in TERM INT; do
    signal_at "by-$signal" 40..300 $signal "${train[@]}" --set run_dir="by-$signal"
    check "SIG$signal ends with 128 + its number" test $status = $((128 + $(kill -l $signal)))
    at=$(newest "by-$signal")
    check "... says where it stopped" grep -qE "stopped after step $at\b" "by-$signal.log"
    check "... in the middle of the first phase (step $at)" test "$at" -ge 40 -a "$at" -lt 300
    need "... and continues" "${train[@]}" --set run_dir="by-$signal"
    same_as_whole "by-$signal" whole
done

signal_at often 120 KILL "${train[@]}" --set run_dir=often
check "killed: exit status 137" test $status = 137
at=$(newest often)
signal_at often 320..490 TERM "${train[@]}" --set run_dir=often
check "... continues from the last checkpoint" grep -qE "continuing from often/step-0*$at " often.log
check "... and stopped again in the second phase" test "$(newest often)" -gt 300
need "... continues" "${train[@]}" --set run_dir=often
same_as_whole often whole

# A signal may come at any instruction, also where a library has borrowed the stack pointer: many of them, until it ends.
signal_at storm step-00000050 'TERM*3000' "${train[@]}" --set run_dir=storm
check "a storm of signals ends it as one does" test $status = 143
need "... it continues" "${train[@]}" --set run_dir=storm
check "... the same losses, bit by bit" results losses 0 whole/metrics.jsonl storm/metrics.jsonl

# A kill between the checkpoint of a step and its evaluation.
cp -r often owed
rm -r owed/evaluation.json owed/step-00000450 owed/step-00000500
need "a run that ends before the evaluation of step 400" sed -i '/"step": 400, "eval"/d' owed/metrics.jsonl
need "... continues with it" "${train[@]}" --set run_dir=owed
same_as_whole owed whole

cp often/metrics.jsonl metrics.before
need "a finished run, once more" "${train[@]}" --set run_dir=often
check "... adds nothing to metrics.jsonl" cmp often/metrics.jsonl metrics.before

$have_mpi || finish
need "two ranks, uninterrupted" "${mpirun[@]}" -n 2 "${train[@]}" --set run_dir=whole-2
signal_at stopped-2 40..300 USR1 "${mpirun[@]}" -n 2 "${train[@]}" --set run_dir=stopped-2
check "SIGUSR1 to mpirun: stops with status 138" test $status = 138
at=$(newest stopped-2)
check "... in the middle of the first phase (step $at)" test "$at" -ge 40 -a "$at" -lt 300
cp -r stopped-2 other-size
need "two ranks continue" "${mpirun[@]}" -n 2 "${train[@]}" --set run_dir=stopped-2
same_as_whole stopped-2 whole-2
need "one process continues what two ranks began" "${train[@]}" --set run_dir=other-size
check "... every step once" results steps $steps other-size/metrics.jsonl
# the sums of gradients differ in the last bit, and hundreds of updates amplify that
check "... with nearly the same losses" results losses 1e-2 whole-2/metrics.jsonl other-size/metrics.jsonl
finish
