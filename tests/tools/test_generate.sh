#!/usr/bin/env bash
# plm generate and plm chat: stop strings, log-probabilities, choices, samples, drafts, sessions, generation without end.
# usage: test_generate.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"
reference() { "$python" "$here/generate_reference.py" "$plm" model.gguf tokenizer.json "$@"; }
# agree WHAT EXPRESSION FILE...: the Python expression over r, the JSON of the first FILE, and more, those of the others, is true
agree() { check "$1" "$python" -c 'import json, sys; r, *more = (json.load(open(p)) for p in sys.argv[2:]); assert eval(sys.argv[1]), r' "${@:2}"; }

make_data
write_config config.json 60 20 5
need "pretrain" "$plm" pretrain config.json --set model.max_position_embeddings=128 --set model.hidden_size=64 --set model.num_attention_heads=4 \
    --set model.kv_lora_rank=32 --set eval.every_steps=0
need "export" "$plm" export run --type f32 --out model.gguf
need "export q8_0" "$plm" export run --type q8_0 --out model-q8_0.gguf
prompt=$(head -c 120 text/notes/note-000.txt)
generate() { "$plm" generate model.gguf --prompt "$prompt" -n 40 --temperature 0 "$@"; }

echo "- stop strings"
generate --json >plain.json 2>/dev/null
for piece in 'r[5:9]' 'r[0:1]' 'r[17:30]' 'r[2:3]'; do
    stop=$("$python" -c 'import json; r = json.load(open("plain.json"))["text"]; print(eval("'"$piece"'"))')
    generate --stop "$stop" >stopped.out 2>stopped.err
    check "the text before '$stop', and not a byte more" "$python" -c '
import json, sys
text, stop = json.load(open("plain.json"))["text"], sys.argv[1]
got = open("stopped.out").read()
assert got == text[:text.index(stop)] + "\n", got' "$stop"
    check "... is said to be the reason" grep -q 'stopped by stop' stopped.err
done
generate --json --stop 'qqqq' --stop "$("$python" -c 'import json; r = json.load(open("plain.json"))["text"]; print(r[10:14])')" \
    --stop "$("$python" -c 'import json; r = json.load(open("plain.json"))["text"]; print(r[8:13])')" >stopped.json 2>/dev/null
agree "the first of several" "r['text'] == more[0]['text'][:8] and r['finish_reason'] == 'stop' and r['tokens'] == more[0]['tokens'][:r['generated_tokens']]" stopped.json plain.json

echo "- log-probabilities and choices"
generate --json --logprobs 3 --prompt 'The old farmer' >logprobs.json 2>/dev/null
check "two prompts: two lines" test "$(wc -l <logprobs.json)" = 2
check "... as from plm logits" reference logprobs logprobs.json 3
generate --json --logprobs 0 >logprobs.json
check "without others" reference logprobs logprobs.json 0
check "as text" bash -c '"$0" generate model.gguf -p "The old" -n 5 --logprobs 2 | tail -n 5 | grep -cE "^ +-[0-9.]+ \".*\" +-[0-9.]+ \".*\" +-[0-9.]+ \".*\"$" | grep -qx 5' "$plm"
printf '%s\n' ' watched the river.' ' zq zq zq' '' ' opened the letter near the river because the farmer opened the letter near the river and the farmer watched the river.' >choices.txt
"$plm" generate model.gguf --prompt 'The old farmer' --choices choices.txt --choice 'é' --json >choices.json
check "choices as from plm logits" reference choices choices.json
agree "... of the file and the command line" "len(r['choices']) == 4" choices.json
check "... as a table" "$plm" generate model.gguf --prompt 'The old farmer' --choices choices.txt
reject "choices and samples" "generates nothing" -- "$plm" generate model.gguf -p x --choice a --samples 2
reject "an empty choice" "choice is empty" -- "$plm" generate model.gguf -p x --choice ''
reject "a choice beyond the context" "do not fit into a context of 8" -- "$plm" generate model.gguf -p "The old farmer" --choices choices.txt --context 8
reject "no file of choices" "nowhere" -- "$plm" generate model.gguf -p x --choices nowhere

echo "- samples"
sampled() { "$plm" generate model.gguf --prompt "$prompt" -n 30 --temperature 1 --seed 4 --json "$@" 2>/dev/null; }
sampled >one.json
sampled --samples 5 >five.json
agree "the first is the one of a single sample, the others differ" \
    "r['samples'][0]['tokens'] == more[0]['tokens'] and len({s['text'] for s in r['samples']}) == 5" five.json one.json
generate --samples 3 --json >greedy.json 2>/dev/null
agree "greedy ones are the same" "[s['tokens'] for s in r['samples']] == 3 * [more[0]['tokens']]" greedy.json plain.json
check "as text, with a cache policy" "$plm" generate model.gguf --prompt "$prompt" -n 8 --samples 3 --cache-policy d2o+count --cache-budget 16
check "... compressed four slots at a time" "$plm" generate model.gguf --prompt "$prompt" -n 24 --cache-policy d2o+count --cache-budget 16 --cache-batch 4
reject "a batch of none" "expected a whole number from 1" -- "$plm" generate model.gguf --prompt x --cache-policy d2o --cache-batch 0

echo "- drafts"
same_with_drafts() { # MODEL N TOLERANCE ARGUMENT...
    local model=$1 n=$2 tolerance=$3
    shift 3
    "$plm" generate "$model" --prompt "$prompt" --prompt 'The old farmer' -n 90 --ignore-eos --json --logprobs 2 "$@" >undrafted.json 2>/dev/null
    "$plm" generate "$model" --prompt "$prompt" --prompt 'The old farmer' -n 90 --ignore-eos --json --logprobs 2 --lookup "$n" "$@" >drafted.json 2>/dev/null
    "$python" -c '
import json, sys
plain, drafted = ([json.loads(line) for line in open(p)] for p in ("undrafted.json", "drafted.json"))
assert drafted[-1]["drafted_tokens"] >= drafted[-1]["accepted_tokens"] > 10, drafted
for a, b in zip(plain, drafted, strict=True):
    assert a["tokens"] == b["tokens"] and a["text"] == b["text"] and a["finish_reason"] == b["finish_reason"]
    worst = max(abs(x["logprob"] - y["logprob"]) for x, y in zip(a["logprobs"], b["logprobs"], strict=True))
    print("largest difference of a log-probability", worst)
    assert worst <= float(sys.argv[1])' "$tolerance"
}
for n in 1 3 9; do
    check "$n drafted tokens, f32" same_with_drafts model.gguf $n 1e-4 --temperature 0
    check "$n drafted tokens, q8_0: bit for bit" same_with_drafts model-q8_0.gguf $n 0 --temperature 0
done
check "drawn text too" same_with_drafts model.gguf 3 1e-4 --temperature 0.3 --seed 5 --repetition-penalty 1.01
generate --lookup 3 --stop "$("$python" -c 'import json; r = json.load(open("plain.json"))["text"]; print(r[30:36])')" --json >drafted.json 2>/dev/null
agree "a stop string ends drafts" "r['finish_reason'] == 'stop' and r['text'] == more[0]['text'][:30]" drafted.json plain.json
check "the counts are printed" bash -c '"$0" generate model.gguf -p "The old" -n 30 --lookup 2 2>&1 >/dev/null | grep -qE "[0-9]+ of [0-9]+ drafted tokens accepted"' "$plm"
reject "drafts of samples" "one sample and the full cache" -- "$plm" generate model.gguf -p x --lookup 2 --samples 2
reject "drafts with a policy" "one sample and the full cache" -- "$plm" generate model.gguf -p x --lookup 2 --cache-policy d2o
reject "long drafts" "lookup.*'65'" -- "$plm" generate model.gguf -p x --lookup 65

echo "- sessions"
generate --session one.session --json >fresh.json 2>/dev/null
agree "a new one" "r['reused_tokens'] == 0 and r['tokens'] == more[0]['tokens']" fresh.json plain.json
generate --session one.session --json >again.json 2>/dev/null
agree "again: the prompt is in the cache, the text is the same" "r['reused_tokens'] == r['prompt_tokens'] - 1 and r['tokens'] == more[0]['tokens']" again.json plain.json
longer="$prompt$("$python" -c 'import json; print(json.load(open("plain.json"))["text"], end="")') and then"
"$plm" generate model.gguf --prompt "$longer" -n 20 --temperature 0 --json --session one.session >longer.json 2>/dev/null
"$plm" generate model.gguf --prompt "$longer" -n 20 --temperature 0 --json >longer-fresh.json 2>/dev/null
agree "a longer prompt goes on from it" "r['reused_tokens'] > 40 and r['tokens'] == more[0]['tokens']" longer.json longer-fresh.json
"$plm" generate model.gguf --prompt "$prompt" -n 20 --cache-policy d2o --cache-budget 16 --session policy.session >/dev/null 2>&1
"$plm" generate model.gguf --prompt "$prompt" -n 20 --temperature 0 --cache-policy d2o --cache-budget 16 --session policy.session --json >policy.json 2>/dev/null
agree "a compressed cache of another text is started anew" "r['reused_tokens'] == 0" policy.json
reject "another model's" "one.session.*another model" -- "$plm" generate model-q8_0.gguf -p x --session one.session
reject "another cache type" "type or policy" -- "$plm" generate model.gguf -p x --session one.session --cache-type f16
printf 'x' | dd of=one.session bs=1 seek=300 conv=notrunc 2>/dev/null
reject "a damaged one" "one.session.*(damaged|checksum)" -- "$plm" generate model.gguf -p x --session one.session
reject "not a session" "not a session" -- "$plm" generate model.gguf -p x --session config.json

echo "- without end"
cat >endless.py <<'PY'
import resource, signal, subprocess, sys, time
plm, *arguments = sys.argv[1:]
command = [plm, "generate", "model.gguf", "--prompt", "The old farmer", "--ignore-eos", "-t", "1", *arguments]
def peak(n):
    child = subprocess.Popen(command + ["-n", str(n)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = child.stdout.read()
    _, status, usage = __import__("os").wait4(child.pid, 0)
    child.returncode = status
    assert status == 0 and len(out) > n, (n, status, len(out))
    return usage.ru_maxrss
few, many = peak(60), peak(20 * 128)
print("peak memory of 60 tokens and of 20 times the context:", few, many, "KiB")
assert many < few * 1.03 + 512
child = subprocess.Popen(command + ["-n", "-1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
start = child.stdout.read(5000)
child.send_signal(signal.SIGINT)
out, err = child.communicate()
assert child.returncode == 0 and "stopped by interrupted" in err, (child.returncode, err)
PY
for policy in streaming d2o; do
    check "$policy: 20 times the context in the same memory, and Ctrl-C ends it" "$python" endless.py "$plm" --cache-policy $policy --cache-budget 24
done
check "the full cache ends with the context" bash -c '"$0" generate model.gguf -p "The old farmer" -n 0 --ignore-eos 2>&1 >/dev/null | grep -q "stopped by context"' "$plm"

echo "- chat"
chat() { printf '%s\n' "$@" | "$plm" chat model.gguf -n 16 --temperature 0 --system x "${options[@]}" 2>chat.err; }
options=()
chat one two three >plain.chat
options=(--lookup 3)
chat one two three >lookup.chat
check "drafts change nothing" cmp plain.chat lookup.chat
check "... and are counted" grep -qE '[0-9]+ of [0-9]+ drafted' chat.err
options=(--session chat.session)
chat one two >session.chat
chat three >>session.chat
check "a conversation goes on in another process" cmp plain.chat session.chat
cat >chatml.json <<'JSON'
{"system": "x", "turn": "<|im_start|>{role}\n{content}<|im_end|>\n", "end": "<|im_end|>"}
JSON
printf '%s\n' one two three | "$plm" chat model.gguf -n 16 --temperature 0 --template chatml.json >template.chat
check "a template that is ChatML, with its system message" cmp plain.chat template.chat
echo '{"turn": "{role}: {content}</s>", "end": "</s>"}' >other.json
reject "a template of another model" "no token \"</s>\"" -- "$plm" chat model.gguf --template other.json
stop=$(head -c 9 plain.chat | tail -c 4)
options=(--stop "$stop")
chat one >stop.chat
check "an answer ends before a stop string" "$python" -c '
import sys
plain, stopped, stop = open("plain.chat").read(), open("stop.chat").read(), sys.argv[1]
assert stopped == plain[:plain.index(stop)] + "\n", stopped' "$stop"
options=(--cache-policy streaming --cache-budget 24)
check "a policy has no full context" bash -c 'yes "a line that would fill the context" | head -n 40 | "$0" chat model.gguf -n 8 --system x --cache-policy streaming --cache-budget 24 >long.chat && [ "$(wc -l <long.chat)" -ge 40 ] && ! grep -q "filled the context" long.chat' "$plm"
finish
