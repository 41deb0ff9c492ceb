#!/usr/bin/env bash
# plm eval against an independent computation from plm logits, and plm data recall.
# usage: test_eval.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"
reference() { "$python" "$here/eval_reference.py" "$plm" model.gguf tokenizer.json "$@"; }
# agree WHAT EXPRESSION FILE...: the Python expression over r, the JSON of the first FILE, and more, those of the others, is true
agree() { check "$1" "$python" -c 'import json, sys; r, *more = (json.load(open(p)) for p in sys.argv[2:]); assert eval(sys.argv[1]), r' "${@:2}"; }

need "text" "$python" "$here/make_text.py" text
need "tokenizer" "$plm" tokenizer train --vocab 512 --out tokenizer.json text
echo "- generated recall tasks"
make_recall() { "$plm" data recall --tokenizer tokenizer.json "$@"; }
need "plm data recall" make_recall --out text/recall.jsonl --count 300 --length 110:126 --pairs 1:2 --seed 5
check "... again: the same" make_recall --out again.jsonl --count 300 --length 110:126 --pairs 1:2 --seed 5
check "... byte for byte" cmp text/recall.jsonl again.jsonl
check "... held out" make_recall --out held-out.jsonl --count 300 --length 110:126 --pairs 1:2 --seed 5 --held-out
check "... no document in common, all with text, none longer than asked" "$python" -c '
import json
train, held = ([json.loads(l)["text"] for l in open(p)] for p in ("text/recall.jsonl", "held-out.jsonl"))
assert len(train) == len(held) == 300 and len(set(train + held)) == 600
assert sum("pass key" in t for t in train) == 150 and sum("What is key" in t for t in train) == 150'
reject "recall: does not fit" "needs [0-9]+ tokens without any filler, the length is 20" -- \
    "$plm" data recall --tokenizer tokenizer.json --out x.jsonl --count 2 --length 20
check "... leaves no file" test ! -e x.jsonl -a ! -e x.jsonl.tmp
reject "recall: range" "length is '9:3'.*smaller first" -- \
    "$plm" data recall --tokenizer tokenizer.json --out x.jsonl --count 2 --length 9:3
mkdir directory
reject "recall: over a directory" "'directory' is there and not a regular file" -- \
    "$plm" data recall --tokenizer tokenizer.json --out directory --count 2

mkdir -p shards
need "shards of stories" "$plm" data build --tokenizer tokenizer.json --out shards/stories --name stories --valid-fraction 0.05 text/stories.jsonl
need "shards of recall" "$plm" data build --tokenizer tokenizer.json --out shards/notes --name notes --valid-fraction 0.05 text/recall.jsonl
write_config config.json 130 40 1
need "pretrain" "$plm" pretrain config.json --set model.max_position_embeddings=128 --set eval.every_steps=0 --set phases.0.mixture.1.weight=0.7
need "export" "$plm" export run --type f32 --out model.gguf

echo "- perplexity"
"$python" -c 'import json; print(json.loads(open("text/stories.jsonl").readline())["text"] * 2, "caf\u00e9")' >long.txt
for windows in "128 64" "40 8" "40 40"; do
    context=${windows% *} stride=${windows#* }
    check "context $context, stride $stride" "$plm" eval perplexity model.gguf long.txt --context "$context" --stride "$stride" --json
    cp check.out perplexity.json
    check "... as computed from plm logits" reference perplexity long.txt "$context" "$stride" perplexity.json
done
check "many documents" "$plm" eval perplexity model.gguf text/stories.jsonl long.txt --json
cp check.out many.json
agree "... one row per file, and all" "[f['documents'] for f in r['files']] == [400, 1, 401]" many.json
agree "... that add up" "r['files'][2]['tokens'] == r['files'][0]['tokens'] + r['files'][1]['tokens'] and r['files'][0]['perplexity'] < 100" many.json
"$plm" eval perplexity model.gguf text/stories.jsonl --max-tokens 100 --json >limited.json
agree "--max-tokens" "r['files'][0]['tokens'] == 100" limited.json
"$plm" eval perplexity model.gguf long.txt >table.out
check "a table" grep -qE '^ *file +documents +tokens +bytes +nats per token +perplexity +bits per byte$' table.out

echo "- choice"
cat >choice.jsonl <<'JSON'
{"context": "The old farmer", "choices": [" watched the river.", " zq zq zq", " opened the letter near the river."], "answer": 0}

{"query": "The quiet teacher ", "choices": ["painted the house", "crossed", " remembered"], "gold": 2}
{"context": "Number 3. The ", "choices": ["small doctor", "doctor", "caf\u00e9 \ud83d\ude00"], "answer": 1}
{"context_options": ["The wooden house", "The yellow island, because the letter"], "continuation": " crossed the river.", "gold": 1}
{"context": "", "choices": ["The", "the"], "answer": 0}
JSON
for delimiter in '' '\n'; do
    check "delimiter '$delimiter'" "$plm" eval choice model.gguf choice.jsonl --delimiter "$delimiter" --items items.jsonl --json
    cp check.out choice.json
    check "... log-probabilities and choices as from plm logits" reference choice choice.jsonl "$delimiter" items.jsonl choice.json
done
agree "... the cache is shared" "r['tokens_reused'] > 0" choice.json
"$plm" eval choice model.gguf choice.jsonl --delimiter '\n' --items alone.jsonl --batch 1 --json >alone.json
check "... one by one: the same" "$python" -c '
import json
together, alone = ([json.loads(l) for l in open(p)] for p in ("items.jsonl", "alone.jsonl"))
for a, b in zip(together, alone, strict=True):
    assert a["by_sum"] == b["by_sum"] and all(abs(x - y) < 1e-4 for x, y in zip(a["log_probs"], b["log_probs"], strict=True)), (a, b)'
"$plm" eval choice model.gguf choice.jsonl --limit 2 --json >limited.json
agree "--limit" "r['scored'] == 2" limited.json
"$plm" eval choice model.gguf choice.jsonl --context 12 --json >short.json
agree "rows longer than the context are counted" "r['skipped_too_long'] > 0 and r['scored'] + r['skipped_too_long'] == 5" short.json

echo "- exact"
printf '%s\n' "The old farmer" "A distant captain" "Number 7. The" "What is key ab1?" >prompts.txt
need "rows with known answers" reference rows prompts.txt 24 '.' exact.jsonl
check "exact" "$plm" eval exact model.gguf exact.jsonl --extract all --stop . --max-tokens 24 --items items.jsonl --json
cp check.out exact.json
agree "... every other answer is right" "r['correct'] == 2 and r['scored'] == 4 and r['accuracy'] == 0.5 and abs(r['interval_95'][0] - 0.1500) < 1e-4" exact.json
for batch in 1 3 16; do
    check "... rows in batches of $batch" "$plm" eval exact model.gguf exact.jsonl --extract all --stop . --max-tokens 24 --items batch.jsonl --batch $batch --json
    cp check.out batch.json
    check "... the same texts and answers" cmp items.jsonl batch.jsonl
    agree "... the same result" "all(r[k] == more[0][k] for k in ('correct', 'scored', 'generated_tokens'))" batch.json exact.json
done
cat >gsm8k.jsonl <<'JSON'
{"question": "How many rivers?", "answer": "Two and two.\n#### 1,234"}
{"question": "What is key ab1?", "answer": "#### 7"}
JSON
check "GSM8K's fields" "$plm" eval exact model.gguf gsm8k.jsonl --extract gsm8k --max-tokens 8 --items items.jsonl
check "... its answer is the number after ####" grep -q '"expected":"1234"' items.jsonl
check "a template" "$plm" eval exact model.gguf gsm8k.jsonl --template '<|endoftext|>{question}\n{answer}' --special --max-tokens 4
"$plm" eval exact model.gguf gsm8k.jsonl --context 8 --json >short.json
agree "prompts longer than the context are counted" "r['skipped_too_long'] == 2 and r['accuracy'] is None" short.json

echo "- recall"
make_recall --held-out --out passkey.jsonl --count 6 --task passkey --depth 0.5 --length 110 --seed 3 >/dev/null
make_recall --held-out --out mqar.jsonl --count 20 --task mqar --pairs 3 --queries 2 --length 110 --seed 3 >/dev/null
check "passkey" "$plm" eval recall model.gguf --task passkey --depth 0.5 --length 110 --count 6 --seed 3 --json
cp check.out passkey.json
check "... as from plm data recall and plm logits" reference recall passkey.jsonl passkey.json
check "mqar" "$plm" eval recall model.gguf --task mqar --pairs 3 --queries 2 --length 110 --count 20 --seed 3 --json
cp check.out mqar.json
check "... as from plm data recall and plm logits" reference recall mqar.jsonl mqar.json
"$plm" eval recall model.gguf --count 3 --length 128 --pairs 2 --queries 1 --task passkey --task mqar --task mqar-tokens \
    --depth 0,1 --json >all.json
agree "all tasks, by depth" "[t['task'] for t in r['tasks']] == 2 * ['passkey'] + 4 * ['mqar'] + 4 * ['mqar-tokens'] and \
    sum(t['answers'] for t in r['tasks']) == 12" all.json

check "few keys, short numbers" make_recall --out few.jsonl --count 40 --task mqar --pairs 2 --keys 2 --digits 1 --length 126
check "... are in the text" "$python" -c '
import json, re
keys = {m for l in open("few.jsonl") for m in re.findall(r"^key (\S+) is \d\.$", json.loads(l)["text"], re.M)}
assert keys == {"a", "b"}, keys'
reject "fewer keys than pairs" "2 keys for 3 pairs" -- "$plm" data recall --tokenizer tokenizer.json --out x.jsonl --count 2 --pairs 3 --keys 2

echo "- kv"
"$python" -c '
import json
print(" ".join(json.loads(l)["text"] for l in list(open("text/stories.jsonl"))[:8]))' >longer.txt
kv() { "$plm" eval kv model.gguf "$@"; }
check "policies against the full cache" kv text/stories.jsonl longer.txt --prompt 64 --continuation 40 --windows 5 --budget 30,50 --method streaming \
    --method h2o --method d2o --method d2o+count:ungated --method full:f32 --count 6 --length 120 --pairs 2 --queries 2 --out kv.json --json
cp check.out printed.json
check "... the same in --out" cmp printed.json kv.json
check "... as with another number of threads" kv text/stories.jsonl longer.txt --prompt 64 --continuation 40 --windows 5 --budget 30,50 --method streaming \
    --method h2o --method d2o --method d2o+count:ungated --method full:f32 --count 6 --length 120 --pairs 2 --queries 2 --threads 1 --out again.json
agree "... in numbers" "[x for row in r['text'] + r['recall'] for x in row.values() if not isinstance(x, float)] and all(
    abs(a[k] - b[k]) <= 1e-3 * max(1, abs(a[k])) for a, b in zip(r['text'] + r['recall'], json.load(open('again.json'))['text'] + json.load(open('again.json'))['recall'])
    for k in a if isinstance(a[k], float))" kv.json
agree "rows: the full cache, four policies at two budgets, the full cache in f32" "[len(r[k]) for k in ('text', 'recall')] == [10, 20] and \
    [t['method'] for t in r['text'][:2]] == ['full', 'streaming'] and r['text'][9]['method'] == 'full:f32'" kv.json
agree "the full cache is itself" "r['text'][0]['kl'] < 1e-6 and r['text'][0]['same_top'] == 1 and r['text'][0]['ppl_over_full'] is None" kv.json
agree "policies are near it, none equal" "all(0 < t['kl'] < 1 and t['kl_95'][0] <= t['kl'] <= t['kl_95'][1] and 0.5 < t['ppl_over_full'] < 2 for t in r['text'][1:])" kv.json
agree "more budget, less loss" "sum(r['text'][i]['kl'] for i in (1, 3, 5, 7)) > sum(r['text'][i]['kl'] for i in (2, 4, 6, 8))" kv.json
agree "bytes within the budget, by less than a slot of every layer" "all(0 <= (0.3 if t['budget'] == '30 %' else 0.5) * 64 * 68 * 2 - 1024 * t['kib'] < 84 * 2 for t in r['text'][1:9])" kv.json
agree "h2o is what others are compared with" "[t['kl_over_h2o'] is None for t in r['text'][1:9]] == [False, False, True, True] + 4 * [False]" kv.json
agree "recall" "all(t['accuracy'] is not None and abs(t['accuracy'] - t['minus_full'] - u['accuracy']) < 1e-9 for u in (r['recall'][0],) for t in r['recall'][1:10])" kv.json
check "text alone, one window" kv longer.txt --prompt 64 --continuation 40 --windows 1 --budget 50 --method h2o --count 0
cp check.out table.out
check "... a table without intervals" grep -qE '^ *h2o +50 % .* - ' table.out

echo "- bad input"
reject "a budget below the minimum" "10 % of a prompt of 64 tokens leaves 5 slots per layer to method streaming, the minimum is 8" -- \
    "$plm" eval kv model.gguf longer.txt --prompt 64 --continuation 40 --budget 10 --count 0
reject "nothing to evaluate on" "nothing to evaluate on" -- "$plm" eval kv model.gguf --count 0
reject "a window beyond the context" "prompt of 100 tokens and a continuation of 64 do not fit into a context of 128" -- "$plm" eval kv model.gguf longer.txt --prompt 100 --continuation 64
reject "text shorter than a window" "no document of the input has the 128 tokens of a window" -- "$plm" eval kv model.gguf prompts.txt --count 0
reject "an unknown method" "the policy is 'snapkv', expected full, streaming" -- "$plm" eval kv model.gguf longer.txt --method snapkv
reject "an unknown option of a method" "'q4_0' of method 'h2o:q4_0'" -- "$plm" eval kv model.gguf longer.txt --method h2o:q4_0
reject "a budget of nothing" "budget is '0'" -- "$plm" eval kv model.gguf longer.txt --budget 0
reject "no list of budgets" "budget is '10,'" -- "$plm" eval kv model.gguf longer.txt --budget 10,
reject "an unknown cache type" "cache-type is 'q4_0'" -- "$plm" eval kv model.gguf longer.txt --cache-type q4_0
reject "a result in a missing directory" "nowhere/kv.json.*No such file" -- "$plm" eval kv model.gguf longer.txt --prompt 64 --continuation 8 --windows 1 --budget 50 --count 0 --out nowhere/kv.json
# bad WHAT PATTERN ROW ARGUMENT...: plm eval refuses bad.jsonl, whose first row is good for every evaluation and whose second is ROW
bad() {
    local what=$1 pattern=$2
    printf '{"context": "a", "choices": ["b", "c"], "answer": 0, "prompt": "a"}\n%s\n' "$3" >bad.jsonl
    shift 3
    reject "$what" "$pattern" -- "$plm" eval "$@"
}
bad "not JSON" 'bad.jsonl:2: not JSON at byte' '{"context": ' choice model.gguf bad.jsonl
bad "not an object" 'bad.jsonl:2: expected a JSON object' '[1]' choice model.gguf bad.jsonl
bad "no context" 'bad.jsonl:2: the field "context" is missing' '{"choices": ["b", "c"], "answer": 0}' choice model.gguf bad.jsonl
two='"context": "a", "choices": ["b", "c"]'
bad "answer out of range" 'bad.jsonl:2: "answer" is 2, but there are 2 choices: expected 0 to 1' "{$two, \"answer\": 2}" choice model.gguf bad.jsonl
bad "negative answer" 'bad.jsonl:2: "answer" is -1' "{$two, \"answer\": -1}" choice model.gguf bad.jsonl
bad "answer of another type" 'bad.jsonl:2: "answer" is not a whole number' "{$two, \"answer\": \"b\"}" choice model.gguf bad.jsonl
bad "no answer" 'bad.jsonl:2: "answer" is missing' "{$two}" choice model.gguf bad.jsonl
bad "no choices" 'bad.jsonl:2: "choices" is empty' '{"context": "a", "choices": [], "answer": 0}' choice model.gguf bad.jsonl
bad "an empty choice" 'bad.jsonl:2: choice 1 .from 0. is empty' '{"context": "a", "choices": ["b", ""], "answer": 0}' choice model.gguf bad.jsonl
bad "a choice that is a number" 'bad.jsonl:2: choices 0 .from 0. is not a string' '{"context": "a", "choices": [1, "c"], "answer": 0}' choice model.gguf bad.jsonl
bad "a key twice" 'bad.jsonl:2: not JSON.*duplicate' "{$two, \"context\": \"b\", \"answer\": 0}" choice model.gguf bad.jsonl
bad "no number in the answer" 'bad.jsonl:2: "answer" holds no answer by the rule last-number' '{"prompt": "a", "answer": "none"}' exact model.gguf bad.jsonl
bad "no prompt" 'bad.jsonl:2: the field "prompt" is missing' '{"answer": "1"}' exact model.gguf bad.jsonl
bad "an unknown field in the template" 'bad.jsonl:1: the field "qestion" is missing' '{"question": "a", "answer": "1"}' exact model.gguf bad.jsonl --template '{qestion}'
: >empty.jsonl
reject "no rows" "empty.jsonl.*no rows" -- "$plm" eval choice model.gguf empty.jsonl
reject "no documents" "no document in the input" -- "$plm" eval perplexity model.gguf empty.jsonl
reject "missing file" "nowhere.jsonl.*No such file" -- "$plm" eval exact model.gguf nowhere.jsonl
reject "missing model" "nowhere.gguf.*No such file" -- "$plm" eval recall nowhere.gguf
reject "items in a missing directory" "nowhere/items.*No such file" -- "$plm" eval choice model.gguf choice.jsonl --items nowhere/items
reject "a stride beyond the context" "stride of 65 tokens with a context of 64" -- "$plm" eval perplexity model.gguf long.txt --context 64 --stride 65
reject "a context beyond the model's" "context of 129.*1 to 128" -- "$plm" eval perplexity model.gguf long.txt --context 129
reject "documents beyond the context" "200 tokens do not fit into a context of 128" -- "$plm" eval recall model.gguf --length 200
reject "more queries than pairs" "3 queries, expected at most the number of pairs, 2" -- "$plm" eval recall model.gguf --task mqar --pairs 2 --queries 3
reject "a depth beyond 1" "depth is '0.5,1.5'" -- "$plm" eval recall model.gguf --depth 0.5,1.5
reject "unknown task" "'needle'.*passkey, mqar, mqar-tokens or facts" -- "$plm" eval recall model.gguf --task needle
reject "unknown rule" "'word'.*last-number, gsm8k, line or all" -- "$plm" eval exact model.gguf exact.jsonl --extract word
reject "an empty stop" "stop is empty" -- "$plm" eval exact model.gguf exact.jsonl --stop ''
reject "no file" "MODEL and FILE" -- "$plm" eval choice model.gguf
reject "two files" "one FILE only, found 'b'" -- "$plm" eval choice model.gguf a b
cp -r run/step-00000171 bare && rm bare/tokenizer.json bare/manifest.json
reject "a model without a tokenizer" "bare.*without a tokenizer" -- "$plm" eval perplexity bare long.txt
finish
