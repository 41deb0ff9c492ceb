#!/usr/bin/env bash
# Running a model: cache types and policies, conversations, the decode benchmark.
# usage: test_run.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 20 5 5
need "pretrain" "$plm" pretrain config.json
need "export" "$plm" export run --type f32 --out model.gguf
prompt=$(head -c 120 text/notes/note-000.txt)
generate() { "$plm" generate model.gguf --prompt "$prompt" -n 12 --temperature 0 "$@" 2>/dev/null; }

generate >full.out
for policy in streaming h2o d2o d2o+count; do
    generate --cache-policy $policy --cache-budget 100% >roomy.out
    check "$policy with room for everything is the full cache" cmp full.out roomy.out
    check "$policy at 50 %" generate --cache-policy $policy --cache-budget 50%
    check "$policy with 12 slots" generate --cache-policy $policy --cache-budget 12
done
check "an f16 cache" generate --cache-type f16
reject "unknown policy" "no cache policy 'lru'" -- "$plm" generate model.gguf --prompt x --cache-policy lru
reject "unknown cache type" "no cache type 'q3'" -- "$plm" generate model.gguf --prompt x --cache-type q3
reject "a budget below the minimum" "minimum of 8" -- "$plm" generate model.gguf --prompt "$prompt" --cache-policy d2o --cache-budget 4
reject "a q8_0 cache of odd widths" "q8_0" -- "$plm" generate model.gguf --prompt x --cache-type q8_0

printf 'one\ntwo\n/reset\nthree\n' | "$plm" chat model.gguf -n 4 --temperature 0 --system x >chat.out 2>chat.err
check "a conversation over a pipe" test $? = 0
printf 'three\n' | "$plm" chat model.gguf -n 4 --temperature 0 --system x >fresh.out
check "after /reset nothing is left of it" cmp <(tail -n "$(wc -l <fresh.out)" chat.out) fresh.out
yes 'a line that fills the context' | head -n 40 | "$plm" chat model.gguf -n 8 --system x >full.out
check "a full context is said and survived" grep -q 'filled the context' full.out

check "bench model" "$plm" bench model --shape 10m --type q8_0 --out random.gguf
check "bench decode" "$plm" bench decode random.gguf --batch 1,3 --depth 0,40 --prefill 16 --json
"$plm" bench decode random.gguf --batch 1,3 --depth 0,40 --prefill 16 --json >bench.json
check "... with every point" "$python" -c '
import json
rows = json.load(open("bench.json"))
points = {(r["what"], r["sequences"], r["depth"]) for r in rows}
assert points == {("decode", 1, 0), ("decode", 3, 0), ("prefill", 1, 0), ("decode", 1, 40), ("prefill", 1, 40)}, points
assert all(r["tokens_per_s"] > 0 for r in rows)'
finish
