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
result = json.load(open("bench.json"))
rows = result["rows"]
points = {(r["what"], r["sequences"], r["depth"]) for r in rows}
assert points == {("decode", 1, 0), ("decode", 3, 0), ("prefill", 1, 0), ("decode", 1, 40), ("prefill", 1, 40)}, points
assert all(r["tokens_per_s"] > 0 for r in rows)
assert result["read_limit_gb_per_s"] > 0 and all(0 < r["of_read_limit"] for r in rows if r["what"] == "decode" and r["sequences"] == 1)
assert len(result["active_neurons_by_layer"]) == 10 and 0.4 < result["active_neurons"] < 0.6, result'
check "bench model with few active neurons" "$plm" bench model --shape 10m --active 10 --out sparse.gguf
"$plm" bench decode sparse.gguf --batch 1 --depth 0 --prefill 0 --json >bench.json
check "... which decoding finds" "$python" -c 'import json; assert 0.05 < json.load(open("bench.json"))["active_neurons"] < 0.15'
"$plm" bench decode sparse.gguf --batch 1 --depth 0 --prefill 0 --json --dense >bench.json
check "... also when it reads all" "$python" -c 'import json; assert 0.05 < json.load(open("bench.json"))["active_neurons"] < 0.15'
head -c 2000 "$0" >text.txt
reject "bench neurons of odd rows" "rows of 48 elements" -- "$plm" bench neurons model.gguf text.txt
need "pretrain wider" "$plm" pretrain config.json --set run_dir=wider --set model.hidden_size=64
"$plm" bench neurons wider text.txt --json >neurons.json
check "bench neurons: what is ruled out is not active" "$python" -c '
import json
for r in json.load(open("neurons.json")):
    assert r["ruled_out_exact"] <= 1 - r["active"] + 1e-9, r
    ruled_out = [c["ruled_out"] for c in r["calibrated"]]
    assert ruled_out == sorted(ruled_out, reverse=True) and ruled_out[-1] >= r["ruled_out_exact"], r'
finish
