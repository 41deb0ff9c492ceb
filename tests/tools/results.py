"""Judge what runs of plm wrote. Exit status 1, and the reason, when it is not as it must be.

results.py losses TOLERANCE A.jsonl B.jsonl ...  every step's loss, relative to A's, and what it was trained on; 0: all fields
results.py steps N METRICS.jsonl                 steps 1 to N, each exactly once and in order
results.py learned FACTOR METRICS.jsonl          the last losses are below FACTOR times the first
results.py tensors TOLERANCE A B NAME            ||a - b|| / ||b|| of a float32 tensor of two safetensors files
results.py series TOLERANCE MINE NAME TRAINING.json  the float32 tensor NAME, against that list of numbers, each relative
results.py greedy MINE GREEDY.json               teacher-forced logits choose the tokens, but for ties within 1e-5
"""
import array
import json
import math
import struct
import sys

TIMES = ("tokens_per_s", "step_s", "data_wait_s")


def steps_of(path):
    """The lines of training steps, without measured times."""
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines if "loss" in line]


def losses(tolerance, first, *others):
    want = steps_of(first)
    if not want:
        sys.exit(f"{first}: no steps")
    for path in others:
        got = steps_of(path)
        if len(got) != len(want):
            sys.exit(f"{path}: {len(got)} steps, {first} has {len(want)}")
        worst, at = 0.0, 0
        for a, b in zip(want, got):
            for key in ("step", "phase", "tokens", "predicted", "lr", "skipped"):
                if a[key] != b[key]:
                    sys.exit(f"{path}: step {a['step']}: {key} is {b[key]}, in {first} {a[key]}")
            if float(tolerance) == 0 and a != b:
                sys.exit(f"{path}: {b}\n{first}: {a}")
            error = abs(b["loss"] - a["loss"]) / abs(a["loss"])
            worst, at = max((worst, at), (error, a["step"]))
        print(f"{path}: {len(got)} steps, losses within {worst:.2e} (step {at})")
        if not worst <= float(tolerance):
            sys.exit(f"{path}: more than {tolerance} from {first}")


def steps(n, path):
    got = [line["step"] for line in steps_of(path)]
    if got != list(range(1, int(n) + 1)):
        sys.exit(f"{path}: expected steps 1 to {n} once each, found {got}")


def learned(factor, path):
    values = [line["loss"] for line in steps_of(path)]
    head, tail = sum(values[:3]) / 3, sum(values[-3:]) / 3
    print(f"loss {head:.4f} -> {tail:.4f}")
    if not tail < float(factor) * head:
        sys.exit(f"{path}: the loss went from {head:.4f} to {tail:.4f}, not below {factor} of it")


def tensor(path, name):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        entry, start = header[name], f.tell()
        f.seek(start + entry["data_offsets"][0])
        data = array.array("f", f.read(entry["data_offsets"][1] - entry["data_offsets"][0]))
    return entry["shape"], data


def tensors(tolerance, first, second, name):
    (shape_a, a), (shape_b, b) = tensor(first, name), tensor(second, name)
    if shape_a != shape_b:
        sys.exit(f"shapes {shape_a} and {shape_b}")
    error = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b))
    print(f"{name} {shape_a}: relative difference {error:.2e}")
    if not error <= float(tolerance):
        sys.exit(f"{name}: {error} is more than {tolerance}")


def series(tolerance, path, name, training):
    _, got = tensor(path, name)
    with open(training, encoding="utf-8") as f:
        want = json.load(f)[name]
    if len(got) != len(want):
        sys.exit(f"{name}: {len(got)} values, expected {len(want)}")
    worst = max(abs(a - b) / abs(b) for a, b in zip(got, want))
    print(f"{name}: {len(got)} values, relative difference {worst:.2e}")
    if not worst <= float(tolerance):
        sys.exit(f"{name}: {worst} is more than {tolerance}")


def greedy(path, expected):
    (_, vocab), logits = tensor(path, "logits")
    with open(expected, encoding="utf-8") as f:
        want = json.load(f)
    first = len(want["prompt"]) - 1
    for i, (token, gap) in enumerate(zip(want["tokens"], want["gaps"])):
        row = logits[(first + i) * vocab:(first + i + 1) * vocab]
        best = max(range(vocab), key=row.__getitem__)
        if best != token and gap > 1e-5:
            sys.exit(f"token {i}: {best}, expected {token} (which leads by {gap})")


if __name__ == "__main__":
    {"losses": losses, "steps": steps, "learned": learned, "tensors": tensors, "series": series, "greedy": greedy}[sys.argv[1]](*sys.argv[2:])
