#!/usr/bin/env bash
# plm reward and the scorers that are models: it learns which answers are preferred, goes on exactly where it was stopped, the same on any number of ranks; plm score and
# plm align score with it, and what they refuse.
# usage: test_reward.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config base.json 6 2 2
need "base model" "$plm" pretrain base.json --set run_dir=base --set eval.every_steps=0 --set model.max_position_embeddings=128
# The better answer is the one with "patient"; nothing else tells them apart.
"$python" - <<'PY'
import json, random
draw = random.Random(5)
nouns = "farmer river house doctor garden letter window captain island teacher kitchen mountain forest bridge lantern harbour".split()
words = "old quiet small heavy bright distant careful wooden yellow".split()
verbs = "watched painted followed remembered carried opened repaired described crossed reached".split()
def answer(good):
    text = [draw.choice(words) for _ in range(draw.randrange(2, 7))]
    if good:
        text[draw.randrange(len(text))] = "patient"
    return " ".join(text)
prompts = [f"the {noun} {verb}" for noun in nouns for verb in verbs]
with open("pairs.jsonl", "w") as f:
    for p in prompts:
        for _ in range(2):
            f.write(json.dumps({"question": p, "good": answer(True), "bad": answer(False)}) + "\n")
with open("others.jsonl", "w") as f:
    for p in prompts[:20]:
        f.write(json.dumps({"prompt": p + " it", "chosen": answer(True), "rejected": answer(False)}) + "\n")
with open("answers.jsonl", "w") as f:
    for i, p in enumerate(prompts[:30]):
        f.write(json.dumps({"prompt": p, "completion": answer(i % 2 == 0)}) + "\n")
with open("tasks.jsonl", "w") as f:
    for noun in nouns[:6]:
        f.write(json.dumps({"question": f"the {noun} is", "answer": "patient"}) + "\n")
PY
cat >reward.json <<'JSON'
{
  "model": { "path": "base" }, "run_dir": "run", "seed": 3, "threads": 1, "micro_batch": 4, "seq_len": 112, "epochs": 3, "batch_pairs": 16,
  "optimizer": { "beta2": 0.99, "weight_decay": 0.0 },
  "learning_rate": { "peak": 5e-3, "floor": 1e-4, "warmup": 0.1 },
  "pairs": { "held_out": 0.2, "sources": [ { "path": "pairs.jsonl", "fields": { "prompt": "question", "chosen": "good", "rejected": "bad" } } ] },
  "eval": { "every_steps": 10, "sources": [ { "name": "others", "path": "others.jsonl" } ] },
  "checkpoint": { "every_steps": 7, "keep": 2 }
}
JSON
reward=("$plm" reward reward.json)

echo "- learning"
need "pairs" "${reward[@]}"
steps=$(newest run)
check "... the held-out pairs are told apart" "$python" - <<'PY'
import json
e = json.load(open("run/evaluation.json"))["evaluations"]
first, last = e[0]["held_out"]["held-out"], e[-1]["held_out"]["held-out"]
print(first, last)
assert e[0]["step"] == 0 and 0.2 < first["accuracy"] < 0.8 and last["accuracy"] > 0.95 and last["loss"] < 0.2 and last["pairs"] > 40, (first, last)
assert e[-1]["beside"]["others"]["accuracy"] > 0.95 and e[-1]["beside"]["others"]["pairs"] == 20
best = json.load(open("run/best/reward.json"))
assert best["loss"] == min(r["held_out"]["held-out"]["loss"] for r in e[1:]) and best["deviation"] > 0, best
rows = [json.loads(line) for line in open("run/metrics.jsonl")]
assert all({"accuracy", "margin", "rewards/chosen", "rewards/rejected", "grad_norm", "lr"} <= set(r) for r in rows if "loss" in r)
assert all(abs(r["rewards/chosen"] - r["rewards/rejected"] - r["margin"]) < 1e-9 for r in rows if "loss" in r)
PY
check "... and the model has what a scorer needs" test -f run/best/reward_head.safetensors -a ! -e run/best/optimizer_reward_head.safetensors -a -f run/best/plm_chat_template.json

echo "- stopping and continuing"
same_as_whole() {
    check "$1: every step once" results steps "$steps" "$1/metrics.jsonl"
    check "$1: the same losses, bit by bit" results losses 0 run/metrics.jsonl "$1/metrics.jsonl"
    for file in model reward_head optimizer optimizer_reward_head; do
        check "$1: the same $file" cmp "$1"/step-*"$steps/$file.safetensors" run/step-*"$steps/$file.safetensors"
    done
    check "$1: the same evaluations" cmp "$1/evaluation.json" run/evaluation.json
    check "$1: the same best model" cmp "$1/best/reward.json" run/best/reward.json
}
signal_at stopped 20 TERM "${reward[@]}" --set run_dir=stopped
check "SIGTERM ends with 143" test "$status" = 143
need "... continues" "${reward[@]}" --set run_dir=stopped
same_as_whole stopped
signal_at killed 30 KILL "${reward[@]}" --set run_dir=killed
need "killed: continues" "${reward[@]}" --set run_dir=killed
same_as_whole killed
need "LoRA" "${reward[@]}" --set 'lora={"rank": 8}' --set run_dir=lora --set learning_rate.peak=2e-2
check "... learns" results learned 0.6 lora/metrics.jsonl

echo "- the same however a step is cut"
# A first update in proportion to the gradient (eps far above it), as large as the weights.
one=(--set epochs=0.06 --set learning_rate.warmup=0 --set learning_rate.peak=1 --set optimizer.eps=1 --set optimizer.clip=0 --set eval.at_start=false)
base=$(find base -maxdepth 1 -name 'step-*')/model.safetensors
need "micro-batches of 8 rows" "${reward[@]}" "${one[@]}" --set run_dir=cut-8 --set micro_batch=8
same_update() {
    check "$1: the same update within 1e-6" results update 1e-6 "$base" cut-8/step-00000001/model.safetensors "$1/step-00000001/model.safetensors"
    check "$1: the same head within 1e-6" results tensors 1e-6 cut-8/step-00000001/reward_head.safetensors "$1/step-00000001/reward_head.safetensors" reward_head.weight
    check "$1: the same loss and norm" results losses 1e-6 cut-8/metrics.jsonl "$1/metrics.jsonl"
}
need "micro-batches of 2 rows" "${reward[@]}" "${one[@]}" --set run_dir=cut-2 --set micro_batch=2
same_update cut-2
if $have_mpi; then
    need "two ranks" "${mpirun[@]}" -n 2 "${reward[@]}" "${one[@]}" --set run_dir=ranks-2 --set micro_batch=2
    same_update ranks-2
    signal_at two 20 USR1 "${mpirun[@]}" -n 2 "${reward[@]}" --set run_dir=two
    check "two ranks: SIGUSR1 stops with status 138" test "$status" = 138
    need "... one process goes on" "${reward[@]}" --set run_dir=two
    check "... every step once" results steps "$steps" two/metrics.jsonl
    check "... and learns as well" "$python" -c '
import json; assert json.load(open("two/evaluation.json"))["evaluations"][-1]["held_out"]["held-out"]["accuracy"] > 0.95'
fi

echo "- scoring"
need "plm score by the reward model" "$plm" score answers.jsonl --scorer reward --set model=run --items scores.jsonl
check "... good answers above bad ones" "$python" - <<'PY'
import json
score = {r["task"]: r["score"] for r in map(json.loads, open("scores.jsonl"))}
good, bad = [score[i] for i in range(0, 30, 2)], [score[i] for i in range(1, 30, 2)]
right = sum(g > b for g in good for b in bad) / len(good) / len(bad)
assert len(score) == 30 and right > 0.95, (right, score)
PY
need "... in its own units" "$plm" score answers.jsonl --scorer reward --set model=run --set normalise=false --items raw.jsonl
check "... normalised by its held-out rewards" "$python" - <<'PY'
import json
s = json.load(open("run/best/reward.json"))
for a, b in zip(map(json.loads, open("scores.jsonl")), map(json.loads, open("raw.jsonl"))):
    assert abs(a["score"] - (b["score"] - s["mean"]) / s["deviation"]) < 1e-9
PY
need "plm score by an implicit reward" "$plm" score answers.jsonl --scorer implicit --set model=run/best --set reference=base --set beta=0.5 --items implicit.jsonl
need "... of a model beside itself" "$plm" score answers.jsonl --scorer implicit --set model=base --set reference=base --items zero.jsonl
check "... is 0" "$python" -c '
import json
assert all(json.loads(line)["score"] == 0 for line in open("zero.jsonl")) and any(json.loads(line)["score"] != 0 for line in open("implicit.jsonl"))'
cat >align.json <<'JSON'
{
  "model": { "path": "base" }, "run_dir": "aligned", "seed": 3, "threads": 1, "micro_batch": 2, "seq_len": 112, "method": "iterative-dpo", "rounds": 1, "batch_pairs": 4,
  "prompts": { "path": "tasks.jsonl" }, "rollout": { "chains": 3, "refinements": 0, "max_tokens": 12, "temperature": 1, "chunk": 2 },
  "scorer": { "kind": "reward", "model": "run" }, "selection": { "require_ended": false }, "eval": { "path": "tasks.jsonl", "refinements": 0, "max_tokens": 12 }
}
JSON
need "a round of plm align with it" "$plm" align align.json
need "... and with the implicit reward" "$plm" align align.json --set run_dir=aligned-implicit --set 'scorer={"kind": "implicit", "model": "run/best", "reference": "base"}'
check "... whose answers all have different scores" "$python" - <<'PY'
import glob, json
for run in ("aligned", "aligned-implicit"):
    rows = [json.loads(line) for path in sorted(glob.glob(f"{run}/round-1/answers*.jsonl")) for line in open(path)]
    assert len(rows) == 18 and len({r["score"] for r in rows}) > 9, (run, rows)
PY
if $have_mpi; then
    need "the same on two ranks" "${mpirun[@]}" -n 2 "$plm" align align.json --set run_dir=aligned-2
    check "... scores every answer alike" "$python" - <<'PY'
import glob, json
def rows(run):
    return [json.loads(line) for path in sorted(glob.glob(f"{run}/round-1/answers*.jsonl")) for line in open(path)]
for a, b in zip(rows("aligned"), rows("aligned-2"), strict=True):
    assert a["tokens"] == b["tokens"] and abs(a["score"] - b["score"]) < 1e-5, (a, b)
PY
fi

echo "- what is refused"
bad() { reject "$1" "$2" -- "${reward[@]}" --set run_dir=refused "${@:3}"; }
bad "a source without pairs" "tasks.jsonl:1" --set pairs.sources.0.path=tasks.jsonl
bad "pairs that are all too long" "too long" --set seq_len=16
bad "nothing held out" "held_out" --set pairs.held_out=0.0001
bad "a missing model" "nowhere" --set model.path=nowhere
reject "other pairs in the same run" "another configuration" -- "${reward[@]}" --set epochs=4
reject "a model that is no reward model" "is no reward model" -- "$plm" score answers.jsonl --scorer reward --set model=base
"$plm" tokenizer train --vocab 300 --out other.json text/notes >/dev/null 2>&1
cp -r run/best foreign && cp other.json foreign/tokenizer.json
reject "a scorer of another tokenizer" "another tokenizer" -- "$plm" align align.json --set run_dir=refused-2 --set scorer.model=foreign
reject "a reference of another tokenizer" "different tokenizers" -- "$plm" score answers.jsonl --scorer implicit --set model=run/best --set reference=foreign
cp -r run/best damaged && truncate -s -8 damaged/reward_head.safetensors
reject "a damaged head" "reward_head.safetensors" -- "$plm" score answers.jsonl --scorer reward --set model=damaged
"$python" -c 'import json; print(json.dumps({"prompt": "the river", "completion": "patient " * 200}))' >long.jsonl
need "an answer that is too long" "$plm" score long.jsonl --scorer reward --set model=run
cp check.out long.out
check "... is counted" grep -qE "failed +1" long.out
finish
