#!/usr/bin/env bash
# plm score: rewards by rules, by tests in the sandbox, by a command and from a file; what it refuses.
# usage: test_score.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

cat >gsm8k.jsonl <<'EOF'
{"question": "2 and 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
{"question": "A thousand and eighty?", "answer": "It is\n#### 1,080"}
EOF
cat >own.jsonl <<'EOF'
{"prompt": "2 and 3?", "completion": "I say 5.0", "answer": "5"}
{"prompt": "2 and 4?", "completion": "I say 7", "answer": "6"}
{"prompt": "Who?", "completion": "I say 7", "answer": "nobody"}
EOF
cat >programs.jsonl <<'EOF'
{"prompt": "Print 4.", "completion": "```sh\nf() { echo 4; }\n```", "tests": "test \"$(f)\" = 4"}
{"prompt": "Print 5.", "completion": "f() { echo 4; }", "tests": "test \"$(f)\" = 5"}
EOF
for chain in 0 1; do for turn in 0 1; do
    printf '{"task": %d, "chain": %d, "turn": %d, "text": "#### %d", "tokens": [1], "log_probs": [-0.5], "ended": true}\n' 0 $chain $turn $((4 + turn))
done; done >answers.jsonl

expect() { # expect WHAT PATTERN -- COMMAND...
    local what=$1 pattern=$2
    shift 3
    checks=$((checks + 1))
    "$@" >out.txt 2>err.txt || fail "$what: $(cat err.txt)"
    grep -q "$pattern" out.txt || fail "$what: expected '$pattern', got $(cat out.txt)"
}

echo "- scores"
expect "solutions pass their own check" '"mean": *1.0' -- "$plm" score gsm8k.jsonl --scorer gsm8k --json
expect "numbers by value, and what has no number" '^failed *1$' -- "$plm" score own.jsonl --scorer number
expect "the first failure is shown" 'task 2.*nobody' -- "$plm" score own.jsonl --scorer number
expect "examples, the lowest first" "says '7', the reference '6'" -- "$plm" score own.jsonl --scorer number --show 2
expect "groups that are not all alike" '"groups_all_equal": *0' -- "$plm" score answers.jsonl --tasks gsm8k.jsonl --scorer gsm8k --json
expect "a template of fields" '"mean": *0.5' -- "$plm" score gsm8k.jsonl --scorer number --text '{question} 5' --json
expect "programs" '"mean": *0.5' -- "$plm" score programs.jsonl --scorer tests --set 'command=["sh", "-s"]' --json
expect "a command, to a file of scores" '"mean": *0.25' -- "$plm" score answers.jsonl --tasks gsm8k.jsonl --scorer command \
    --set 'command=while read -r l; do echo 0.25; done' --items scores.jsonl --json
expect "the same scores from that file" '"mean": *0.25' -- "$plm" score answers.jsonl --tasks gsm8k.jsonl --scorer file --set path=scores.jsonl --json
echo '{"kind": "gsm8k", "flexible": true}' >scorer.json
expect "a configuration, overridden" '"mean": *1.0' -- "$plm" score own.jsonl --config scorer.json --limit 1 --json
expect "without its flexibility" '"mean": *0.0' -- "$plm" score own.jsonl --config scorer.json --set flexible=false --limit 1 --json

echo "- programs that are judged"
confine=full # where this user gets no namespaces: what there is
"$plm" score programs.jsonl --scorer tests --set 'command=["sh", "-s"]' 2>&1 | grep -q "cannot confine" && confine=weak
for kind in hostile honest; do
    checks=$((checks + 1))
    python3 "$here/hostile_answers.py" $kind >$kind.jsonl
    "$plm" score $kind.jsonl --scorer tests -t 2 --set confine=$confine --set timeout_s=60 --set memory_mib=256 --items $kind.items >out.txt 2>err.txt || fail "$kind answers: $(cat err.txt)"
    wrong=$(python3 "$here/wrong_scores.py" $kind.jsonl $kind.items $([ $kind = honest ] && echo 1 || echo 0))
    [ -z "$wrong" ] || fail "$kind answers with another score than they should have: $wrong"
done

echo "- what is refused"
reject "no scorer" "give the scorer with --scorer" -- "$plm" score own.jsonl
reject "unknown kind" "gsm8k" -- "$plm" score own.jsonl --scorer gsm9k
reject "unknown setting" "flexible" -- "$plm" score own.jsonl --scorer gsm8k --set flexibel=true
reject "bad pattern" "cannot be compiled" -- "$plm" score own.jsonl --scorer regex --set 'pattern=('
reject "a model that is not there" "cannot open .m/tokenizer.json" -- "$plm" score own.jsonl --scorer reward --set model=m
reject "a field that is not there" "own.jsonl:1: the field \"nowhere\" is missing" -- "$plm" score own.jsonl --scorer number --text '{nowhere}'
sed 's/"task": 0/"task": 2/' answers.jsonl >far.jsonl
reject "a task that is not there" "far.jsonl:1: \"task\" is 2, expected a task from 0 to 1" -- "$plm" score far.jsonl --tasks gsm8k.jsonl --scorer gsm8k
reject "no command" "cannot start 'no-such-judge'" -- "$plm" score own.jsonl --scorer command --set 'command=["no-such-judge"]'
reject "an interpreter that is none" "the judge of programs does not start: 'sh'" -- "$plm" score programs.jsonl --scorer tests \
    --set 'command=["sh", "-s"]' --set python=true --set confine=$confine
reject "directories that are not there" "entry 0, '/nowhere'" -- "$plm" score programs.jsonl --scorer tests --set 'paths=["/nowhere"]'
reject "another confinement" "confine: expected one of" -- "$plm" score programs.jsonl --scorer tests --set confine=none
reject "another file of scores" "none of its" -- "$plm" score own.jsonl --scorer file --set path=answers.jsonl
finish
