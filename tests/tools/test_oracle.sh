#!/usr/bin/env bash
# Against an independent float64 implementation, when the environment variable PLM_ORACLE names its directory (make_case.py,
# compare.py and configs/) and python3 has numpy and torch.
# usage: test_oracle.sh PLM BUILD_DIRECTORY mpi|alone
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

[ -n "${PLM_ORACLE-}" ] || skip "PLM_ORACLE is not set"
oracle() { PYTHONDONTWRITEBYTECODE=1 "$python" "$PLM_ORACLE/$1" "${@:2}"; }
"$python" -c 'import numpy, torch' 2>/dev/null || skip "python3 has no numpy and torch"

for config in tiny odd small; do
    for packed in "" --packed; do
        case="$config${packed:+-packed}"
        # shellcheck disable=SC2086
        need "$case: reference" oracle make_case.py --config "$PLM_ORACLE/configs/$config.json" --seed 3 --batch 2 --seq 48 $packed --out "$case"
        need "$case: verify" "$plm" verify "$case" --out "$case/mine.safetensors"
        check "$case: logits" oracle compare.py "$case/mine.safetensors" "$case/expected.safetensors" --prefix logits --tol 1e-5
        check "$case: nll" oracle compare.py "$case/mine.safetensors" "$case/expected.safetensors" --prefix nll --tol 1e-5
        check "$case: loss" oracle compare.py "$case/mine.safetensors" "$case/expected.safetensors" --prefix loss --tol 1e-5
        check "$case: gradients" oracle compare.py "$case/mine.safetensors" "$case/expected.safetensors" --prefix grad. --tol 1e-4
        [ -z "${PLM_TEST_KEEP-}" ] || head -n 1 check.out
        for name in losses grad_norms lrs; do
            check "$case: $name of the updates" results series 1e-4 "$case/mine.safetensors" "$name" "$case/training.json"
        done
        need "$case: verify --preference" "$plm" verify "$case" --preference --out "$case/preference-mine.json"
        check "$case: preference pair" results numbers 1e-4 "$case/preference-mine.json" "$case/preference.json"
        # the same tokens without a training step: prefill and decode, and what greedy decoding would choose
        tokens=$("$python" -c '
import json, sys
greedy = json.load(open(sys.argv[1]))
print(",".join(map(str, greedy["prompt"] + greedy["tokens"])))' "$case/greedy.json")
        "$plm" logits "$case/model" --tokens "$tokens" --out "$case/prefill.safetensors"
        "$plm" logits "$case/model" --tokens "$tokens" --decode --out "$case/decode.safetensors"
        check "$case: decode equals prefill" results tensors 1e-5 "$case/decode.safetensors" "$case/prefill.safetensors" logits
        check "$case: greedy tokens" results greedy "$case/decode.safetensors" "$case/greedy.json"
    done
done
finish
