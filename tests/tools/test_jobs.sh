#!/usr/bin/env bash
# What a job is started with, and how it ends: ranks that differ, data and configurations that changed, updates that are skipped, nothing learned.
# usage: test_jobs.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 8 4 8
pretrain=("$plm" pretrain config.json --set checkpoint.every_steps=4)
need "a run" "${pretrain[@]}" --set run_dir=run

echo "- a run that goes on"
cp run/metrics.jsonl metrics.before
list() { find run -type f ! -name .lock -printf '%p %s %T@\n' | sort; }
list >files.before
check "a finished run says so" bash -c '"$0" pretrain config.json --set checkpoint.every_steps=4 --set run_dir=run 2>&1 | grep "the run .run. is complete: all 20 steps are done"' "$plm"
check "... and adds nothing" cmp metrics.before run/metrics.jsonl
list >files.after
check "... and touches no file" diff files.before files.after
cp -r run going && rm -r going/step-00000020
reject "another configuration is named by its keys" 'optimizer.beta2 was 0.9[0-9]*, is 0.5' 'phases\[0\].steps was 8, is 9' -- \
    "${pretrain[@]}" --set run_dir=going --set optimizer.beta2=0.5 --set phases.0.steps=9
check "what does not decide what is learned may change" "${pretrain[@]}" --set run_dir=going --set log.every_steps=3 --set max_skipped_steps=4
cp -r run other-data && rm -r other-data/step-00000020
cp -r shards/notes notes.before && rm -r shards/notes
head -c 3000 text/stories.jsonl | head -n 8 >few.jsonl
need "other shards of the same name" "$plm" data build --tokenizer tokenizer.json --out shards/notes --name notes --valid-fraction 0.3 few.jsonl
reject "other data" "phase '.*', shards/notes/train was \"[0-9]+ tokens, [0-9]+ documents, .*\", is" -- "${pretrain[@]}" --set run_dir=other-data
rm -r shards/notes && mv notes.before shards/notes
"$python" - <<'PY'
import json, hashlib
state = json.load(open("other-data/step-00000016/trainer.json"))
del state["data"], state["learned"], state["skipped_in_row"]
text = json.dumps(state).encode()
open("other-data/step-00000016/trainer.json", "wb").write(text)
manifest = json.load(open("other-data/step-00000016/manifest.json"))
manifest["files"]["trainer.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
json.dump(manifest, open("other-data/step-00000016/manifest.json", "w"))
PY
check "a checkpoint that does not say what its data was" bash -c '"$0" pretrain config.json --set checkpoint.every_steps=4 --set run_dir=other-data 2>&1 |
    grep "does not say what its data held"' "$plm"
check "... goes on to the same weights" cmp other-data/step-00000020/model.safetensors run/step-00000020/model.safetensors

echo "- learning rates"
reject "a constant phase at rate 0" 'schedule.floor: a "constant" phase trains at schedule.floor, which is 0' -- \
    "${pretrain[@]}" --set run_dir=zero --set schedule.floor=0
"$python" - <<'PY'
import json
c = json.load(open("config.json"))
c["phases"] = c["phases"][:2]
c["schedule"].update(floor=0, warmup=0.25)
json.dump(c, open("falls.json", "w"))
PY
check "a fall to 0" "$plm" pretrain falls.json --set run_dir=falls
check "... no update is made at 0, the first at peak / warm-up" "$python" - <<'PY'
import json
lr = [r["lr"] for r in map(json.loads, open("falls/metrics.jsonl")) if "lr" in r]
peak = json.load(open("falls/run.json"))["schedule"]["peak"]
assert len(lr) == 12 and min(lr) > 0 and lr[-1] < lr[-2] < max(lr) == peak, lr
assert abs(lr[0] - peak / 3) < 1e-12 and lr[2] == peak, lr
PY

echo "- updates that are skipped"
reject "a loss that is not finite" "4 steps in a row, up to step [0-9]+, were skipped: loss or gradient is not finite" -- \
    "${pretrain[@]}" --set run_dir=diverged --set schedule.peak=1e25 --set schedule.floor=1e25 --set schedule.warmup=0 --set checkpoint.every_steps=1 --set checkpoint.keep=1 \
    --set max_skipped_steps=4
last=$(sed -nE 's/.*in a row, up to step ([0-9]+), were skipped.*/\1/p' reject.out | head -n 1)
check "... the count of steps includes the one that ended the job" grep "4 of $last steps were skipped" reject.out
check "... the last checkpoint with an update is kept" "$python" - <<'PY'
import glob, json
states = [json.load(open(f)) for f in sorted(glob.glob("diverged/step-*/trainer.json"))]
assert [s["skipped_in_row"] for s in states][:2] == [0, 1] and states[0]["updates"] > 0, states
PY

$have_mpi || finish
echo "- ranks"
pair() { reject "$1" "rank 1 has another $2" -- "${mpirun[@]}" -n 1 "${pretrain[@]}" --set run_dir=pair : -n 1 "${@:3}"; }
pair "another seed" "configuration than rank 0: seed is there [0-9]+, here 5" "${pretrain[@]}" --set run_dir=pair --set seed=5
pair "another row length" "configuration than rank 0: phases\[0\].seq_len" "${pretrain[@]}" --set run_dir=pair --set phases.0.seq_len=32
pair "another command" 'configuration than rank 0:.*\(command\).name is there "pretrain", here "sft"' "$plm" sft config.json
cp "$plm" other-build && printf '\0' >>other-build
pair "another build of the program" 'configuration than rank 0: \(command\).build is there "[0-9a-f]{16}", here "[0-9a-f]{16}"' \
    ./other-build pretrain config.json --set checkpoint.every_steps=4 --set run_dir=pair
cp -r shards shards-2 && rm -r shards-2/notes && cp -r shards/stories shards-2/notes
mkdir elsewhere && cp config.json tokenizer.json elsewhere/ && cp -r shards-2 elsewhere/shards
reject "other data under the same name" "rank 1 has another tokenizer, model or data than rank 0: data" -- \
    "${mpirun[@]}" -n 1 "${pretrain[@]}" --set run_dir=pair : -n 1 -wdir "$PWD/elsewhere" "${pretrain[@]}" --set run_dir=pair
check "threads may differ" "${mpirun[@]}" -n 1 "${pretrain[@]}" --set run_dir=threads --set micro_batch=2 : -n 1 "${pretrain[@]}" --set run_dir=threads --set micro_batch=2 --set threads=2
finish
