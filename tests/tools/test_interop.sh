#!/usr/bin/env bash
# Models in and out: Hugging Face directories in several files, GGUF of every type, import and training from it, memory as planned.
# usage: test_interop.sh PLM BUILD_DIRECTORY mpi|alone EXAMPLE SANITIZER
set -u
sanitizer=${5-none}
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"
# write WHAT COMMAND...: a needed check whose output is kept in wrote.out
write() { need "$@"; cp check.out wrote.out; }
directory() { "$python" "$here/directory.py" "$@"; }

make_data
write_config config.json 30 6 4
need "pretrain" "$plm" pretrain config.json --set eval.every_steps=0
last=run/step-00000040
greedy() { "$plm" generate "$1" --prompt "The old farmer" -n 24 --temperature 0 --threads 1 2>/dev/null; }
greedy run >greedy.txt

echo "- Hugging Face directories"
write "one file" "$plm" export run --format hf --type f32 --out hf
check "... prints what it wrote" directory sums hf wrote.out
check "... every tensor as in the checkpoint" directory same hf $last
check "... the tokenizer as it was" cmp hf/tokenizer.json tokenizer.json
check "... its JSON says what transformers wants" "$python" -c '
import json
config, generation, tokenizer = (json.load(open(f"hf/{name}.json")) for name in ("config", "generation_config", "tokenizer_config"))
assert config["architectures"] == ["PLMForCausalLM"] and config["model_type"] == "plm" and config["torch_dtype"] == "float32" and config["tie_word_embeddings"] is True
assert config["hidden_act"] == "relu2" and config["rope_theta"] == 100000.0 and config["rms_norm_eps"] == 1e-6 and config["rope_interleave"] is True
words = {t["content"]: int(i) for i, t in tokenizer["added_tokens_decoder"].items()}
assert tokenizer["eos_token"] == "<|endoftext|>" and config["eos_token_id"] == words["<|endoftext|>"]
assert config["auto_map"]["AutoModelForCausalLM"] == "PLM-Team/PLM-1.8B-Instruct--modeling_plm.PLMForCausalLM"
assert generation["eos_token_id"] == [words["<|im_end|>"], words["<|endoftext|>"]]
assert tokenizer["chat_template"].startswith("{% for message in messages %}") and "<|im_start|>assistant" in tokenizer["chat_template"]'
check "... says how transformers loads it" grep -q "trust_remote_code=True.*README.md" wrote.out
check "... and so does its README.md" grep -q 'from_pretrained(".", trust_remote_code=True)' hf/README.md
write "several files" "$plm" export run --format hf --type f32 --shard-size 60KB --out shards-hf
check "... prints what it wrote" directory sums shards-hf wrote.out
check "... the index is right" directory index shards-hf
check "... every tensor as in the checkpoint" directory same shards-hf $last
check "... same text" cmp <(greedy shards-hf) greedy.txt
need "bf16 by default" "$plm" export shards-hf --format hf --out hf-bf16
check "... half as large" test "$(stat -c %s hf-bf16/model.safetensors)" -lt $(($(stat -c %s hf/model.safetensors) * 6 / 10))
check "... opens" greedy hf-bf16
mkdir empty
check "into an empty directory" "$plm" export run --format hf --out empty

echo "- scaled rotary embeddings"
logits() { "$plm" logits "$1" -T 1,2,3,4,5,6,7,8,9,10,11,12 -o "$2" >/dev/null 2>&1; }
logits hf plain.st
for kind in '{"rope_type": "linear", "factor": 4.0}' '{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}' \
    '{"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16, "beta_fast": 8, "attention_factor": 1.25}'; do
    rm -rf scaled scaled-again; cp -r hf scaled
    "$python" -c 'import json, sys
c = json.load(open("scaled/config.json")); c["rope_scaling"] = json.loads(sys.argv[1]); json.dump(c, open("scaled/config.json", "w"))' "$kind"
    need "$kind" logits scaled scaled.st
    check "... is not ignored" bash -c '! cmp -s scaled.st plain.st'
    need "... GGUF" "$plm" export scaled --type f32 --out scaled.gguf
    need "... its logits" logits scaled.gguf scaled-gguf.st
    check "... are the same" results tensors 1e-6 scaled.st scaled-gguf.st logits
    need "... and back" "$plm" export scaled.gguf --format hf --type f32 --out scaled-again
    need "... its logits" logits scaled-again scaled-again.st
    check "... are the same" results tensors 1e-6 scaled.st scaled-again.st logits
done
need "training from a scaled model" "$plm" pretrain config.json --set 'model={"path": "scaled"}' --set run_dir=from-scaled --set schedule.warmup=1 --set phases.0.steps=2 \
    --set phases.1.steps=1 --set phases.2.steps=1 --set eval.every_steps=0
check "... keeps its scaling" grep -q '"yarn"' from-scaled/step-00000004/config.json

echo "- files as others write them"
"$python" - <<'PY'
import json, os, shutil, struct
data = open("hf/model.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header, body = json.loads(data[8:8 + n]), data[8 + n:]
def write(name, header, body, pad):
    shutil.copytree("hf", name)
    text = json.dumps(header).encode()
    text += b" " * ((pad - len(text)) % 8)
    open(name + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + body)
header["__metadata__"] = None
write("unaligned", header, body, 3)
buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
header[buffer] = {"dtype": "F64", "shape": [2], "data_offsets": [len(body), len(body) + 16]}
header["model.position_ids"] = {"dtype": "I64", "shape": [1], "data_offsets": [len(body) + 16, len(body) + 24]}
write("buffers", header, body + bytes(24), 0)
norm = header["model.norm.weight"]
a, b = norm["data_offsets"]
wide = struct.pack(f"<{(b - a) // 4}d", *struct.unpack(f"<{(b - a) // 4}f", body[a:b]))
for t in header.values():
    if t and t["data_offsets"][0] >= b: t["data_offsets"] = [x + b - a for x in t["data_offsets"]]
norm["dtype"], norm["data_offsets"] = "F64", [a, a + len(wide)]
write("wide", header, body[:a] + wide + body[b:] + bytes(24), 0)
PY
for i in unaligned buffers wide; do
    need "$i" logits $i other.st
    check "... the same logits" cmp other.st plain.st
    need "... imports" "$plm" import $i imported-$i
done
for type in Q8_0 F16 q4_K_M; do
    check "the type $type in any case" "$plm" export hf --type $type --out typed.gguf
done

echo "- GGUF and back"
write "q8_0" "$plm" export run --type q8_0 --out model-q8_0.gguf
check "... says what llama.cpp needs" grep -q "llama.cpp needs -fa off" wrote.out
check "... prints what it wrote" directory sums model-q8_0.gguf wrote.out
need "quantize" "$plm" quantize run quantized.gguf --type q8_0 --name model-q8_0.gguf
check "... is the same" cmp quantized.gguf model-q8_0.gguf
write "quantize what is quantised" "$plm" quantize model-q8_0.gguf model-q4_0.gguf --type q4_0
check "... says so" grep -q 'was quantised before' wrote.out
need "import q8_0" "$plm" import model-q8_0.gguf imported
check "... the tokenizer gives the same ids" cmp <("$plm" tokenizer encode --tokenizer imported/tokenizer.json - <text/notes/note-000.txt) \
    <("$plm" tokenizer encode --tokenizer tokenizer.json - <text/notes/note-000.txt)
need "... and q8_0 again" "$plm" export imported --type q8_0 --out again.gguf --name model-q8_0.gguf
check "... is the same file" cmp again.gguf model-q8_0.gguf
need "import a directory of several files" "$plm" import shards-hf imported-hf
check "... every tensor as in the checkpoint" directory same imported-hf $last
for start in imported shards-hf; do
    need "training from $start" "$plm" pretrain config.json --set "model={\"path\": \"$start\"}" --set "run_dir=from-$start" --set schedule.warmup=1 --set phases.0.steps=2 \
        --set phases.1.steps=1 --set phases.2.steps=1 --set eval.every_steps=0
    check "... starts where the first ended" "$python" -c '
import json, sys
first, last = ([m["loss"] for m in map(json.loads, open(f"{run}/metrics.jsonl")) if "loss" in m] for run in (f"from-{sys.argv[1]}", "run"))
assert first[0] < last[-1] + 0.7 < last[0], (first, last)' $start
    check "... and carries the chat template on" "$python" -c '
import glob, json, sys
text = json.load(open(sys.argv[1] + "/tokenizer_config.json"))["chat_template"]
assert open(max(glob.glob("from-" + sys.argv[1] + "/step-*")) + "/chat_template.jinja").read() == text' $start
done
"$python" -c 'import json; print(json.load(open("hf/tokenizer_config.json"))["chat_template"])' >own.jinja
sed 's/assistant/helper/g' hf/tokenizer_config.json >other.json
cp -r hf hf-other && mv other.json hf-other/tokenizer_config.json
need "another chat template" "$plm" export hf-other --out other.gguf
check "... goes into the GGUF file" grep -q 'You are a helpful helper' other.gguf
need "... and on" "$plm" import other.gguf back
check "... into the directory" grep -q 'You are a helpful helper' back/tokenizer_config.json
need "... chat speaks it" bash -c 'echo hi | "$0" chat other.gguf -n 2 --temperature 0 2>&1 >/dev/null | grep -F "own, of tokenizer.chat_template"' "$plm"
"$python" - <<'PY'
import json
c = json.load(open("hf-other/tokenizer_config.json"))
c["chat_template"] = [{"name": "tool_use", "template": "{% no %}"},
                      {"name": "default", "template": "{% for m in messages %}{{ m.role | center(9) }}{% endfor %}"}]
json.dump(c, open("hf-other/tokenizer_config.json", "w"))
PY
reject "a chat template that is not known" "model brought cannot be used: hf-other/tokenizer_config.json, template default: line 1: the filter 'center'" \
    'it begins "\{% for m in' "--template FILE" -- "$plm" chat hf-other -n 1
reject "... nor answered with" "the filter 'center'" -- "$plm" answer hf-other --question hi -n 1
need "... but given another one" bash -c 'echo hi | "$0" chat hf-other -n 1 --template own.jinja' "$plm" 2>/dev/null
need "... or without one" "$plm" generate hf-other --prompt hi -n 1
need "... and carried on" "$plm" export hf-other --out unknown.gguf
check "... as it is" grep -qF 'm.role | center(9)' unknown.gguf
sed -i 's/"default"/"rag"/' hf-other/tokenizer_config.json
reject "several, none of them the default" 'none of them is called "default": tool_use, rag' -- "$plm" chat hf-other -n 1

echo "- what is wrong is refused"
reject "export over a directory" "'hf' is there and not an empty directory" -- "$plm" export run --format hf --out hf
reject "import over a file" "'config.json' is there and not an empty directory" -- "$plm" import run config.json
reject "quantised weights in a directory" "f32, f16 or bf16.*GGUF" -- "$plm" export run --format hf --type q8_0 --out x
reject "unknown format" "'onnx'.*gguf or hf" -- "$plm" export run --format onnx --out x
reject "no size" "'big'.*such as 5GB" -- "$plm" export run --format hf --shard-size big --out x
reject "a size of nothing" "'0'.*such as 5GB" -- "$plm" export run --format hf --shard-size 0 --out x
reject "several GGUF files" "shard-size is for --format hf" -- "$plm" export run --shard-size 1MB --out x
reject "quantize without an output" "output" -- "$plm" quantize run
reject "import without an output" "output" -- "$plm" import run
reject "import of three" "one output only" -- "$plm" import run a b
check "... none of them left anything" test ! -e x -a ! -e x.tmp -a ! -e a
# broken WHAT PATTERN SED-EXPRESSION: the index after that expression
broken() {
    rm -rf broken && cp -r shards-hf broken
    sed -i "$3" broken/model.safetensors.index.json
    reject "$1" "broken.*index.json.*$2" -- "$plm" generate broken --prompt x
}
broken "an index that leads out of the directory" "plain name" 's#"model.norm.weight": "#&../#'
broken "an index with an absolute path" "plain name" 's#"model.norm.weight": "#&/etc/#'
broken "a file that is missing" "No such file" 's#\("model.norm.weight": "model-\)[0-9]*#\199999#'
broken "a tensor in another file" "model.norm.weight' is missing in model-00001" 's#\("model.norm.weight": "model-\)[0-9]*#\100001#'
broken "a tensor that is not listed" "layers.0.input_layernorm.weight' is in model-00002.*does not list" '/layers.0.input_layernorm/d'
broken "half an index" "line" "20,\$d"
reject "the same for training" "broken.*index.json" -- "$plm" pretrain config.json --set 'model={"path": "broken"}' --set run_dir=other
rm -rf broken && cp -r shards-hf broken && truncate -s 1000 broken/model-00002-of-*.safetensors
reject "half a file" "broken.*model-00002" -- "$plm" generate broken --prompt x
# The last weight of the checkpoint is one of the final norm: NaN.
cp -r hf nan && printf '\000\000\300\177' | dd of=nan/model.safetensors bs=1 seek=$(($(stat -c %s hf/model.safetensors) - 4)) conv=notrunc status=none
reject "a NaN in a norm" "model.norm.weight.*nan" -- "$plm" generate nan --prompt x
rm -r nan && cp -r hf nan
"$python" -c '
data = open("hf/model.safetensors", "rb").read()
at = 8 + int.from_bytes(data[:8], "little")
open("nan/model.safetensors", "wb").write(data[:at] + b"\0\0\xc0\x7f" + data[at + 4:])' # the first weight: of the embedding
reject "a NaN in the embedding: text" "not finite|damaged" -- "$plm" generate nan --prompt "The old farmer"
reject "... export" "model.embed_tokens.weight|token_embd.weight.*nan" -- "$plm" export nan --out x
reject "... import" "model.embed_tokens.weight.*row 0, column 0 is nan" -- "$plm" import nan x
reject "... training" "model.embed_tokens.weight.*row 0, column 0 is nan" -- "$plm" pretrain config.json --set 'model={"path": "nan"}' --set run_dir=other
check "... none of them left anything" test ! -e x -a ! -e x.tmp
if [ "$sanitizer" = none ]; then # they reserve more than any limit
    sed -i 's/"max_position_embeddings": 64/"max_position_embeddings": 16777216/' hf-other/config.json
    # shellcheck disable=SC2016
    reject "a context larger than memory" "out of memory.*MiB" -- bash -c 'ulimit -v 2000000; exec "$0" generate hf-other --prompt x --context 16777216' "$plm"
fi
reject "a context longer than allowed" "100.*64" -- "$plm" plan run --ctx 100

if [ "$sanitizer" = none ]; then
    echo "- memory as planned"
    need "a larger model" "$plm" pretrain config.json --set model.hidden_size=512 --set model.intermediate_size=2048 --set model.kv_lora_rank=128 \
        --set model.num_hidden_layers=4 --set model.num_attention_heads=8 --set model.qk_nope_head_dim=64 --set model.qk_rope_head_dim=32 \
        --set model.v_head_dim=64 --set model.max_position_embeddings=1024 --set run_dir=larger --set schedule.warmup=1 --set phases.0.steps=1 --set phases.1.steps=1 --set phases.2.steps=1
    need "... f16" "$plm" export larger --type f16 --out larger-f16.gguf
    need "... q8_0" "$plm" export larger --type q8_0 --out larger-q8_0.gguf
    need "... q4_k_m" "$plm" export larger --type q4_k_m --out larger-q4_k_m.gguf
    # planned MODEL OPTION...: what plm plan says of generating with these options is what it takes
    planned() {
        local model=$1 mib
        shift
        mib=$("$plm" plan "$model" "$@" | awk '$1 == "all" { print $2 }')
        check "$model $*" directory peak "$mib" "$plm" generate "$model" --prompt "$(cat text/notes/note-00?.txt | head -c 1000)" -n 8 --temperature 0 "$@"
        cat check.out
    }
    for model in larger larger-f16.gguf larger-q8_0.gguf larger-q4_k_m.gguf; do
        planned $model --threads 1
        planned $model --threads 2 --context 512 --cache-type f16
    done
    planned larger-q8_0.gguf --threads 2 --cache-type q8_0
    planned larger-q8_0.gguf --threads 1 --dense
    planned larger-f16.gguf --threads 2 --cache-policy d2o --cache-budget 64
    planned larger-f16.gguf --threads 1 --cache-policy h2o --cache-budget 50% --cache-type f16
fi
finish
