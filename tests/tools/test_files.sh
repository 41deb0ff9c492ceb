#!/usr/bin/env bash
# What is written and read: links are not followed, manifests are checked, only damage falls back, two builds do not mix.
# usage: test_files.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 8 4 8
pretrain=("$plm" pretrain config.json --set checkpoint.every_steps=8)
need "a run" "${pretrain[@]}" --set run_dir=run

echo "- links"
mkdir linked outside-1 outside-2
echo precious | tee outside-1/a outside-2/a victim-1 victim-2 victim-3 victim-4 victim-5 >/dev/null
ln -s "$PWD/outside-1" linked/.step-00000003.tmp
ln -s "$PWD/victim-1" linked/run.json.tmp
ln -s "$PWD/victim-2" linked/metrics.jsonl
check "a run beside links" "${pretrain[@]}" --set run_dir=linked
check "... and its temporary names" test -f linked/metrics.jsonl -a ! -L linked/metrics.jsonl -a ! -e linked/.step-00000003.tmp
rm -r linked/step-00000020
rm linked/metrics.jsonl && ln -s "$PWD/victim-2" linked/metrics.jsonl
check "a link in place of the metrics, when the run goes on" "${pretrain[@]}" --set run_dir=linked
ln -s "$PWD/outside-2" linked/step-00000005
check "a linked checkpoint" "${pretrain[@]}" --set run_dir=linked --set checkpoint.keep=1
check "... is not pruned" test -L linked/step-00000005
ln -s "$PWD/victim-3" model.gguf.tmp
check "export" "$plm" export run --type f16 --out model.gguf
ln -s "$PWD/outside-2" hf.tmp
check "export of a directory" "$plm" export run --format hf --type f16 --out hf
ln -s "$PWD/created" chat.bin
check "a session" "$plm" generate model.gguf --prompt a -n 2 --session chat.bin
check "... replaces a link" test -f chat.bin -a ! -L chat.bin -a ! -e created
ln -s "$PWD/victim-4" items.jsonl.tmp
printf '{"prompt": "a", "answer": "1", "completion": "1"}\n' >rows.jsonl
check "a list of items" "$plm" score rows.jsonl --scorer number --items items.jsonl
mkdir -p build-linked && ln -s "$PWD/victim-5" build-linked/build.json.tmp
check "a build" "$plm" data build --tokenizer tokenizer.json --out build-linked text/notes
check "nothing went through a link" bash -c 'cat outside-1/a outside-2/a victim-* | uniq -c | grep -qx " *7 precious"'
ln -s "$PWD/linked" by-link
check "the run directory itself may be named by a link" "${pretrain[@]}" --set run_dir=by-link
ln -s "$PWD/outside-1" build-linked/valid-2 && rm -rf build-linked/train && ln -s "$PWD/outside-1" build-linked/train
reject "a linked side of a build" "build-linked/train' is a symbolic link" -- \
    "$plm" data build --force --tokenizer tokenizer.json --out build-linked text/stories.jsonl

echo "- manifests"
flip() { "$python" -c 'import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(-12, 2); b = f.read(1); f.seek(-12, 2); f.write(bytes([b[0] ^ 1]))' "$1"; }
cp -r run/step-00000008 named && flip named/model.safetensors
for command in "export named --out x.gguf" "generate named --prompt a -n 1" "import named imported" "quantize named x.gguf --type q8_0" "logits named -T 1 -o x.st"; do
    # shellcheck disable=SC2086
    reject "${command%% *} of a damaged directory" "named/model.safetensors' is corrupt" -- "$plm" $command
done
reject "training from one" "named/model.safetensors' is corrupt" -- "${pretrain[@]}" --set run_dir=other --set 'model={"path": "named"}'
cp -r run/step-00000008 lacking && rm lacking/trainer.json
reject "a file that is missing" "lacking/trainer.json'.*No such file" -- "$plm" export lacking --out x.gguf
rm named/manifest.json
check "without a manifest a directory is what it is" "$plm" export named --out x.gguf

echo "- only damage falls back"
cp -r run broken && for i in broken/step-*; do truncate -s 10 "$i/manifest.json"; done
cp broken/metrics.jsonl metrics.before
reject "no checkpoint is usable" "'broken' has [0-9] checkpoints, and none can be used" -- "${pretrain[@]}" --set run_dir=broken
check "... nothing is changed" cmp metrics.before broken/metrics.jsonl
cp -r run unread && rm -r unread/step-00000020 && rm unread/step-00000016/manifest.json && mkdir unread/step-00000016/manifest.json
reject "one that cannot be read is not damaged" "step-00000016' cannot be read" -- "${pretrain[@]}" --set run_dir=unread
cp -r run cut && rm -r cut/step-00000020 && truncate -s 99 cut/step-00000016/model.safetensors
check "a damaged one: the one before" "${pretrain[@]}" --set run_dir=cut
check "... to the same weights" cmp cut/step-00000020/model.safetensors run/step-00000020/model.safetensors
mkfifo pipe.gguf
reject "a pipe for a model" "pipe.gguf' is not a regular file" -- "$plm" generate pipe.gguf --prompt a -n 1
reject "a device for a tokenizer" "not a regular file" -- "$plm" tokenizer encode --tokenizer /dev/zero a

echo "- two builds"
build() { "$plm" data build --tokenizer tokenizer.json --out both "$1" >"$2.out" 2>&1; }
build text/notes a & first=$!
build text/stories.jsonl b
second=$?
wait $first
first=$?
check "two builds of one directory: one is made" test $((first != 0 && second == 0 || first == 0 && second != 0)) = 1
check "... the other says why" grep -qE "holds another build|another process is writing" a.out b.out
check "... and it is whole" "$plm" data inspect both --verify

echo "- a run directory that vanishes"
sed 's/"steps": 8/"steps": 100000/' config.json >long.json
"$plm" pretrain long.json --set run_dir=gone --set checkpoint.every_steps=10 >gone.log 2>&1 &
job=$!
until [ -d gone/step-00000010 ]; do kill -0 $job || break; done
mv gone away # at one moment, whatever the run is doing
wait $job
check "it is an error" test $? = 1
check "... that says so" grep -q "the run directory 'gone' is gone" gone.log
finish
