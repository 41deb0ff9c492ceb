#!/usr/bin/env bash
# What is wrong is refused with a message that names the place and the remedy: no crash, no half-written result.
# usage: test_errors.sh PLM BUILD_DIRECTORY mpi|alone EXAMPLE SANITIZER
set -u
sanitizer=${5-none}
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 12 4 4
need "a run to damage" "$plm" pretrain config.json --set checkpoint.every_steps=8 --set eval.every_steps=0
need "a GGUF to damage" "$plm" export run --type q8_0 --out model.gguf
last=run/step-00000020

export plm
pretrain=("$plm" pretrain config.json --set run_dir=other)
damaged=("$plm" pretrain config.json --set run_dir=other --set phases.0.mixture.0.path=damaged-shards)
# edited EXPRESSION: the configuration after that sed expression, as edited.json
edited() { sed "$1" config.json >edited.json; }
# overwrite FILE OFFSET: eight bytes of 0xff there
overwrite() { printf '\377\377\377\377\377\377\377\377' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

echo "- the command line"
reject "no command" "usage: plm" -- "$plm"
reject "unknown command" "no command 'pretrian'" "plm --help" -- "$plm" pretrian
for command in pretrain export generate logits verify "tokenizer train" "tokenizer encode" "tokenizer decode" "data build" "data inspect"; do
    # shellcheck disable=SC2086
    reject "$command: unknown option" "unrecognized option '--no-such-option'" -- "$plm" $command --no-such-option
done
reject "unknown subcommand of tokenizer" "tran" -- "$plm" tokenizer tran
reject "unknown subcommand of data" "biuld" -- "$plm" data biuld
reject "pretrain without a configuration" "CONFIG is required" -- "$plm" pretrain
reject "generate without a prompt" "prompt.* required" -- "$plm" generate model.gguf
reject "not a number" "temperature.*'warm'.*number" -- "$plm" generate model.gguf -p x --temperature warm
reject "negative count" "tokens.*'-3'" -- "$plm" generate model.gguf -p x -n -3
reject "seed that is no number" "seed.*'abc'" -- "$plm" generate model.gguf -p x -n 1 --seed abc
reject "negative temperature" "temperature" -- "$plm" generate model.gguf -p x -n 2 --temperature -1
reject "top-p above 1" "top.p" -- "$plm" generate model.gguf -p x -n 2 --top-p 1.5
reject "unknown type" "'q9_9'.*expected f32, f16" -- "$plm" export run --type q9_9 --out x.gguf
reject "threads that are no number" "threads.*'many'" -- "$plm" logits model.gguf --tokens 1 --out x --threads many
reject "verify: threads that are no number" "threads.*'many'" -- "$plm" verify . --out x --threads many

echo "- the configuration"
reject "missing configuration" "nowhere.json.*No such file" -- "$plm" pretrain nowhere.json
reject "configuration is a directory" "text" -- "$plm" pretrain text
edited 's/"hidden_size"/"hiden_size"/'
reject "mistyped key" "edited.json.*hiden_size.*hidden_size" -- "$plm" pretrain edited.json
edited 's/"seed": 7/"sede": 7/'
reject "mistyped key of the root" "sede.*(did you mean|seed)" -- "$plm" pretrain edited.json
edited 's/"seed": 7/"seed": "seven"/'
reject "wrong type" "seed.*(number|integer).*(text|string)|seed.*\"seven\"" -- "$plm" pretrain edited.json
edited 's/"seed": 7,/"seed": 7/'
reject "syntax error" "edited.json:[0-9]+:[0-9]+" -- "$plm" pretrain edited.json
edited 's/"seed": 7/"seed": 7, "seed": 8/'
reject "key given twice" "edited.json:[0-9]+:[0-9]+.*seed" -- "$plm" pretrain edited.json
: >empty.json
reject "empty configuration" "empty.json" -- "$plm" pretrain empty.json
reject "--set of an unknown key" "schedule.*peek.*peak" -- "${pretrain[@]}" --set schedule.peek=1
reject "--set without =" "seed" -- "${pretrain[@]}" --set seed
reject "--set beyond an array" "phases.*7" -- "${pretrain[@]}" --set phases.7.steps=3
reject "zero steps" "phases\[0\].steps" -- "${pretrain[@]}" --set phases.0.steps=0
reject "a mixture weight of zero" "mixture\[1\].weight" -- "${pretrain[@]}" --set phases.0.mixture.1.weight=0
reject "parts of the schedule out of order" "phases\[1\].*stable.*decay" -- "${pretrain[@]}" --set phases.0.schedule=decay --set phases.1.schedule=stable
reject "seq_len beyond the model" "phases\[0\].seq_len" -- "${pretrain[@]}" --set phases.0.seq_len=128
reject "odd rotary dimension" "qk_rope_head_dim" -- "${pretrain[@]}" --set model.qk_rope_head_dim=7
reject "batch_rows no multiple of micro_batch" "phases\[0\].batch_rows is 4" "set batch_rows to 3 or 6, or micro_batch to 2" -- "${pretrain[@]}" --set micro_batch=3
reject "beta of 1" "beta" -- "${pretrain[@]}" --set optimizer.beta2=1
reject "a model too large for any memory" "out of memory|memory" -- "${pretrain[@]}" --set model.hidden_size=65536 --set model.intermediate_size=1000000 \
    --set model.num_hidden_layers=500
reject "an absurd size" "model.*intermediate_size is 2000000000; expected" -- "${pretrain[@]}" --set model.intermediate_size=2000000000

echo "- files that are missing or do not belong together"
reject "missing tokenizer" "nowhere/tokenizer.json.*No such file" -- "${pretrain[@]}" --set tokenizer=nowhere/tokenizer.json
reject "missing shards" "phase 'general'.*shards/nowhere" -- "${pretrain[@]}" --set phases.0.mixture.0.path=shards/nowhere
mkdir empty-directory
reject "a directory without shards" "phase 'general'.*empty-directory" -- "${pretrain[@]}" --set phases.0.mixture.0.path=empty-directory
reject "missing shards of the last phase" "phase 'best'.*shards/nowhere" -- "${pretrain[@]}" --set phases.2.mixture.0.path=shards/nowhere
reject "missing held-out shards" "eval source 'stories'.*shards/nowhere" -- "${pretrain[@]}" --set eval.sources.0.path=shards/nowhere
check "... before anything is trained" test -z "$(find other -name 'step-*')"
reject "missing model to start from" "nowhere" -- "${pretrain[@]}" --set 'model={"path": "nowhere"}'
reject "missing model" "nowhere.gguf.*No such file" -- "$plm" generate nowhere.gguf --prompt x
reject "a directory that is no model" "empty-directory.*(config.json|checkpoint)" -- "$plm" generate empty-directory --prompt x
reject "a model that is a text file" "text/stories.jsonl" -- "$plm" generate text/stories.jsonl --prompt x
need "another tokenizer" "$plm" tokenizer train --vocab 400 --out other-tokenizer.json text/notes
reject "shards of another tokenizer" "phase.*shards/stories/.*made with another tokenizer.*build the data again" -- "${pretrain[@]}" --set tokenizer=other-tokenizer.json
reject "vocabulary smaller than the tokenizer's" "[0-9]+ tokens, model.vocab_size is 400" -- "${pretrain[@]}" --set model.vocab_size=400
reject "another build in the directory" "shards/notes.*(--force|another)" -- \
    "$plm" data build --tokenizer tokenizer.json --out shards/notes --name notes --valid-fraction 0.5 text/notes
reject "run_dir of another configuration" "run/step-00000020.*another configuration.*run_dir" -- "$plm" pretrain config.json --set seed=8
reject "missing input of data build" "nowhere" -- "$plm" data build --tokenizer tokenizer.json --out shards/x nowhere
reject "missing input of tokenizer train" "nowhere" -- "$plm" tokenizer train --out x.json nowhere
reject "data build without its tokenizer" "nowhere" -- "$plm" data build --tokenizer nowhere --out shards/x text/notes
reject "no documents" "shards/none|empty-directory|no document" -- "$plm" data build --tokenizer tokenizer.json --out shards/none empty-directory
printf '\n\n{"other": 1}\n' >none.jsonl
reject "no text in any line" "none.jsonl|no document" -- "$plm" data build --tokenizer tokenizer.json --out shards/none none.jsonl
reject "tokenizer training without text" "no|empty" -- "$plm" tokenizer train --out x.json empty-directory

echo "- damage"
cut_in_half() { truncate -s $(($(stat -c %s "$1") / 2)) "$1"; }
cp tokenizer.json damaged.json; cut_in_half damaged.json
reject "truncated tokenizer.json" "damaged.json" -- "${pretrain[@]}" --set tokenizer=damaged.json
sed 's/"merges"/"murges"/' tokenizer.json >damaged.json
reject "tokenizer.json without merges" "damaged.json.*merges" -- "$plm" tokenizer encode --tokenizer damaged.json x
mkdir damaged-shards
shard=$(find shards/stories/train -name '*.h5')
cp "$shard" damaged-shards/a.h5; cut_in_half damaged-shards/a.h5
reject "truncated shard" "damaged-shards/a.h5" -- "${damaged[@]}"
reject "... and inspect" "damaged-shards/a.h5" -- "$plm" data inspect damaged-shards
cp "$shard" damaged-shards/a.h5
offset=$("$python" -c '
import sys
data = open(sys.argv[1], "rb").read()
print(data.index(b"\x28\xb5\x2f\xfd") + 400)' "$shard") # inside the first zstd frame
overwrite damaged-shards/a.h5 "$offset"
reject "corrupt chunk of a shard" "damaged-shards/a.h5.*chunk" -- "${damaged[@]}"
reject "... and inspect --verify" "damaged-shards/a.h5.*chunk" -- "$plm" data inspect --verify damaged-shards
: >damaged-shards/a.h5
reject "empty shard file" "damaged-shards/a.h5" -- "${damaged[@]}"

cp model.gguf damaged.gguf; cut_in_half damaged.gguf
reject "truncated GGUF" "damaged.gguf.*(truncated|beyond|end|bytes)" -- "$plm" generate damaged.gguf --prompt x
for offset in 0 8 16 24 32; do
    cp model.gguf damaged.gguf; overwrite damaged.gguf $offset
    reject "GGUF with wrong bytes at $offset" "damaged.gguf" -- "$plm" generate damaged.gguf --prompt x
done
: >damaged.gguf
reject "empty GGUF" "damaged.gguf" -- "$plm" generate damaged.gguf --prompt x
for file in model.safetensors config.json tokenizer.json; do
    rm -rf damaged-model; cp -r $last damaged-model; cut_in_half damaged-model/$file
    reject "model directory with half a $file" "damaged-model(/$file)?" -- "$plm" generate damaged-model --prompt x
done
rm -rf damaged-model; cp -r $last damaged-model; rm damaged-model/manifest.json; overwrite damaged-model/model.safetensors 0
reject "safetensors with a wrong header length" "damaged-model.*header" -- "$plm" generate damaged-model --prompt x
rm -rf damaged-model; cp -r $last damaged-model; rm damaged-model/manifest.json; sed -i 's/"hidden_size": 48/"hidden_size": 64/' damaged-model/config.json
reject "config.json of another shape" "damaged-model.*48.*64|damaged-model.*64.*48|damaged-model.*shape" -- "$plm" generate damaged-model --prompt x
rm damaged-model/config.json
reject "model directory without config.json" "damaged-model.*config.json" -- "$plm" generate damaged-model --prompt x

echo "- a damaged checkpoint: the one before it is taken"
# mends WHAT FILE: the run in fall/, of which FILE of the newest checkpoint was damaged, goes on from the one before
mends() {
    "$plm" pretrain config.json --set run_dir=fall >fall.log 2>&1
    check "$1: exit status" test $? = 0
    check "... warning" grep -qE "checkpoint skipped.*fall/step-00000020.*$2" fall.log
    check "... continues from step 16" grep -qE 'continuing from fall/step-00000016' fall.log
    check "... every step once" results steps 20 fall/metrics.jsonl
    check "... the same weights" cmp fall/step-00000020/model.safetensors run/step-00000020/model.safetensors
    rm -r fall
}
cp -r run fall; overwrite fall/step-00000020/model.safetensors 5000; mends "wrong bytes" model.safetensors
cp -r run fall; cut_in_half fall/step-00000020/optimizer.safetensors; mends "truncated file" optimizer.safetensors
cp -r run fall; rm fall/step-00000020/trainer.json; mends "missing file" trainer.json
cp -r run fall; rm fall/step-00000020/manifest.json; mends "no manifest" manifest.json
cp -r run fall; cut_in_half fall/step-00000020/manifest.json; mends "truncated manifest" manifest.json
rm -rf fall; cp -r run fall; for step in fall/step-*; do overwrite "$step/model.safetensors" 5000; done
reject "generate from a run without a whole checkpoint" "checkpoint skipped.*step-00000016" "fall" -- "$plm" generate fall --prompt x

echo "- tokens and prompts"
reject "token beyond the vocabulary" "999999" "0 to 511" -- "$plm" logits model.gguf --tokens 1,999999 --out x.safetensors
check "... writes no file" test ! -e x.safetensors
reject "tokens that are no numbers" "'two,3' is not a token id" -- "$plm" logits model.gguf --tokens 1,two,3 --out x.safetensors
reject "no tokens" "token" -- "$plm" logits model.gguf --tokens '' --out x.safetensors
reject "empty prompt" "prompt is empty" -- "$plm" generate model.gguf --prompt ''
reject "prompt longer than the context" "do not fit into a context of 64" -- "$plm" generate model.gguf --prompt "$(head -c 2000 text/notes/note-000.txt)"
reject "context longer than the model's" "1000.*64" -- "$plm" generate model.gguf --prompt x --context 1000
reject "tokenizer decode of an unknown id" "99999" -- "$plm" tokenizer decode --tokenizer tokenizer.json 99999

echo "- output that cannot be written"
reject "export to a missing directory" "nowhere/x.gguf.*No such file" -- "$plm" export run --out nowhere/x.gguf
reject "logits to a missing directory" "nowhere/x.*No such file" -- "$plm" logits model.gguf --tokens 1 --out nowhere/x
mkdir target-directory; mkfifo pipe
reject "export over a directory" "'target-directory' is there and not a regular file" -- "$plm" export run --out target-directory
reject "export over a pipe" "'pipe' is there and not a regular file" -- "$plm" export run --out pipe
reject "run_dir below a file" "config.json/run" -- "${pretrain[@]}" --set run_dir=config.json/run
reject "shards below a file" "config.json/x" -- "$plm" data build --tokenizer tokenizer.json --out config.json/x text/notes
# Files of at most 64 KiB stand for a disk that fills up: the model's weights do not fit, metrics and configuration do.
limited() { ( ulimit -f 64; exec "$@" ); }
export -f limited
sed 's/"steps": 4, "seq_len": 64, "batch_rows": 4/"steps": 4000, "seq_len": 64, "batch_rows": 4/' config.json >longer.json
reject "disk full while a checkpoint is written" "checkpoint of step [0-9]+ not saved \(earlier ones are untouched\).*full-2/" -- \
    bash -c 'limited "$plm" pretrain longer.json --set run_dir=full-2 --set checkpoint.every_steps=8'
cp -r run full-3
rm -r full-3/step-00000020
reject "... earlier checkpoints" "earlier ones are untouched" -- bash -c 'limited "$plm" pretrain config.json --set run_dir=full-3'
check "... are still there" test "$(printf '%s ' full-3/step-*)" = "full-3/step-00000008 full-3/step-00000016 "
check "... nothing half-written" test -z "$(find full-3 full-2 -name '.step-*')"
check "... and with room the run goes on" "$plm" pretrain config.json --set run_dir=full-3
check "... to the same weights" cmp full-3/step-00000020/model.safetensors run/step-00000020/model.safetensors
reject "disk full while exporting" "limited.gguf" -- bash -c 'limited "$plm" export run --type f32 --out limited.gguf'
check "... leaves no file" test ! -e limited.gguf
reject "disk full while building shards" "shards/limited" -- \
    bash -c 'ulimit -f 8; "$plm" data build --tokenizer tokenizer.json --out shards/limited text/stories.jsonl'

# Address space that ends at every stage of a job in turn, until there is enough: an error each time, never a signal. It begins
# where the program itself can be loaded. (A sanitizer takes more than can be limited.)
in_space() { (ulimit -v "$1"; shift; exec "$@") >space.out 2>&1; }
# too_little WHAT COMMAND...
too_little() {
    local what=$1 kib=$loads status=1 all=()
    shift
    while [ $status != 0 ] && [ "$kib" -lt 4000000 ]; do
        rm -rf short
        in_space "$kib" "$@"
        status=$?
        all+=($status)
        kib=$((kib + kib / 24))
    done
    check "$what with too little memory: an error each time (${all[*]})" test "$(printf '%s\n' "${all[@]}" | sort -u | tr '\n' ' ')" = "0 1 "
}
if [ "$sanitizer" = none ]; then
    echo "- memory that is short"
    loads=50000
    until in_space $loads "$plm" --version; do loads=$((loads + 2000)); done
    too_little pretrain "$plm" pretrain config.json --set run_dir=short --set schedule.warmup=1 --set phases.0.steps=3 --set phases.1.steps=2 \
        --set phases.2.steps=1
    too_little "data build" "$plm" data build --tokenizer tokenizer.json --out short text/stories.jsonl
    too_little generate "$plm" generate model.gguf --prompt a -n 2
fi

echo "- dirty text is counted, not refused"
printf '{"text": "bad \377\376 bytes"}\nnot json\n{"text": 5}\n{"text": ""}\n{"other": "x"}\n{"text": "a good line"}\n' >dirty.jsonl
"$plm" data build --tokenizer tokenizer.json --out shards/dirty --valid-fraction 0 dirty.jsonl >dirty.out 2>&1
check "dirty lines: exit status" test $? = 0
for pattern in "invalid UTF-8" "not a JSON object" "not a string" "without the text field" "empty"; do
    check "... reported: $pattern" grep -qE "$pattern" dirty.out
done
"$plm" generate model.gguf --prompt "$(printf 'ab\377c')" -n 2 >dirty.out 2>&1
check "a prompt that is not UTF-8 is read as bytes" test $? = 0

if $have_mpi; then
    echo "- a rank dies"
    reject "rows that do not divide among ranks" "error: rank 0: phases\[0\].batch_rows is 4" -- "${mpirun[@]}" -n 3 "$plm" pretrain config.json --set run_dir=other
    check "... said once" test "$(grep -c 'batch_rows is' reject.out)" = 1
    reject "a corrupt shard under mpirun" "damaged-shards/a.h5" -- \
        "${mpirun[@]}" -n 2 "$plm" pretrain config.json --set run_dir=other-2 --set phases.0.mixture.0.path=damaged-shards
    signal_at --to-child 2 dead step-00000020 KILL "${mpirun[@]}" -n 2 "$plm" pretrain longer.json --set run_dir=dead --set checkpoint.every_steps=20
    check "a rank is killed: mpirun ends (exit status $status)" test $status != 0
    reject "... its checkpoint is whole" "another configuration" -- "$plm" pretrain config.json --set run_dir=dead
    check "... and opens" "$plm" generate dead --prompt x -n 2
fi
finish
