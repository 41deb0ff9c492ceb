#!/usr/bin/env bash
# The whole way, as a user goes it: text, tokenizer, shards, three phases of pretraining, GGUF, generated text.
# usage: test_pipeline.sh PLM BUILD_DIRECTORY mpi|alone EXAMPLE
set -u
example=$(realpath -- "$4")
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
"$plm" data build --tokenizer tokenizer.json --out shards/notes --name notes --valid-fraction 0.05 text/notes >again.out 2>&1
check "the same build again is up to date" grep -q 'up to date' again.out
check "inspect --verify" "$plm" data inspect --verify --tokenizer tokenizer.json shards/stories/train shards/notes/valid
"$plm" tokenizer encode --tokenizer tokenizer.json - <text/notes/note-000.txt >ids
"$plm" tokenizer decode --tokenizer tokenizer.json - <ids >decoded
check "encode and decode give the text back" cmp decoded text/notes/note-000.txt

write_config config.json 80 30 10
need "pretrain" "$plm" pretrain config.json
check "every step in metrics.jsonl" results steps 120 run/metrics.jsonl
check "it learns" results learned 0.6 run/metrics.jsonl
check "held-out loss is close to the training loss" "$python" -c '
import json
loss = json.load(open("run/evaluation.json"))["stories"]["loss"]
assert 1 < loss < 4.2, loss'
check "all phases are reported" "$python" -c '
import json
phases = [m["phase"] for m in map(json.loads, open("run/metrics.jsonl")) if "phase" in m]
assert [phases.count(p) for p in ("general", "better", "best")] == [80, 30, 10], phases'
last=run/step-00000120
for file in config.json tokenizer.json model.safetensors optimizer.safetensors trainer.json manifest.json; do
    check "checkpoint has $file" test -s $last/$file
done
check "keeps the newest three" test "$(printf '%s ' run/step-*)" = "run/step-00000080 run/step-00000100 run/step-00000120 "

for type in f32 f16 bf16 q8_0; do
    check "export $type" "$plm" export run --type $type --out model-$type.gguf
done
check "q8_0 is smaller than f16, f16 than f32" test "$(stat -c %s model-q8_0.gguf)" -lt "$(stat -c %s model-f16.gguf)" -a \
    "$(stat -c %s model-f16.gguf)" -lt "$(stat -c %s model-f32.gguf)"

prompt="The old farmer"
# greedy MODEL: 24 greedy tokens
greedy() { "$plm" generate "$1" --prompt "$prompt" -n 24 --temperature 0 --threads 1; }
need "generate from the checkpoint" greedy $last
greedy $last >greedy.txt 2>/dev/null
check "... wrote something" grep -q '[a-z]' greedy.txt
for model in $last run model-f32.gguf; do
    greedy $model >again.txt 2>/dev/null
    check "greedy text of $model is the same" cmp greedy.txt again.txt
done
for type in f16 bf16 q8_0; do
    check "generate from $type" greedy model-$type.gguf
done
sample() { "$plm" generate model-q8_0.gguf --prompt "$prompt" -n 24 --temperature 0.9 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.1 --seed "$1" 2>/dev/null; }
sample 1 >sample-1.txt; sample 1 >sample-1-again.txt; sample 2 >sample-2.txt
check "same seed, same text" cmp sample-1.txt sample-1-again.txt
check "another seed, another text" test "$(cat sample-1.txt)" != "$(cat sample-2.txt)"
"$plm" generate model-f32.gguf --prompt "$prompt" -n 24 --temperature 0 --json >greedy.json
check "--json is JSON with the same text" "$python" -c '
import json
out = json.load(open("greedy.json"))
assert out["prompt"] == "The old farmer" and out["text"] + "\n" == open("greedy.txt").read(), out
assert out["generated_tokens"] == len(out["tokens"]) > 0 and out["finish_reason"] in ("length", "eos"), out'

{ "$example" model-f32.gguf "$prompt" 24; echo; } >example.txt
check "the example of infer/plm.h continues it the same way" cmp greedy.txt example.txt

for model in $last model-f32.gguf model-f16.gguf model-q8_0.gguf; do
    "$plm" logits $model --tokens 5,9,300,17,4,4,260,31,400,77 --out prefill.safetensors
    "$plm" logits $model --tokens 5,9,300,17,4,4,260,31,400,77 --decode --out decode.safetensors
    check "$model: decode equals prefill" results tensors 1e-5 decode.safetensors prefill.safetensors logits
    [ $model != $last ] || cp prefill.safetensors checkpoint.safetensors
    [ $model != model-f32.gguf ] || check "f32 GGUF equals the checkpoint" cmp prefill.safetensors checkpoint.safetensors
    [ $model != model-f16.gguf ] || check "f16 is close to the checkpoint" results tensors 5e-3 prefill.safetensors checkpoint.safetensors logits
    [ $model != model-q8_0.gguf ] || check "q8_0 is close to the checkpoint" results tensors 5e-2 prefill.safetensors checkpoint.safetensors logits
done

need "a second run, from the weights of the first" "$plm" pretrain config.json --set "model={\"path\": \"$last\"}" --set run_dir=more \
    --set phases.0.steps=6 --set phases.1.steps=2 --set phases.2.steps=2
check "... starts where the first ended" "$python" -c '
import json
first = [json.loads(line) for line in open("more/metrics.jsonl")][0]["loss"]
assert first < 4.2, first'

echo "- rows are rows, whatever the file is called"
"$python" - <<'PY'
import gzip, json
rows = [{"text": f"Row {i} tells of a river.", "id": 2**70 + i, "score": float("nan")} for i in range(30)]
lines = "".join(json.dumps(r) + "\n" for r in rows)
open("rows.jsonl", "w").write(lines)
open("rows.json", "w").write(lines)
open("ROWS.NDJSON", "w").write("\ufeff" + lines)
open("rows.txt", "w").write(lines)
open("array.json", "w").write(json.dumps(rows, indent=2))
open("one-after-the-other.json", "w").write("\n".join(json.dumps(r, indent=1) for r in rows))
gzip.open("rows.json.gz", "wt").write(lines)
open("packed.jsonl", "wb").write(gzip.compress(lines.encode()))
PY
for file in rows.jsonl rows.json ROWS.NDJSON rows.txt array.json one-after-the-other.json rows.json.gz packed.jsonl; do
    check "$file" "$plm" data build --tokenizer tokenizer.json --out "rows/$file" --valid-fraction 0 "$file"
    check "... its rows" bash -c '"$0" data inspect "rows/$1/train" --tokenizer tokenizer.json --show 30 --bytes 40 | grep -c "tells of a river" | grep -qx 30' "$plm" "$file"
    check "... for a tokenizer too" bash -c '"$0" tokenizer train --vocab 280 --out rows.tokenizer.json "$1" 2>&1 | grep -qE "^30 documents"' "$plm" "$file"
done
printf '\375\067zXZ\000' >packed.jsonl.xz
reject "another compression" "packed.jsonl.xz' is xz: unpack it first" -- "$plm" data build --tokenizer tokenizer.json --out rows/xz packed.jsonl.xz
iconv -f UTF-8 -t UTF-16 rows.txt >utf16.txt
reject "UTF-16" "is UTF-16; convert it" -- "$plm" data build --tokenizer tokenizer.json --out rows/utf16 utf16.txt

echo "- what is held out is whole documents"
"$python" -c 'for i in range(40): open(f"book-{i:02}.txt", "w").write("".join(f"Book {i} line {j}.\n" for j in range(60)))'
need "books in pieces" "$plm" data build --tokenizer tokenizer.json --out books --valid-fraction 0.3 --max-document 200 book-*.txt
side() { "$plm" data inspect "books/$1" --tokenizer tokenizer.json --show 1000 --bytes 300 | grep -oE 'Book [0-9]+ ' | sort -u; }
check "both sides have some" test "$(side train | wc -l)" -gt 10 -a "$(side valid | wc -l)" -gt 2
check "no book is on both" test "$( (side train; side valid) | sort | uniq -d | wc -l)" = 0
finish
