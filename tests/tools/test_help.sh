#!/usr/bin/env bash
# Every command explains itself, with an example.
# usage: test_help.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

helps() {
    "$plm" "$@" --help >help.out 2>help.err
    check "plm $* --help" test $? = 0
    check "... on standard output" test -s help.out -a ! -s help.err
    check "... with an example" grep -qE 'Example:|^ *plm [a-z]+' help.out
}

check "plm --help" "$plm" --help
"$plm" --help >commands.out
# shellcheck disable=SC2046
set -- $(sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' commands.out)
check "plm --help lists the commands" test $# -ge 8
check "... each once" test "$(printf '%s\n' "$@" | sort -u | wc -l)" = $#
for command in "$@"; do
    helps "$command"
done
for command in "tokenizer train" "tokenizer encode" "tokenizer decode" "data build" "data inspect" "data preview" "data recall" "eval perplexity" "eval choice" "eval exact" "eval recall" "bench gemm" "bench train"; do
    # shellcheck disable=SC2086
    helps $command
    check "... says Example:" grep -q 'Example:' help.out
done
finish
