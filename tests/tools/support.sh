# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this directory, which are called as SCRIPT PLM BUILD_DIRECTORY mpi|alone ...: a scratch directory
# (kept when PLM_TEST_KEEP is set), checks that are counted, and a small data set with a configuration to train on it. A script
# ends with `finish`.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plm=$(realpath -- "$1")
have_mpi=$([ "$3" = mpi ] && echo true || echo false)
python=/usr/bin/python3 # the one that has Debian's modules
[ -x $python ] || python=python3
name=$(basename "$0" .sh)
scratch=$(mktemp -d "$(realpath -- "$2")/$name.XXXXXX") || exit 1
failures=0 checks=0
export ASAN_OPTIONS=${ASAN_OPTIONS-}:allocator_may_return_null=1
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
# mpirun refuses root and more ranks than processors unless told, and MPI itself leaks.
mpirun=(env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0" mpirun)
[ -n "${PLM_TEST_KEEP-}" ] || trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

skip() { printf 'skipped: %s\n' "$*"; exit 77; }

fail() {
    failures=$((failures + 1))
    printf 'FAIL %s\n' "$*"
}

# check WHAT COMMAND...: the command must succeed; its output is shown when it does not.
check() {
    local what=$1
    shift
    checks=$((checks + 1))
    if "$@" >check.out 2>&1; then
        printf 'ok   %s\n' "$what"
    else
        fail "$what (exit status $?): $*"
        tail -n 20 check.out
        return 1
    fi
}

# need WHAT COMMAND...: a check that the rest of the script depends on.
need() { check "$@" || finish; }

# reject WHAT PATTERN... -- COMMAND...: the command must fail, by its own decision (no signal, no sanitizer report), without
# standing still, and say everything in PATTERN (extended regular expressions).
reject() {
    local what=$1 status patterns=() pattern
    shift
    while [ "$1" != -- ]; do patterns+=("$1"); shift; done
    shift
    checks=$((checks + 1))
    timeout -k 5 600 "$@" >reject.out 2>&1
    status=$?
    if [ $status = 0 ]; then
        fail "$what: accepted"; tail -n 5 reject.out
        return 1
    fi
    if [ $status -ge 124 ] || grep -qE 'ERROR: .*Sanitizer|runtime error:|[Aa]ssertion' reject.out; then
        fail "$what: ended by a time limit, signal or sanitizer (exit status $status)"; tail -n 20 reject.out
        return 1
    fi
    for pattern in "${patterns[@]}"; do
        if ! grep -qE -- "$pattern" reject.out; then
            fail "$what: the message lacks '$pattern'"; tail -n 5 reject.out
            return 1
        fi
    done
    printf 'ok   %s: %s\n' "$what" "$(grep -E 'error|warning|[a-z]: ' reject.out | head -n 1)"
}

finish() {
    printf '%d checks, %d failed\n' "$checks" "$failures"
    [ "$failures" = 0 ] && [ "$checks" -gt 0 ]
    exit
}

results() { "$python" "$here/results.py" "$@"; }

# signal_at RUN STATE SIGNAL COMMAND...: start it, send the signal when RUN has come to the state (at_state.py: so many lines of
# metrics.jsonl, or a file); its exit status is in $status, what it writes in RUN.log.
signal_at() {
    "$python" "$here/at_state.py" "$@"
    status=$?
}

# newest RUN: the step of the newest checkpoint
newest() { find "$1" -maxdepth 1 -name 'step-*' | sort | tail -n 1 | sed 's/.*-0*//'; }

# make_data: text/, tokenizer.json, shards/stories and shards/notes, each with train and valid.
make_data() {
    need "text" "$python" "$here/make_text.py" text
    need "tokenizer" "$plm" tokenizer train --vocab 512 --out tokenizer.json text
    mkdir -p shards
    need "shards of stories" "$plm" data build --tokenizer tokenizer.json --out shards/stories --name stories --valid-fraction 0.05 text/stories.jsonl
    need "shards of notes" "$plm" data build --tokenizer tokenizer.json --out shards/notes --name notes --valid-fraction 0.05 text/notes
}

# write_config FILE STABLE DECAY CONSTANT: a run of that many steps, 4 rows each, three phases with different mixtures.
write_config() {
    cat >"$1" <<JSON
{
  "model": { "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 3, "kv_lora_rank": 24, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 96, "vocab_size": 512, "max_position_embeddings": 64 },
  "tokenizer": "tokenizer.json",
  "run_dir": "run",
  "seed": 7,
  "threads": 1,
  "micro_batch": 2,
  "optimizer": { "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip": 1.0 },
  "schedule": { "unit": "steps", "peak": 5e-3, "floor": 5e-5, "warmup": 5, "decay_shape": "cosine" },
  "phases": [
    { "name": "general", "schedule": "stable", "steps": $2, "seq_len": 48, "batch_rows": 4,
      "mixture": [ { "path": "shards/stories/train", "weight": 0.7 }, { "path": "shards/notes/train", "weight": 0.3 } ] },
    { "name": "better", "schedule": "decay", "steps": $3, "seq_len": 64, "batch_rows": 8,
      "mixture": [ { "path": "shards/stories/train", "weight": 0.3 }, { "path": "shards/notes/train", "weight": 0.7 } ] },
    { "name": "best", "schedule": "constant", "steps": $4, "seq_len": 64, "batch_rows": 4,
      "mixture": [ { "path": "shards/notes/train", "weight": 1 } ] }
  ],
  "eval": { "every_steps": 25, "max_tokens": 4096, "sources": [ { "name": "stories", "path": "shards/stories/valid" } ] },
  "checkpoint": { "every_steps": 20, "keep": 3 }
}
JSON
}
