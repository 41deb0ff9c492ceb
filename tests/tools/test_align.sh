#!/usr/bin/env bash
# plm align: all methods, the same rounds on any number of ranks, killed anywhere and continued, references cached, live and under LoRA, offline and unpaired data, bad
# input.
# usage: test_align.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

# A model of two layers that has seen enough sums to end its answers; "even" is what the scorer likes.
"$plm" data arithmetic --out train.jsonl --count 400 --digits 1:2 --steps 1 >/dev/null || fail "tasks"
"$plm" data arithmetic --out valid.jsonl --count 24 --digits 1:2 --steps 1 --split valid >/dev/null || fail "held-out tasks"
"$plm" data arithmetic --out pairs.jsonl --count 24 --digits 1:2 --steps 1 --pairs >/dev/null || fail "pairs"
"$python" - <<'PY'
import json
rows = [json.loads(line) for line in open("train.jsonl")]
pairs = [json.loads(line) for line in open("pairs.jsonl")]
def write(name, rows):
    with open(name, "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")
write("text.jsonl", ({"text": r["question"] + " " + r["answer"]} for r in rows))
write("unpaired.jsonl", ({"prompt": p["prompt"], "completion": p["chosen" if i % 3 else "rejected"], "label": bool(i % 3)} for i, p in enumerate(pairs)))
write("mixed.jsonl", pairs[:2] + [{"prompt": "a", "completion": "b", "label": True}])
PY
echo '{"system": "", "turn": "<|im_start|>{role}\n{content}<|im_end|>\n", "end": "<|im_end|>"}' >chat.json
printf '{x}\nDraft: {y_prev}\nBetter:' >refine.txt
cat >pre.json <<'JSON'
{
  "model": { "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 3, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "intermediate_size": 96, "vocab_size": 320, "max_position_embeddings": 160, "initializer_range": 0.06 },
  "tokenizer": "tokenizer.json", "run_dir": "pre", "threads": 1, "micro_batch": 8, "schedule": { "peak": 2e-3, "floor": 1e-4, "warmup": 1, "unit": "steps" },
  "phases": [ { "name": "a", "schedule": "stable", "steps": 2, "seq_len": 96, "batch_rows": 8, "mixture": [ { "path": "shards/train", "weight": 1 } ] } ]
}
JSON
cat >sft.json <<'JSON'
{
  "model": { "path": "pre" }, "run_dir": "sft", "template": "chat.json", "refine_template": "refine.txt", "threads": 1, "micro_batch": 8, "seq_len": 96,
  "optimizer": { "weight_decay": 0.0 },
  "phases": [ { "name": "sums", "epochs": 6, "batch_rows": 8, "peak": 5e-3, "floor": 1e-4, "warmup": 0.05, "sources": [ { "path": "train.jsonl" } ] } ]
}
JSON
cat >align.json <<'JSON'
{
  "model": { "path": "sft" }, "run_dir": "run", "seed": 1, "threads": 1, "micro_batch": 4, "seq_len": 128, "optimizer": { "weight_decay": 0.0 },
  "method": "aries", "rounds": 2, "batch_pairs": 8, "learning_rate": { "peak": 1e-4 },
  "prompts": { "path": "train.jsonl", "per_round": 24 }, "rollout": { "chains": 2, "refinements": 2, "max_tokens": 20, "batch": 16, "chunk": 5 },
  "scorer": { "kind": "regex", "pattern": "#### [0-9]*[02468]$" }, "selection": { "rule": "all_pairs", "max_pairs": 2 },
  "eval": { "path": "valid.jsonl", "count": 12, "max_tokens": 20, "chunk": 5 },
  "log": { "every_steps": 2 }
}
JSON
need "tokenizer" "$plm" tokenizer train --vocab 320 --out tokenizer.json text.jsonl
mkdir shards
need "shards" "$plm" data build --tokenizer tokenizer.json --out shards --name sums text.jsonl
need "a model" "$plm" pretrain pre.json
need "... that answers" "$plm" sft sft.json
align=("$plm" align align.json)
base=$(find sft -maxdepth 1 -name 'step-*')/model.safetensors

# logged WHAT PATTERN COMMAND...: the command must succeed and say so.
logged() {
    local what=$1 pattern=$2
    shift 2
    need "$what" "$@"
    cp check.out logged.out
    check "... and says so" grep -qE -- "$pattern" logged.out
}
# last RUN: its newest checkpoint's model
last() { find "$1" -maxdepth 1 -name 'step-*' | sort | tail -n 1; }
# rows NAME...: metrics.jsonl of each without what the clock says, each row once: the same in all of them.
cat >rows.py <<'PY'
import json, sys
def rows(name):
    found = []
    for line in open(name + "/metrics.jsonl"):
        row = {k: v for k, v in json.loads(line).items() if not k.endswith("_per_s") and k not in ("step_s", "round_s")}
        if row not in found:
            found.append(row)
    return found
first = rows(sys.argv[1])
assert len(first) > 5
for name in sys.argv[2:]:
    other = rows(name)
    for a, b in zip(first, other):
        assert a == b, f"{sys.argv[1]}: {a}\n{name}: {b}"
    assert len(first) == len(other), (len(first), len(other))
PY
# same_files NAME WHOLE: every file of every round, but the sums of whatever ranks added.
same_files() {
    check "$1: the same files" diff -rq -x model "$1/round-0" "$2/round-0"
    for round in 1 2; do check "$1: the same files in round $round" diff -rq -x model "$1/round-$round" "$2/round-$round"; done
}
same_as_whole() {
    same_files "$1" "$2"
    check "$1: the same metrics" "$python" rows.py "$2" "$1"
    check "$1: the same samples" cmp <(sort -u "$1/samples.jsonl") <(sort -u "$2/samples.jsonl")
    for round in 1 2; do check "$1: the model of round $round" cmp "$1/round-$round/model/model.safetensors" "$2/round-$round/model/model.safetensors"; done
    check "$1: the optimizer" cmp "$(last "$1")/optimizer.safetensors" "$(last "$2")/optimizer.safetensors"
}

echo "- methods"
logged "aries" "round 1: [0-9]+ pairs, 6 sequences each" "${align[@]}" --set run_dir=whole --set checkpoint.keep=0
check "... starts at 0.2 ln 2 + 0.8 / 2" "$python" - <<'PY'
import json, math
first = next(r for r in map(json.loads, open("whole/metrics.jsonl")) if "loss/dpo" in r)
assert abs(first["loss/dpo"] - math.log(2)) < 1e-5 and abs(first["loss"] - 0.2 * math.log(2) - 0.4) < 1e-5, first
assert first["rewards/accuracies"] <= 1 and abs(first["refine/h_l"]) < 1e-4
turns = [r for r in map(json.loads, open("whole/metrics.jsonl")) if "turn" in r]
assert len(turns) == 3 * (3 + 2) and all(0 <= r["score"] <= 1 for r in turns), len(turns)
c = json.load(open("whole/round-1/collection.json"))
rows = [json.loads(line) for line in open("whole/round-1/pairs.jsonl")]
assert c["pairs"] == len(rows) > 8 and c["tasks"] == 24 and c["log_prob_difference"] < 1e-4
assert all(r["score_chosen"] > r["score_rejected"] and r["chosen_tokens"] and r["rejected_tokens"] for r in rows)
PY
check "... keeps the templates" bash -c "cmp refine.txt whole/round-2/model/refine_template.txt && test -f whole/round-2/model/plm_chat_template.json"
for method in dpo iterative-dpo rejection-sft; do
    logged "$method" "2 rounds, [0-9]+ steps" "${align[@]}" --set run_dir=$method --set method=$method --set rollout.refinements=0 --set rollout.chains=4 --set eval.count=4
done
grpo=("${align[@]}" --set method=grpo --set rollout.refinements=0 --set rollout.chains=4 --set eval.count=4 --set policy.batch_tasks=6 --set policy.updates=2
    --set policy.kl_beta=0.05 --set policy.clip_high=0.3)
logged "grpo with KL, clip and two updates" "2 rounds, 16 steps" "${grpo[@]}" --set run_dir=grpo
check "... ratios are 1 and KL is 0 at first, not later" "$python" - <<'PY'
import json
steps = [r for r in map(json.loads, open("grpo/metrics.jsonl")) if "clip_ratio" in r]
assert len(steps) == 16 and steps[0]["clip_ratio"] == 0 and steps[0]["kl"] < 1e-6 < steps[-1]["kl"], steps[0]
PY
check "a run that is complete, once more" "${align[@]}" --set run_dir=whole
check "... adds nothing" "$python" rows.py whole whole

echo "- stopped and continued"
# often RUN WHOLE COMMAND... -- STATE...: killed at each of the states and started again, it ends as WHOLE did.
often() {
    local run=$1 whole=$2 command=() state
    shift 2
    while [ "$1" != -- ]; do command+=("$1"); shift; done
    shift
    command+=(--set run_dir="$run" --set checkpoint.every_steps=1)
    for state in "$@"; do
        signal_at "$run" "$state" KILL "${command[@]}"
        check "$run: killed at $state" test "$status" = 137
    done
    need "$run: continued to its end" "${command[@]}"
    same_as_whole "$run" "$whole"
}
moments=(step-00000000 round-0/evaluation/answers-00001.jsonl round-0/evaluation.json round-1/answers-00001.jsonl round-1/answers-00004.jsonl round-1/pairs.jsonl
    round-1/manifest.json round-1/reference.json step-00000002 'round-1/.model.tmp|round-1/model' round-1/model round-1/evaluation/answers-00000.jsonl round-2/answers-00002.jsonl
    round-2/collection.json round-2/reference.json 'step-0000000[89]' round-2/evaluation/answers-00002.jsonl)
often killed whole "${align[@]}" -- "${moments[@]}"
need "grpo, uninterrupted, every step kept" "${grpo[@]}" --set run_dir=grpo-whole --set checkpoint.every_steps=1
often grpo-killed grpo-whole "${grpo[@]}" -- round-1/rollout-00000/answers-00000.jsonl step-00000001 step-00000002 round-1/rollout-00002/answers-00001.jsonl step-00000007 \
    round-1/model round-2/rollout-00001/answers-00000.jsonl step-00000011
signal_at term 8 TERM "${align[@]}" --set run_dir=term
check "SIGTERM ends with 143" test "$status" = 143
need "... continues" "${align[@]}" --set run_dir=term
same_as_whole term whole
signal_at term-grpo 9 TERM "${grpo[@]}" --set run_dir=term-grpo
check "SIGTERM to grpo ends with 143" test "$status" = 143
need "... continues" "${grpo[@]}" --set run_dir=term-grpo
same_as_whole term-grpo grpo
# Killed between the last checkpoint of a round and what follows it.
cp -r whole unkept && rm -r unkept/round-2/model unkept/round-2/evaluation.json unkept/round-2/evaluation/answers-00001.jsonl
need "the end of a round is made up for" "${align[@]}" --set run_dir=unkept
same_as_whole unkept whole

echo "- templates travel with the model"
model=whole/round-2/model
need "GGUF" "$plm" export $model --type f32 --out model.gguf
need "a Hugging Face directory" "$plm" export model.gguf --format hf --type f32 --out hf
for i in $model model.gguf hf; do
    need "answers of $i" "$plm" answer "$i" valid.jsonl --limit 8 -n 20 --strategy chain -k 1 --temperature 0 --out "answers-$(basename "$i").jsonl"
done
check "... are the same" cmp answers-model.jsonl answers-model.gguf.jsonl
check "... from all three" cmp answers-model.jsonl answers-hf.jsonl
check "... and others in ChatML" bash -c 'printf "%s" "{\"turn\": \"{role}{content}<|im_end|>\", \"end\": \"<|im_end|>\"}" >other.json; "$0" answer model.gguf valid.jsonl --limit 8 -n 20 \
    --strategy chain -k 1 --temperature 0 --template other.json --out other.jsonl >/dev/null && ! cmp -s other.jsonl answers-model.jsonl' "$plm"
check "the templates are those of the run" bash -c 'cmp hf/plm_chat_template.json "$0/plm_chat_template.json" && cmp hf/refine_template.txt refine.txt' $model
check "... also as Jinja" "$python" -c 'import json
text = json.load(open("hf/tokenizer_config.json"))["chat_template"]
assert "helpful" not in text and "<|im_start|>assistant" in text, text'

echo "- references"
cp -r whole again && find again -name "step-*" -not -name "step-00000000" -prune -exec rm -r {} +
logged "from step 0 with everything there" "round 1: reference log-probabilities read" "${align[@]}" --set run_dir=again
check "... also in round 2, which has the same model" grep -q "round 2: reference log-probabilities read" logged.out
same_as_whole again whole
cp -r whole damaged && find damaged -name "step-*" -not -name "step-00000000" -prune -exec rm -r {} + && sed -i 's/"log_probs":\[-/"log_probs":[-9/' damaged/round-1/reference.json
logged "a damaged cache" "round 1: reference log-probabilities computed" "${align[@]}" --set run_dir=damaged
same_as_whole damaged whole
# A sweep that was stopped: what the file has is kept (here a number that nobody computed), what it lacks is computed, the same to the bit.
cp -r whole part && find part -name "step-*" -not -name "step-00000000" -prune -exec rm -r {} + && rm -r part/round-2 part/round-1/evaluation* && "$python" - part/round-1/reference.json <<'PY'
import hashlib, json, struct, sys
c = json.load(open(sys.argv[1]))
n = len(c["log_probs"])
assert n > 256, n
c["log_probs"][:100], c["log_probs"][-1] = [None] * 100, -123.5
bits = b"".join(struct.pack("<Q", 0x7ff8000000000000) if x is None else struct.pack("<d", x) for x in c["log_probs"])
c["sha256"] = hashlib.sha256(bits).hexdigest()
json.dump(c, open(sys.argv[1], "w"))
PY
need "a sweep goes on" "${align[@]}" --set run_dir=part
check "... with what it had" "$python" -c 'import json
a, b = (json.load(open(f"{run}/round-1/reference.json"))["log_probs"] for run in ("whole", "part"))
assert a[:-1] == b[:-1] and b[-1] == -123.5'
need "a part of an epoch" "${align[@]}" --set run_dir=half --set epochs=0.25 --set rounds=1
check "... needs the reference of as many sequences" "$python" -c 'import json
a, b = (json.load(open(f"{run}/round-1/reference.json"))["log_probs"] for run in ("whole", "half"))
used = [i for i, x in enumerate(b) if x]
assert len(used) == 6 * -(-len(b) // 24) and max(abs(a[i] - b[i]) for i in used) < 1e-4, (len(used), len(b))'
need "live reference" "${align[@]}" --set run_dir=live --set reference.cache=false
check "... the same losses within 1e-6" results losses 1e-6 whole/metrics.jsonl live/metrics.jsonl
"$python" - <<'PY'
import json
c = json.load(open("align.json"))
for key in ("prompts", "rollout", "selection", "eval", "scorer"):
    del c[key]
c["offline"] = {"sources": [{"path": "pairs.jsonl"}], "rounds": 2}
json.dump(c, open("offline.json", "w"))
c = json.load(open("align.json"))
del c["eval"]
c["rounds"] = 1
json.dump(c, open("plain.json", "w"))
PY
offline=("$plm" align offline.json)
plain=("$plm" align plain.json) # one round, not evaluated
lora=("${offline[@]}" --set 'lora={"rank": 4}' --set reference.model=start --set learning_rate.peak=1e-3)
need "LoRA, reference at the start" "${lora[@]}" --set run_dir=lora
need "all weights, one round" "${offline[@]}" --set run_dir=explicit --set rounds=1 --set offline.rounds=1
check "LoRA off is the model at the start, after a round too" "$python" - <<'PY'
import json
a, b, c = (json.load(open(f"{run}/reference.json"))["log_probs"] for run in ("lora/round-1", "lora/round-2", "explicit/round-1"))
assert len(a) == 6 * 24 and a == b == c
PY
reject "... and another model has learned" "differ" -- cmp lora/round-1/model/model.safetensors lora/round-2/model/model.safetensors
for state in step-00000001 step-00000002 round-1/model step-00000004; do
    signal_at lora-killed $state KILL "${lora[@]}" --set run_dir=lora-killed --set checkpoint.every_steps=1
done
need "LoRA, killed and continued" "${lora[@]}" --set run_dir=lora-killed --set checkpoint.every_steps=1
check "... the same models" bash -c 'for round in 1 2; do cmp lora/round-$round/model/model.safetensors lora-killed/round-$round/model/model.safetensors || exit; done'

echo "- data"
logged "offline first, then online" "round 2: [0-9]+ answers to 24 tasks" "${align[@]}" --set run_dir=first --set 'offline={"sources": [{"path": "pairs.jsonl", "weight": 1.5}]}'
for kind in kto bco_pair apo_zero; do
    need "$kind on single answers" "${offline[@]}" --set run_dir="single-$kind" --set loss.kind=$kind --set loss.alpha=0 --set offline.unpaired=true --set \
        offline.sources.0.path=unpaired.jsonl
done
need "an evaluation of an offline run" "${offline[@]}" --set run_dir=offline-eval --set rounds=1 --set offline.rounds=1 --set 'scorer={"kind": "gsm8k"}' --set \
    'eval={"path": "valid.jsonl", "count": 4, "max_tokens": 20}'
check "... is there" test -f offline-eval/round-1/evaluation.json
# A first update in proportion to the gradient (eps far above it), and large.
one=(--set rounds=1 --set epochs=0.1 --set loss.beta=1 --set loss.beta_refine=1 --set optimizer.eps=1 --set optimizer.clip=0 --set learning_rate.peak=1 --set learning_rate.warmup=0)
update() { need "$1" "${@:2}" "${one[@]}" --set run_dir="update-$1"; }
same_update() { check "$1: the same update within 1e-6" results update 1e-6 "$base" update-whole/round-1/model/model.safetensors "update-$1/round-1/model/model.safetensors"; }
update whole "${align[@]}" --set micro_batch=16
check "... in one pass" bash -c '! grep -q "take a pass of their own" check.out'
for micro in 8 5; do
    update $micro "${align[@]}" --set micro_batch=$micro
    same_update $micro
done
logged "two-passes" "take a pass of their own" "${align[@]}" "${one[@]}" --set micro_batch=1 --set run_dir=update-two-passes
same_update two-passes
if $have_mpi; then
    for ranks in 2 4; do
        update "ranks-$ranks" "${mpirun[@]}" -n $ranks "${align[@]}"
        check "$ranks ranks: the same answers and pairs" diff -rq -x model -x collection.json -x manifest.json -x reference.json -x evaluation -x evaluation.json \
            "update-ranks-$ranks/round-1" update-whole/round-1
        same_update "ranks-$ranks"
    done
    update passes-ranks "${mpirun[@]}" -n 2 "${align[@]}" --set micro_batch=1
    same_update passes-ranks
    need "two ranks, uninterrupted" "${mpirun[@]}" -n 2 "${align[@]}" --set run_dir=whole-2
    often killed-2 whole-2 "${mpirun[@]}" -n 2 "${align[@]}" -- round-1/claim-00001 round-1/manifest.json step-00000003 round-2/claim-00003
    signal_at other 12 KILL "${align[@]}" --set run_dir=other --set checkpoint.every_steps=1
    need "two ranks continue what one began" "${mpirun[@]}" -n 2 "${align[@]}" --set run_dir=other
    check "... nearly the same model after a round" results update 1e-2 "$base" whole/round-1/model/model.safetensors other/round-1/model/model.safetensors
fi

echo "- bad input"
bad() { rm -rf refused && reject "$1" "$2" -- "${align[@]}" --set run_dir=refused "${@:3}"; }
bad_plain() { rm -rf refused && reject "$1" "$2" -- "${plain[@]}" --set run_dir=refused "${@:3}"; }
bad_offline() { rm -rf refused && reject "$1" "$2" -- "${offline[@]}" --set run_dir=refused "${@:3}"; }
printf '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": "b"\n' >broken.jsonl
printf '\n{"prompt": "a", "chosen": "b", "rejected": "b"}\n' >equal.jsonl
printf '{"prompt": "a", "chosen": "", "rejected": "b"}\n' >empty-answer.jsonl
printf '{"prompt": [{"role": "assistant", "content": "a"}], "chosen": "b", "rejected": "c"}\n' >roles.jsonl
printf '{"text": "only a text"}\n' >text-only.jsonl
printf '[{"prompt": "a", "chosen": "b", "rejected": "c"},\n {"prompt": ]' >array.json
: >nothing.jsonl
"$python" -c 'import json; print(json.dumps({"question": "how many " * 200, "answer": "#### 1"}))' >long.jsonl
sources() { echo "offline={\"sources\": [{\"path\": \"$1\"}], \"rounds\": 2, \"skip_bad\": ${2-false}}"; }
bad_offline "a line that is no JSON" "broken.jsonl:2" --set "$(sources broken.jsonl)"
bad_offline "equal answers" "equal.jsonl:2.*(equal|same)" --set "$(sources equal.jsonl)"
bad_offline "an empty answer" "empty-answer.jsonl:1" --set "$(sources empty-answer.jsonl)"
bad_offline "roles out of order" "roles.jsonl:1" --set "$(sources roles.jsonl)"
bad_offline "an empty file" "nothing.jsonl" --set "$(sources nothing.jsonl)"
bad_offline "pairs and single answers" "mixed.jsonl:3" --set "$(sources mixed.jsonl)"
bad_offline "an array that is broken, skipping" "array.json:2" --set "$(sources array.json true)"
bad_offline "a text where an answer is wanted" "text-only.jsonl:1.*text" --set "$(sources text-only.jsonl)" --set method=rejection-sft
bad_offline "single answers and a loss of pairs" "unpaired" --set offline.unpaired=true
check "... and leave no checkpoint" test ! -d refused/step-00000000
bad_offline "rows that are all too long" "24 of them are too long" --set seq_len=16
logged "a malformed row skipped on demand" "1 malformed rows skipped; the first: broken.jsonl:2" "${offline[@]}" --set run_dir=skipped --set "$(sources broken.jsonl true)"
bad "a missing file of tasks" "nowhere.jsonl" --set prompts.path=nowhere.jsonl
bad_plain "prompts longer than the context" "not made: their prompts leave no room" --set prompts.path=long.jsonl
echo '{"turn": "{role}", "end": "<|im_end|>", "generation": ""}' >template.json
printf 'no draft: {x}' >no-draft.txt
bad "a template without its slots" "template.json.*content" --set template=template.json
bad "a refinement template without its slots" "no-draft.txt.*y_prev" --set refine_template=no-draft.txt
bad "an unknown key" "did you mean 'chains'" --set rollout.chain=1
bad "an unknown loss" "unknown loss \"dop\"; known: sigmoid" --set loss.kind=dop
bad "grpo with refinements" "set rollout.refinements to 0" --set method=grpo --set loss.alpha=0
bad "a group of one" "size of a group" --set method=grpo --set rollout.refinements=0 --set rollout.chains=1
bad "one answer to a task" "makes no pair" --set rollout.refinements=0 --set rollout.chains=1
bad "no scorer" "scorer" --set scorer=null
bad_plain "all tasks tied" "all tasks are tied" --set 'scorer={"kind": "regex", "pattern": "zzz"}'
reject "... and once more, from its files" "all tasks are tied" -- "${plain[@]}" --set run_dir=refused --set 'scorer={"kind": "regex", "pattern": "zzz"}'
bad_plain "all groups tied" "same reward" --set 'scorer={"kind": "regex", "pattern": "zzz"}' --set method=grpo --set rollout.refinements=0
"$plm" tokenizer train --vocab 300 --out other.json text.jsonl >/dev/null 2>&1
bad "another tokenizer than the model's" "other.json.*another tokenizer than" --set tokenizer=other.json
bad "another model" "nowhere" --set model.path=nowhere
reject "another configuration in the same run" "another configuration" -- "${align[@]}" --set run_dir=whole --set loss.beta=0.2
cp -r whole lost && rm -r lost/step-*
reject "rounds of a run whose checkpoints are gone" "'lost/round-1' is there, but no checkpoint" -- "${align[@]}" --set run_dir=lost
cp -r sft moving && need "a run" "$plm" align align.json --set model.path=moving --set run_dir=moved --set rounds=1 --set eval.count=2
"$plm" sft sft.json --set run_dir=more --set seed=2 --set phases.0.epochs=0.1 >/dev/null 2>&1
cp -r "$(last more)" moving/step-00009999
reject "a model.path that has been trained on since" "with other data" -- "${align[@]}" --set model.path=moving --set run_dir=moved --set rounds=1 --set eval.count=2
cp -r whole torn && find torn -name "step-*" -not -name "step-00000000" -prune -exec rm -r {} + && sed -i '1s/[0-9]/7/' torn/round-1/pairs.jsonl
reject "a damaged artefact" "round 1 cannot go on; remove 'torn/round-1'.*pairs.jsonl" -- "${align[@]}" --set run_dir=torn

echo "- scorers that misbehave"
command() { logged "$1" "$2" "${plain[@]}" --set run_dir="$3" --set "scorer={\"kind\": \"command\", \"command\": [\"$python\", \"$3.py\"], \"timeout_s\": ${4:-600}}"; }
cat >crashes.py <<'PY'
import json, sys
for i, line in enumerate(sys.stdin):
    if i == 9:
        sys.exit(3)
    print(len(json.loads(line)["answer_text"]) % 7, flush=True)
PY
sed 's/sys.exit(3)/import time; time.sleep(1000)/; s/i == 9/i == 20/' crashes.py >hangs.py
sed 's/sys.exit(3)/print("rubbish")/' crashes.py | sed 's/^    print(len/    print(len/' >babbles.py
command "one that crashes" "the scorer failed on [0-9]+ answers; the first: " crashes
command "one that hangs" "the scorer failed on [0-9]+ answers; the first: .*no score within 2 s" hangs 2
command "one that prints rubbish" "the scorer failed on [0-9]+ answers; the first: .*rubbish" babbles
reject "one that is not there" "nowhere" -- "${plain[@]}" --set run_dir=none --set 'scorer={"kind": "command", "command": ["nowhere-to-be-found"]}'
echo '{"task": 399, "score": 1}' >scores.jsonl
reject "scores of other tasks" "scores.jsonl: none of its 1 scores is of one of the" -- "${plain[@]}" --set run_dir=scores --set 'scorer={"kind": "file", "path": "scores.jsonl"}'
finish
