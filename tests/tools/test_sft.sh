#!/usr/bin/env bash
# plm sft: it learns what the answers say, the same update however a step is cut, goes on exactly where it was stopped, keeps the best model, and refuses bad input.
# usage: test_sft.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config base.json 6 2 2
need "base model" "$plm" pretrain base.json --set run_dir=base --set eval.every_steps=0 --set model.max_position_embeddings=128
"$python" - <<'PY'
import json
nouns = "farmer river house doctor garden letter window captain island teacher kitchen mountain forest bridge lantern harbour".split()
adjectives = "old quiet small heavy bright distant careful wooden yellow patient".split()
answer = {noun: adjectives[i * 7 % 10] for i, noun in enumerate(nouns)}
with open("prompts.jsonl", "w") as f:
    for i, noun in enumerate(nouns):
        f.write(json.dumps({"prompt": f"the {noun} is", "completion": answer[noun]}) + "\n")
with open("chats.jsonl", "w") as f:
    for i, noun in enumerate(nouns):
        other = nouns[(i + 3) % len(nouns)]
        f.write(json.dumps({"messages": [{"role": "user", "content": f"the {noun} is"}, {"role": "assistant", "content": answer[noun]},
                                         {"role": "user", "content": f"the {other} is"}, {"role": "assistant", "content": answer[other]}]}) + "\n")
with open("others.jsonl", "w") as f:
    for i, noun in enumerate(nouns):
        f.write(json.dumps({"prompt": f"the {noun} is", "completion": adjectives[i * 3 % 10]}) + "\n")
with open("pairs.jsonl", "w") as f:
    for i, noun in enumerate(nouns):
        f.write(json.dumps({"prompt": f"the {noun} is", "chosen": answer[noun], "rejected": adjectives[(i * 7 + 1) % 10]}) + "\n")
with open("tasks.jsonl", "w") as f:
    for noun in nouns:
        f.write(json.dumps({"question": f"the {noun} is", "answer": answer[noun]}) + "\n")
PY
printf '{x}, not {y_prev}' >refine.txt
cat >sft.json <<'JSON'
{
  "model": { "path": "base" },
  "refine_template": "refine.txt", "run_dir": "run", "seed": 3, "threads": 1, "micro_batch": 2, "seq_len": 112,
  "optimizer": { "beta2": 0.99, "weight_decay": 0.0 },
  "phases": [
    { "name": "general", "epochs": 80, "batch_rows": 4, "peak": 1e-2, "floor": 1e-3, "warmup": 0.1, "sources": [ { "path": "chats.jsonl" }, { "path": "prompts.jsonl" } ] },
    { "name": "second", "steps": 40, "batch_rows": 3, "peak": 5e-3, "warmup": 2, "sources": [ { "path": "prompts.jsonl", "weight": 2 } ] }
  ],
  "eval": { "every_steps": 70, "sources": [ { "name": "prompts", "path": "prompts.jsonl" } ],
            "answers": { "path": "tasks.jsonl", "max_tokens": 8, "refinements": 1, "samples": 2, "scorer": { "kind": "exact" } } },
  "checkpoint": { "every_steps": 30, "keep": 2 }
}
JSON
sft=("$plm" sft sft.json)
# logged WHAT PATTERN COMMAND...: the command must succeed and say so.
logged() {
    local what=$1 pattern=$2
    shift 2
    need "$what" "$@"
    cp check.out logged.out
    check "... and says so" grep -qE -- "$pattern" logged.out
}

echo "- learning"
logged "two phases" "chats.jsonl: 16 rows, 16 used, [0-9]+ tokens, [0-9]+ of them targets" "${sft[@]}"
check "... the loss falls" results learned 0.2 run/metrics.jsonl
check "... the answers are right" "$python" - <<'PY'
import json
e = json.load(open("run/evaluation.json"))
first, last = e["evaluations"][0], e["evaluations"][-1]
assert first["step"] == 0 and first["answers"][0]["score"] < 0.3, first
assert last["answers"][0]["score"] > 0.9 and last["answers"][0]["ended_rate"] > 0.9, last
assert last["held_out"]["prompts"]["token_accuracy"] > 0.9 and first["held_out"]["prompts"]["token_accuracy"] < 0.6
best = min(e["evaluations"][1:], key=lambda r: r["held_out"]["prompts"]["loss"])
assert e["best"]["step"] == best["step"] and e["best"]["value"] == best["held_out"]["prompts"]["loss"], e["best"]
rows = [json.loads(line) for line in open("run/metrics.jsonl")]
assert {r["phase"] for r in rows if "phase" in r} == {"general", "second"}
assert all(r["lr"] > 0 for r in rows if "lr" in r)
sample = [json.loads(line) for line in open("run/samples.jsonl")][-1]
assert set(sample) == {"step", "prompt", "answers", "reference"} and [a["turn"] for a in sample["answers"]] == [0, 1], sample
assert [r["turn"] for r in rows if r["step"] == last["step"] and "turn" in r] == [0, 1]
PY
check "... the best model says it" test "$("$plm" generate run/best --special --temperature 0 -n 8 --prompt '<|im_start|>system
You are a helpful assistant<|im_end|>
<|im_start|>user
the river is<|im_end|>
<|im_start|>assistant
' 2>/dev/null | tail -n 1 | cut -d '<' -f 1)" = wooden
check "... two checkpoints stay, beside the best" test "$(find run -maxdepth 1 -name 'step-*' | wc -l)" = 2 -a -f run/best/manifest.json -a -f run/best/plm_chat_template.json

echo "- the same update however a step is cut"
# A first update in proportion to the gradient (eps far above it), as large as the weights.
one=(--set 'phases=[{"name": "one", "steps": 1, "batch_rows": 8, "peak": 20, "sources": [{"path": "chats.jsonl"}, {"path": "pairs.jsonl", "use": "refine"}]}]'
    --set optimizer.eps=1 --set optimizer.clip=0 --set 'eval={}')
base=$(find base -maxdepth 1 -name 'step-*')/model.safetensors
update() { need "$1" "${@:2}" --set run_dir="update-$1"; }
same_update() { check "$1: the same update within 1e-6" results update 1e-6 "$base" update-8/step-00000001/model.safetensors "update-$1/step-00000001/model.safetensors"; }
for micro in 8 4 2 1; do update $micro "${sft[@]}" "${one[@]}" --set micro_batch=$micro; done
for micro in 4 2 1; do same_update $micro; done
if $have_mpi; then
    for ranks in 2 4; do
        update "ranks-$ranks" "${mpirun[@]}" -n $ranks "${sft[@]}" "${one[@]}" --set micro_batch=1
        same_update "ranks-$ranks"
    done
    update noise "${sft[@]}" "${one[@]}" --set micro_batch=4 --set neftune_alpha=5
    update noise-ranks "${mpirun[@]}" -n 2 "${sft[@]}" "${one[@]}" --set micro_batch=1 --set neftune_alpha=5
    check "noise: the same within 1e-6" results update 1e-6 "$base" update-noise/step-00000001/model.safetensors update-noise-ranks/step-00000001/model.safetensors
    reject "... and another one than without" "differ by" -- "$python" "$here/results.py" update 1e-3 "$base" update-8/step-00000001/model.safetensors \
        update-noise/step-00000001/model.safetensors
fi

echo "- stopping and continuing"
steps=$(newest run)
same_as_whole() {
    check "$1: every step once" results steps "$steps" "$1/metrics.jsonl"
    check "$1: the same losses, bit by bit" results losses 0 run/metrics.jsonl "$1/metrics.jsonl"
    check "$1: the same weights and moments" bash -c "cmp $1/step-*$steps/model.safetensors run/step-*$steps/model.safetensors &&
        cmp $1/step-*$steps/optimizer.safetensors run/step-*$steps/optimizer.safetensors"
    check "$1: the same evaluations" cmp "$1/evaluation.json" run/evaluation.json
    check "$1: the same samples" cmp "$1/samples.jsonl" run/samples.jsonl
    check "$1: the same best model" cmp "$1/best/model.safetensors" run/best/model.safetensors
}
signal_at stopped 40 TERM "${sft[@]}" --set run_dir=stopped
check "SIGTERM ends with 143" test "$status" = 143
need "... continues" "${sft[@]}" --set run_dir=stopped
same_as_whole stopped
signal_at killed 70 KILL "${sft[@]}" --set run_dir=killed
check "killed: exit status 137" test "$status" = 137
need "... continues" "${sft[@]}" --set run_dir=killed
same_as_whole killed
cp run/metrics.jsonl before
need "a finished run, once more" "${sft[@]}"
check "... adds nothing" cmp before run/metrics.jsonl
if $have_mpi; then
    short=("${sft[@]}" --set phases.0.epochs=20 --set phases.0.peak=1e-3 --set phases.1.peak=1e-3 --set 'eval={}')
    need "a shorter run" "${short[@]}" --set run_dir=short
    signal_at two 40 USR1 "${mpirun[@]}" -n 2 "${short[@]}" --set run_dir=two
    check "SIGUSR1 to mpirun: stops with status 138" test "$status" = 138
    need "two ranks evaluate" "${mpirun[@]}" -n 2 "${sft[@]}" --set run_dir=eval-2 --set phases.0.epochs=0.1 --set phases.1.steps=2
    check "... as one does" "$python" - <<'PY'
import json
one, two = (json.load(open(f"{run}/evaluation.json"))["evaluations"][0] for run in ("run", "eval-2"))
assert abs(one["held_out"]["prompts"]["loss"] / two["held_out"]["prompts"]["loss"] - 1) < 1e-6, (one, two)
assert one["answers"] == two["answers"] and one["answers"][1]["scored"] == 16, (one, two)
PY
    need "one process continues what two ranks began" "${short[@]}" --set run_dir=two
    check "... with nearly the same losses" results losses 5e-2 short/metrics.jsonl two/metrics.jsonl
fi

echo "- adapters, early stopping"
lora=("${sft[@]}" --set model.path=run/best --set 'lora={"rank": 8}' --set run_dir=lora --set phases.0.peak=2e-2 --set 'phases.0.sources=[{"path": "others.jsonl"}]'
    --set phases.1.steps=2 --set phases.1.sources.0.path=others.jsonl)
signal_at lora 30 TERM "${lora[@]}"
logged "LoRA on the best model, stopped and continued" "LoRA of rank 8, alpha 16: 0.0[0-9]+ M parameters are trained" "${lora[@]}"
check "... learns" results learned 0.5 lora/metrics.jsonl
check "... adapter files beside merged weights" test -f lora/best/adapter_model.safetensors -a -f lora/best/adapter_config.json -a -f lora/best/model.safetensors
check "... the embeddings are those it began with" results tensors 0 lora/best/model.safetensors run/best/model.safetensors model.embed_tokens.weight
need "LoRA, uninterrupted" "${lora[@]}" --set run_dir=lora-whole
check "... the same weights" cmp lora/best/model.safetensors lora-whole/best/model.safetensors
early=("${sft[@]}" --set run_dir=early --set phases.0.peak=0.5 --set phases.0.warmup=25 --set eval.every_steps=5 --set early_stop.patience=3 --set eval.answers.count=2)
said="stopped early after step [0-9]+ of $steps: no better held-out loss in 3 evaluations"
logged "a rate that destroys the model" "$said" "${early[@]}"
logged "... once more" "$said" "${early[@]}"
check "... best is an early step" test "$("$python" -c 'import json; e = json.load(open("early/evaluation.json")); print(e["evaluations"][-1]["step"] - e["best"]["step"])')" = 15

echo "- bad input"
bad() { reject "$1" "$2" -- "${sft[@]}" --set run_dir=refused "${@:3}"; }
printf '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion"\n' >broken.jsonl
printf '{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", "completion": ""}\n' >empty-answer.jsonl
printf '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}\n' >roles.jsonl
: >nothing.jsonl
bad "a line that is no JSON" "phase 'general'.*broken.jsonl:2" --set phases.0.sources.0.path=broken.jsonl
bad "an empty answer" "empty-answer.jsonl:3" --set phases.0.sources.0.path=empty-answer.jsonl
bad "roles out of order" "roles.jsonl:1" --set phases.0.sources.0.path=roles.jsonl
bad "a missing file" "nowhere.jsonl" --set phases.0.sources.0.path=nowhere.jsonl
bad "an empty file" "phase 'second'.*nothing" --set phases.1.sources.0.path=nothing.jsonl
bad "rows that are all too long" "longer|no row can be used" --set seq_len=16
bad "pairs where there are none" "prompts.jsonl:1" --set phases.0.sources.1.use=refine
bad "an unknown key" "did you mean 'peak'" --set phases.0.paek=1
bad "no learning rate" "phases\[0\].peak" --set phases.0.peak=null
bad "seq_len beyond the model" "1 to 128 tokens" --set seq_len=512
bad "a missing model" "nowhere" --set model.path=nowhere
bad "an unknown scorer" "eval.answers.scorer" --set eval.answers.scorer.kind=magic
bad "a regular expression that is none" "scorer" --set 'eval.answers.scorer={"kind": "regex", "pattern": "("}'
bad "no room for answers" "tasks.jsonl:1.*context" --set eval.answers.max_tokens=100
echo '{"turn": "{role}", "end": "<|im_end|>", "generation": ""}' >template.json
bad "a template without its slots" "template.json.*content" --set template=template.json
check "no checkpoint was left behind" test "$(find refused -name 'step-*' | wc -l)" = 0
reject "other data in the same run" "another configuration" -- "${sft[@]}" --set phases.0.sources.0.path=prompts.jsonl
logged "malformed rows left out on demand" "broken.jsonl: 1 rows, 1 used, .*; 1 malformed, left out" "${sft[@]}" --set 'eval={}' --set run_dir=skipped --set phases.0.epochs=0.5 \
    --set phases.1.steps=2 --set phases.0.skip_bad=true --set 'phases.0.sources.0={"path": "broken.jsonl"}'
echo "- a chat template in Jinja"
need "a directory of another program" "$plm" export base --format hf --out brought
rm -f brought/plm_chat_template.json
echo '{"turn": "{role}: {content}<|im_end|>", "end": "<|im_end|>"}' >own.json
cat >brought/chat_template.jinja <<'JINJA'
{%- for m in messages %}
    {{- '<you> ' if m.role == 'user' else '<bot> ' }}{{ m.content | trim }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}{{ '<bot> ' }}{% endif %}
JINJA
short=(--set 'model={"path": "brought"}' --set 'phases=[{"name": "one", "steps": 2, "batch_rows": 2, "peak": 1e-3, "sources": [{"path": "prompts.jsonl"}]}]')
need "is trained with" "${sft[@]}" --set run_dir=jinja "${short[@]}" --set eval.every_steps=0
check "... and kept" "$python" -c '
import json, glob
kept = json.load(open(max(glob.glob("jinja/step-*")) + "/plm_chat_template.json"))
assert kept["jinja"] == open("brought/chat_template.jinja").read(), kept'
need "... and exported" "$plm" export jinja --format hf --out jinja-hf
check "... as it was" "$python" -c '
import json
assert json.load(open("jinja-hf/tokenizer_config.json"))["chat_template"] == open("brought/chat_template.jinja").read()'
need "... and used" bash -c 'echo "the river is" | "$0" chat jinja -n 3 --temperature 0' "$plm"
echo '{% for m in messages %}{{ m.content | center(9) }}{% endfor %}' >brought/chat_template.jinja
reject "one that is not known" "the filter 'center'" '"template" in the configuration' -- "${sft[@]}" --set run_dir=no "${short[@]}"
need "... is no matter when another is configured" "${sft[@]}" --set run_dir=configured "${short[@]}" --set eval.every_steps=0 --set template=own.json
finish
