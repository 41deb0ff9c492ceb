"""Compute what plm eval prints, from plm tokenizer encode and plm logits alone, and compare. Exit status 1, and the reason, when they differ.

eval_reference.py PLM MODEL TOKENIZER.json perplexity FILE CONTEXT STRIDE RESULT.json
eval_reference.py PLM MODEL TOKENIZER.json choice ROWS.jsonl DELIMITER ITEMS.jsonl RESULT.json
eval_reference.py PLM MODEL TOKENIZER.json rows PROMPTS.txt N STOP ROWS.jsonl     rows for exact: right answers on even lines only
eval_reference.py PLM MODEL TOKENIZER.json recall DOCUMENTS.jsonl RESULT.json
"""
import array
import json
import math
import re
import struct
import subprocess
import sys

plm, model, tokenizer, task, *arguments = sys.argv[1:]
with open(tokenizer, encoding="utf-8") as f:
    start = next(t["id"] for t in json.load(f)["added_tokens"] if t["content"] == "<|endoftext|>")


def encode(text):
    done = subprocess.run([plm, "tokenizer", "encode", "--tokenizer", tokenizer, "-"], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return [start] + [int(i) for i in done.stdout.split()]


def logits(ids):
    """Rows of logits, one per id."""
    subprocess.run([plm, "logits", model, "--tokens", ",".join(map(str, ids)), "--out", "reference.safetensors"], check=True)
    with open("reference.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))["logits"]
        data = array.array("f", f.read(header["data_offsets"][1]))
    vocab = header["shape"][1]
    return [data[i * vocab:(i + 1) * vocab] for i in range(header["shape"][0])]


def log_prob(row, token):
    top = max(row)
    return row[token] - top - math.log(math.fsum(math.exp(x - top) for x in row))


def close(what, got, want, tolerance=2e-4):
    print(f"{what}: {got}, reference {want}")
    if not abs(got - want) <= tolerance * max(1, abs(want)):
        sys.exit(f"{what} is {got}, the reference {want}")


def load_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def perplexity(path, context, stride, result):
    context, stride = int(context), int(stride)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    ids, nats = encode(text), {}
    for begin in range(0, len(ids), stride):
        rows = logits(ids[begin:begin + context])
        for i, row in enumerate(rows):
            if begin + i + 1 < len(ids):
                nats.setdefault(begin + i + 1, -log_prob(row, ids[begin + i + 1]))
    row, size = load(result)["files"][0], len(text.encode())
    mean = math.fsum(nats.values()) / len(nats)
    close("tokens", row["tokens"], len(ids) - 1, 0)
    close("scored", len(nats), len(ids) - 1, 0)
    close("bytes", row["bytes"], size, 0)
    close("nats per token", row["nats_per_token"], mean, 1e-5)
    close("perplexity", row["perplexity"], math.exp(mean))
    close("bits per byte", row["bits_per_byte"], math.fsum(nats.values()) / math.log(2) / size, 1e-5)


def common(a, b):
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n


def choice(path, delimiter, items, result):
    correct, delimiter = [0, 0], delimiter.replace("\\n", "\n")
    rows, shifted = load_lines(path), 0
    for row, item in zip(rows, load_lines(items)):
        if "context_options" in row:
            pairs = [(c, row["continuation"]) for c in row["context_options"]]
        else:
            pairs = [(row.get("context", row.get("query")), c) for c in row["choices"]]
        answer = row.get("answer", row.get("gold"))
        joined = [encode(a + delimiter + b) for a, b in pairs]
        alone = [encode(a + delimiter) for a, _ in pairs]
        first = [common(a, b) for a, b in zip(joined, alone)]
        if "context_options" not in row:
            first = [min(first)] * len(pairs)
        shifted += any(f < len(a) for f, a in zip(first, alone))
        sums = []
        for ids, begin, got in zip(joined, first, item["log_probs"]):
            out = logits(ids[:-1])
            sums.append(math.fsum(log_prob(out[i - 1], ids[i]) for i in range(begin, len(ids))))
            close(f"line {item['line']}", got, sums[-1])
        per_byte = [s / len(b.encode()) for s, (_, b) in zip(sums, pairs)]
        for k, scores in enumerate((sums, per_byte)):
            best = scores.index(max(scores))
            correct[k] += best == answer
            if item[("by_sum", "by_byte")[k]] != best:
                sys.exit(f"line {item['line']}: another choice: {item}, reference {best} of {scores}")
    if not shifted and not delimiter:
        sys.exit("no row where a token spans context and choice: the test does not test that")
    got = load(result)
    close("rows", got["scored"], len(rows), 0)
    close("correct", got["accuracy"][0]["correct"], correct[0], 0)
    close("correct per byte", got["accuracy"][1]["correct"], correct[1], 0)


def rows(path, n, stop, out):
    stop = stop.replace("\\n", "\n")
    with open(path, encoding="utf-8") as f, open(out, "w", encoding="utf-8") as to:
        for i, prompt in enumerate(f.read().splitlines()):
            done = subprocess.run([plm, "generate", model, "--special", "--prompt", "<|endoftext|>" + prompt, "-n", n, "--temperature", "0", "--json"],
                                  stdout=subprocess.PIPE, check=True)
            text = json.loads(done.stdout)["text"].split("<|endoftext|>")[0].split(stop)[0]
            if not text.strip():
                sys.exit(f"the model says nothing after '{prompt}': choose another prompt")
            json.dump({"prompt": prompt, "answer": "  " + text if i % 2 == 0 else text + " not"}, to)
            to.write("\n")


def recall(path, result):
    tokens = right = answers = exact = 0
    for document in load_lines(path):
        text = document["text"]
        ids, at = encode(text), 0
        # a question ends its line, what was said does not
        spans = [m.span(1) for m in re.finditer(r"(?:The pass key is|What is key \w+\? key \w+ is) (\d+)(?=\.?\n)", text)]
        out, bounds = logits(ids), [0]
        for i in ids[1:]:
            done = piece(i)
            at += len(done)
            bounds.append(at)
        if at != len(text.encode()):
            sys.exit("the tokens are not the text")
        for begin, end in spans:
            chosen = [i for i in range(1, len(ids)) if bounds[i] > begin and bounds[i - 1] < end]
            hits = [max(range(len(out[i - 1])), key=out[i - 1].__getitem__) == ids[i] for i in chosen]
            tokens += len(hits)
            right += sum(hits)
            answers += 1
            exact += all(hits)
    got = load(result)["tasks"]
    close("answers", sum(r["answers"] for r in got), answers, 0)
    close("correct", sum(r["correct"] for r in got), exact, 0)
    close("tokens", sum(r["tokens"] for r in got), tokens, 0)
    close("correct tokens", sum(r["tokens"] * r["token_accuracy"] for r in got if r["tokens"]), right, 1e-9)
    if not 0 < right < tokens:
        sys.exit("no token is right or all are: a model to test with gets some")


pieces = {}


def piece(token):
    if token not in pieces:
        done = subprocess.run([plm, "tokenizer", "decode", "--tokenizer", tokenizer, str(token)], stdout=subprocess.PIPE, check=True)
        pieces[token] = done.stdout
    return pieces[token]


{"perplexity": perplexity, "choice": choice, "rows": rows, "recall": recall}[task](*arguments)
