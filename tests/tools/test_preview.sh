#!/usr/bin/env bash
# plm data preview: rows as they are trained on.
# usage: test_preview.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

need "text" "$python" "$here/make_text.py" text
need "tokenizer" "$plm" tokenizer train --vocab 320 --out tokenizer.json text
preview() { "$plm" data preview "$@" --tokenizer tokenizer.json; }
# shows WHAT PATTERN...: out has each of these texts
shows() {
    local what=$1 text
    shift
    for text; do check "$what: $text" grep -qF -- "$text" out; done
}

cat >chats.jsonl <<'JSON'
{"messages": [{"role": "user", "content": "Say <|im_end|>."}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "Again."}, {"role": "assistant", "content": "two"}]}

{"prompt": "Who?", "completion": "me\u001b[31m"}
{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
{"messages": [{"role": "user", "content": "no answer"}]}
{"text": "plain"}
{"prompt": "a", "completion": "a much longer answer than all of the others, one that goes on and on and on, and is for that reason far too long to be learnt from"}
{"prompt": 
JSON
preview chats.jsonl --count 9 --max-len 90 >out
check "preview" test $? = 0
shows "conversation" '⟦one<|im_end|>⟧' '⟦two<|im_end|>⟧' 'Say <|im_end|>.' '⟦me\x1b[31m<|im_end|>⟧' '⟦plain<|endoftext|>⟧' '== row 2, line 3'
shows "summary" 'chats.jsonl: 7 rows, read as conversations: 3 used, 2 malformed, 1 with nothing to learn, 1 longer than 90 tokens' \
    '1 from line 4 on: roles out of order' '1 from line 8 on: not JSON'
preview chats.jsonl --count 1 --last-turn-only >out
shows "last turn" '⟦two<|im_end|>⟧'
check "... and no other" test "$(grep -c '⟦' out)" = 1
preview chats.jsonl --count 1 --row 2 --color always >out
shows "colour" $'\033[30;42mme\\x1b[31m' $'\033[1m<|im_end|>\033[0m'
check "... only the row asked for" test "$(grep -c '^==' out)" = 1
echo '{"turn": "{role}: {content}<|im_end|>\n", "end": "<|im_end|>"}' >template.json
preview chats.jsonl --count 1 --template template.json >out
shows "template" 'assistant: ⟦one<|im_end|>⟧' 'user: Say'
check "... without a system message" test -z "$(grep -F helpful out)"
mkdir brought && cp tokenizer.json brought
cat >brought/chat_template.jinja <<'JINJA'
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<bot> ' + m.content | trim + '<|im_end|>' }}
    {%- else %}
        {{- '<you> ' + m.content + '<|im_end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<bot> ' }}{% endif %}
JINJA
"$plm" data preview chats.jsonl --tokenizer brought --count 1 >out
shows "the template of a directory" '<you> Say <|im_end|>.<|im_end|><bot> ⟦one<|im_end|>⟧<you> Again.<|im_end|><bot> ⟦two<|im_end|>⟧'
preview chats.jsonl --count 1 --template brought/chat_template.jinja >again
check "... is that of the file" cmp out again
echo '{{ messages | wordwrap }}' >brought/chat_template.jinja
reject "a template that is not known" "chat template that the model brought cannot be used: brought/chat_template.jinja: line 1: the filter 'wordwrap'" \
    'begins "\{\{ messages' -- "$plm" data preview chats.jsonl --tokenizer brought

echo '[{"instruction": "Sum?", "text": "right", "decoded": "wrong"}, {"instruction": "Sum?", "text": "same", "decoded": "same"}]' >pairs.json
preview pairs.json --field prompt=instruction --field chosen=text --field rejected=decoded --refine >out
shows "pairs" '⟦right<|im_end|>⟧' '⟦wrong<|im_end|>⟧' '-- the chosen answer as a refinement of the rejected one' '2 rows, read as pairs: 1 used, 1 malformed' \
    'the chosen answer equals the rejected one'
check "... six sequences" test "$(grep -c '⟦' out)" = 6
echo '{"question": "2+2?", "answer": "#### 4"}' >tasks.jsonl
preview tasks.jsonl --as task >out
shows "tasks" '-- answer' '#### 4' 'read as tasks: 1 used'
preview tasks.jsonl --tokens >out
shows "tokens" '#│#│'

reject "no file" "cannot open 'none.jsonl'" -- "$plm" data preview none.jsonl -t tokenizer.json
echo '{"a": 1}' >unknown.jsonl
reject "nothing usable" "no row of 'unknown.jsonl'" "the row has a" -- "$plm" data preview unknown.jsonl -t tokenizer.json
: >empty.jsonl
reject "empty" "has no rows" -- "$plm" data preview empty.jsonl -t tokenizer.json
reject "unknown field" "promt" -- "$plm" data preview chats.jsonl -t tokenizer.json --field promt=x
echo '{"turn": "{role} <|im_end|>", "end": "<|im_end|>"}' >slotless.json
reject "template without a slot" "slotless.json: .*has no \{content\}" -- "$plm" data preview chats.jsonl -t tokenizer.json --template slotless.json

echo "- what is not read is named"
printf '%s\n' '{"messages": [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a", "reasoning_content": "r"}], "score": NaN}' \
    '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "s"}], "id": 123456789012345678901234567890}' >unread.jsonl
check "keys of messages" bash -c '"$0" data preview unread.jsonl --tokenizer "$1" --count 0 >unread.out && grep -q "not read: name (1), reasoning_content (2)" unread.out &&
    grep -q "2 rows, read as conversations: 2 used, 0 malformed" unread.out' "$plm" "$(ls tokenizer.json */tokenizer.json 2>/dev/null | head -n 1)"
finish
