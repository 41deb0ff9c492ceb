"""Check what plm generate --json prints against plm tokenizer encode and plm logits. Exit status 1, and the reason, when they differ.

generate_reference.py PLM MODEL TOKENIZER.json logprobs OUTPUT.json K     greedy continuations with --logprobs K
generate_reference.py PLM MODEL TOKENIZER.json choices OUTPUT.json        of --choice
"""
import array
import json
import math
import struct
import subprocess
import sys

plm, model, tokenizer, task, output, *rest = sys.argv[1:]


def encode(text):
    done = subprocess.run([plm, "tokenizer", "encode", "--tokenizer", tokenizer, "-"], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return [int(i) for i in done.stdout.split()]


def log_probs(ids):
    """One row of log-probabilities per id."""
    subprocess.run([plm, "logits", model, "--tokens", ",".join(map(str, ids)), "--out", "reference.safetensors"], check=True)
    with open("reference.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))["logits"]
        data = array.array("f", f.read(header["data_offsets"][1]))
    rows, vocab = header["shape"]
    out = []
    for i in range(rows):
        row = data[i * vocab:(i + 1) * vocab]
        top = max(row)
        normaliser = top + math.log(math.fsum(math.exp(x - top) for x in row))
        out.append([x - normaliser for x in row])
    return out


def close(what, got, want, tolerance=1e-4):
    if not abs(got - want) <= tolerance * max(1, abs(want)):
        sys.exit(f"{what} is {got}, the reference {want}")


def logprobs(k):
    for line in open(output, encoding="utf-8"):
        r = json.loads(line)
        prompt = encode(r["prompt"])
        assert r["prompt_tokens"] == len(prompt) and r["generated_tokens"] == len(r["tokens"]) == len(r["logprobs"]) > 0, r
        rows = log_probs(prompt + r["tokens"])[len(prompt) - 1:]
        for i, (token, item) in enumerate(zip(r["tokens"], r["logprobs"])):
            close(f"logprob {i}", item["logprob"], rows[i][token])
            assert item["token"] == token and rows[i][token] >= max(rows[i]) - 1e-4, (i, item)
            best = sorted(rows[i], reverse=True)[:k]
            assert len(item["top"]) == k and (k == 0 or item["top"][0]["token"] == token), item
            for want, top in zip(best, item["top"]):
                close(f"top of {i}", top["logprob"], want)
                close(f"logprob of {top['token']}", top["logprob"], rows[i][top["token"]])


def choices():
    with open(output, encoding="utf-8") as f:
        r = json.load(f)
    context, joined = encode(r["prompt"]), [encode(r["prompt"] + c["choice"]) for c in r["choices"]]
    same = [next((i for i, (a, b) in enumerate(zip(context, j)) if a != b), len(context)) for j in joined]
    begin = max(1, min(min(s, len(j) - 1) for s, j in zip(same, joined)))
    sums = []
    for ids, c in zip(joined, r["choices"]):
        rows = log_probs(ids)
        sums.append(math.fsum(rows[i - 1][ids[i]] for i in range(begin, len(ids))))
        close("log_prob", c["log_prob"], sums[-1])
        close("per_token", c["per_token"], sums[-1] / (len(ids) - begin))
        close("per_byte", c["per_byte"], sums[-1] / len(c["choice"].encode()))
        assert c["tokens"] == len(ids) - begin, c
    assert r["best"] == r["choices"][sums.index(max(sums))]["choice"], r


if task == "logprobs":
    logprobs(int(rest[0]))
else:
    choices()
