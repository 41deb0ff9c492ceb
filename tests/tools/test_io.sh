#!/usr/bin/env bash
# Text in and out: terminals, pipes and files, output that cannot be written, options without effect.
# usage: test_io.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

make_data
write_config config.json 8 4 8
need "a run" "$plm" pretrain config.json --set run_dir=run
need "a model" "$plm" export run --type f32 --out model.gguf
printf '{"prompt": "a", "answer": "1", "completion": "1"}\n' >rows.jsonl
printf '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n' >chat.jsonl

echo "- messages"
# said WHAT: the session of a conversation by pipe; one message in each call, the answer has one token
chat=("$plm" chat model.gguf -n 1 --temperature 0 --system s)
said() { rm -f "$1.session"; "${chat[@]}" --session "$1.session" >/dev/null 2>"$1.err"; }
typed() { local name=$1; shift; rm -f "$name.session"; "$python" "$here/terminal.py" "$@" '/exit\n' -- "${chat[@]}" --session "$name.session" >"$name.screen" 2>&1; }
same() { check "$1" cmp "$2.session" "$3.session"; }
printf 'Gr\303\274\303\237e\tan\rall\n' | said plain
printf '\357\273\277Gr\303\274\303\237e\tan\rall\r\n' | said marked
same "a byte order mark and CR-newline are no text; a lone CR and TAB are" plain marked
printf 'Gr\303\274\303\237e\tan\rall' | said open
same "... nor is the end of the input" plain open
printf 'one\ntwo' | said two
printf '"""one\ntwo"""\n' | said quoted
printf '"""\none\ntwo\n"""\n' | said quoted-apart
same "three quotes make one message of lines" quoted quoted-apart
check "... which is another than two messages" bash -c '! cmp -s two.session quoted.session'
printf 'a\000b\377\n' | said nul
printf 'a\357\277\275b\357\277\275\n' | said repaired
same "NUL and bad bytes are U+FFFD" nul repaired
check "... and it is said" grep -q "2 characters of the message" nul.err
printf '\357\273\277s\r\n' >system.txt
printf 'a\n' | said by-text
rm -f by-file.session
printf 'a\n' | "$plm" chat model.gguf -n 1 --temperature 0 --system-file system.txt --session by-file.session \
    >/dev/null 2>&1
same "a system message from a file" by-text by-file
reject "two system messages" "once" -- "$plm" chat model.gguf --system s --system-file system.txt
if "$plm" --version | grep -q "line editing: yes"; then
    echo "- a terminal"
    printf 'Gr\303\274\303\237e\tan \346\227\245\346\234\254\n' | said words
    for locale in C C.UTF-8 POSIX; do
        LC_ALL=$locale TERM=xterm typed "typed-$locale" 'Gr\xc3\xbc\xc3\x9fe\tan \xe6\x97\xa5\xe6\x9c\xac\n'
        same "UTF-8 and TAB in the locale $locale" words "typed-$locale"
    done
    printf '"""one\ntw\303\266"""\n' | said lines
    TERM=xterm typed pasted '\x1b[200~one\rtw\xc3\xb6\r\x1b[201~\n'
    same "what is pasted is one message" lines pasted
    TERM=xterm typed pasted-crlf '\x1b[200~one\r\ntw\xc3\xb6\r\n\x1b[201~\n'
    same "... CR and newline are one end of a line in it" lines pasted-crlf
    for key in '\x03' '\x04'; do # Ctrl-C and Ctrl-D at the prompt
        TERM=xterm typed left "$key"
        check "the terminal stops marking what is pasted" bash -c '
            test "$(grep -ao "\[?2004[hl]" left.screen | tail -n 1)" = "[?2004l"'
    done
fi

echo "- prompts and lists"
generate=("$plm" generate model.gguf -n 3 --temperature 0)
"${generate[@]}" --prompt 'The old' >prompt.out 2>/dev/null
printf '\357\273\277The old\r\n' >prompt.txt
check "a prompt from a file" bash -c '"$@" --prompt-file prompt.txt 2>/dev/null | cmp - prompt.out' - "${generate[@]}"
check "... and from standard input" bash -c 'printf "The old" | "$@" --prompt-file - 2>/dev/null | cmp - prompt.out' - "${generate[@]}"
printf '\357\273\277\\nabla f\r\n\\theta\r\n' >choices.txt
choose() { "$plm" generate model.gguf --prompt '$' --json "$@" 2>/dev/null; }
check "choices are taken as they stand, from both" cmp <(choose --choice '\nabla f' --choice '\theta') <(choose --choices choices.txt)
check "... and are not newlines" bash -c '! cmp -s "$1" "$2"' - <(choose --choice '\nabla f') <(choose --choice $'\nabla f')

check "... from standard input, too" cmp <(choose --choices choices.txt) <(choose --choices - <choices.txt)
choose --choice "$(printf 'a\303')" >cut.json
check "a choice that is cut within a character is shown with U+FFFD" grep -q "$(printf '"a\357\277\275"')" cut.json
printf 'a\nb\000c\n' >nul.txt
reject "a NUL in a list" "nul.txt.:2" "NUL" -- "$plm" generate model.gguf --prompt a --choices nul.txt
reject "a prompt's file that is not there" "none.txt.: No such file" -- "${generate[@]}" --prompt-file none.txt

echo "- what is written is UTF-8"
valid() { iconv -f UTF-8 -t UTF-8 >/dev/null; }
drawn=(-n 20 --temperature 5 --top-p 1)
for how in "--refine 1" "--refine 1 --show-drafts" "--parallel 3" "--refine 1 --parallel 2"; do
    for seed in 1 2 3; do
        # shellcheck disable=SC2086
        echo a | "$plm" chat model.gguf "${drawn[@]}" --seed $seed $how 2>/dev/null >refined.txt
        check "a conversation with $how, seed $seed" valid <refined.txt
    done
done
long=$("$python" -c 'print("\u65e5" * 700)')
need "a run of long texts" "$plm" pretrain config.json --set run_dir=wide --set model.max_position_embeddings=4096
for before in "" a aa; do # a cut falls within a character in two of three
    "$plm" generate "no$before$long" --prompt a >/dev/null 2>long.err
    check "an error that quotes a long text${before:+ behind $before}" valid <long.err
    "$plm" generate wide --prompt "$before$long" --choice b >shown.txt 2>/dev/null
    check "a result that shows a long text${before:+ behind $before}" bash -c '
        test -s shown.txt && iconv -f UTF-8 -t UTF-8 <shown.txt >/dev/null'
done
for n in 1 2 3 5 9; do
    check "$n tokens drawn at high temperature" bash -c '"$0" generate model.gguf --prompt a -n $1 --temperature 5 --top-p 1 --seed $1 --ignore-eos 2>/dev/null | iconv -f UTF-8 -t UTF-8 >/dev/null' "$plm" $n
    check "... in a conversation" bash -c 'echo a | "$0" chat model.gguf -n $1 --temperature 5 --top-p 1 --seed $1 2>/dev/null | iconv -f UTF-8 -t UTF-8 >/dev/null' "$plm" $n
done

echo "- output that cannot be written"
full() { echo "say it" | "$plm" "$@" >/dev/full 2>full.err; }
commands=("--help" "--version" "generate --help" "generate model.gguf --prompt a -n 2" "generate model.gguf --prompt a -n 2 --json" "generate model.gguf --prompt a -n 2 --samples 2"
    "generate model.gguf --prompt a --choice b" "chat model.gguf -n 2 --temperature 0" "tokenizer encode --tokenizer tokenizer.json abc" "tokenizer decode --tokenizer tokenizer.json 65 66"
    "data inspect shards/stories/train" "data preview chat.jsonl --tokenizer tokenizer.json" "plan config.json" "plan model.gguf" "score rows.jsonl --scorer number"
    "export run --type f32 --out again.gguf" "eval perplexity model.gguf text/stories.jsonl --limit 1" "logits model.gguf -T 1,2 -o logits.st" "bench gemm --help")
for command in "${commands[@]}"; do
    # shellcheck disable=SC2086
    "$plm" $command </dev/null >out.txt 2>/dev/null
    [ -s out.txt ] || continue # prints nothing there
    # shellcheck disable=SC2086
    full $command
    check "$command" bash -c 'test "$0" = 1 && grep -q "written" full.err' $?
done
for command in "${commands[@]}"; do
    # shellcheck disable=SC2086
    "$plm" $command </dev/null >out.txt 2>/dev/null
    [ -s out.txt ] || continue
    # shellcheck disable=SC2086
    "$plm" $command </dev/null >&- 2>full.err
    check "$command without a standard output" bash -c 'test "$0" = 1 && grep -q "written" full.err' $?
    # shellcheck disable=SC2086
    "$python" "$here/closed_pipe.py" "$plm" $command 2>full.err
    check "$command into a closed pipe" bash -c 'test "$0" = 1 && grep -q "written" full.err' $?
done
rm -f apart.st
logits=("$plm" logits model.gguf -T 1,2 -o)
check "what prints nothing does without a standard output" bash -c '"$@" apart.st >&-' - "${logits[@]}"
need "... and with one" "${logits[@]}" beside.st
check "... the same" cmp apart.st beside.st
check "a pipe that closes" bash -c '"$0" generate model.gguf --prompt a -n 0 --ignore-eos --cache-policy streaming --cache-budget 16 2>/dev/null | head -c 1 >/dev/null; test "${PIPESTATUS[0]}" = 1' "$plm"

echo "- options without effect"
printf 'a\n' | "$plm" chat model.gguf -n 1 --temperature 0 --system other --session plain.session >/dev/null 2>system.err
check "--system in a conversation that has begun" grep -q "cannot change a conversation that has begun" system.err
reject "--cache-budget without a policy" "no effect without a --cache-policy" -- "${generate[@]}" --prompt a --cache-budget 8
"${generate[@]}" --prompt a --top-k 3 >/dev/null 2>greedy.err
check "--top-k at temperature 0" grep -q "top-k has no effect at temperature 0" greedy.err
echo a | "$plm" chat model.gguf -n 4 >drawn.txt 2>seed.err
"${generate[@]}" --prompt a --top-k 3 --min-p 0.1 --seed 3 --repetition-window 4 >/dev/null 2>several.err
check "every option without effect is named" bash -c '
    for o in top-k min-p seed repetition-window; do grep -q -- "--$o has no effect" several.err || exit 1; done'
"$plm" generate model.gguf --prompt a --choice b -n 3 --temperature 1 >/dev/null 2>choice.err
check "options of drawing beside --choice" bash -c '
    grep -q -- "--tokens has no effect" choice.err && grep -q -- "--temperature has no effect" choice.err'
reject "a budget of nothing" "cache-budget is '0'" -- "${generate[@]}" --prompt a --cache-policy h2o --cache-budget 0
reject "a budget beyond all" "cache-budget is '200%'" -- \
    "${generate[@]}" --prompt a --cache-policy h2o --cache-budget 200%
"$plm" plan config.json --batch 2 --cache-type f16 >/dev/null 2>plan.err
check "options of a model beside a configuration" bash -c '
    grep -q -- "--batch has no effect" plan.err && grep -q -- "--cache-type has no effect" plan.err'
"$plm" answer model.gguf --question a -n 1 --refinements 2 --limit 1 >/dev/null 2>answer.err
check "options of another strategy" bash -c '
    grep -q -- "--refinements has no effect" answer.err && grep -q -- "--limit has no effect" answer.err'
printf '\357\273\277' | cat - config.json >marked.json
check "a configuration with a byte order mark" "$plm" plan marked.json
check "a conversation shows its seed" grep -qE '^seed [0-9]+$' seed.err
check "... which repeats it" bash -c 'echo a | "$0" chat model.gguf -n 4 --seed "$(sed -n "s/^seed //p" seed.err)" 2>/dev/null | cmp - drawn.txt' "$plm"
"$plm" generate --nonsense >/dev/null 2>&1
check "a wrong command line ends with 2" test $? = 2
check "--version" bash -c '"$0" --version | grep -qE "^plm [0-9]+\.[0-9]"' "$plm"
finish
