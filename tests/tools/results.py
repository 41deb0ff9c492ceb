"""Judge what runs of plm wrote. Exit status 1, and the reason, when it is not as it must be.

results.py losses TOLERANCE A.jsonl B.jsonl ...  every step's loss, relative to A's, and what it was trained on; 0: all fields
results.py steps N METRICS.jsonl                 steps 1 to N, each exactly once and in order
results.py learned FACTOR METRICS.jsonl          the last losses are below FACTOR times the first
results.py tensors TOLERANCE A B NAME            ||a - b|| / ||b|| of a float32 tensor of two safetensors files
results.py update TOLERANCE BEFORE A B           ||a - b|| / ||a - before|| over all float32 tensors of three safetensors files
results.py series TOLERANCE MINE NAME TRAINING.json  the float32 tensor NAME, against that list of numbers, each relative
results.py numbers TOLERANCE MINE.json WANT.json    the same keys, every number relative to WANT's, but for lists, which must be the same
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
            for key in ("step", "phase", "tokens", "predicted", "targets", "lr", "skipped"):
                if a.get(key) != b.get(key):
                    sys.exit(f"{path}: step {a['step']}: {key} is {b.get(key)}, in {first} {a.get(key)}")
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


def update(tolerance, before, first, second):
    with open(before, "rb") as f:
        names = [name for name in json.loads(f.read(struct.unpack("<Q", f.read(8))[0])) if name != "__metadata__"]
    difference = size = 0.0
    for name in names:
        (_, w), (_, a), (_, b) = tensor(before, name), tensor(first, name), tensor(second, name)
        difference += sum((x - y) ** 2 for x, y in zip(a, b))
        size += sum((x - y) ** 2 for x, y in zip(a, w))
    error = math.sqrt(difference / size) if size else math.inf
    print(f"{second}: {error:.2e} of the update")
    if not error <= float(tolerance):
        sys.exit(f"{first} and {second} differ by {error} of the update, more than {tolerance}")


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


def numbers(tolerance, path, expected):
    with open(path, encoding="utf-8") as a, open(expected, encoding="utf-8") as b:
        pending, worst = [("", json.load(a), json.load(b))], (0.0, "")
    while pending:
        name, got, want = pending.pop()
        if isinstance(want, dict):
            if set(got) != set(want):
                sys.exit(f"{path}: {name} has the keys {sorted(got)}, expected {sorted(want)}")
            pending += [(f"{name}.{key}", got[key], want[key]) for key in want]
        elif isinstance(want, list):
            if got != want:
                sys.exit(f"{path}: {name} is {got}, expected {want}")
        else:
            worst = max(worst, (abs(got - want) / abs(want), name))
    print(f"{path}: within {worst[0]:.2e} ({worst[1]})")
    if not worst[0] <= float(tolerance):
        sys.exit(f"{path}: {worst[1]} is more than {tolerance} from {expected}")


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
    {"losses": losses, "steps": steps, "learned": learned, "tensors": tensors, "series": series, "numbers": numbers, "update": update, "greedy": greedy}[sys.argv[1]](*sys.argv[2:])
